//! What a gauge goes by: its times, how fast badness follows the samples, and where states begin and end.

use std::time::Duration;

use super::Thresholds;
use crate::config::{GateConfig, SmoothingConfig};

/// So many samples may be lost before a signal is missing. Our choice.
const LOST_SAMPLES: u64 = 3;
/// But a signal is not missing sooner than this: with short intervals a hanging probe is asked less often.
const SOONEST_OVERDUE_MS: u64 = 3_000;

/// The times a gauge goes by, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// A better state is entered after the badness was low enough for this long, one step at a time.
    pub hold_ms: u64,
    /// The same after a mere failure that ended: no other signal would have kept the state up. It doubles with each
    /// relapse, up to `hold_ms`; the first one makes it a sixth of that at least, so that 0 does not flap either.
    pub failure_hold_ms: u64,
    /// Without a good sample for longer than this a signal is missing. Leave room for a sample or two
    /// to be lost.
    pub overdue_ms: u64,
    /// Missing for longer than this a signal counts at least as elevated: it fails closed.
    pub stale_ms: u64,
}

/// All that a gauge goes by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tuning {
    /// Its times.
    pub timing: Timing,
    /// The part of the way to a new sample that badness goes.
    pub smoothing: SmoothingConfig,
    /// Where states begin and end.
    pub states: Thresholds,
}

impl From<&GateConfig> for Tuning {
    fn from(gate: &GateConfig) -> Self {
        let stale_ms = millis(gate.stale_after);
        let overdue_ms = (LOST_SAMPLES * millis(gate.sample)).max(SOONEST_OVERDUE_MS);
        Self {
            timing: Timing {
                hold_ms: millis(gate.hold),
                failure_hold_ms: millis(gate.failure_hold),
                overdue_ms: overdue_ms.min(stale_ms),
                stale_ms,
            },
            smoothing: gate.smoothing,
            states: Thresholds::from(&gate.states),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
