//! `[retry_budget]`: how much of a resource's work may be retries.

use super::validate::{MILLI, Problems, SECOND};
use super::{Switch, duration};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// `[retry_budget]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryBudgetConfig {
    /// Whether there are budgets.
    pub mode: Switch,
    /// The share of a resource's work that may be retries.
    pub share: f64,
    /// Retries in a window that are always let through, in each daemon.
    pub floor: u32,
    /// The time a budget remembers.
    #[serde(with = "duration")]
    pub window: Duration,
    /// So far ahead retries stand in line, each with its time.
    #[serde(with = "duration")]
    pub line: Duration,
    /// So many of the others ask again each second.
    pub crowd: u32,
    /// The longest until a retry asks again.
    #[serde(with = "duration")]
    pub longest: Duration,
}

impl RetryBudgetConfig {
    /// Adds what is out of range.
    pub(super) fn check(&self, found: &mut Problems) {
        found.within("retry_budget.share", self.share, 0.01, 0.9);
        found.within("retry_budget.floor", self.floor, 1, 1_000_000);
        let ten_minutes = 600 * SECOND;
        found.lasting("retry_budget.window", self.window, SECOND, ten_minutes);
        found.lasting("retry_budget.line", self.line, 800 * MILLI, 60 * SECOND);
        found.within("retry_budget.crowd", self.crowd, 1, 10_000);
        found.lasting(
            "retry_budget.longest",
            self.longest,
            2 * SECOND,
            ten_minutes,
        );
        if self.longest < self.line + SECOND {
            let problem = "must be a second more than retry_budget.line at least";
            found.add("retry_budget.longest", problem);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::config::{Sources, load};

    #[test]
    fn what_is_out_of_range_is_named() {
        let given = |text: &str| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("tidegate.toml");
            std::fs::write(&path, format!("[retry_budget]\n{text}\n")).unwrap();
            load(&Sources { path: Some(path) })
        };
        for text in [
            "share = 0.01\nfloor = 1\nwindow = \"1s\"\nline = \"800ms\"\ncrowd = 1\nlongest = \"2s\"",
            "share = 0.9\nfloor = 1000000\nwindow = \"10m\"\nline = \"1m\"\ncrowd = 10000\nlongest = \"10m\"",
        ] {
            assert!(given(text).is_ok(), "{text}");
        }
        for (text, parts) in [
            ("share = nan", ["share", "0.01 to 0.9"]),
            ("share = 1.0", ["share", "0.01 to 0.9"]),
            ("floor = 0", ["floor", "1 to 1000000"]),
            ("window = \"0s\"", ["window", "10m"]),
            ("line = \"0s\"", ["line", "800ms"]),
            ("crowd = 0", ["crowd", "1 to 10000"]),
            ("longest = \"5s\"", ["longest", "retry_budget.line"]),
        ] {
            let error = given(text).unwrap_err().to_string();
            for part in parts {
                assert!(error.contains(part), "{text}: {error}, without {part:?}");
            }
        }
    }
}
