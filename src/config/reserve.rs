//! `[gate.reserve]`: slots that are kept for critical jobs.

use super::duration;
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
}

/// The least and the longest bound of a short job.
const LEND_BELOW: [Duration; 2] = [Duration::from_millis(1), Duration::from_secs(3_600)];

impl ReserveConfig {
    /// What is out of range: the setting and why.
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        // NaN is within nothing.
        if !(0.0..=0.9).contains(&self.share) {
            found.push(("share", format!("{} is not within 0 to 0.9", self.share)));
        }
        let [least, most] = LEND_BELOW;
        if !(least..=most).contains(&self.lend_below) {
            let [given, least, most] = [self.lend_below, least, most].map(duration::format);
            let why = format!("\"{given}\" is not within \"{least}\" to \"{most}\"");
            found.push(("lend_below", why));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_range_is_named() {
        let of = |share, seconds| {
            let lend_below = Duration::from_secs(seconds);
            let found = ReserveConfig { share, lend_below }.problems();
            found.iter().map(|(name, _)| *name).collect::<Vec<_>>()
        };
        assert!(of(0.0, 1).is_empty() && of(0.9, 3_600).is_empty());
        assert_eq!(of(f64::NAN, 0), ["share", "lend_below"]);
        assert_eq!(of(0.95, 3_601), ["share", "lend_below"]);
    }
}
