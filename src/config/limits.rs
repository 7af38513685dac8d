//! `[gate.limits]`: what counts as pressure.
//!
//! Each limit is a pair: where a signal begins to count, and where its pressure is complete. The values in
//! `config/default.toml` are those of our notes on the gate, but for `postgres_rtt`, which is our choice: the shortest
//! query asks for no more than a connection does. Must not know how a signal is measured.

use super::duration;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// `[gate.limits]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsConfig {
    /// Some task waited for the CPU, percent of time.
    pub psi_cpu: [f64; 2],
    /// Some task waited for memory, percent of time.
    pub psi_memory_some: [f64; 2],
    /// All tasks waited for memory, percent of time.
    pub psi_memory_full: [f64; 2],
    /// All tasks waited for the disk, percent of time.
    pub psi_io_full: [f64; 2],
    /// Memory in use, percent of the cgroup's limit.
    pub memory: [f64; 2],
    /// p99 lateness of a timer.
    #[serde(with = "duration::pair")]
    pub runtime_lag: [Duration; 2],
    /// p95 of a PING.
    #[serde(with = "duration::pair")]
    pub redis_rtt: [Duration; 2],
    /// p95 wait for a pooled connection.
    #[serde(with = "duration::pair")]
    pub postgres_acquire: [Duration; 2],
    /// p95 of the smallest query.
    #[serde(with = "duration::pair")]
    pub postgres_rtt: [Duration; 2],
}

impl LimitsConfig {
    /// The limits that are percentages, each with its key.
    pub(super) fn percentages(&self) -> [(&'static str, [f64; 2]); 5] {
        [
            ("psi_cpu", self.psi_cpu),
            ("psi_memory_some", self.psi_memory_some),
            ("psi_memory_full", self.psi_memory_full),
            ("psi_io_full", self.psi_io_full),
            ("memory", self.memory),
        ]
    }

    /// The limits that are durations, each with its key.
    pub(super) fn durations(&self) -> [(&'static str, [Duration; 2]); 4] {
        [
            ("runtime_lag", self.runtime_lag),
            ("redis_rtt", self.redis_rtt),
            ("postgres_acquire", self.postgres_acquire),
            ("postgres_rtt", self.postgres_rtt),
        ]
    }
}
