//! A circuit breaker for one operation on one dependency: it stops calls to what is down, tries
//! again with one call at a time, and then opens the tap step by step.
//!
//! Owns the evidence and the state. It must not know what the dependency is, nor wait: the caller
//! asks [`Breaker::admit`] before a call (or [`Breaker::peek`] before claiming one), reports with
//! [`Breaker::record`], and logs the [`Transition`]s it is handed.
//!
//! ```text
//!  Closed ──evidence──▶ Open ──cool-down over──▶ HalfOpen ──trial good──▶ Ramping ──▶ Closed
//!                        ▲                          │ trial bad              │ evidence
//!                        └──────────────────────────┴────────────────────────┘
//! ```
//!
//! All times are monotonic milliseconds since any fixed origin. Every change of state begins a new
//! *epoch*; a call carries the epoch it was admitted in, and a result of an older one is ignored.
//! The constants are those of our notes on the gate, which give the evidence for them.

mod beta;
mod call;
mod report;
mod settings;
mod window;

use std::time::Duration;

pub use call::{CallResult, Outlook, Permit, Verdict};
pub use report::{Reason, Snapshot, State, Transition};
pub use settings::{BreakerConfig, Mode};
use window::{Counts, Window};

/// The breaker opens if failed (or slow) calls are the majority with at least this probability.
const SURE: f64 = 0.95;
/// This many connect errors in a row open it whatever the window holds: nobody is listening.
const CONNECT_ERRORS: u32 = 5;
/// The cool-down varies by ± this fraction, so that daemons do not try again in step.
const COOL_DOWN_JITTER: f64 = 0.2;
/// Shares of the old limit on the way back; after the last comes the whole.
const RAMP: [f64; 6] = [0.01, 0.02, 0.04, 0.08, 0.25, 0.50];
/// A ramp step is judged after this many results …
const RAMP_STEP_RESULTS: u32 = 5;
/// … and passed if at least this many are good: a clear majority, one slip allowed. Else the step
/// is repeated; whether the breaker opens again is for the window to say. (Our choice.)
const RAMP_STEP_GOOD: u32 = 4;
/// The longest time an operator may force a breaker open. (Our choice: a forgotten one ends.)
pub const MAX_FORCED: Duration = Duration::from_secs(86_400);
/// The epoch of calls whose results do not count; no state ever has it.
const UNCOUNTED: u64 = 0;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Closed,
    Open {
        until_ms: u64,
    },
    /// The permit that is out, if one is.
    HalfOpen {
        trial: Option<Permit>,
    },
    Ramping {
        step: usize,
        results: u32,
        good: u32,
    },
}

impl Phase {
    fn state(self) -> State {
        match self {
            Self::Closed => State::Closed,
            Self::Open { .. } => State::Open,
            Self::HalfOpen { .. } => State::HalfOpen,
            Self::Ramping { .. } => State::Ramping,
        }
    }
}

/// The breaker of one operation on one dependency.
#[derive(Debug, Clone)]
pub struct Breaker {
    config: BreakerConfig,
    mode: Mode,
    phase: Phase,
    epoch: u64,
    window: Window,
    connect_errors: u32,
    /// Openings since the last full recovery: the n of the cool-down.
    openings: u32,
}

impl Breaker {
    /// A closed breaker that is on.
    pub fn new(config: BreakerConfig) -> Self {
        Self {
            config,
            mode: Mode::On,
            phase: Phase::Closed,
            epoch: UNCOUNTED + 1,
            window: Window::default(),
            connect_errors: 0,
            openings: 0,
        }
    }

    /// Asks for leave to call. The transition, if any, is that of an open breaker whose cool-down
    /// is over to half-open.
    pub fn admit(&mut self, now_ms: u64) -> (Verdict, Option<Transition>) {
        let verdict = match self.judge(now_ms) {
            Outlook::Allow { limit } => Verdict::Allow {
                epoch: self.counted_epoch(),
                limit,
            },
            Outlook::Trial => return self.start_trial(now_ms),
            Outlook::Refuse { .. } if self.mode == Mode::MetricsOnly => Verdict::Allow {
                epoch: UNCOUNTED,
                limit: None,
            },
            Outlook::Refuse { retry_at_ms } => Verdict::Refuse { retry_at_ms },
        };
        (verdict, None)
    }

    /// What [`Breaker::admit`] would answer now. Takes no permit and changes nothing.
    pub fn peek(&self, now_ms: u64) -> Outlook {
        match (self.mode, self.judge(now_ms)) {
            (Mode::On, outlook) => outlook,
            (Mode::MetricsOnly | Mode::Disabled, _) => Outlook::Allow { limit: None },
        }
    }

    /// Reports how a call ended that was admitted in `epoch`. `jitter` is random in `[0, 1)`.
    ///
    /// A result of an older epoch is ignored; of the current trial it counts even past its deadline,
    /// unless another trial took its place.
    pub fn record(
        &mut self,
        now_ms: u64,
        epoch: u64,
        result: CallResult,
        jitter: f64,
    ) -> Option<Transition> {
        if epoch != self.epoch || self.mode == Mode::Disabled {
            return None;
        }
        let outcome = match result {
            CallResult::NotDependency => {
                // No evidence; but a trial that gave none makes room for the next.
                self.release_epoch(epoch);
                return None;
            }
            CallResult::Success { slow } => Counts {
                calls: 1,
                failures: 0,
                slow: slow.into(),
            },
            CallResult::DependencyFailure { .. } => Counts {
                calls: 1,
                failures: 1,
                slow: 0,
            },
        };
        self.connect_errors = match result {
            CallResult::DependencyFailure { connect: true } => self.connect_errors + 1,
            _ => 0,
        };
        self.window.add(now_ms, outcome);
        let good = outcome.failures == 0 && outcome.slow == 0;
        match self.phase {
            Phase::Closed => self.open_if_sure(now_ms, jitter),
            Phase::Open { .. } => None,
            Phase::HalfOpen { .. } if good => {
                let ramp = Phase::Ramping {
                    step: 0,
                    results: 0,
                    good: 0,
                };
                Some(self.enter(now_ms, ramp, Reason::TrialSucceeded))
            }
            Phase::HalfOpen { .. } => Some(self.open(now_ms, Reason::TrialFailed, jitter)),
            Phase::Ramping { .. } => match self.open_if_sure(now_ms, jitter) {
                Some(transition) => Some(transition),
                None => self.climb(now_ms, good),
            },
        }
    }

    /// Returns a permit whose call was not made or was cancelled: the next trial may start.
    pub fn release(&mut self, permit: Permit) {
        self.release_epoch(permit.epoch);
    }

    /// Holds the breaker open for `ttl` (at most [`MAX_FORCED`]), whatever the evidence; then it is
    /// tried like any other. Turns the breaker on if it was not.
    pub fn force_open(&mut self, now_ms: u64, ttl: Duration) -> Transition {
        self.mode = Mode::On;
        let until_ms = now_ms.saturating_add(millis(ttl.min(MAX_FORCED)));
        self.enter(now_ms, Phase::Open { until_ms }, Reason::Forced)
    }

    /// Sets the mode and starts afresh, closed: evidence gathered under other rules does not count.
    /// Also ends a forced opening.
    pub fn set_mode(&mut self, now_ms: u64, mode: Mode) -> Option<Transition> {
        self.mode = mode;
        self.openings = 0;
        let transition = self.enter(now_ms, Phase::Closed, Reason::Reset);
        (transition.from != State::Closed).then_some(transition)
    }

    /// The state now. An open breaker whose cool-down is over reads as half-open.
    pub fn state(&self, now_ms: u64) -> State {
        match self.phase {
            Phase::Open { until_ms } if now_ms >= until_ms => State::HalfOpen,
            phase => phase.state(),
        }
    }

    /// All there is to see, for `/health` and `explain`.
    pub fn snapshot(&self, now_ms: u64) -> Snapshot {
        let counts = self.window.counts(now_ms);
        let retry_in_ms = match self.judge(now_ms) {
            Outlook::Refuse { retry_at_ms } => Some(retry_at_ms.saturating_sub(now_ms)),
            Outlook::Allow { .. } | Outlook::Trial => None,
        };
        Snapshot {
            state: self.state(now_ms),
            mode: self.mode,
            retry_in_ms,
            limit: self.share(),
            openings: self.openings,
            calls: counts.calls,
            failures: counts.failures,
            slow: counts.slow,
        }
    }

    /// The answer of the state machine, whether or not the mode heeds it.
    fn judge(&self, now_ms: u64) -> Outlook {
        match self.phase {
            Phase::Closed | Phase::Ramping { .. } => Outlook::Allow {
                limit: self.share(),
            },
            Phase::Open { until_ms } if now_ms < until_ms => Outlook::Refuse {
                retry_at_ms: until_ms,
            },
            Phase::HalfOpen { trial: Some(out) } if now_ms < out.deadline_ms => Outlook::Refuse {
                retry_at_ms: out.deadline_ms,
            },
            Phase::Open { .. } | Phase::HalfOpen { .. } => Outlook::Trial,
        }
    }

    fn share(&self) -> Option<f64> {
        match self.phase {
            Phase::Ramping { step, .. } => RAMP.get(step).copied(),
            Phase::Closed | Phase::Open { .. } | Phase::HalfOpen { .. } => None,
        }
    }

    fn counted_epoch(&self) -> u64 {
        if self.mode == Mode::Disabled {
            UNCOUNTED
        } else {
            self.epoch
        }
    }

    /// Every trial has an epoch of its own, so that one given up on cannot speak for its successor.
    fn start_trial(&mut self, now_ms: u64) -> (Verdict, Option<Transition>) {
        let from = self.phase.state();
        let deadline_ms = now_ms.saturating_add(millis(self.config.trial_timeout));
        self.epoch += 1;
        let permit = Permit {
            epoch: self.epoch,
            deadline_ms,
        };
        self.phase = Phase::HalfOpen {
            trial: Some(permit),
        };
        let reason = Reason::CoolDownOver;
        let transition = Transition {
            from,
            to: State::HalfOpen,
            reason,
            at_ms: now_ms,
        };
        (
            Verdict::Trial(permit),
            (from == State::Open).then_some(transition),
        )
    }

    fn release_epoch(&mut self, epoch: u64) {
        if let Phase::HalfOpen { trial: Some(out) } = self.phase
            && out.epoch == epoch
        {
            // The new epoch makes a second report of the same call void.
            self.epoch += 1;
            self.phase = Phase::HalfOpen { trial: None };
        }
    }

    fn open_if_sure(&mut self, now_ms: u64, jitter: f64) -> Option<Transition> {
        let reason = self.evidence(now_ms)?;
        Some(self.open(now_ms, reason, jitter))
    }

    /// The reason to open, if there is one.
    fn evidence(&self, now_ms: u64) -> Option<Reason> {
        if self.connect_errors >= CONNECT_ERRORS {
            return Some(Reason::ConnectErrors {
                count: self.connect_errors,
            });
        }
        let Counts {
            calls,
            failures,
            slow,
        } = self.window.counts(now_ms);
        // Without a majority in the window the answer is no: spare the arithmetic on good days.
        let majority = |bad: u32| {
            let good = calls - bad;
            bad > good && beta::majority_is_bad(bad, good) >= SURE
        };
        if majority(failures) {
            return Some(Reason::Failures { failures, calls });
        }
        majority(slow).then_some(Reason::SlowCalls { slow, calls })
    }

    fn open(&mut self, now_ms: u64, reason: Reason, jitter: f64) -> Transition {
        let doubled = self
            .config
            .cool_down
            .saturating_mul(2_u32.saturating_pow(self.openings));
        let cool_down = doubled.min(self.config.max_cool_down);
        let spread = 1.0 + COOL_DOWN_JITTER * (2.0 * jitter.clamp(0.0, 1.0) - 1.0);
        let until_ms = now_ms.saturating_add(millis(cool_down.mul_f64(spread)));
        self.openings = self.openings.saturating_add(1);
        self.enter(now_ms, Phase::Open { until_ms }, reason)
    }

    /// One more result while ramping.
    fn climb(&mut self, now_ms: u64, was_good: bool) -> Option<Transition> {
        let Phase::Ramping {
            step,
            results,
            good,
        } = self.phase
        else {
            return None;
        };
        let (results, good) = (results + 1, good + u32::from(was_good));
        if results < RAMP_STEP_RESULTS {
            self.phase = Phase::Ramping {
                step,
                results,
                good,
            };
            return None;
        }
        let next = if good >= RAMP_STEP_GOOD {
            step + 1
        } else {
            step
        };
        if next < RAMP.len() {
            self.phase = Phase::Ramping {
                step: next,
                results: 0,
                good: 0,
            };
            return None;
        }
        self.openings = 0;
        Some(self.enter(now_ms, Phase::Closed, Reason::Recovered))
    }

    /// Changes the phase: a new epoch, a clean window.
    fn enter(&mut self, now_ms: u64, phase: Phase, reason: Reason) -> Transition {
        let from = self.phase.state();
        self.phase = phase;
        self.epoch += 1;
        self.window.clear();
        self.connect_errors = 0;
        Transition {
            from,
            to: self.phase.state(),
            reason,
            at_ms: now_ms,
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
