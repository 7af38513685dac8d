//! The one place that reads a clock.
//!
//! Owns: wall-clock and monotonic readings. Everything else is handed the time it needs, so that policy can be
//! tested at any instant. Must not know: what the time is used for.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Wall-clock time in milliseconds since the Unix epoch.
///
/// For reports, log records and local schedules only: whatever decides about a lease or the order of jobs uses the
/// time of the Redis server, which all daemons share.
#[must_use]
pub fn unix_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Wall-clock time in microseconds since the Unix epoch: comparable between processes of one machine, for benchmarks.
#[must_use]
pub fn unix_us() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// A monotonic reading, for measuring how long something took on this machine.
#[must_use]
pub fn monotonic() -> Instant {
    Instant::now()
}

/// How much time has passed since a reading of [`monotonic`].
#[must_use]
pub fn since(reading: Instant) -> Duration {
    reading.elapsed()
}

/// Formats milliseconds since the epoch as RFC 3339 in UTC, for people and logs.
#[must_use]
pub fn rfc3339(unix_ms: u64) -> String {
    i64::try_from(unix_ms)
        .ok()
        .and_then(chrono::DateTime::from_timestamp_millis)
        .map_or_else(
            || unix_ms.to_string(),
            |t| t.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
        )
}

/// The time of a server, carried on by our own monotonic clock between its answers.
#[derive(Debug, Clone, Copy)]
pub struct ServerClock {
    at_ms: u64,
    read: Instant,
}

impl ServerClock {
    /// It is that time now, in ms.
    #[must_use]
    pub fn at(ms: u64) -> Self {
        Self {
            at_ms: ms,
            read: monotonic(),
        }
    }

    /// What time it must be there, in ms.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        let since = u64::try_from(since(self.read).as_millis()).unwrap_or(u64::MAX);
        self.at_ms.saturating_add(since)
    }
}

/// A fixed origin, so that policy gets monotonic time as plain milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Epoch(Instant);

impl Epoch {
    /// Time starts now.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Milliseconds since the start.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
