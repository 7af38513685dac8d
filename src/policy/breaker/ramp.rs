//! The way back: step by step up to the whole limit, a step down where a step is too much, and then with more patience.
//! So a dependency that comes back slowly sets the pace, instead of being closed off again.

use serde::{Deserialize, Serialize};

use super::window::Counts;
use super::{BreakerConfig, millis};

/// A place on the way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ramp {
    /// The step, from 0.
    pub(super) step: usize,
    /// Since then.
    since_ms: u64,
    /// Steps down until now.
    pub(super) falls: u32,
    /// What came since the step was last judged.
    pub(super) results: Results,
}

/// What came of calls since a step was last judged, however long ago that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Results {
    /// Calls that say something about the dependency.
    pub calls: u32,
    /// The good ones among them.
    pub good: u32,
}

impl Results {
    pub(super) fn add(&mut self, other: Self) {
        self.calls = self.calls.saturating_add(other.calls);
        self.good = self.good.saturating_add(other.good);
    }
}

impl Ramp {
    pub(super) fn at(step: usize, falls: u32, now_ms: u64) -> Self {
        Self {
            step,
            since_ms: now_ms,
            falls,
            results: Results::default(),
        }
    }

    /// The share of the limit; the last step is the whole.
    pub(super) fn share(self, config: &BreakerConfig) -> f64 {
        share_at(self.step, config)
    }

    /// After one more call.
    pub(super) fn with(mut self, outcome: Counts) -> Self {
        self.results.add(Results {
            calls: outcome.calls,
            good: outcome.good(),
        });
        self
    }

    /// Where its results lead by now; none at the end of the way.
    pub(super) fn judged(self, now_ms: u64, config: &BreakerConfig) -> Option<Self> {
        let lasted_ms = now_ms.saturating_sub(self.since_ms);
        match judge(self.results, lasted_ms, self.falls, config) {
            Verdict::Open => Some(self),
            Verdict::Stay => Some(Self {
                results: Results::default(),
                ..self
            }),
            Verdict::Up if self.step == config.ramp.len() => None,
            Verdict::Up => Some(Self::at(self.step + 1, self.falls, now_ms)),
            Verdict::Down => {
                let falls = self.falls.saturating_add(1);
                Some(Self::at(self.step.saturating_sub(1), falls, now_ms))
            }
        }
    }
}

/// The share of the limit at a step.
pub(super) fn share_at(step: usize, config: &BreakerConfig) -> f64 {
    config.ramp.get(step).copied().unwrap_or(1.0)
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

/// Judges a step by its results. After long enough a few will do, if all of them are good: where calls are rare or slow
/// the way back would take hours.
pub(super) fn judge(
    results: Results,
    lasted_ms: u64,
    falls: u32,
    config: &BreakerConfig,
) -> Verdict {
    let Results { calls, good } = results;
    let patience = config
        .ramp_step
        .saturating_mul(2_u32.saturating_pow(falls))
        .min(config.max_ramp_step.max(config.ramp_step));
    if calls < config.ramp_calls {
        let few_will_do = lasted_ms >= millis(patience.max(config.ramp_wait));
        return match few_will_do && calls > 0 && good == calls {
            true => Verdict::Up,
            false => Verdict::Open,
        };
    }
    if f64::from(good) < f64::from(calls) * config.ramp_good {
        return Verdict::Down;
    }
    if lasted_ms < millis(patience) {
        return Verdict::Stay;
    }
    Verdict::Up
}
