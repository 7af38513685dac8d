//! The recent outcomes a breaker judges by: counts per second, over a window that stretches when
//! calls are rare. It must not know what is concluded from them.

use std::collections::VecDeque;

/// The usual length of the window, seconds. This and the next two: our notes on the gate.
const USUAL_S: u64 = 30;
/// The longest, for operations that are called seldom, seconds.
const STRETCHED_S: u64 = 300;
/// The window stretches until it holds this many calls.
const ENOUGH_CALLS: u32 = 10;

/// Outcomes counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    /// Calls that say something about the dependency.
    pub(super) calls: u32,
    /// Those that failed by its fault.
    pub(super) failures: u32,
    /// Those that succeeded, but slowly.
    pub(super) slow: u32,
}

impl Counts {
    fn add(&mut self, other: Counts) {
        self.calls = self.calls.saturating_add(other.calls);
        self.failures = self.failures.saturating_add(other.failures);
        self.slow = self.slow.saturating_add(other.slow);
    }
}

/// Counts per second, newest last: at most [`STRETCHED_S`] of them, none for a quiet second.
#[derive(Debug, Clone, Default)]
pub(super) struct Window {
    buckets: VecDeque<(u64, Counts)>,
}

impl Window {
    /// Counts one outcome. A time before the newest one counts as the newest.
    pub(super) fn add(&mut self, now_ms: u64, outcome: Counts) {
        let second = now_ms / 1_000;
        match self.buckets.back_mut() {
            Some((newest, counts)) if *newest >= second => counts.add(outcome),
            _ => self.buckets.push_back((second, outcome)),
        }
        let oldest = second.saturating_sub(STRETCHED_S - 1);
        while self
            .buckets
            .front()
            .is_some_and(|(second, _)| *second < oldest)
        {
            self.buckets.pop_front();
        }
    }

    /// What the window holds now: all of the last 30 s, and before that, second by second back to
    /// 5 min, as much as it takes to make 10 calls.
    pub(super) fn counts(&self, now_ms: u64) -> Counts {
        let now = now_ms / 1_000;
        let mut total = Counts::default();
        for (second, counts) in self.buckets.iter().rev() {
            let age = now.saturating_sub(*second);
            if age >= STRETCHED_S || (age >= USUAL_S && total.calls >= ENOUGH_CALLS) {
                break;
            }
            total.add(*counts);
        }
        total
    }

    pub(super) fn clear(&mut self) {
        self.buckets.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Counts = Counts {
        calls: 1,
        failures: 0,
        slow: 0,
    };

    fn calls(window: &Window, second: u64) -> u32 {
        window.counts(second * 1_000).calls
    }

    #[test]
    fn thirty_seconds_when_calls_are_many() {
        let mut window = Window::default();
        for second in 0..100 {
            window.add(second * 1_000, ONE);
            window.add(second * 1_000 + 999, ONE);
        }
        assert_eq!(calls(&window, 99), 60);
        // Nothing came since: the window stretches for ten, and forgets after five minutes.
        assert_eq!(calls(&window, 140), 10);
        assert_eq!(calls(&window, 398), 2);
        assert_eq!(calls(&window, 399), 0);
    }

    #[test]
    fn stretches_when_calls_are_few() {
        let mut window = Window::default();
        for minute in 0..10 {
            window.add(minute * 60_000, ONE);
        }
        assert_eq!(calls(&window, 540), 5, "one a minute for five minutes");
    }

    #[test]
    fn memory_is_bounded_and_time_may_step_back() {
        let mut window = Window::default();
        for second in 0..10_000 {
            window.add(second * 1_000, ONE);
        }
        assert_eq!(window.buckets.len(), 300);
        window.add(0, ONE);
        assert_eq!(window.buckets.len(), 300);
        assert_eq!(calls(&window, 9_999), 31);
        window.clear();
        assert_eq!(calls(&window, 9_999), 0);
    }
}
