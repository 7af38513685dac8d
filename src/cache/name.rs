//! Names that are safe to put into Redis keys and into the log: regions, entry keys, tags.
//!
//! Each is checked once, where it enters, and carried as its own type from there on.

use std::fmt;
use std::sync::Arc;

/// Longest region name, bytes.
const MAX_REGION: usize = 32;
/// Longest entry key, bytes.
const MAX_KEY: usize = 512;
/// Longest tag, bytes.
const MAX_TAG: usize = 128;

/// The log's member that stands for the whole region.
pub(super) const WHOLE_REGION: &str = "*";
/// The member that is always in a log: without it, the log was lost.
pub(super) const SENTINEL: &str = "!";
/// What makes a log member of an entry key.
const KEY_MEMBER: &str = "k:";

/// Why a name is refused. Shows the name cut and escaped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {given} {rule}")]
pub struct NameError {
    what: &'static str,
    given: String,
    rule: String,
}

impl NameError {
    fn new(what: &'static str, given: &str, rule: impl Into<String>) -> Self {
        let cut: String = given.chars().take(60).collect();
        let dots = if cut.len() < given.len() { "…" } else { "" };
        Self {
            what,
            given: format!("{cut:?}{dots}"),
            rule: rule.into(),
        }
    }
}

/// A region: `[a-z0-9_-]{1,32}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegionName(Arc<str>);

impl RegionName {
    /// Checks a name.
    ///
    /// # Errors
    /// Says what is allowed.
    pub fn parse(given: &str) -> Result<Self, NameError> {
        let allowed =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-');
        if given.is_empty() || given.len() > MAX_REGION || !given.bytes().all(allowed) {
            let rule = format!("must be 1 to {MAX_REGION} characters of a-z 0-9 _ -");
            return Err(NameError::new("region", given, rule));
        }
        Ok(Self(given.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RegionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The key of an entry within its region: 1 to 512 bytes, no control characters, no braces.
///
/// Braces are refused because Redis Cluster would take them for a hash tag, and because one in a key is nearly always a
/// template that was not filled in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key(String);

impl Key {
    /// Checks a key.
    ///
    /// # Errors
    /// Says what is allowed.
    pub fn parse(given: &str) -> Result<Self, NameError> {
        if !printable(given, MAX_KEY) || given.contains(['{', '}']) {
            let rule = format!("must be 1 to {MAX_KEY} bytes without control characters or braces");
            return Err(NameError::new("key", given, rule));
        }
        Ok(Self(given.to_owned()))
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The log's member that stands for this key.
    pub(super) fn member(&self) -> String {
        format!("{KEY_MEMBER}{}", self.0)
    }
}

/// What entries have in common and are invalidated by: 1 to 128 bytes, no control characters, and neither `*`, `!` nor
/// `k:…`, which mean something in the log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

impl Tag {
    /// Checks a tag.
    ///
    /// # Errors
    /// Says what is allowed.
    pub fn parse(given: &str) -> Result<Self, NameError> {
        if !printable(given, MAX_TAG) {
            let rule = format!("must be 1 to {MAX_TAG} bytes without control characters");
            return Err(NameError::new("tag", given, rule));
        }
        if given == WHOLE_REGION || given == SENTINEL || given.starts_with(KEY_MEMBER) {
            let rule = format!(
                "is reserved: `{WHOLE_REGION}`, `{SENTINEL}` and `{KEY_MEMBER}…` are the log's own"
            );
            return Err(NameError::new("tag", given, rule));
        }
        Ok(Self(given.to_owned()))
    }

    /// The tag as text, which is also its member in the log.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn printable(text: &str, max: usize) -> bool {
    !text.is_empty() && text.len() <= max && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn regions_cannot_reach_outside_their_keys() {
        assert!(RegionName::parse("eu-west_1").is_ok());
        let long = "x".repeat(33);
        for bad in [
            "", "EU", "a:b", "{eu}", "a}b", "a b", "a\n", "é", "*", &long,
        ] {
            assert!(RegionName::parse(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn tags_cannot_speak_for_the_log() {
        assert!(Tag::parse("user:7").is_ok());
        assert!(Tag::parse("größe").is_ok());
        let long = "x".repeat(129);
        for bad in ["", "*", "!", "k:", "k:product:1", "a\nb", "a\0", &long] {
            assert!(Tag::parse(bad).is_err(), "{bad:?} was taken");
        }
        assert!(Tag::parse(&long[1..]).is_ok());
    }

    #[test]
    fn keys_hold_no_hash_tag() {
        assert_eq!(Key::parse("product:1").unwrap().member(), "k:product:1");
        let long = "x".repeat(513);
        for bad in ["", "product:{id}", "a}", "a\r\n", "\u{7f}", &long] {
            assert!(Key::parse(bad).is_err(), "{bad:?} was taken");
        }
        assert!(Key::parse(&long[1..]).is_ok());
    }

    #[test]
    fn refusals_show_the_name_cut_and_escaped() {
        let told = Key::parse(&format!("\n{}", "x".repeat(600)))
            .unwrap_err()
            .to_string();
        assert!(
            told.starts_with("key \"\\nxxx") && told.len() < 200,
            "{told}"
        );
    }
}
