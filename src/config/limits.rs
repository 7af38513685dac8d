//! `[gate.limits]`: what counts as pressure.
//!
//! Each limit is a pair: where a signal begins to count, and where its pressure is complete. The values in
//! `config/default.toml` are those of our notes on the gate, but for `postgres_rtt`, which is our choice: the shortest
//! query asks for no more than a connection does. Must not know how a signal is measured.

use super::duration;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The most that a percentage may be.
const PERCENT: f64 = 100.0;

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
    /// Periods of the CPU quota in which the cgroup was stopped, percent.
    pub cpu_throttled: [f64; 2],
    /// Load average per processor.
    pub load: [f64; 2],
    /// p99 lateness of a timer.
    #[serde(with = "duration::pair")]
    pub runtime_lag: [Duration; 2],
    /// p95 of a PING.
    #[serde(with = "duration::pair")]
    pub redis_rtt: [Duration; 2],
    /// Memory of Redis in use, percent of its limit.
    pub redis_memory: [f64; 2],
    /// The same where it would evict.
    pub redis_memory_evicting: [f64; 2],
    /// Keys evicted, percent of commands.
    pub redis_evictions: [f64; 2],
    /// Memory copied by a snapshot or rewrite under way, percent of the limit.
    pub redis_fork: [f64; 2],
    /// Silence of a connected replica.
    #[serde(with = "duration::pair")]
    pub redis_replica_lag: [Duration; 2],
    /// p95 wait for a pooled connection.
    #[serde(with = "duration::pair")]
    pub postgres_acquire: [Duration; 2],
    /// p95 of the smallest query.
    #[serde(with = "duration::pair")]
    pub postgres_rtt: [Duration; 2],
    /// Sessions at work.
    pub postgres_active: [f64; 2],
    /// Sessions that wait for a lock.
    pub postgres_waiting: [f64; 2],
    /// Open sessions, percent.
    pub postgres_sessions: [f64; 2],
    /// Lag of the slowest replica.
    #[serde(with = "duration::pair")]
    pub postgres_replication_lag: [Duration; 2],
    /// Transactions since the oldest that somebody may see.
    pub postgres_xmin_age: [f64; 2],
    /// Write-ahead log, MiB a second.
    pub postgres_wal: [f64; 2],
    /// Segments that wait to be archived.
    pub postgres_archive: [f64; 2],
    /// Workers of autovacuum at work, percent.
    pub postgres_autovacuum: [f64; 2],
    /// p95 of our own statements, in times of what is usual.
    pub postgres_slowdown: [f64; 2],
}

impl LimitsConfig {
    /// The limits that are plain numbers, each with its key and the most it may be.
    pub(super) fn numbers(&self) -> [(&'static str, [f64; 2], f64); 19] {
        [
            ("psi_cpu", self.psi_cpu, PERCENT),
            ("psi_memory_some", self.psi_memory_some, PERCENT),
            ("psi_memory_full", self.psi_memory_full, PERCENT),
            ("psi_io_full", self.psi_io_full, PERCENT),
            ("memory", self.memory, PERCENT),
            ("cpu_throttled", self.cpu_throttled, PERCENT),
            ("load", self.load, 1_000.0),
            ("redis_memory", self.redis_memory, PERCENT),
            ("redis_memory_evicting", self.redis_memory_evicting, PERCENT),
            ("redis_evictions", self.redis_evictions, PERCENT),
            ("redis_fork", self.redis_fork, PERCENT),
            ("postgres_active", self.postgres_active, 100_000.0),
            ("postgres_waiting", self.postgres_waiting, 100_000.0),
            ("postgres_sessions", self.postgres_sessions, PERCENT),
            ("postgres_xmin_age", self.postgres_xmin_age, 2e9),
            ("postgres_wal", self.postgres_wal, 100_000.0),
            ("postgres_archive", self.postgres_archive, 1e6),
            ("postgres_autovacuum", self.postgres_autovacuum, PERCENT),
            ("postgres_slowdown", self.postgres_slowdown, 1_000.0),
        ]
    }

    /// The limits that are durations, each with its key.
    pub(super) fn durations(&self) -> [(&'static str, [Duration; 2]); 6] {
        [
            ("runtime_lag", self.runtime_lag),
            ("redis_rtt", self.redis_rtt),
            ("redis_replica_lag", self.redis_replica_lag),
            ("postgres_acquire", self.postgres_acquire),
            ("postgres_rtt", self.postgres_rtt),
            ("postgres_replication_lag", self.postgres_replication_lag),
        ]
    }
}
