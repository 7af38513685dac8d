//! How a breaker is set: its constants and its mode. `docs/GATE.md` says where each constant comes from.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config;

/// The constants a breaker goes by.
#[derive(Debug, Clone, PartialEq)]
pub struct BreakerConfig {
    /// How far back calls count.
    pub window: Duration,
    /// How far back at most, where calls are rare.
    pub window_max: Duration,
    /// Beyond `window`, older calls count only as long as there are fewer than these.
    pub stretch_calls: u32,
    /// Never judge by fewer calls.
    pub least_calls: u32,
    /// How sure it must be that the share of bad calls is too large before it opens.
    pub sure: f64,
    /// The share of failed calls that is too large.
    pub failed_share: f64,
    /// The share of slow calls that is too large.
    pub slow_share: f64,
    /// The fewest connect errors in a row that open it; more are needed where they are usual.
    pub connect_errors: u32,
    /// The first cool-down; it doubles with every opening that follows without a full recovery.
    pub cool_down: Duration,
    /// The longest cool-down, before jitter.
    pub max_cool_down: Duration,
    /// The cool-down varies by ± this fraction, so that daemons do not try again in step.
    pub jitter: f64,
    /// How long a trial may take before another one is let through beside it; twice as long before a third, and so on …
    pub trial_timeout: Duration,
    /// … up to this long: trials that hang follow each other ever more slowly.
    pub max_trial_timeout: Duration,
    /// Shares of the usual limit on the way back, rising; the whole is the last step.
    pub ramp: Arc<[f64]>,
    /// A step of the ramp is judged after this many results.
    pub ramp_calls: u32,
    /// If at least this share of them is good it may go on, else it goes a step down.
    pub ramp_good: f64,
    /// How long a step lasts at least; it doubles with every step down …
    pub ramp_step: Duration,
    /// … up to this long.
    pub max_ramp_step: Duration,
    /// A step that lasted this long goes on after fewer results too, if none of them was bad.
    pub ramp_wait: Duration,
    /// A breaker that no job needed for this long rests: it counts as closed, and the next jobs begin with care.
    pub rest: Duration,
    /// Daemons that must see it fail before all of them open.
    pub quorum: u32,
    /// How long the right to try for all daemons lasts unless it is renewed.
    pub probe_lease: Duration,
}

impl Default for BreakerConfig {
    /// The values of `config/default.toml`; a test holds them together.
    fn default() -> Self {
        Self {
            window: Duration::from_secs(30),
            window_max: Duration::from_secs(300),
            stretch_calls: 50,
            least_calls: 10,
            sure: 0.9999,
            failed_share: 0.5,
            slow_share: 0.5,
            connect_errors: 5,
            cool_down: Duration::from_secs(5),
            max_cool_down: Duration::from_secs(20),
            jitter: 0.2,
            trial_timeout: Duration::from_secs(60),
            max_trial_timeout: Duration::from_secs(300),
            ramp: Arc::new([0.01, 0.02, 0.04, 0.08, 0.25, 0.50]),
            ramp_calls: 5,
            ramp_good: 0.8,
            ramp_step: Duration::from_secs(1),
            max_ramp_step: Duration::from_secs(32),
            ramp_wait: Duration::from_secs(30),
            rest: Duration::from_secs(300),
            quorum: 2,
            probe_lease: Duration::from_secs(5),
        }
    }
}

impl From<&config::BreakerConfig> for BreakerConfig {
    fn from(given: &config::BreakerConfig) -> Self {
        Self {
            window: given.window,
            window_max: given.window_max,
            stretch_calls: given.stretch_calls,
            least_calls: given.least_calls,
            sure: given.sure,
            failed_share: given.failed_share,
            slow_share: given.slow_share,
            connect_errors: given.connect_errors,
            cool_down: given.open,
            max_cool_down: given.open_max,
            jitter: given.open_jitter,
            trial_timeout: given.trial_timeout,
            max_trial_timeout: given.trial_timeout_max,
            ramp: given.ramp.as_slice().into(),
            ramp_calls: given.ramp_calls,
            ramp_good: given.ramp_good,
            ramp_step: given.ramp_step,
            max_ramp_step: given.ramp_step_max,
            ramp_wait: given.ramp_wait,
            rest: given.rest,
            quorum: given.quorum,
            probe_lease: given.probe_lease,
        }
    }
}

/// Whether the breaker acts on what it sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It does.
    #[default]
    On,
    /// It judges and reports as if it did, and lets every call through.
    MetricsOnly,
    /// It lets every call through and looks away.
    Disabled,
}

impl From<config::BreakerMode> for Mode {
    fn from(given: config::BreakerMode) -> Self {
        match given {
            config::BreakerMode::On => Self::On,
            config::BreakerMode::MetricsOnly => Self::MetricsOnly,
            config::BreakerMode::Off => Self::Disabled,
        }
    }
}
