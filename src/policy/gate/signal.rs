//! One measured signal: from a raw value to smoothed badness.

use super::GateState;
use crate::config::SmoothingConfig;

/// What a signal means: the raw values at which it begins to be bad and is entirely bad.
///
/// The unit is the caller's; `lo` and `hi` share it. If lower is worse, `lo` is the larger one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Signal {
    /// Its name in logs, metrics and `explain`, such as `redis_rtt_p95_ms`.
    pub name: &'static str,
    /// Badness 0 up to here.
    pub lo: f64,
    /// Badness 1 from here.
    pub hi: f64,
    /// The worst state it may bring about by itself. `Elevated` for the host's CPU: a busy machine
    /// is a healthy one, and a runner that stops itself for its own load oscillates.
    pub cap: GateState,
    /// Milliseconds between its samples, if they are farther apart than those of its neighbours; else 0. It is not
    /// missing between them.
    pub every_ms: u64,
}

impl Signal {
    /// A signal that may bring about any state.
    pub const fn new(name: &'static str, lo: f64, hi: f64) -> Self {
        Self {
            name,
            lo,
            hi,
            cap: GateState::Critical,
            every_ms: 0,
        }
    }

    /// The same, bringing about no state worse than `cap`.
    pub const fn capped(self, cap: GateState) -> Self {
        Self { cap, ..self }
    }

    /// The same, sampled at this interval.
    pub const fn sampled_every(self, every_ms: u64) -> Self {
        Self { every_ms, ..self }
    }

    /// Whether it tells of a failure, not of a measure: entirely bad from one value on.
    pub fn is_switch(&self) -> bool {
        self.lo == self.hi
    }

    /// Badness of a raw value: `(value − lo) / (hi − lo)`, kept within 0 and 1. With `lo = hi` it
    /// is a switch: 1 from there on.
    pub fn badness(&self, value: f64) -> f64 {
        if self.is_switch() {
            return f64::from(u8::from(value >= self.hi));
        }
        ((value - self.lo) / (self.hi - self.lo)).clamp(0.0, 1.0)
    }
}

/// The smoothed badness of one signal and how old it is.
#[derive(Debug, Clone)]
pub(super) struct Track {
    pub(super) signal: Signal,
    pub(super) smoothed: f64,
    pub(super) value: Option<f64>,
    sampled_ms: u64,
}

impl Track {
    /// One that has not been sampled; it begins to go stale at once.
    pub(super) fn new(signal: Signal, now_ms: u64) -> Self {
        Self {
            signal,
            smoothed: 0.0,
            value: None,
            sampled_ms: now_ms,
        }
    }

    /// Takes a sample. None, NaN or infinity is a missing one: badness stays as it was.
    pub(super) fn sample(&mut self, now_ms: u64, value: Option<f64>, smoothing: &SmoothingConfig) {
        self.value = value.filter(|value| value.is_finite());
        let Some(value) = self.value else { return };
        let badness = self.signal.badness(value);
        let weight = match badness > self.smoothed {
            true if self.signal.is_switch() => smoothing.failure,
            true => smoothing.attack,
            false => smoothing.release,
        };
        self.smoothed += weight * (badness - self.smoothed);
        self.sampled_ms = now_ms;
    }

    /// Milliseconds since the last good sample.
    pub(super) fn age_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.sampled_ms)
    }
}
