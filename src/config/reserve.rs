//! `[gate.reserve]`: slots that are kept for critical jobs.

use super::duration;
use super::validate::{MILLI, Problems, SECOND};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// `[gate.reserve]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReserveConfig {
    /// The share of the daemon's slots that no long job of a lower class gets.
    pub share: f64,
    /// Kinds whose runs usually take no longer than this may borrow them.
    #[serde(with = "duration")]
    pub lend_below: Duration,
    /// The fewest runs of a kind that say what is usual.
    pub runs: u32,
    /// The share of them that may be longer all the same.
    pub long_share: f64,
}

impl ReserveConfig {
    /// Adds what is out of range.
    pub(super) fn check(&self, found: &mut Problems) {
        found.within("gate.reserve.share", self.share, 0.0, 0.9);
        let (key, longest) = ("gate.reserve.lend_below", 3_600 * SECOND);
        found.lasting(key, self.lend_below, MILLI, longest);
        // The last 63 are known: they are bits of one word.
        found.within("gate.reserve.runs", self.runs, 1, 63);
        found.within("gate.reserve.long_share", self.long_share, 0.0, 0.5);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::config::{Sources, load};

    #[test]
    fn what_is_out_of_range_is_named() {
        for (text, part) in [
            ("share = nan", "0 to 0.9"),
            ("share = 0.95", "0 to 0.9"),
            ("lend_below = \"0s\"", "1ms"),
            ("runs = 0", "1 to 63"),
            ("runs = 64", "1 to 63"),
            ("long_share = 0.6", "0 to 0.5"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("tidegate.toml");
            std::fs::write(&path, format!("[gate.reserve]\n{text}\n")).unwrap();
            let error = load(&Sources { path: Some(path) }).unwrap_err().to_string();
            let key = format!("gate.reserve.{}", text.split(' ').next().unwrap());
            assert!(error.contains(&key) && error.contains(part), "{error}");
        }
    }
}
