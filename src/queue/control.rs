//! What operators changed while daemons run: pauses, and limits in place of the definitions'. One hash per queue that
//! every look brings along.

use super::reply::Reply;
use super::script::CONTROL;
use super::{Queue, QueueError};
use crate::catalog::{Concurrency, JobSpec, Rate};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Changes kept for the record.
const AUDIT_MAX: usize = 10_000;
/// Pauses and limits of one queue at most.
const FIELDS_MAX: usize = 2_000;
/// The field that pauses the whole queue, and the first part of one that pauses a kind.
const PAUSE: &str = "pause";
/// The field of the queue's own limit, and the first part of one with a kind's limits.
const LIMIT: &str = "limit";

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
    /// This change upon an earlier one: what it does not name stays.
    #[must_use]
    pub fn over(self, earlier: Self) -> Self {
        Self {
            limit: self.limit.or(earlier.limit),
            total: self.total.or(earlier.total),
            per_daemon: self.per_daemon.or(earlier.per_daemon),
            rate: self.rate.or(earlier.rate),
        }
    }

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

/// What can be changed: of the whole queue, or of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// Whether it is paused.
    Pause(Option<String>),
    /// How much may run: a number for a queue, a [`LimitChange`] for a kind.
    Limit(Option<String>),
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pause(None) => f.write_str(PAUSE),
            Self::Pause(Some(kind)) => write!(f, "{PAUSE}:{kind}"),
            Self::Limit(None) => f.write_str(LIMIT),
            Self::Limit(Some(kind)) => write!(f, "{LIMIT}:{kind}"),
        }
    }
}

/// One change, for the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// When, ms.
    pub at: u64,
    /// Who, as user@host.
    pub who: String,
    /// What: `pause`, `pause:<kind>`, `limit`, `limit:<kind>`.
    pub field: String,
    /// The value before; empty if there was none.
    pub old: String,
    /// The value since; empty if it was cleared.
    pub new: String,
}

impl Queue {
    /// What operators changed in this queue.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn control(&self) -> Result<Control, QueueError> {
        let mut conn = self.conn.clone();
        let fields: Vec<(String, String)> = redis::cmd("HGETALL")
            .arg(&self.keys.control)
            .query_async(&mut conn)
            .await?;
        Ok(Control::read(&fields))
    }

    /// Changes a field to what `new` makes of its value, none to clear it, for every daemon at once; `who` goes on record.
    /// Returns the value it had, if any. Who changes the same field meanwhile is not overwritten: `new` is asked again.
    ///
    /// # Errors
    /// Redis failed, a key has the wrong type, or there are too many pauses and limits already.
    pub async fn change(
        &self,
        field: &Field,
        who: &str,
        new: impl Fn(Option<&str>) -> Option<String>,
    ) -> Result<Option<String>, QueueError> {
        let k = &self.keys;
        let mut known = String::new();
        loop {
            let value = new(Some(known.as_str()).filter(|known| !known.is_empty()));
            let mut cmd = CONTROL.call([&k.control, &k.audit, &k.bell].into_iter());
            cmd.arg(field.to_string())
                .arg(value.unwrap_or_default())
                .arg(who)
                .arg(AUDIT_MAX)
                .arg(FIELDS_MAX)
                .arg(&known);
            let mut reply = Reply::new(CONTROL.send(self, &cmd).await?)?;
            let (word, old) = (reply.text()?, reply.lossy()?);
            if word == "ok" {
                return Ok(Some(old).filter(|old| !old.is_empty()));
            }
            known = old;
        }
    }

    /// The latest changes, the last one first.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn changes(&self, count: usize) -> Result<Vec<Change>, QueueError> {
        let mut conn = self.conn.clone();
        type Entry = (String, BTreeMap<String, String>);
        let found: Vec<Entry> = redis::cmd("XREVRANGE")
            .arg(&self.keys.audit)
            .arg(&["+", "-", "COUNT"])
            .arg(count)
            .query_async(&mut conn)
            .await?;
        let change = |(_, mut fields): Entry| {
            let mut take = |name: &str| fields.remove(name).unwrap_or_default();
            Change {
                at: take("at").parse().unwrap_or(0),
                who: take("who"),
                field: take("field"),
                old: take("old"),
                new: take("new"),
            }
        };
        Ok(found.into_iter().map(change).collect())
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
