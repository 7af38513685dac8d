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
//! One that no job needs any more *rests*: it counts as closed, and who comes next goes on where it was (`rest.rs`).
//!
//! All times are monotonic milliseconds since any fixed origin. Every change of state begins a new
//! *epoch*; a call carries the epoch it was admitted in, and a result of an older one is ignored.
//!
//! Alone it decides by its own calls. In a [`fleet`] it may be *tied* to what all daemons decided
//! together: then it opens with them, tries only if it is the one that tries for all, and ramps at
//! their step (`tie.rs`).

mod beta;
mod call;
mod evidence;
pub mod fleet;
mod operator;
mod ramp;
mod report;
mod rest;
mod settings;
mod tie;
mod trial;
mod window;

use std::time::Duration;

pub use call::{CallResult, Outlook, Permit, Verdict};
use evidence::Evidence;
use ramp::Ramp;
pub use report::{Pooled, Reason, Snapshot, State, Transition, Would};
pub use rest::Rest;
pub use settings::{BreakerConfig, Mode};
use tie::Tie;
pub use tie::{Ahead, Stand, Trial};
use window::{Counts, Span, Window};

/// The longest time an operator may force a breaker open, whatever is set: a forgotten order ends.
pub const MAX_FORCED: Duration = Duration::from_secs(86_400);
/// The epoch of calls whose results do not count; no state ever has it.
const UNCOUNTED: u64 = 0;
/// When to ask again while another daemon tries for all: after its next turn at the store, which is no setting either.
const FLEET_WAIT_MS: u64 = 1_000;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Closed,
    /// Closed because no job needs it.
    Resting(Rest),
    /// `forced` by an operator.
    Open {
        until_ms: u64,
        forced: bool,
    },
    HalfOpen,
    Ramping(Ramp),
}

impl Phase {
    fn state(self) -> State {
        match self {
            Self::Closed | Self::Resting(_) => State::Closed,
            Self::Open { .. } => State::Open,
            Self::HalfOpen => State::HalfOpen,
            Self::Ramping(_) => State::Ramping,
        }
    }
}

/// The breaker of one operation on one dependency.
#[derive(Debug, Clone)]
pub struct Breaker {
    config: BreakerConfig,
    span: Span,
    mode: Mode,
    phase: Phase,
    epoch: u64,
    evidence: Evidence,
    /// Permits that are out while half-open, the oldest first.
    trials: Vec<Permit>,
    /// Openings since the last full recovery: the n of the cool-down.
    openings: u32,
    /// Outcomes for the fleet: a change of state does not clear them.
    told: Window,
    /// The decision of the fleet it follows, if it does.
    tie: Option<Tie>,
    /// The decision it followed when the fleet went out of reach.
    left: Option<u64>,
    /// The fleet was out of reach until now.
    away: bool,
    /// The newest decision of the fleet it knows.
    seen: u64,
    /// Decisions up to this one are void here: an operator decided since.
    void: u64,
    /// When a job last waited for it.
    wanted_ms: Option<u64>,
    /// When a job last waited for it or ran.
    needed_ms: u64,
}

impl Breaker {
    /// A closed breaker that is on.
    pub fn new(config: BreakerConfig) -> Self {
        Self {
            span: Span::from(&config),
            config,
            mode: Mode::On,
            phase: Phase::Closed,
            epoch: UNCOUNTED + 1,
            evidence: Evidence::default(),
            trials: Vec::new(),
            openings: 0,
            told: Window::default(),
            tie: None,
            left: None,
            away: false,
            seen: 0,
            void: 0,
            wanted_ms: None,
            needed_ms: 0,
        }
    }

    /// Asks for leave to call. The transition, if any, is that of an open breaker whose cool-down
    /// is over to half-open, or of one that rested to what it was before.
    pub fn admit(&mut self, now_ms: u64) -> (Verdict, Option<Transition>) {
        self.needed_ms = now_ms;
        let woken = self.wake(now_ms);
        let verdict = match self.judge(now_ms) {
            Outlook::Allow { limit } => Verdict::Allow {
                epoch: self.counted_epoch(),
                limit: limit.filter(|_| self.mode == Mode::On),
            },
            Outlook::Trial => return self.start_trial(now_ms),
            Outlook::Refuse { .. } if self.mode == Mode::MetricsOnly => Verdict::Allow {
                epoch: UNCOUNTED,
                limit: None,
            },
            Outlook::Refuse { retry_at_ms } => Verdict::Refuse { retry_at_ms },
        };
        (verdict, woken)
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
    /// A result of an older epoch is ignored. While half-open the newest trial decides; an older
    /// one, which was given up for hung, still counts if it succeeds after all.
    pub fn record(
        &mut self,
        now_ms: u64,
        epoch: u64,
        result: CallResult,
        jitter: f64,
    ) -> Option<Transition> {
        if self.mode == Mode::Disabled || epoch == UNCOUNTED {
            return None;
        }
        if self.phase == Phase::HalfOpen {
            return self.end_trial(now_ms, epoch, result, jitter);
        }
        if epoch != self.epoch {
            return None;
        }
        let newest = self.take_in(now_ms, result)?;
        match self.phase {
            Phase::Closed => self.open_if_sure(now_ms, newest, jitter),
            Phase::Ramping(ramp) => {
                self.phase = Phase::Ramping(ramp.with(newest));
                let opened = self.open_if_sure(now_ms, newest, jitter);
                // In a fleet the steps are taken by all together.
                match self.tie {
                    None if opened.is_none() => self.climb(now_ms),
                    _ => opened,
                }
            }
            Phase::Resting(_) | Phase::Open { .. } | Phase::HalfOpen => None,
        }
    }

    /// The state now. An open breaker whose cool-down is over reads as half-open.
    pub fn state(&self, now_ms: u64) -> State {
        match self.phase {
            Phase::Open { until_ms, .. } if now_ms >= until_ms && !self.waits_for_fleet(now_ms) => {
                State::HalfOpen
            }
            phase => phase.state(),
        }
    }

    /// The answer of the state machine, whether or not the mode heeds it.
    fn judge(&self, now_ms: u64) -> Outlook {
        match self.phase {
            Phase::Closed | Phase::Ramping(_) => Outlook::Allow {
                limit: self.share(),
            },
            Phase::Resting(rest) => self.after_rest(rest),
            Phase::Open { until_ms, .. } if now_ms < until_ms => Outlook::Refuse {
                retry_at_ms: until_ms,
            },
            Phase::HalfOpen if self.trial_until() > now_ms => Outlook::Refuse {
                retry_at_ms: self.trial_until(),
            },
            Phase::Open { .. } | Phase::HalfOpen if self.waits_for_fleet(now_ms) => {
                Outlook::Refuse {
                    retry_at_ms: now_ms.saturating_add(FLEET_WAIT_MS),
                }
            }
            Phase::Open { .. } | Phase::HalfOpen => Outlook::Trial,
        }
    }

    fn share(&self) -> Option<f64> {
        match self.phase {
            Phase::Ramping(ramp) => Some(ramp.share(&self.config)),
            Phase::Closed | Phase::Resting(_) | Phase::Open { .. } | Phase::HalfOpen => None,
        }
    }

    fn counted_epoch(&self) -> u64 {
        if self.mode == Mode::Disabled {
            UNCOUNTED
        } else {
            self.epoch
        }
    }

    /// Counts a result; none if it says nothing about the dependency.
    fn take_in(&mut self, now_ms: u64, result: CallResult) -> Option<Counts> {
        let outcome = evidence::outcome(result)?;
        let connect = matches!(result, CallResult::DependencyFailure { connect: true });
        self.evidence.add(now_ms, outcome, connect, &self.span);
        self.told.add(now_ms, outcome, &self.span);
        Some(outcome)
    }

    fn open_if_sure(&mut self, now_ms: u64, newest: Counts, jitter: f64) -> Option<Transition> {
        let reason = self
            .evidence
            .reason(now_ms, newest, &self.config, &self.span)?;
        // What this daemon alone sees is a matter of its own, until the others see it too.
        (self.tie, self.left) = (None, None);
        Some(self.open(now_ms, reason, jitter))
    }

    fn open(&mut self, now_ms: u64, reason: Reason, jitter: f64) -> Transition {
        let cool_down = cool_down(&self.config, self.openings, jitter);
        self.openings = self.openings.saturating_add(1);
        let phase = Phase::Open {
            until_ms: now_ms.saturating_add(cool_down),
            forced: false,
        };
        self.enter(now_ms, phase, reason)
    }

    /// Goes on with the way back if its step is to be left.
    fn climb(&mut self, now_ms: u64) -> Option<Transition> {
        let Phase::Ramping(ramp) = self.phase else {
            return None;
        };
        match ramp.judged(now_ms, &self.config) {
            Some(next) => {
                self.go_on(ramp, next);
                None
            }
            None => {
                self.openings = 0;
                Some(self.enter(now_ms, Phase::Closed, Reason::Recovered))
            }
        }
    }

    /// Takes another place on the way back. One that was too much says nothing about a lower one, nor do the calls that it
    /// let through.
    fn go_on(&mut self, from: Ramp, to: Ramp) {
        self.phase = Phase::Ramping(to);
        if to.step < from.step {
            self.epoch += 1;
            self.evidence.clear();
        }
    }

    /// Changes the phase: a new epoch, no evidence yet.
    fn enter(&mut self, now_ms: u64, phase: Phase, reason: Reason) -> Transition {
        let from = self.phase.state();
        self.phase = phase;
        self.epoch += 1;
        self.evidence.clear();
        self.trials.clear();
        self.needed_ms = self.needed_ms.max(now_ms);
        Transition {
            from,
            to: self.phase.state(),
            reason,
            at_ms: now_ms,
        }
    }
}

/// The cool-down after so many openings before this one, milliseconds.
fn cool_down(config: &BreakerConfig, openings: u32, jitter: f64) -> u64 {
    let doubled = config
        .cool_down
        .saturating_mul(2_u32.saturating_pow(openings));
    let spread = 1.0 + config.jitter * (2.0 * jitter.clamp(0.0, 1.0) - 1.0);
    millis(doubled.min(config.max_cool_down).mul_f64(spread))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
