//! What a Postgres tells of itself: sessions, replicas, what can't be cleaned up, the write-ahead log, autovacuum. All of
//! it from one query a sample.

use std::future::Future;
use std::time::{Duration, Instant};

use super::asked::Asked;
use super::probe::{Probe, Reading};
use crate::clock;
use crate::config::LimitsConfig;
use crate::policy::gate::{GateState, Signal};

/// What is asked, as the server counts it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PostgresStats {
    /// Sessions that run a statement now.
    pub active: f64,
    /// Sessions that wait for a lock.
    pub waiting: f64,
    /// Open sessions, percent of those a client may open.
    pub sessions_percent: f64,
    /// How far the slowest replica is behind, milliseconds.
    pub replication_lag_ms: f64,
    /// Transactions since the oldest one that anybody may still see.
    pub xmin_age: f64,
    /// Bytes of write-ahead log ever written.
    pub wal_bytes: f64,
    /// Segments of it that wait to be archived.
    pub archive_backlog: f64,
    /// Autovacuum's workers at work, percent.
    pub vacuum_percent: f64,
    /// How much slower than usual our own statements are: 95 of 100 are less.
    pub slowdown: f64,
}

/// How long the query may take: it reads no table, but a busy server lets it wait.
const DEADLINE: Duration = Duration::from_secs(3);
const MIB: f64 = 1_048_576.0;

/// Asks the Postgres of `resource` with `ask`, on a connection of its own.
pub fn postgres_stats<F, A>(resource: &str, limits: &LimitsConfig, ask: F) -> Probe
where
    F: FnMut() -> A + Send + 'static,
    A: Future<Output = Result<PostgresStats, String>> + Send + 'static,
{
    let of = |name, [lo, hi]: [f64; 2]| Signal::new(name, lo, hi);
    let [lag_lo, lag_hi] = limits
        .postgres_replication_lag
        .map(|limit| limit.as_secs_f64() * 1_000.0);
    // What is capped is no failing server: it wants less mass work, and no job that is urgent to wait for it.
    let signals = [
        of("postgres_active_sessions", limits.postgres_active),
        of("postgres_waiting_sessions", limits.postgres_waiting),
        of("postgres_sessions_percent", limits.postgres_sessions),
        Signal::new("postgres_replication_lag_ms", lag_lo, lag_hi).capped(GateState::Overloaded),
        of("postgres_oldest_xmin_age", limits.postgres_xmin_age).capped(GateState::Overloaded),
        of("postgres_wal_mib_per_s", limits.postgres_wal).capped(GateState::Overloaded),
        of("postgres_archive_backlog", limits.postgres_archive).capped(GateState::Overloaded),
        of("postgres_autovacuum_percent", limits.postgres_autovacuum).capped(GateState::Elevated),
        of("postgres_slowdown_p95_ratio", limits.postgres_slowdown),
    ];
    let mut before = None;
    let read = move |stats: PostgresStats| readings(&stats, clock::monotonic(), &mut before);
    Probe::new(resource, signals, Asked::new(signals.len(), ask, read)).within(DEADLINE)
}

fn readings(
    stats: &PostgresStats,
    now: Instant,
    before: &mut Option<(Instant, f64)>,
) -> Vec<Reading> {
    let then = before.replace((now, stats.wal_bytes));
    vec![
        Ok(stats.active),
        Ok(stats.waiting),
        Ok(stats.sessions_percent),
        Ok(stats.replication_lag_ms),
        Ok(stats.xmin_age),
        Ok(then.map_or(0.0, |then| wal_rate(then, (now, stats.wal_bytes)))),
        Ok(stats.archive_backlog),
        Ok(stats.vacuum_percent),
        Ok(stats.slowdown),
    ]
}

/// MiB a second between two samples; nothing if the log is another server's by now.
fn wal_rate((then, before): (Instant, f64), (now, after): (Instant, f64)) -> f64 {
    let seconds = now.duration_since(then).as_secs_f64();
    if seconds <= 0.0 {
        return 0.0;
    }
    (after - before).max(0.0) / MIB / seconds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_a_rate_and_the_rest_stands_as_it_is() {
        let stats = |wal_bytes| PostgresStats {
            active: 1.0,
            waiting: 2.0,
            sessions_percent: 3.0,
            replication_lag_ms: 4.0,
            xmin_age: 5.0,
            wal_bytes,
            archive_backlog: 7.0,
            vacuum_percent: 8.0,
            slowdown: 9.0,
        };
        let mut before = None;
        let start = clock::monotonic();
        let mut at = |seconds: u64, mib: f64| {
            let now = start + Duration::from_secs(seconds);
            let read = readings(&stats(mib * MIB), now, &mut before);
            read.into_iter().flatten().collect::<Vec<f64>>()
        };
        assert_eq!(
            at(0, 1_000.0),
            [1.0, 2.0, 3.0, 4.0, 5.0, 0.0, 7.0, 8.0, 9.0]
        );
        assert_eq!(at(2, 1_064.0)[5], 32.0);
        assert_eq!(at(2, 1_065.0)[5], 0.0);
        // Another server, after a failover.
        assert_eq!(at(3, 10.0)[5], 0.0);
    }
}
