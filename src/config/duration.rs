//! Durations as text (`"250ms"`, `"15s"`, `"4h"`, `"1h 30m"`), for configuration and job definitions.
//!
//! Owns the one spelling of a duration. It must not know which settings use it, nor their ranges.
//!
//! Use with serde: `#[serde(with = "crate::config::duration")]` on a `Duration`,
//! `…::duration::option` on an `Option<Duration>`, `…::duration::list` on a `Vec<Duration>`, `…::duration::pair` on a
//! `[Duration; 2]`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest text read as a duration, in bytes: every honest one is far shorter.
const MAX_TEXT: usize = 64;

/// Reads a duration: one or more of a whole number and a unit, `"250ms"`, `"1h 30m"`. A bare
/// number has no unit and is refused, so that nobody has to guess between seconds and milliseconds.
///
/// # Errors
/// Says what was given and what a duration looks like.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wanted = "want a duration like \"250ms\", \"15s\" or \"4h\"";
    if text.len() > MAX_TEXT {
        return Err(format!("text of {} bytes: {wanted}", text.len()));
    }
    if text.trim().bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{text:?} has no unit: {wanted}"));
    }
    humantime::parse_duration(text).map_err(|error| format!("{text:?}: {error}; {wanted}"))
}

/// Writes a duration in the form [`parse`] reads.
pub fn format(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// Serializes a `Duration` as text.
///
/// # Errors
/// Only the serializer's own.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*duration))
}

/// Reads a `Duration` from text.
///
/// # Errors
/// If the value is no string, or not a duration.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    Text::deserialize(deserializer).map(|text| text.0)
}

/// A duration that serializes as its text; what the helpers below are made of.
struct Text(Duration);

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).map(Text).map_err(serde::de::Error::custom)
    }
}

/// The same for `Option<Duration>`. Add `#[serde(default)]` so that the key may be left out.
pub mod option {
    use super::{Deserialize, Deserializer, Duration, Serialize, Serializer, Text};

    /// Serializes as text, or as none.
    ///
    /// # Errors
    /// Only the serializer's own.
    pub fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        duration.map(Text).serialize(serializer)
    }

    /// Reads text, or none.
    ///
    /// # Errors
    /// If a value is present and not a duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<Text>::deserialize(deserializer)?.map(|text| text.0))
    }
}

/// The same for `Vec<Duration>`.
pub mod list {
    use super::{Deserialize, Deserializer, Duration, Serializer, Text};

    /// Serializes as a list of texts.
    ///
    /// # Errors
    /// Only the serializer's own.
    pub fn serialize<S: Serializer>(
        durations: &[Duration],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(durations.iter().map(|duration| Text(*duration)))
    }

    /// Reads a list of texts.
    ///
    /// # Errors
    /// If an entry is not a duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Duration>, D::Error> {
        let texts = Vec::<Text>::deserialize(deserializer)?;
        Ok(texts.into_iter().map(|text| text.0).collect())
    }
}

/// The same for `[Duration; 2]`.
pub mod pair {
    use super::{Deserialize, Deserializer, Duration, Serializer, Text};

    /// Serializes as a list of two texts.
    ///
    /// # Errors
    /// Only the serializer's own.
    pub fn serialize<S: Serializer>(
        durations: &[Duration; 2],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        super::list::serialize(durations, serializer)
    }

    /// Reads a list of two texts.
    ///
    /// # Errors
    /// If there are not two, or one is not a duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<[Duration; 2], D::Error> {
        let texts = <[Text; 2]>::deserialize(deserializer)?;
        Ok(texts.map(|text| text.0))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Settings {
        #[serde(with = "super")]
        lease: Duration,
        #[serde(with = "super::option", default)]
        quiet: Option<Duration>,
        #[serde(with = "super::list")]
        delays: Vec<Duration>,
    }

    #[test]
    fn reads_single_and_compound_forms() {
        assert_eq!(parse("250ms").unwrap(), Duration::from_millis(250));
        assert_eq!(parse("4h").unwrap(), Duration::from_secs(14_400));
        assert_eq!(parse("1h 30m").unwrap(), Duration::from_secs(5_400));
        assert_eq!(parse("0s").unwrap(), Duration::ZERO);
    }

    #[test]
    fn refuses_what_has_no_clear_meaning() {
        let long = "1s ".repeat(40);
        for text in [
            "",
            " ",
            "0",
            "15",
            "-1s",
            "1.5",
            "s",
            "5 parsecs",
            "99999999999999999999h",
            &long,
        ] {
            assert!(parse(text).is_err(), "{text:?} was read");
        }
        assert!(parse("15").unwrap_err().contains("no unit"));
    }

    #[test]
    fn serde_round_trip() {
        let text = "lease = \"10s\"\nquiet = \"1m 30s\"\ndelays = [\"1s\", \"10s\"]\n";
        let settings: Settings = toml::from_str(text).unwrap();
        assert_eq!(settings.quiet, Some(Duration::from_secs(90)));
        assert_eq!(settings.delays.len(), 2);
        assert_eq!(toml::to_string(&settings).unwrap(), text);

        let without: Settings = toml::from_str("lease = \"1s\"\ndelays = []").unwrap();
        assert_eq!(without.quiet, None);
        assert!(toml::from_str::<Settings>("lease = 10\ndelays = []").is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(millis in 0_u64..1_000_000_000_000) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse(&format(duration)).unwrap(), duration);
        }
    }
}
