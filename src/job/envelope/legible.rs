//! What can be read of an entry that is no envelope.

use super::super::ties::{Group, MAX_RESULT_TTL_MS};
use super::super::{JobId, strict};
use super::{MAX_DEPTH, MAX_ENTRY_BYTES};
use serde::Deserialize;
use serde_json::value::RawValue;

/// What can be read of an entry, even if it is no envelope otherwise: whoever reserved its id, waits for its end, or counts
/// on it as a member can be let go.
#[derive(Debug, Default)]
pub struct Legible {
    /// Its id.
    pub id: Option<JobId>,
    /// The group it is a member of.
    pub group: Option<Group>,
    /// How long its result was to be kept, ms.
    pub result_ttl_ms: Option<u64>,
}

impl Legible {
    /// Reads as much as there is.
    #[must_use]
    pub fn of(raw: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Fields<'a> {
            #[serde(borrow)]
            id: Option<&'a RawValue>,
            #[serde(borrow)]
            group: Option<&'a RawValue>,
            #[serde(borrow)]
            result_ttl_ms: Option<&'a RawValue>,
        }
        fn read<'a, T: Deserialize<'a>>(field: Option<&'a RawValue>) -> Option<T> {
            serde_json::from_str(field?.get()).ok()
        }
        if raw.len() > MAX_ENTRY_BYTES || strict::scan(raw, MAX_DEPTH).is_err() {
            return Self::default();
        }
        let Ok(fields) = serde_json::from_slice::<Fields<'_>>(raw) else {
            return Self::default();
        };
        let ttl = read(fields.result_ttl_ms).filter(|ms| *ms <= MAX_RESULT_TTL_MS);
        Self {
            id: read(fields.id),
            group: read(fields.group).filter(Group::is_sound),
            result_ttl_ms: ttl,
        }
    }
}

/// The id of an entry that is no envelope otherwise, if that much can be read.
#[must_use]
pub fn id_alone(raw: &[u8]) -> Option<JobId> {
    Legible::of(raw).id
}
