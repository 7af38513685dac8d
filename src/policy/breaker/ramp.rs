//! The way back: step by step up to the whole limit, a step down where a step is too much, and then with more patience.
//! So a dependency that comes back slowly sets the pace, instead of being closed off again.

use super::{BreakerConfig, millis};

/// The patience of a step is at most this many times the usual one.
const MOST_PATIENCE: u64 = 32;

/// A place on the way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ramp {
    /// The step, from 0.
    pub(super) step: usize,
    /// Since then.
    since_ms: u64,
    /// Steps down until now.
    falls: u32,
    /// Results since the step was last judged, and the good ones among them.
    results: u32,
    good: u32,
}

impl Ramp {
    pub(super) fn at(step: usize, now_ms: u64) -> Self {
        Self {
            step,
            since_ms: now_ms,
            falls: 0,
            results: 0,
            good: 0,
        }
    }

    /// The share of the limit; the last step is the whole.
    pub(super) fn share(self, config: &BreakerConfig) -> f64 {
        config.ramp.get(self.step).copied().unwrap_or(1.0)
    }

    /// After one more result; none at the end of the way.
    pub(super) fn after(self, now_ms: u64, was_good: bool, config: &BreakerConfig) -> Option<Self> {
        let (results, good) = (self.results + 1, self.good + u32::from(was_good));
        let lasted_ms = now_ms.saturating_sub(self.since_ms);
        let next = match judge(results, good, lasted_ms, self.falls, config) {
            Verdict::Open => {
                return Some(Self {
                    results,
                    good,
                    ..self
                });
            }
            Verdict::Stay => self,
            Verdict::Up => Self {
                step: self.step + 1,
                since_ms: now_ms,
                ..self
            },
            Verdict::Down => Self {
                step: self.step.saturating_sub(1),
                since_ms: now_ms,
                falls: self.falls.saturating_add(1),
                ..self
            },
        };
        (next.step <= config.ramp.len()).then_some(Self {
            results: 0,
            good: 0,
            ..next
        })
    }
}

/// What is to become of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Too few results to say.
    Open,
    /// All is well, but it has not lasted long enough.
    Stay,
    /// On to the next.
    Up,
    /// It was too much.
    Down,
}

/// Judges a step by its results.
pub(super) fn judge(
    results: u32,
    good: u32,
    lasted_ms: u64,
    falls: u32,
    config: &BreakerConfig,
) -> Verdict {
    if results < config.ramp_calls {
        return Verdict::Open;
    }
    if f64::from(good) < f64::from(results) * config.ramp_good {
        return Verdict::Down;
    }
    let patience = MOST_PATIENCE.min(2_u64.saturating_pow(falls));
    if lasted_ms < millis(config.ramp_step).saturating_mul(patience) {
        return Verdict::Stay;
    }
    Verdict::Up
}
