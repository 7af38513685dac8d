//! `[retry_budget]`: how much of a resource's work may be retries.

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
}

/// The shortest and the longest window.
const WINDOW: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(600)];

impl RetryBudgetConfig {
    /// What is out of range: the setting and why.
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        // NaN is within nothing.
        if !(0.01..=0.9).contains(&self.share) {
            found.push(("share", format!("{} is not within 0.01 to 0.9", self.share)));
        }
        if !(1..=1_000_000).contains(&self.floor) {
            let why = format!("{} is not within 1 to 1000000", self.floor);
            found.push(("floor", why));
        }
        let [least, most] = WINDOW;
        if !(least..=most).contains(&self.window) {
            let [given, least, most] = [self.window, least, most].map(duration::format);
            let why = format!("\"{given}\" is not within \"{least}\" to \"{most}\"");
            found.push(("window", why));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_range_is_named() {
        let of = |share, floor, seconds| {
            let config = RetryBudgetConfig {
                mode: Switch::On,
                share,
                floor,
                window: Duration::from_secs(seconds),
            };
            let found = config.problems();
            found.iter().map(|(name, _)| *name).collect::<Vec<_>>()
        };
        assert!(of(0.01, 1, 1).is_empty() && of(0.9, 1_000_000, 600).is_empty());
        assert_eq!(of(f64::NAN, 0, 0), ["share", "floor", "window"]);
        assert_eq!(of(1.0, 1_000_001, 601), ["share", "floor", "window"]);
    }
}
