//! `[limiter]`: how many jobs of an operation may run at once, by what its latency says.
//!
//! Every constant of the limiter is a setting; docs/GATE.md says where each value comes from. Must not know how they
//! are used.

use super::validate::Problems;
use super::{GateMode, duration};
use serde::{Deserialize, Serialize};
use std::time::Duration;

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
/// As many as a daemon may have slots.
const MOST: usize = 100_000;

/// `[limiter]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimiterConfig {
    /// Whether it acts.
    pub mode: GateMode,
    /// The least limit.
    pub min: usize,
    /// The greatest limit; 0 for all slots of the daemon.
    pub max: usize,
    /// The limit of an operation that nothing is known of.
    pub initial: usize,
    /// Length of a bucket of evidence.
    #[serde(with = "duration")]
    pub bucket: Duration,
    /// How often the undisturbed latency is measured again.
    #[serde(with = "duration")]
    pub anchor_every: Duration,
    /// Jobs that usually take longer are not limited.
    #[serde(with = "duration")]
    pub slow: Duration,
    /// Standard errors by which evidence must be clear.
    pub sure: f64,
    /// Latencies below this count as this.
    #[serde(with = "duration")]
    pub shortest: Duration,
    /// Jobs an anchor is made of.
    pub anchor_jobs: u32,
    /// The fewest jobs anything is concluded from.
    pub few_jobs: u32,
    /// The longest time given to a measurement.
    #[serde(with = "duration")]
    pub patience: Duration,
    /// The limit is divided by this while the anchor is measured.
    pub drain_divisor: usize,
    /// The largest factor by which one measurement raises the anchor.
    pub max_raise: f64,
    /// The anchor is raised at most once in this time.
    #[serde(with = "duration")]
    pub raise_every: Duration,
    /// A queue shorter than this many times √limit is room.
    pub headroom: f64,
    /// A longer one than this many times √limit is congestion.
    pub tolerance: f64,
    /// The share of a limit that must be used before it grows.
    pub used: f64,
    /// One decision divides the limit by this at most.
    pub max_cut: f64,
}

impl LimiterConfig {
    /// Adds what is out of range.
    pub(super) fn check(&self, found: &mut Problems) {
        found.within("limiter.min", self.min, 1, MOST);
        found.within("limiter.max", self.max, 0, MOST);
        if self.max != 0 && self.max < self.min {
            let message = "must be 0 (all slots) or not less than limiter.min";
            found.add("limiter.max", message);
        }
        found.within("limiter.initial", self.initial, 1, MOST);
        found.within("limiter.sure", self.sure, 1.0, 10.0);
        found.within("limiter.anchor_jobs", self.anchor_jobs, 2, 500);
        found.within("limiter.few_jobs", self.few_jobs, 2, 500);
        if self.few_jobs > self.anchor_jobs {
            let message = "must not be more than limiter.anchor_jobs";
            found.add("limiter.few_jobs", message);
        }
        found.within("limiter.drain_divisor", self.drain_divisor, 1, 100);
        found.within("limiter.max_raise", self.max_raise, 1.0, 3.0);
        found.within("limiter.headroom", self.headroom, 0.0, 1.0);
        found.within("limiter.tolerance", self.tolerance, 0.0, 10.0);
        found.within("limiter.used", self.used, 0.0, 1.0);
        found.within("limiter.max_cut", self.max_cut, 1.1, 100.0);
        for (key, given, least, most) in [
            ("limiter.bucket", self.bucket, 100 * MILLI, 15 * SECOND),
            (
                "limiter.anchor_every",
                self.anchor_every,
                10 * SECOND,
                24 * HOUR,
            ),
            ("limiter.slow", self.slow, SECOND, HOUR),
            ("limiter.shortest", self.shortest, Duration::ZERO, SECOND),
            ("limiter.patience", self.patience, SECOND, HOUR),
            ("limiter.raise_every", self.raise_every, SECOND, 24 * HOUR),
        ] {
            found.lasting(key, given, least, most);
        }
    }
}
