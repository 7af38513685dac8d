//! Job ids and the names of kinds and queues: what is allowed, and how new ids are minted.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use uuid::{Builder, Uuid};

/// The longest id an enqueuer may give.
pub const MAX_ID_LEN: usize = 128;
/// The longest kind.
pub const MAX_KIND_LEN: usize = 128;
/// The longest queue name.
pub const MAX_QUEUE_LEN: usize = 64;

/// A job's id: `[A-Za-z0-9_-]{1,128}`. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct JobId(Arc<str>);

impl JobId {
    /// Accepts an id given by an enqueuer.
    ///
    /// # Errors
    /// Says what is allowed when `given` is not.
    pub fn parse(given: &str) -> Result<Self, String> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if given.is_empty() || given.len() > MAX_ID_LEN || !given.bytes().all(allowed) {
            return Err(format!(
                "must be 1 to {MAX_ID_LEN} characters of A-Z a-z 0-9 _ -"
            ));
        }
        Ok(Self(given.into()))
    }

    /// Mints a UUIDv7 from a time and 10 random bytes (RFC 9562, section 5.7).
    #[must_use]
    pub fn mint(unix_ms: u64, random: [u8; 10]) -> Self {
        let uuid = Builder::from_unix_timestamp_millis(unix_ms, &random).into_uuid();
        let mut text = Uuid::encode_buffer();
        Self(Arc::from(&*uuid.hyphenated().encode_lower(&mut text)))
    }

    /// The id as text, shared.
    #[must_use]
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let given = std::borrow::Cow::<'de, str>::deserialize(d)?;
        Self::parse(&given).map_err(|e| serde::de::Error::custom(format!("id: {e}")))
    }
}

/// Checks a kind: `[a-z0-9_]+(\.[a-z0-9_]+)*`, at most 128 characters.
///
/// # Errors
/// Says what is allowed when `kind` is not.
pub fn check_kind(kind: &str) -> Result<(), String> {
    let word = |w: &str| {
        !w.is_empty()
            && w.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    if kind.len() > MAX_KIND_LEN || !kind.split('.').all(word) {
        return Err(format!(
            "must be words of a-z 0-9 _ joined by dots, at most {MAX_KIND_LEN} characters, like `mail.send`"
        ));
    }
    Ok(())
}

/// Checks a queue name: `[a-z0-9_.-]{1,64}`, and not only dots.
///
/// # Errors
/// Says what is allowed when `queue` is not.
pub fn check_queue(queue: &str) -> Result<(), String> {
    let allowed =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.' | b'-');
    let only_dots = queue.bytes().all(|b| b == b'.');
    if queue.len() > MAX_QUEUE_LEN || only_dots || !queue.bytes().all(allowed) {
        return Err(format!(
            "must be 1 to {MAX_QUEUE_LEN} characters of a-z 0-9 _ . -"
        ));
    }
    Ok(())
}

/// The longest name of a resource, bytes.
const MAX_RESOURCE_LEN: usize = 128;

/// Checks the name of a resource: `class:name` like `postgres:primary`, or `host`, this machine.
///
/// # Errors
/// Says what it must be like.
pub fn check_resource(resource: &str) -> Result<(), String> {
    let allowed = |b: u8| {
        b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'.' | b':')
    };
    let (class, name) = resource.split_once(':').unwrap_or_default();
    let named = !class.is_empty() && !name.is_empty() && resource.len() <= MAX_RESOURCE_LEN;
    if resource != "host" && !(named && resource.bytes().all(allowed)) {
        return Err(
            "must be class:name of a-z 0-9 _ - . :, like postgres:primary, or host".to_owned(),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_given_by_apps_are_checked() {
        assert!(JobId::parse("order-1_A").is_ok());
        for bad in ["", "a:b", "a b", "é", "a\0", &"x".repeat(129)] {
            assert!(JobId::parse(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn minted_ids_sort_by_time_and_are_version_7() {
        let early = JobId::mint(1_700_000_000_000, [0xff; 10]);
        let late = JobId::mint(1_700_000_000_001, [0; 10]);
        assert!(early < late);
        assert_eq!(early.as_str().len(), 36);
        assert_eq!(&early.as_str()[14..15], "7");
    }

    #[test]
    fn kinds_and_queues_are_checked() {
        assert!(check_kind("app.append_2").is_ok());
        for bad in ["", ".", "a.", ".a", "A", "a-b", "a:b", "a..b", "a\n"] {
            assert!(check_kind(bad).is_err(), "{bad:?} was taken");
        }
        assert!(check_queue("mail-eu.1").is_ok());
        for bad in ["", "..", "a:b", "{x}", "A", "a\r\n", "a b"] {
            assert!(check_queue(bad).is_err(), "{bad:?} was taken");
        }
    }
}
