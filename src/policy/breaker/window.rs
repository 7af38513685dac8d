//! The recent outcomes a breaker judges by: counts per second, over a window that stretches when
//! calls are rare. It must not know what is concluded from them.

use std::collections::VecDeque;

use super::settings::BreakerConfig;

/// The most seconds that are kept, whatever the settings say.
const MOST_S: u64 = 3_600;

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
    pub(super) const fn good(self) -> u32 {
        self.calls
            .saturating_sub(self.failures)
            .saturating_sub(self.slow)
    }

    pub(super) fn add(&mut self, other: Counts) {
        self.calls = self.calls.saturating_add(other.calls);
        self.failures = self.failures.saturating_add(other.failures);
        self.slow = self.slow.saturating_add(other.slow);
    }
}

/// How far back calls count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// All calls count that are younger, seconds.
    usual_s: u64,
    /// None counts that is not younger, seconds.
    most_s: u64,
    /// Between the two a call counts only if there are fewer than these after it.
    stretch_calls: u32,
    /// Never judge by fewer.
    least_calls: u32,
}

impl From<&BreakerConfig> for Span {
    fn from(config: &BreakerConfig) -> Self {
        let usual_s = config.window.as_secs().clamp(1, MOST_S);
        Self {
            usual_s,
            most_s: config.window_max.as_secs().clamp(usual_s, MOST_S),
            stretch_calls: config.stretch_calls,
            least_calls: config.least_calls,
        }
    }
}

/// Counts per second, newest last, none for a quiet second.
#[derive(Debug, Clone, Default)]
pub(super) struct Window {
    buckets: VecDeque<(u64, Counts)>,
}

impl Window {
    /// Counts one outcome. A time before the newest one counts as the newest.
    pub(super) fn add(&mut self, now_ms: u64, outcome: Counts, span: &Span) {
        let second = now_ms / 1_000;
        match self.buckets.back_mut() {
            Some((newest, counts)) if *newest >= second => counts.add(outcome),
            _ => self.buckets.push_back((second, outcome)),
        }
        let oldest = second.saturating_sub(span.most_s - 1);
        while self
            .buckets
            .front()
            .is_some_and(|(second, _)| *second < oldest)
        {
            self.buckets.pop_front();
        }
    }

    /// A window of counts gathered elsewhere, by second, oldest first.
    pub(super) fn of(buckets: impl IntoIterator<Item = (u64, Counts)>) -> Self {
        Self {
            buckets: buckets.into_iter().collect(),
        }
    }

    /// The seconds that count now, the newest first: age in seconds, and what was counted.
    pub(super) fn recent(&self, now_ms: u64, span: Span) -> impl Iterator<Item = (u64, Counts)> {
        let now = now_ms / 1_000;
        let mut calls = 0_u32;
        self.buckets
            .iter()
            .rev()
            .map(move |(second, counts)| (now.saturating_sub(*second), *counts))
            .take_while(move |(age, counts)| {
                let counts_yet =
                    *age < span.usual_s || (*age < span.most_s && calls < span.stretch_calls);
                calls = calls.saturating_add(counts.calls);
                counts_yet
            })
    }

    /// What the window holds now.
    pub(super) fn counts(&self, now_ms: u64, span: &Span) -> Counts {
        let mut total = Counts::default();
        for (_, counts) in self.recent(now_ms, *span) {
            total.add(counts);
        }
        total
    }

    /// The first answer of `test` to the newest calls, then to more and more of them back to the
    /// end of the window: a dependency that died a second ago shows as well as one that fails now
    /// and then. It is not asked about too few calls.
    pub(super) fn find<T>(
        &self,
        now_ms: u64,
        span: &Span,
        mut test: impl FnMut(Counts) -> Option<T>,
    ) -> Option<T> {
        let mut total = Counts::default();
        self.recent(now_ms, *span).find_map(|(_, counts)| {
            total.add(counts);
            (total.calls >= span.least_calls)
                .then(|| test(total))
                .flatten()
        })
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
    const SPAN: Span = Span {
        usual_s: 30,
        most_s: 300,
        stretch_calls: 10,
        least_calls: 10,
    };

    fn calls(window: &Window, second: u64) -> u32 {
        window.counts(second * 1_000, &SPAN).calls
    }

    #[test]
    fn thirty_seconds_when_calls_are_many() {
        let mut window = Window::default();
        for second in 0..100 {
            window.add(second * 1_000, ONE, &SPAN);
            window.add(second * 1_000 + 999, ONE, &SPAN);
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
            window.add(minute * 60_000, ONE, &SPAN);
        }
        assert_eq!(calls(&window, 540), 5, "one a minute for five minutes");
    }

    #[test]
    fn memory_is_bounded_and_time_may_step_back() {
        let mut window = Window::default();
        for second in 0..10_000 {
            window.add(second * 1_000, ONE, &SPAN);
        }
        assert_eq!(window.buckets.len(), 300);
        window.add(0, ONE, &SPAN);
        assert_eq!(window.buckets.len(), 300);
        assert_eq!(calls(&window, 9_999), 31);
        window.clear();
        assert_eq!(calls(&window, 9_999), 0);
    }

    #[test]
    fn the_newest_calls_are_asked_about_first_and_never_too_few() {
        let mut window = Window::default();
        for second in 0..20 {
            for _ in 0..4 {
                window.add(second * 1_000, ONE, &SPAN);
            }
        }
        let mut asked = Vec::new();
        let found = window.find(19_000, &SPAN, |counts| {
            asked.push(counts.calls);
            (counts.calls >= 20).then_some(counts.calls)
        });
        assert_eq!((found, asked), (Some(20), vec![12, 16, 20]));
    }
}
