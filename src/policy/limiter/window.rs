//! The recent jobs a limiter judges by: sums per bucket of time, so that a change is seen in the
//! newest and a small difference in all of them. It must not know what is concluded from them.

use std::collections::VecDeque;

use super::anchor::{counted_ms, float};

/// Buckets kept: a small difference is looked for in this many.
pub(super) const BUCKETS: usize = 16;

/// Jobs and load counted together.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Tally {
    /// Jobs that ended.
    pub(super) jobs: u32,
    sum: f64,
    sum_squared: f64,
    ln: f64,
    ln_squared: f64,
    /// Job-milliseconds in flight.
    load: f64,
    /// Milliseconds this counts.
    ms: f64,
}

impl Tally {
    fn add(&mut self, other: &Tally) {
        self.jobs = self.jobs.saturating_add(other.jobs);
        self.sum += other.sum;
        self.sum_squared += other.sum_squared;
        self.ln += other.ln;
        self.ln_squared += other.ln_squared;
        self.load += other.load;
        self.ms += other.ms;
    }

    /// Mean logarithm of the latencies in milliseconds, and its standard error.
    pub(super) fn mean_ln(&self) -> (f64, f64) {
        mean_and_error(self.jobs, self.ln, self.ln_squared)
    }

    /// Mean latency in milliseconds, and its standard error.
    pub(super) fn mean_ms(&self) -> (f64, f64) {
        mean_and_error(self.jobs, self.sum, self.sum_squared)
    }

    /// Jobs in flight, on average.
    pub(super) fn load(&self) -> f64 {
        if self.ms > 0.0 {
            self.load / self.ms
        } else {
            0.0
        }
    }
}

fn mean_and_error(jobs: u32, sum: f64, squares: f64) -> (f64, f64) {
    let jobs = f64::from(jobs.max(2));
    let mean = sum / jobs;
    let variance = (squares / jobs - mean * mean).max(0.0);
    (mean, (variance / (jobs - 1.0)).sqrt())
}

/// Buckets of one length, the newest last and still filling.
#[derive(Debug, Clone)]
pub(super) struct Window {
    bucket_ms: u64,
    began_ms: u64,
    touched_ms: u64,
    closed: VecDeque<Tally>,
    filling: Tally,
}

impl Window {
    pub(super) fn new(now_ms: u64, bucket_ms: u64) -> Self {
        Self {
            bucket_ms: bucket_ms.max(1),
            began_ms: now_ms,
            touched_ms: now_ms,
            closed: VecDeque::with_capacity(BUCKETS),
            filling: Tally::default(),
        }
    }

    /// Begins afresh at `from_ms`; what happens before it is not counted.
    pub(super) fn restart(&mut self, from_ms: u64, bucket_ms: u64) {
        *self = Self::new(from_ms, bucket_ms);
    }

    /// `inflight` jobs were running since the last call.
    pub(super) fn run(&mut self, now_ms: u64, inflight: usize) {
        let ms = millis(now_ms.saturating_sub(self.touched_ms));
        self.filling.load += float(inflight) * ms;
        self.filling.ms += ms;
        self.touched_ms = self.touched_ms.max(now_ms);
    }

    /// A job ended. One that ended before the window begins is left out.
    pub(super) fn add(&mut self, now_ms: u64, latency_ms: f64) {
        if now_ms < self.began_ms {
            return;
        }
        let ms = counted_ms(latency_ms);
        let ln = ms.ln();
        self.filling.sum += ms;
        self.filling.sum_squared += ms * ms;
        self.filling.jobs = self.filling.jobs.saturating_add(1);
        self.filling.ln += ln;
        self.filling.ln_squared += ln * ln;
    }

    /// Closes the filling bucket if its time is over; true if it was. While jobs run it waits for so many to end that all
    /// buckets together hold `few`: else few slow jobs at once would never be judged.
    pub(super) fn close(&mut self, now_ms: u64, few: usize) -> bool {
        let waits = self.filling.load > 0.0
            && usize::try_from(self.filling.jobs).is_ok_and(|jobs| jobs < few.div_ceil(BUCKETS));
        if now_ms < self.began_ms.saturating_add(self.bucket_ms) || waits {
            return false;
        }
        if self.closed.len() == BUCKETS {
            self.closed.pop_front();
        }
        self.closed.push_back(std::mem::take(&mut self.filling));
        self.began_ms = now_ms;
        true
    }

    /// The newest bucket alone, then twice as many, and so on up to all there are.
    pub(super) fn looks(&self) -> impl Iterator<Item = (usize, Tally)> {
        let mut total = Tally::default();
        let sums = self.closed.iter().rev().map(move |tally| {
            total.add(tally);
            total
        });
        let all = self.closed.len();
        (1..=all)
            .zip(sums)
            .filter(move |(count, _)| count.is_power_of_two() || *count == all)
    }
}

/// Milliseconds of a process stay far below 2^53.
#[allow(clippy::cast_precision_loss)]
fn millis(ms: u64) -> f64 {
    ms as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_at_the_newest_first_and_then_further_back() {
        let mut window = Window::new(0, 1_000);
        for second in 1..=20_u64 {
            window.run(second * 1_000, 4);
            for _ in 0..second {
                window.add(second * 1_000, 10.0);
            }
            assert!(window.close(second * 1_000, 10));
            assert!(!window.close(second * 1_000 + 999, 10));
        }
        let looks: Vec<_> = window.looks().collect();
        let seen: Vec<_> = looks.iter().map(|(n, tally)| (*n, tally.jobs)).collect();
        assert_eq!(seen, [(1, 20), (2, 39), (4, 74), (8, 132), (16, 200)]);
        for (_, tally) in looks {
            assert!((tally.load() - 4.0).abs() < 1e-9);
            let (mean, error) = tally.mean_ln();
            assert!((mean - 10.0_f64.ln()).abs() < 1e-9 && error < 1e-6);
        }
    }

    #[test]
    fn what_ended_before_it_begins_does_not_count() {
        let mut window = Window::new(0, 1_000);
        window.add(0, 1.0);
        window.restart(500, 1_000);
        window.run(400, 7);
        window.add(400, 1.0);
        window.add(600, 1.0);
        window.run(1_500, 2);
        assert!(window.close(1_500, 10));
        let (_, tally) = window.looks().next().expect("one bucket");
        assert_eq!(tally.jobs, 1);
        assert!((tally.load() - 2.0).abs() < 1e-9);
    }
}
