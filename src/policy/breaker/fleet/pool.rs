//! What all daemons see of one operation: the counts of each by second, and whether its own breaker is shut.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::super::evidence::proof;
use super::super::ramp::Results;
use super::super::report::{Pooled, Reason};
use super::super::window::{Counts, Span, Window};
use super::BreakerConfig;

// What daemons tell each other must be read alike by all of them, so none of these is a setting.

/// The most seconds of one report.
const MOST_SECONDS: usize = 120;
/// The most daemons of a pool; of more the one that was silent longest is forgotten.
const MOST_DAEMONS: usize = 256;
/// A daemon with fewer calls than these says neither that it fails nor that all is well.
const A_FEW: u32 = 3;
/// How long a daemon counts as shut or in trouble after it last said so, milliseconds.
const SHUT_MS: u64 = 5_000;

/// What one daemon tells of one operation.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Report {
    /// Its own breaker is shut, by its own evidence.
    pub shut: bool,
    /// How long ago a job needed it, milliseconds; none if that is long ago.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_ms: Option<u64>,
    /// On the way back of all: what came of its calls at this step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Progress>,
    /// The seconds of its window with their counts, the newest first: age in seconds, calls, failed ones, slow ones.
    pub seconds: Vec<[u32; 4]>,
}

/// What one daemon saw of a step of the way back. It is not bound to a window: a step of slow jobs lasts longer than one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The step is that whose results count since then: [`super::Decision::Ramping`].
    pub judged_ms: u64,
    /// What came of its calls since it heard of the step.
    pub results: Results,
}

impl Report {
    /// What it saw, second by second, the newest first.
    pub(in super::super) fn of(seconds: impl Iterator<Item = (u64, Counts)>) -> Self {
        let second = |(age, counts): (u64, Counts)| {
            let age = u32::try_from(age).unwrap_or(u32::MAX);
            [age, counts.calls, counts.failures, counts.slow]
        };
        Self {
            seconds: seconds.take(MOST_SECONDS).map(second).collect(),
            ..Self::default()
        }
    }

    /// Whether it tells of trouble: a quarter of the newest calls is bad, however few these are. Who has none need not
    /// speak unless others do.
    #[must_use]
    pub fn is_trouble(&self) -> bool {
        let (mut all, mut bad) = (0_u64, 0_u64);
        self.shut
            || self.seconds.iter().any(|[_, calls, failures, slow]| {
                all += u64::from(*calls);
                bad += u64::from(*failures) + u64::from(*slow);
                bad >= u64::from(A_FEW) && bad * 4 >= all
            })
    }

    /// Whether it says nothing at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The last report of each daemon, by the time of the store.
#[derive(Debug, Clone, Default)]
pub struct Pool {
    daemons: BTreeMap<String, Witness>,
}

#[derive(Debug, Clone)]
struct Witness {
    heard_ms: u64,
    shut: bool,
    /// It has been in trouble since it said so first.
    troubled_ms: Option<u64>,
    /// When a job of it last needed the dependency.
    needed_ms: u64,
    step: Option<Progress>,
    /// By second, the oldest first.
    seconds: BTreeMap<u64, Counts>,
}

impl Witness {
    fn is_recent(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.heard_ms) <= SHUT_MS
    }
}

/// What a pool says of a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Evidence {
    pub(super) pooled: Pooled,
    /// Daemons that are shut by their own evidence.
    pub(super) opened: u32,
    /// Daemons that see no trouble.
    pub(super) well: u32,
    /// All calls together prove it, beyond chance.
    pub(super) sure: bool,
}

impl Pool {
    /// Takes in what a daemon told at `heard_ms`; it replaces what that daemon told before.
    pub fn hear(&mut self, who: &str, heard_ms: u64, report: &Report) {
        let second = |[age, calls, failures, slow]: &[u32; 4]| {
            let at = (heard_ms / 1_000).saturating_sub(u64::from(*age));
            let failures = (*failures).min(*calls);
            let slow = (*slow).min(*calls - failures);
            let counts = Counts {
                calls: *calls,
                failures,
                slow,
            };
            (at, counts)
        };
        let seconds = report.seconds.iter().take(MOST_SECONDS).map(second);
        let before = self.daemons.get(who).filter(|w| w.is_recent(heard_ms));
        let since = before.and_then(|w| w.troubled_ms).unwrap_or(heard_ms);
        let witness = Witness {
            heard_ms,
            shut: report.shut,
            troubled_ms: report.is_trouble().then_some(since),
            needed_ms: report
                .idle_ms
                .map_or(0, |idle| heard_ms.saturating_sub(idle)),
            step: report.step,
            seconds: seconds.collect(),
        };
        self.daemons.insert(who.to_owned(), witness);
        if self.daemons.len() > MOST_DAEMONS {
            let silent = self.daemons.iter().min_by_key(|(_, w)| w.heard_ms);
            if let Some(who) = silent.map(|(who, _)| who.clone()) {
                self.daemons.remove(&who);
            }
        }
    }

    /// Forgets daemons that have told nothing for longer than calls count.
    pub fn forget(&mut self, now_ms: u64, config: &BreakerConfig) {
        let longest = super::millis(config.window_max);
        self.daemons
            .retain(|_, witness| now_ms.saturating_sub(witness.heard_ms) <= longest);
    }

    /// Whether nobody told anything that is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.daemons.is_empty()
    }

    /// Since when somebody has been in trouble; none if nobody told of any lately.
    #[must_use]
    pub fn troubled_since(&self, now_ms: u64) -> Option<u64> {
        let recent = self.daemons.values().filter(|w| w.is_recent(now_ms));
        recent.filter_map(|w| w.troubled_ms).min()
    }

    /// When a job of any daemon last needed the dependency, as far as they told; 0 if nobody did.
    pub(super) fn needed_ms(&self) -> u64 {
        let each = self.daemons.values().map(|w| w.needed_ms);
        each.max().unwrap_or(0)
    }

    /// What came of the calls of all daemons at the step of the way back whose results count since `judged_ms`.
    pub(super) fn results(&self, judged_ms: u64) -> Results {
        let mut total = Results::default();
        for step in self.daemons.values().filter_map(|w| w.step) {
            if step.judged_ms == judged_ms {
                total.add(step.results);
            }
        }
        total
    }

    /// What is seen now of the calls after `since_ms`.
    pub(super) fn evidence(&self, now_ms: u64, since_ms: u64, config: &BreakerConfig) -> Evidence {
        let span = Span::from(config);
        let from = if since_ms == 0 {
            0
        } else {
            since_ms / 1_000 + 1
        };
        let (mut pooled, mut opened, mut well) = (Pooled::default(), 0, 0);
        for witness in self.daemons.values() {
            let own = Window::of(witness.seconds.range(from..).map(|(s, c)| (*s, *c)));
            let counts = own.counts(now_ms, &span);
            let shut = witness.shut && witness.is_recent(now_ms);
            let many = |bad: u32, share: f64| f64::from(bad) > f64::from(counts.calls) * share;
            let fails = many(counts.failures, config.failed_share)
                || many(counts.slow, config.slow_share)
                || many(
                    counts.failures + counts.slow,
                    config.failed_share.max(config.slow_share),
                );
            pooled.daemons += u32::from(shut || counts.calls > 0);
            opened += u32::from(shut);
            if shut || (counts.calls >= A_FEW && fails) {
                pooled.agree += 1;
            } else if counts.calls >= A_FEW {
                well += 1;
            }
        }
        let window = self.window(from);
        let proof = proof(&window, now_ms, config, &span);
        let shown = window.counts(now_ms, &span);
        pooled.calls = shown.calls;
        pooled.failures = shown.failures;
        pooled.slow = shown.slow;
        match proof {
            Some(Reason::Failures { failures, calls }) => {
                (pooled.failures, pooled.calls) = (failures, calls);
            }
            Some(Reason::SlowCalls { slow, calls }) => (pooled.slow, pooled.calls) = (slow, calls),
            Some(Reason::BadCalls {
                failures,
                slow,
                calls,
            }) => (pooled.failures, pooled.slow, pooled.calls) = (failures, slow, calls),
            _ => {}
        }
        Evidence {
            pooled,
            opened,
            well,
            sure: proof.is_some(),
        }
    }

    /// The calls of all daemons by second.
    fn window(&self, from: u64) -> Window {
        let seconds = |w: &Witness| w.seconds.range(from..).map(|(s, _)| *s).collect::<Vec<_>>();
        let all: BTreeSet<u64> = self.daemons.values().flat_map(seconds).collect();
        Window::of(all.into_iter().map(|second| {
            let mut total = Counts::default();
            for witness in self.daemons.values() {
                total.add(witness.seconds.get(&second).copied().unwrap_or_default());
            }
            (second, total)
        }))
    }
}
