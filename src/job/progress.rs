//! How far a running job has come, as it tells it.
//!
//! Owns: the form of a report and its bounds. What is too much is cut, never refused: a report must not fail a job.

use super::history::cut;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The longest message, bytes.
pub const MAX_MESSAGE_BYTES: usize = 512;
/// The most counters of one job.
pub const MAX_COUNTERS: usize = 16;
/// The longest name of a counter, bytes.
pub const MAX_COUNTER_NAME_BYTES: usize = 64;

/// A report. All of it may be absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// How much is done, 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<f64>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Numbers by name, like `rows`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counters: BTreeMap<String, i64>,
    /// When it was reported, ms since the epoch by the clock of the daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
}

impl Progress {
    /// The same report within its bounds: the percentage between 0 and 100 (none if it is no number), the message and the
    /// names of counters cut, the counters that are too many left out.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.percent = self.percent.filter(|p| !p.is_nan());
        self.percent = self.percent.map(|p| p.clamp(0.0, 100.0));
        if let Some(message) = &mut self.message {
            let end = cut(message, MAX_MESSAGE_BYTES).len();
            message.truncate(end);
        }
        let fits = |name: &String| name.len() <= MAX_COUNTER_NAME_BYTES;
        if self.counters.len() > MAX_COUNTERS || !self.counters.keys().all(fits) {
            let counters = std::mem::take(&mut self.counters).into_iter();
            let named =
                counters.map(|(name, n)| (cut(&name, MAX_COUNTER_NAME_BYTES).to_owned(), n));
            self.counters = named.take(MAX_COUNTERS).collect();
        }
        self
    }

    /// Sets one counter, unless there are too many already.
    pub fn count(&mut self, name: &str, value: i64) {
        let name = cut(name, MAX_COUNTER_NAME_BYTES);
        if let Some(known) = self.counters.get_mut(name) {
            *known = value;
        } else if self.counters.len() < MAX_COUNTERS {
            self.counters.insert(name.to_owned(), value);
        }
    }

    /// For people, in one line: `40%, halfway there, rows 120`.
    #[must_use]
    pub fn in_words(&self) -> String {
        let percent = self
            .percent
            .map(|p| format!("{}%", (p * 10.0).round() / 10.0));
        let counters = self.counters.iter().map(|(name, n)| format!("{name} {n}"));
        let parts = percent.into_iter().chain(self.message.clone());
        parts.chain(counters).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_report_is_read_in_its_public_form_only() {
        let read = |text: &str| serde_json::from_str::<Progress>(text);
        let full = read(r#"{"percent":40,"message":"half","counters":{"rows":-1}}"#).unwrap();
        assert_eq!(full.in_words(), "40%, half, rows -1");
        assert_eq!(read("{}").unwrap(), Progress::default());
        for bad in [
            "40",
            r#"{"percent":"40"}"#,
            r#"{"done":1}"#,
            r#"{"counters":{"a":"b"}}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_reported_stays_within_bounds(
            percent in any::<f64>(),
            message in ".{0,600}",
            counters in proptest::collection::btree_map(".{0,80}", any::<i64>(), 0..40),
        ) {
            let mut report = Progress {
                percent: Some(percent),
                message: Some(message),
                counters,
                at: None,
            }
            .bounded();
            report.count("one more", 1);
            prop_assert!(report.percent.is_none_or(|p| (0.0..=100.0).contains(&p)));
            prop_assert!(report.message.as_ref().unwrap().len() <= MAX_MESSAGE_BYTES);
            prop_assert!(report.counters.len() <= MAX_COUNTERS);
            prop_assert!(report.counters.keys().all(|n| n.len() <= MAX_COUNTER_NAME_BYTES));
            // JSON can hold it, and it comes back the same.
            let json = serde_json::to_string(&report).unwrap();
            let same: Progress = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(same.counters, report.counters);
        }
    }
}
