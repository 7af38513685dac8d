//! `[gate]`: whether health decides what is claimed, when a resource is in which state, and what that leaves to whom.
//!
//! `[gate.limits]` and `[gate.reserve]` stand in files of their own. Must not know what the settings do.

use super::validate::{MILLI, Problems, SECOND};
use super::{LimitsConfig, ReserveConfig, duration};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Whether the gate acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GateMode {
    /// Health decides what is claimed.
    On,
    /// Health is watched and logged only.
    Shadow,
    /// No gate.
    Off,
}

/// `[gate]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateConfig {
    /// Whether it acts.
    pub mode: GateMode,
    /// How often signals are sampled.
    #[serde(with = "duration")]
    pub sample: Duration,
    /// How long an exit must hold.
    #[serde(with = "duration")]
    pub hold: Duration,
    /// The same after a mere failure that ended; `hold` if that is shorter.
    #[serde(with = "duration")]
    pub failure_hold: Duration,
    /// Age at which a sample is missing.
    #[serde(with = "duration")]
    pub stale_after: Duration,
    /// How fast badness follows the samples.
    pub smoothing: SmoothingConfig,
    /// Where states begin and end.
    pub states: StatesConfig,
    /// What each class keeps in each state.
    pub shares: SharesConfig,
    /// Slots kept for critical jobs.
    pub reserve: ReserveConfig,
    /// What counts as pressure.
    pub limits: LimitsConfig,
}

/// `[gate.smoothing]`: the part of the way to a new sample that badness goes, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmoothingConfig {
    /// When it gets worse.
    pub attack: f64,
    /// The same of a failure.
    pub failure: f64,
    /// When it gets better.
    pub release: f64,
}

/// `[gate.states]`: of each state the badness at which it is entered, and the one at or below which it is left.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatesConfig {
    /// Strained.
    pub elevated: [f64; 2],
    /// Too much.
    pub overloaded: [f64; 2],
    /// Close to failing.
    pub critical: [f64; 2],
}

/// `[gate.shares]`: the share of the slots that each class keeps in the states elevated, overloaded and critical, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharesConfig {
    /// Of `critical` jobs.
    pub critical: [f64; 3],
    /// Of `high` jobs.
    pub high: [f64; 3],
    /// Of `normal` jobs.
    pub normal: [f64; 3],
    /// Of `low` jobs.
    pub low: [f64; 3],
    /// Of `bulk` jobs.
    pub bulk: [f64; 3],
}

impl GateConfig {
    /// The ranges, but for those of its limits and its reserve. All problems are told at once.
    pub(super) fn check(&self, found: &mut Problems) {
        let hour = 3_600 * SECOND;
        found.lasting("gate.sample", self.sample, 100 * MILLI, 60 * SECOND);
        found.lasting("gate.hold", self.hold, Duration::ZERO, hour);
        found.lasting("gate.failure_hold", self.failure_hold, Duration::ZERO, hour);
        found.lasting("gate.stale_after", self.stale_after, SECOND, 600 * SECOND);
        if self.stale_after < 2 * self.sample {
            found.add("gate.stale_after", "must be at least twice gate.sample");
        }
        let smoothing = &self.smoothing;
        found.within("gate.smoothing.attack", smoothing.attack, 0.05, 1.0);
        found.within("gate.smoothing.failure", smoothing.failure, 0.05, 1.0);
        found.within("gate.smoothing.release", smoothing.release, 0.005, 1.0);
        self.states.check(found);
        self.shares.check(found);
    }
}

impl StatesConfig {
    /// Each with its name, best first.
    const fn each(&self) -> [(&'static str, [f64; 2]); 3] {
        [
            ("elevated", self.elevated),
            ("overloaded", self.overloaded),
            ("critical", self.critical),
        ]
    }

    fn check(&self, found: &mut Problems) {
        let mut better = ("", [0.0, 0.0]);
        for (name, [entered, left]) in self.each() {
            let key = format!("gate.states.{name}");
            // NaN is within nothing. What is smoothed comes close to 1 and hardly ever there.
            if !(0.01 <= left && left < entered && entered <= 0.99) {
                let wanted = "must be entered, left: two falling numbers within 0.01 to 0.99";
                found.add(&key, format!("[{entered}, {left}] {wanted}"));
            } else if entered <= better.1[0] || left <= better.1[1] {
                let (than, [at, until]) = better;
                let why = format!("[{entered}, {left}] must be more than {than}, [{at}, {until}]");
                found.add(&key, why);
            }
            better = (name, [entered, left]);
        }
    }
}

impl SharesConfig {
    /// Each with its name, the most urgent first.
    const fn each(&self) -> [(&'static str, [f64; 3]); 5] {
        [
            ("critical", self.critical),
            ("high", self.high),
            ("normal", self.normal),
            ("low", self.low),
            ("bulk", self.bulk),
        ]
    }

    fn check(&self, found: &mut Problems) {
        let mut above = ("all", [1.0; 3]);
        for (name, shares) in self.each() {
            let key = format!("gate.shares.{name}");
            let inside = shares.iter().all(|share| (0.0..=1.0).contains(share));
            let [_, _, worst] = shares;
            if !inside {
                found.add(&key, format!("{shares:?} must be numbers of 0 to 1"));
            } else if !shares.is_sorted_by(|better, worse| better >= worse) {
                let why = "must not grow from state to state";
                found.add(&key, format!("{shares:?} {why}"));
            } else if name == "critical" && worst <= 0.0 {
                let why =
                    "must leave something in each state: no critical job waits for a better one";
                found.add(&key, format!("{shares:?} {why}"));
            } else if shares.iter().zip(above.1).any(|(own, above)| *own > above) {
                let (than, most) = above;
                let why = format!("must not be more than {than} keeps, {most:?}");
                found.add(&key, format!("{shares:?} {why}"));
            }
            above = (name, shares);
        }
    }
}
