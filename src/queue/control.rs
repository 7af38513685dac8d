//! What operators changed while daemons run: pauses, and limits in place of the definitions'. One hash per queue that
//! every look brings along.

use crate::catalog::{Concurrency, JobSpec, Rate};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// The field that pauses the whole queue, and the first part of one that pauses a kind.
pub(super) const PAUSE: &str = "pause";
/// The field of the queue's own limit, and the first part of one with a kind's limits.
pub(super) const LIMIT: &str = "limit";

/// Who paused what, when and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Who, as user@host.
    pub by: String,
    /// When, ms.
    pub at: u64,
    /// Why, in the operator's words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// Limits in place of the definition's; what is absent is left to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitChange {
    /// Jobs at once across all daemons: of the kind, or of each key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// With a key: jobs at once across all keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<usize>,
    /// Jobs at once in one daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_daemon: Option<usize>,
    /// Starts in a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<RateChange>,
}

/// A rate in place of the definition's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateChange {
    /// Starts per `per_ms`.
    pub limit: usize,
    /// The time the limit is for, ms.
    pub per_ms: u64,
    /// Starts at once after a pause; `limit` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<usize>,
}

impl RateChange {
    /// As a definition would have it.
    #[must_use]
    pub fn as_rate(&self) -> Rate {
        Rate {
            limit: self.limit,
            per: Duration::from_millis(self.per_ms),
            burst: self.burst,
            key: None,
        }
    }
}

impl LimitChange {
    /// What is wrong with its numbers, each naming its field.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let concurrency = Concurrency {
            limit: self.limit,
            key: None,
            total: self.total,
            per_daemon: self.per_daemon,
        };
        let mut problems = concurrency.problems();
        problems.extend(self.rate.iter().flat_map(|r| r.as_rate().problems()));
        problems
    }
}

/// The limits that hold for a kind by now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Jobs at once across all daemons: of the kind, or of each key.
    pub limit: Option<usize>,
    /// Jobs at once across all keys.
    pub total: Option<usize>,
    /// Jobs at once in one daemon.
    pub per_daemon: Option<usize>,
    /// Starts in a time.
    pub rate: Option<Rate>,
}

/// Everything that operators changed in one queue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Control {
    /// The whole queue is paused.
    pub paused: Option<Pause>,
    /// Kinds that are paused.
    pub paused_kinds: BTreeMap<String, Pause>,
    /// Jobs of the queue at once in one daemon.
    pub concurrency: Option<usize>,
    /// Limits by kind.
    pub limits: BTreeMap<String, LimitChange>,
}

impl Control {
    /// Reads the fields of the hash. What nobody of us wrote is left out: the definitions hold there.
    #[must_use]
    pub fn read(fields: &[(String, String)]) -> Self {
        let mut control = Self::default();
        for (field, value) in fields {
            let (what, kind) = field.split_once(':').unwrap_or((field, ""));
            match (what, kind) {
                (PAUSE, "") => control.paused = serde_json::from_str(value).ok(),
                (PAUSE, kind) => {
                    let pause = serde_json::from_str(value).ok();
                    control
                        .paused_kinds
                        .extend(pause.map(|p| (kind.to_owned(), p)));
                }
                (LIMIT, "") => {
                    control.concurrency = value.parse().ok().filter(|limit| *limit > 0);
                }
                (LIMIT, kind) => {
                    let change: Option<LimitChange> = serde_json::from_str(value).ok();
                    let change = change.filter(|change| change.problems().is_empty());
                    control.limits.extend(change.map(|c| (kind.to_owned(), c)));
                }
                _ => {}
            }
        }
        control
    }

    /// Whether a kind may not be claimed.
    #[must_use]
    pub fn is_paused(&self, kind: &str) -> bool {
        self.paused.is_some() || self.paused_kinds.contains_key(kind)
    }

    /// What holds for a kind: the definition's limits, with what was changed live in their place.
    #[must_use]
    pub fn limits_of(&self, spec: &JobSpec) -> Limits {
        let change = self.limits.get(&*spec.kind);
        let or = |live: Option<usize>, defined: Option<usize>| live.or(defined);
        let rate = change
            .and_then(|c| c.rate.as_ref())
            .map(RateChange::as_rate);
        Limits {
            limit: or(change.and_then(|c| c.limit), spec.concurrency.limit),
            total: or(change.and_then(|c| c.total), spec.concurrency.total),
            per_daemon: or(
                change.and_then(|c| c.per_daemon),
                spec.concurrency.per_daemon,
            ),
            rate: rate.or_else(|| spec.rate.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_of_us_wrote_changes_nothing() {
        let fields = [
            ("pause", "nonsense"),
            ("pause:app.a", r#"{"by":"me@here","at":7,"reason":"x"}"#),
            ("limit", "0"),
            ("limit:app.a", r#"{"limit":3}"#),
            ("limit:app.b", r#"{"limit":0}"#),
            ("other", "1"),
        ]
        .map(|(field, value)| (field.to_owned(), value.to_owned()));
        let control = Control::read(&fields);
        assert!(control.is_paused("app.a") && !control.is_paused("app.b"));
        assert_eq!(control.concurrency, None);
        assert_eq!(control.limits.len(), 1);
        assert_eq!(control.limits["app.a"].limit, Some(3));
    }
}
