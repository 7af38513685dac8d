//! How a breaker is set: its times and its mode.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The times a breaker goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerConfig {
    /// The first cool-down; it doubles with every opening that follows without a full recovery.
    pub cool_down: Duration,
    /// The longest cool-down, before jitter.
    pub max_cool_down: Duration,
    /// How long a trial may take before another one is let through.
    pub trial_timeout: Duration,
}

impl Default for BreakerConfig {
    /// 5 s doubling to 5 min; a trial has 30 s, the usual window.
    fn default() -> Self {
        Self {
            cool_down: Duration::from_secs(5),
            max_cool_down: Duration::from_secs(300),
            trial_timeout: Duration::from_secs(30),
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
