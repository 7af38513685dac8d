//! Batch sizes for database maintenance: as many rows at a time as the server handles in the
//! target time, and no more.
//!
//! Only *server execution time* may be reported here. Time spent waiting for a connection or a
//! lock says nothing about the size, and counting it makes batches collapse to the floor.
//! It must not know SQL, tables or health.

use std::time::Duration;

use serde::Serialize;

/// Server time aimed at per statement: long enough to amortise a commit, short enough that locks
/// and replicas do not suffer. As all constants here: the field's sensible defaults (pt-osc,
/// gh-ost, GitLab's and Spirit's practice), measured in our notes on database maintenance.
pub const TARGET: Duration = Duration::from_millis(300);
/// Rows in the first batch, before anything was measured.
pub const START_ROWS: u32 = 1_000;
/// Fewest rows a batch may ask for.
pub const MIN_ROWS: u32 = 1;
/// Most rows a batch may ask for; beyond ~20,000 throughput no longer rises (measured).
pub const MAX_ROWS: u32 = 100_000;

/// Largest growth from one batch to the next.
const MAX_GROWTH: f64 = 1.5;
/// Divisor after a statement or lock timeout.
const TIMEOUT_DIVISOR: f64 = 2.0;
/// A batch slower than this many targets met something new, not noise …
const ALARM_RATIO: f64 = 5.0;
/// … and the next is this many times smaller.
const ALARM_DIVISOR: f64 = 10.0;
/// Within this fraction of the target the size stays as it is.
const DEAD_BAND: f64 = 0.10;

/// Chooses the size of the next batch from the time of the last.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BatchSizer {
    /// Kept as a fraction, so that growth from one row does not round away.
    size: f64,
    min: u32,
    max: u32,
    target: Duration,
}

impl Default for BatchSizer {
    fn default() -> Self {
        Self::new(TARGET, START_ROWS, MIN_ROWS, MAX_ROWS)
    }
}

impl BatchSizer {
    /// A sizer that starts at `start` rows (for a resumed run: the size it had) and stays within
    /// `min..=max` rows. Bounds below 1 count as 1, a `max` below `min` as `min`, a target below a
    /// millisecond as a millisecond.
    pub fn new(target: Duration, start: u32, min: u32, max: u32) -> Self {
        let min = min.max(1);
        let max = max.max(min);
        let target = target.max(Duration::from_millis(1));
        Self {
            size: f64::from(start.clamp(min, max)),
            min,
            max,
            target,
        }
    }

    /// Rows the next batch should ask for.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // within min..=max: both u32
    pub fn rows(&self) -> u32 {
        self.size as u32
    }

    /// Server time aimed at per batch.
    pub fn target(&self) -> Duration {
        self.target
    }

    /// A batch ended: it covered `rows` and took `server_time` on the server.
    ///
    /// Size follows `target / server_time`, at most 1.5 times up; above five targets it drops to a
    /// tenth; within ±10% it holds. A batch that covered fewer rows than asked (the end of the
    /// table) may shrink the next, but is no evidence for a larger one.
    pub fn completed(&mut self, rows: u32, server_time: Duration) {
        let ratio = server_time.as_secs_f64() / self.target.as_secs_f64();
        if ratio > ALARM_RATIO {
            self.resize(1.0 / ALARM_DIVISOR);
        } else if ratio > 1.0 + DEAD_BAND {
            self.resize(1.0 / ratio);
        } else if ratio < 1.0 - DEAD_BAND && rows >= self.rows() {
            // A time of zero divides to infinity, which the bound turns into the largest step.
            self.resize((1.0 / ratio).min(MAX_GROWTH));
        }
    }

    /// A batch was ended by a statement or lock timeout: halve.
    pub fn timed_out(&mut self) {
        self.resize(1.0 / TIMEOUT_DIVISOR);
    }

    fn resize(&mut self, factor: f64) {
        self.size = (self.size * factor).clamp(f64::from(self.min), f64::from(self.max));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn millis(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// One full batch that takes `ms`; the size after it.
    fn after(ms: u64) -> u32 {
        let mut sizer = BatchSizer::default();
        sizer.completed(START_ROWS, millis(ms));
        sizer.rows()
    }

    #[test]
    fn follows_the_target_within_its_bounds() {
        assert_eq!(
            after(0),
            1_500,
            "growth is bounded even for an instant batch"
        );
        assert_eq!(after(250), 1_200);
        assert_eq!(after(271), 1_000, "dead band");
        assert_eq!(after(329), 1_000, "dead band");
        assert_eq!(after(600), 500);
        assert_eq!(
            after(1_500),
            200,
            "five targets exactly is still proportional"
        );
        assert_eq!(after(1_501), 100, "beyond five targets: a tenth");
    }

    #[test]
    fn timeouts_halve_down_to_the_floor_and_it_recovers() {
        let mut sizer = BatchSizer::default();
        sizer.timed_out();
        assert_eq!(sizer.rows(), 500);
        for _ in 0..20 {
            sizer.timed_out();
        }
        assert_eq!(sizer.rows(), MIN_ROWS);
        for _ in 0..40 {
            sizer.completed(sizer.rows(), millis(1));
        }
        assert_eq!(sizer.rows(), MAX_ROWS);
    }

    #[test]
    fn a_short_batch_never_grows_the_next() {
        let mut sizer = BatchSizer::default();
        sizer.completed(999, millis(1));
        assert_eq!(sizer.rows(), 1_000);
        sizer.completed(10, millis(600));
        assert_eq!(sizer.rows(), 500);
    }

    #[test]
    fn settles_where_a_batch_takes_the_target() {
        // A server that needs 20 ms per statement and 0.1 ms per row fits 2,800 rows into 300 ms;
        // after it slows four times, 550 rows.
        let mut sizer = BatchSizer::default();
        let mut run = |batches: u32, slower: f64| {
            for _ in 0..batches {
                let ms = 20.0 + f64::from(sizer.rows()) * 0.1 * slower;
                sizer.completed(sizer.rows(), Duration::from_secs_f64(ms / 1_000.0));
            }
            sizer.rows()
        };
        let fast = run(10, 1.0);
        assert!((2_500..=3_100).contains(&fast), "{fast}");
        let slow = run(10, 4.0);
        assert!((600..=780).contains(&slow), "{slow}");
    }

    proptest! {
        #[test]
        fn always_within_bounds_and_never_growing_faster(
            min in 0_u32..500, max in 0_u32..200_000, start in 0_u32..300_000,
            batches in prop::collection::vec(prop::option::of(0_u64..100_000), 0..60),
        ) {
            let mut sizer = BatchSizer::new(TARGET, start, min, max);
            let (min, max) = (min.max(1), max.max(min).max(1));
            for batch in batches {
                let before = sizer.size;
                match batch {
                    Some(ms) => sizer.completed(sizer.rows(), millis(ms)),
                    None => sizer.timed_out(),
                }
                prop_assert!((min..=max).contains(&sizer.rows()));
                prop_assert!(sizer.size <= before * MAX_GROWTH);
            }
        }
    }
}
