//! Clean successes, sampled: the first few of every kind and second are logged one by one, the rest of that second as
//! one `jobs_done` event with count and durations.
//!
//! Owns the counting, which knows no clock: time comes in milliseconds since the epoch. Must not be used for anything
//! but a success at the first attempt; whatever had trouble is logged by [`super::events`] always.
//!
//! On the hot path a batch costs one lock of its kind; a success beyond the budget costs one histogram increment and
//! no allocation.

use super::events::{self, JobRef};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tracing::info;

/// All kinds' sampling.
#[derive(Debug)]
pub struct Successes {
    per_second: u32,
    kinds: Mutex<HashMap<Arc<str>, Arc<KindSuccesses>>>,
}

impl Successes {
    /// `per_second` is `log.successes_per_second`.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        Self {
            per_second,
            kinds: Mutex::default(),
        }
    }

    /// One kind's sampling, shared by all its queues. Resolve it once per kind, not per job. Kinds come from the
    /// catalogue, which bounds them.
    #[must_use]
    pub fn kind(&self, kind: &Arc<str>) -> Arc<KindSuccesses> {
        let mut kinds = self.kinds.lock();
        let entry = kinds.entry(Arc::clone(kind)).or_insert_with(|| {
            Arc::new(KindSuccesses {
                kind: Arc::clone(kind),
                second: Mutex::new(Second::new(self.per_second)),
            })
        });
        Arc::clone(entry)
    }

    /// Logs the summaries of seconds that are over. Call it about once a second, and with `u64::MAX` at the end.
    pub fn tick(&self, now_ms: u64) {
        let kinds: Vec<_> = self.kinds.lock().values().cloned().collect();
        for kind in kinds {
            let summary = kind.second.lock().roll(now_ms);
            kind.log_summary(summary);
        }
    }
}

/// Sampling of one kind.
#[derive(Debug)]
pub struct KindSuccesses {
    kind: Arc<str>,
    second: Mutex<Second>,
}

impl KindSuccesses {
    /// Records a batch of clean successes with how long each took.
    pub fn record<'a>(&self, now_ms: u64, done: impl IntoIterator<Item = (JobRef<'a>, Duration)>) {
        let mut second = self.second.lock();
        self.log_summary(second.roll(now_ms));
        for (job, took) in done {
            if second.admits(took) {
                events::job_done(job, took);
            }
        }
    }

    fn log_summary(&self, summary: Option<Summary>) {
        if let Some(summary) = summary {
            info!(
                event = "jobs_done",
                kind = &*self.kind,
                outcome = "done",
                count = summary.count,
                duration_p50_ms = events::ms(summary.p50),
                duration_max_ms = events::ms(summary.max),
                "done, beyond those logged singly"
            );
        }
    }
}

/// What was not logged singly within one second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Summary {
    count: u64,
    p50: Duration,
    max: Duration,
}

/// The longest duration told apart in a summary, in microseconds: the longest timeout of a job, a day.
const MAX_MICROS: u64 = 86_400_000_000;

/// The counting of one kind within one second of the wall clock.
#[derive(Debug)]
struct Second {
    per_second: u32,
    second: u64,
    logged: u32,
    /// Durations in microseconds of those summed up. One significant digit: a few kilobytes per kind.
    rest: Histogram<u32>,
}

impl Second {
    fn new(per_second: u32) -> Self {
        Self {
            per_second,
            second: 0,
            logged: 0,
            rest: Histogram::new_with_bounds(1, MAX_MICROS, 1)
                .expect("1 to a day with one digit are valid bounds"),
        }
    }

    /// Begins the second of `now_ms`, if it is another one, and tells what the previous one held.
    fn roll(&mut self, now_ms: u64) -> Option<Summary> {
        let second = now_ms / 1_000;
        if second == self.second {
            return None;
        }
        self.second = second;
        self.logged = 0;
        if self.rest.is_empty() {
            return None;
        }
        let summary = Summary {
            count: self.rest.len(),
            p50: Duration::from_micros(self.rest.value_at_quantile(0.5)),
            max: Duration::from_micros(self.rest.max()),
        };
        self.rest.reset();
        Some(summary)
    }

    /// Whether this success is to be logged singly; if not, it is counted for the summary.
    fn admits(&mut self, took: Duration) -> bool {
        if self.logged < self.per_second {
            self.logged += 1;
            return true;
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.rest.saturating_record(micros);
        false
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const TOOK: Duration = Duration::from_millis(3);

    #[test]
    fn the_rest_of_a_second_is_summed_up() {
        let mut second = Second::new(2);
        assert_eq!(second.roll(5_000), None);
        assert!(second.admits(TOOK));
        assert!(second.admits(TOOK));
        assert!(!second.admits(Duration::from_millis(1)));
        assert!(!second.admits(Duration::from_millis(10)));
        assert!(!second.admits(Duration::from_millis(1)));

        assert_eq!(second.roll(5_999), None, "the second is not over");
        let summary = second.roll(6_000).unwrap();
        assert_eq!(summary.count, 3);
        assert!(
            summary.p50.as_micros().abs_diff(1_000) <= 100,
            "{summary:?}"
        );
        assert!(summary.max.as_micros().abs_diff(10_000) <= 1_000);
        assert_eq!(second.roll(7_000), None, "told once");
        assert!(second.admits(TOOK), "a new second has a new budget");
    }

    #[test]
    fn a_budget_of_none_sums_up_all() {
        let mut second = Second::new(0);
        second.roll(1_000);
        assert!(!second.admits(Duration::MAX));
        assert_eq!(second.roll(u64::MAX).unwrap().count, 1);
    }

    #[test]
    fn a_kind_is_shared_by_its_queues() {
        let successes = Successes::new(1);
        let kind: Arc<str> = "a.b".into();
        assert!(Arc::ptr_eq(&successes.kind(&kind), &successes.kind(&kind)));
    }

    proptest! {
        /// Every success is told exactly once: singly or in a summary.
        #[test]
        fn none_is_lost_or_told_twice(per_second in 0_u32..5, gaps in prop::collection::vec(0_u64..700, 0..200)) {
            let mut second = Second::new(per_second);
            let (mut now, mut told) = (1_000_000, 0);
            for gap in &gaps {
                now += gap;
                told += second.roll(now).map_or(0, |s| s.count);
                told += u64::from(second.admits(TOOK));
            }
            told += second.roll(u64::MAX).map_or(0, |s| s.count);
            prop_assert_eq!(told, gaps.len() as u64);
        }
    }
}
