//! What several daemons decide together about one operation. Each judges by its own calls first; what all of them see
//! is pooled, and one record, kept where all can reach it, says what was decided.
//!
//! ```text
//!  Closed ──pooled evidence, quorum──▶ Open ──cool-down over, a job waits──▶ Probing ──▶ Ramping ──▶ Closed
//!                                       ▲                                     │             │
//!                                       └──────────── its trial bad ──────────┴─ evidence ──┘
//! ```
//!
//! Owns: when a record gives way to which next one. Any daemon may propose it; the store takes the first that was made
//! from the record it holds, and refuses all others, so a decision is made once. Every decision has a newer *epoch*:
//! what is reported under an older one is void. Must not know: the store, clocks (the time is that of the store), or
//! how a daemon applies a decision (`tie.rs`).
//!
//! One daemon that is sick by itself never opens the fleet: at least [`BreakerConfig::quorum`] daemons must see it fail,
//! and no more may see it well than fail. It still protects itself by its own breaker.

mod pool;

use serde::{Deserialize, Serialize};

pub use super::ramp::Results;
pub use pool::{Pool, Progress, Report};

use super::ramp::{Verdict, judge};
use super::report::Pooled;
use super::tie::{Ahead, Stand, Trial};
use super::{BreakerConfig, Rest, cool_down, millis};
use pool::Evidence;

// Times that all daemons must share, whatever their settings: they follow from how often one takes its turn, each second.

/// How long it is remembered that the fleet recovered, so that who was away hears of it, milliseconds.
const CLOSED_MS: u64 = 60_000;
/// How long those who see no trouble have to say so, since somebody told of it first, milliseconds. Nobody speaks unasked
/// whose calls go well.
const ANSWER_MS: u64 = 2_000;
/// How long the daemon whose trial failed leaves the next one to others, milliseconds.
const TURN_MS: u64 = 2_500;

/// What was decided last about one operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The number of the decision; it only ever rises.
    pub epoch: u64,
    /// Openings since the last full recovery.
    pub openings: u32,
    /// The evidence that opened it.
    pub evidence: Pooled,
    /// What was decided.
    pub decision: Decision,
}

/// What the daemons do. All times are those of the store, milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Decision {
    /// All is well again, or nobody needs it.
    Closed {
        /// Since then.
        since_ms: u64,
        /// Nobody needs it: how those begin who come later.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rest: Option<Rest>,
    },
    /// Nobody calls.
    Open {
        /// Until then.
        until_ms: u64,
        /// The daemon whose trial failed, if one did.
        tried: Option<String>,
    },
    /// One daemon calls once.
    Probing {
        /// Which one.
        by: String,
        /// Its right to it ends then, unless it is renewed.
        until_ms: u64,
    },
    /// All call, up to a share of their usual limits.
    Ramping {
        /// The step of the ramp.
        step: usize,
        /// Since then.
        since_ms: u64,
        /// Its results count from then on.
        judged_ms: u64,
        /// Steps down until now.
        falls: u32,
    },
}

/// What becomes of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// This one is in its place.
    Put(Record),
    /// It is not needed any more.
    Forget,
}

/// All that a decision goes by.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The constants.
    pub config: &'a BreakerConfig,
    /// What was decided last.
    pub record: Option<&'a Record>,
    /// What all daemons see.
    pub pool: &'a Pool,
    /// How the breaker of this daemon stands; none if it takes no part.
    pub stand: Option<&'a Stand>,
    /// This daemon.
    pub me: &'a str,
    /// The time of the store, milliseconds.
    pub now_ms: u64,
    /// Random in `[0, 1)`.
    pub jitter: f64,
}

impl View<'_> {
    /// What this daemon tells the others, if it has something to tell: trouble of its own, or what it sees of an operation
    /// that others have trouble with.
    #[must_use]
    pub fn news(&self) -> Option<&Report> {
        let report = &self.stand?.report;
        let is_talked_of = self.record.is_some() || self.pool.troubled_since(self.now_ms).is_some();
        (report.is_trouble() || is_talked_of && !report.is_empty()).then_some(report)
    }

    /// Whether the next turn should come soon: something is about to be decided.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        let decision = self.record.map(|record| &record.decision);
        match decision {
            Some(Decision::Open { .. } | Decision::Ramping { .. }) => false,
            Some(Decision::Probing { by, .. }) => by == self.me,
            Some(Decision::Closed { .. }) | None => self.pool.troubled_since(self.now_ms).is_some(),
        }
    }

    /// The change to propose, if one is due. The store may refuse it: then somebody else was first.
    #[must_use]
    pub fn next(&self) -> Option<Change> {
        let Some(record) = self.record else {
            return self.opened_by_all(0, 0).map(Change::Put);
        };
        if self.is_void(record) {
            return Some(Change::Put(self.closed(record)));
        }
        let next = match &record.decision {
            Decision::Closed { since_ms, .. } => {
                let old = self.now_ms.saturating_sub(*since_ms) > CLOSED_MS;
                match self.opened_by_all(*since_ms, record.epoch) {
                    None if old => return Some(Change::Forget),
                    opened => opened,
                }
            }
            Decision::Open { until_ms, tried } => self
                .caught_up(record)
                .or_else(|| self.begin_trial(record, *until_ms, tried.as_deref())),
            Decision::Probing { by, until_ms } if by == self.me => {
                self.end_trial(record, *until_ms)
            }
            Decision::Probing { until_ms, .. } => self
                .caught_up(record)
                .or_else(|| self.begin_trial(record, *until_ms, None)),
            Decision::Ramping { .. } => self.climb(record),
        };
        next.or_else(|| self.rested(record)).map(Change::Put)
    }

    /// An operator closed it at this daemon, after that decision.
    fn is_void(&self, record: &Record) -> bool {
        let is_closed = matches!(record.decision, Decision::Closed { .. });
        !is_closed && self.stand.is_some_and(|stand| record.epoch <= stand.void)
    }

    /// The record of an opening, if the evidence since then is enough for it.
    fn opened_by_all(&self, since_ms: u64, epoch: u64) -> Option<Record> {
        let evidence = self.fails_for_all(since_ms)?;
        let until_ms = self.now_ms + cool_down(self.config, 0, self.jitter);
        Some(Record {
            epoch: self.after(epoch),
            openings: 1,
            evidence,
            decision: Decision::Open {
                until_ms,
                tried: None,
            },
        })
    }

    /// The pooled evidence since then, if it is enough to open for all.
    fn fails_for_all(&self, since_ms: u64) -> Option<Pooled> {
        let troubled_ms = self.pool.troubled_since(self.now_ms)?;
        if self.now_ms.saturating_sub(troubled_ms) < ANSWER_MS {
            return None;
        }
        let Evidence {
            pooled,
            opened,
            well,
            sure,
        } = self.pool.evidence(self.now_ms, since_ms, self.config);
        let quorum = self.config.quorum;
        let agreed = pooled.agree >= quorum && pooled.agree >= well;
        // Each daemon that opened by itself was sure already.
        (agreed && (sure || opened >= quorum)).then_some(pooled)
    }

    /// The dependency is tried for all by this daemon, if a job waits for that here and nobody else does it.
    fn begin_trial(&self, record: &Record, free_ms: u64, tried: Option<&str>) -> Option<Record> {
        let stand = self.stand.filter(|stand| stand.wants_trial)?;
        // A daemon may be the only sick one: after a trial that failed another has the first turn.
        let pause = if tried == Some(self.me) { TURN_MS } else { 0 };
        if self.now_ms < free_ms.saturating_add(pause) || record.epoch <= stand.void {
            return None;
        }
        Some(self.with(record, self.my_lease()))
    }

    fn my_lease(&self) -> Decision {
        Decision::Probing {
            by: self.me.to_owned(),
            until_ms: self.now_ms + millis(self.config.probe_lease),
        }
    }

    /// This daemon tries for all.
    fn end_trial(&self, record: &Record, until_ms: u64) -> Option<Record> {
        let (epoch, trial) = self.stand?.trial;
        let lease = millis(self.config.probe_lease);
        match trial {
            Trial::Succeeded if epoch == record.epoch => Some(self.with(record, self.ramp(0, 0))),
            Trial::Failed if epoch == record.epoch => Some(self.opened_again(record)),
            // Renewed in good time, under the same epoch.
            Trial::Runs if epoch == record.epoch && until_ms < self.now_ms + lease * 2 / 3 => {
                Some(Record {
                    decision: self.my_lease(),
                    ..record.clone()
                })
            }
            Trial::None => self.begin_trial(record, until_ms, None),
            _ => None,
        }
    }

    fn opened_again(&self, record: &Record) -> Record {
        let until_ms = self.now_ms + cool_down(self.config, record.openings, self.jitter);
        let opened = self.with(
            record,
            Decision::Open {
                until_ms,
                tried: Some(self.me.to_owned()),
            },
        );
        Record {
            openings: record.openings.saturating_add(1),
            ..opened
        }
    }

    /// A step up or down, or back to open.
    fn climb(&self, record: &Record) -> Option<Record> {
        let Decision::Ramping {
            step,
            since_ms,
            judged_ms,
            falls,
        } = record.decision
        else {
            return None;
        };
        let results = self.pool.results(judged_ms);
        let lasted_ms = self.now_ms.saturating_sub(since_ms);
        let verdict = judge(results, lasted_ms, falls, self.config);
        // What is too much for a step may be well at a lower one.
        let is_lowered = verdict == Verdict::Down && step > 0;
        if !is_lowered && let Some(evidence) = self.fails_for_all(since_ms) {
            let opened = self.opened_again(record);
            return Some(Record { evidence, ..opened });
        }
        let decision = match verdict {
            Verdict::Open => return None,
            Verdict::Up if step == self.config.ramp.len() => return Some(self.closed(record)),
            Verdict::Up => self.ramp(step + 1, falls),
            Verdict::Down => self.ramp(step.saturating_sub(1), falls.saturating_add(1)),
            // It is told only now and then that all goes on well.
            Verdict::Stay if results.calls < 4 * self.config.ramp_calls => return None,
            Verdict::Stay => Decision::Ramping {
                step,
                since_ms,
                judged_ms: self.now_ms,
                falls,
            },
        };
        // The same epoch: who ramps goes on ramping.
        Some(Record {
            decision,
            ..record.clone()
        })
    }

    fn ramp(&self, step: usize, falls: u32) -> Decision {
        Decision::Ramping {
            step,
            since_ms: self.now_ms,
            judged_ms: self.now_ms,
            falls,
        }
    }

    /// While the fleet was out of reach this daemon found that all is well.
    fn caught_up(&self, record: &Record) -> Option<Record> {
        let (epoch, ahead) = self.stand?.ahead?;
        if epoch != record.epoch {
            return None;
        }
        Some(match ahead {
            Ahead::Closed => self.closed(record),
            Ahead::Ramping(step) => self.with(record, self.ramp(step, 0)),
        })
    }

    fn closed(&self, record: &Record) -> Record {
        let closed = Decision::Closed {
            since_ms: self.now_ms,
            rest: None,
        };
        Record {
            openings: 0,
            ..self.with(record, closed)
        }
    }

    /// No job of any daemon needed it for long.
    fn rested(&self, record: &Record) -> Option<Record> {
        let own_ms = self.stand?.report.idle_ms;
        let (since_ms, rest) = match record.decision {
            Decision::Closed { .. } => return None,
            // Who has a job for it would have tried.
            Decision::Open { until_ms, .. } | Decision::Probing { until_ms, .. } => {
                (until_ms, Rest::Untried)
            }
            Decision::Ramping {
                step,
                judged_ms,
                falls,
                ..
            } => (judged_ms, Rest::Ramping { step, falls }),
        };
        let own_ms = own_ms.map_or(0, |idle| self.now_ms.saturating_sub(idle));
        let needed_ms = since_ms.max(own_ms).max(self.pool.needed_ms());
        let closed = Decision::Closed {
            since_ms: self.now_ms,
            rest: Some(rest),
        };
        (self.now_ms.saturating_sub(needed_ms) >= millis(self.config.rest))
            .then(|| self.with(record, closed))
    }

    fn with(&self, record: &Record, decision: Decision) -> Record {
        Record {
            epoch: self.after(record.epoch),
            decision,
            ..record.clone()
        }
    }

    fn after(&self, epoch: u64) -> u64 {
        self.now_ms.max(epoch + 1)
    }
}

#[cfg(test)]
mod tests;
