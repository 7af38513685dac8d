//! Which jobs are meant.

use crate::queue::scan::{Seen, State};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::time::Duration;
use uuid::Uuid;

/// What jobs must have in common.
pub(super) struct Filter {
    pub states: Vec<State>,
    kind: Option<String>,
    older_ms: Option<u64>,
    /// In lower case.
    error: Option<String>,
}

/// A job that is meant, with what its envelope says.
pub(super) struct Matched {
    pub seen: Seen,
    /// Empty if the envelope can't be read.
    pub kind: String,
    /// By its envelope or its minted id, ms.
    pub enqueued_ms: Option<u64>,
}

impl Matched {
    /// Since when its age counts, ms.
    pub(super) fn since_ms(&self) -> Option<u64> {
        match self.seen.state {
            State::Dead => self.seen.at_ms,
            _ => self.enqueued_ms,
        }
    }
}

/// But for its age, which nobody knows, a job is meant.
pub(super) struct AgeUnknown;

/// What little must be known of an envelope. It was checked when it was admitted, perhaps by a later version.
#[derive(Default, Deserialize)]
struct Head {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    id: Option<IgnoredAny>,
    #[serde(default)]
    enqueued_at: Option<u64>,
}

impl Filter {
    pub(super) fn new(
        states: Vec<State>,
        kind: Option<String>,
        older: Option<Duration>,
        error: Option<&str>,
    ) -> Self {
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        Self {
            states,
            kind,
            older_ms: older.map(millis),
            error: error.map(str::to_lowercase),
        }
    }

    /// The job, if it is meant.
    pub(super) fn fits(&self, seen: Seen, now_ms: u64) -> Result<Option<Matched>, AgeUnknown> {
        if !self.states.contains(&seen.state) || !self.has_error(&seen) {
            return Ok(None);
        }
        let head: Head = serde_json::from_slice(&seen.raw).unwrap_or_default();
        if self.kind.as_ref().is_some_and(|kind| *kind != head.kind) {
            return Ok(None);
        }
        let job = Matched {
            enqueued_ms: head.enqueued_at.or_else(|| minted_at(&head, &seen.id)),
            kind: head.kind,
            seen,
        };
        match (self.older_ms, job.since_ms()) {
            (Some(_), None) => Err(AgeUnknown),
            (Some(older), Some(since)) if now_ms.saturating_sub(since) < older => Ok(None),
            _ => Ok(Some(job)),
        }
    }

    fn has_error(&self, seen: &Seen) -> bool {
        self.error.as_ref().is_none_or(|text| {
            let mut errors = seen.history.errors.iter();
            errors.any(|e| e.error.to_lowercase().contains(text))
        })
    }
}

/// When an id was minted: one that is not in the envelope was, at admission.
fn minted_at(head: &Head, id: &str) -> Option<u64> {
    let uuid = Uuid::parse_str(id).ok().filter(|_| head.id.is_none())?;
    let (seconds, nanos) = uuid.get_timestamp()?.to_unix();
    Some(seconds * 1_000 + u64::from(nanos) / 1_000_000)
}
