//! How late timers of this process fire: what every job in it has to put up with.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::probe::{Reading, Source, quantile};
use crate::clock;

/// The timer whose lateness is measured.
const TIMER: Duration = Duration::from_millis(10);
/// The longest a sample goes on. Each turn wakes the process, and 700 ms of every second took 1.5% of a core in a build
/// without optimization; so much takes half. A stall as long as the limits of lateness is met all the same.
const LONGEST: Duration = Duration::from_millis(300);

/// Reading: the p99 lateness of a 10 ms timer in milliseconds; of the few dozen turns of a sample that is the worst.
/// One stall is no pressure by itself: smoothing asks for more.
///
/// Timers have the granularity of a millisecond, so an idle process shows 1 to 2 ms.
pub(super) struct RuntimeLag {
    window: Duration,
}

impl RuntimeLag {
    /// Measures over `interval`, the time between samples, or 300 ms of it.
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            window: interval.min(LONGEST),
        }
    }
}

impl Source for RuntimeLag {
    fn sample(&mut self) -> BoxFuture<'_, Vec<Reading>> {
        let window = self.window;
        async move {
            let began = clock::monotonic();
            let mut before = began;
            let mut late_ms = Vec::new();
            // At most 30 turns: each takes 10 ms or more.
            while before.duration_since(began) < window {
                tokio::time::sleep(TIMER).await;
                let now = clock::monotonic();
                let late = now.duration_since(before).saturating_sub(TIMER);
                late_ms.push(late.as_secs_f64() * 1_000.0);
                before = now;
            }
            vec![quantile(late_ms, 0.99).ok_or_else(|| "no timer fired".to_owned())]
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// On a runtime of one thread, whoever does not yield holds up every timer.
    #[tokio::test]
    async fn a_task_that_blocks_the_runtime_is_seen() {
        let mut lag = RuntimeLag::new(Duration::from_millis(100));
        let blocker = async {
            tokio::task::yield_now().await;
            std::thread::sleep(Duration::from_millis(80));
        };
        let (readings, ()) = tokio::join!(lag.sample(), blocker);
        let late = readings[0].clone().unwrap();
        assert!(late >= 60.0, "{late} ms late");
    }

    #[tokio::test]
    async fn an_idle_runtime_is_all_but_punctual() {
        let mut lag = RuntimeLag::new(Duration::from_secs(1));
        // Whatever else this machine does: the least of a few samples is the runtime's own.
        let mut least = f64::INFINITY;
        for _ in 0..5 {
            least = least.min(lag.sample().await[0].clone().unwrap());
        }
        assert!((0.0..100.0).contains(&least), "{least} ms late");
    }
}
