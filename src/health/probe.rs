//! A probe: signals of one resource that are sampled together, within a deadline.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::clock;
use crate::policy::gate::Signal;

/// The shortest deadline of a sample. Less than the default interval of a second, so that a dependency that hangs is
/// still sampled every second; more than most limits. Our choice.
pub(super) const DEADLINE: Duration = Duration::from_millis(800);

/// What a sample says of one signal: a value in the signal's unit, or why there is none. The reason is logged; it must
/// carry no secret.
pub type Reading = Result<f64, String>;

/// Where the values of a probe come from. Implement it to gate jobs on a signal of your own.
pub trait Source: Send {
    /// Takes a sample: one reading per signal of the probe, in their order. It is dropped at the deadline.
    fn sample(&mut self) -> BoxFuture<'_, Vec<Reading>>;

    /// What it means that no sample came within `deadline`. Nothing, unless the wait was what is measured.
    fn unanswered(&mut self, deadline: Duration) -> Vec<Reading> {
        let _ = deadline;
        Vec::new()
    }
}

/// Samples signals of one resource.
pub struct Probe {
    /// The resource they belong to, as job definitions name it.
    pub resource: String,
    /// The signals. A resource must have no two of the same name, over all its probes.
    pub signals: Vec<Signal>,
    source: Box<dyn Source>,
    deadline: Duration,
    /// Between two samples, if that is more than the monitor's own interval.
    every: Duration,
    sampled: Option<Instant>,
    failing: bool,
}

impl Probe {
    /// A probe that asks `source` for `signals` of `resource`.
    pub fn new(
        resource: impl Into<String>,
        signals: impl Into<Vec<Signal>>,
        source: impl Source + 'static,
    ) -> Self {
        Self {
            resource: resource.into(),
            signals: signals.into(),
            source: Box::new(source),
            deadline: DEADLINE,
            every: Duration::ZERO,
            sampled: None,
            failing: false,
        }
    }

    /// The same with another deadline than 800 ms.
    #[must_use]
    pub fn within(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// The same with an interval of its own, if that is longer than the monitor's.
    #[must_use]
    pub fn every(mut self, every: Duration) -> Self {
        self.every = every;
        let every_ms = u64::try_from(every.as_millis()).unwrap_or(u64::MAX);
        for signal in &mut self.signals {
            *signal = signal.sampled_every(every_ms);
        }
        self
    }

    /// Whether it is time for a sample, to half of `interval`, the time between two such questions.
    pub(super) fn is_due(&self, now: Instant, interval: Duration) -> bool {
        self.sampled.is_none_or(|sampled| {
            now.saturating_duration_since(sampled) + interval / 2 >= self.every
        })
    }

    #[cfg(test)]
    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Takes a sample, within the deadline whatever the source does: one reading per signal.
    pub(super) async fn sample(&mut self) -> Vec<Reading> {
        self.sampled = Some(clock::monotonic());
        let sample = AssertUnwindSafe(self.source.sample()).catch_unwind();
        let mut readings = match tokio::time::timeout(self.deadline, sample).await {
            Ok(Ok(readings)) => readings,
            Ok(Err(_)) => vec![Err("the probe panicked".to_owned())],
            Err(_) => self.source.unanswered(self.deadline),
        };
        readings.resize_with(self.signals.len(), || {
            Err(format!("no sample within {:?}", self.deadline))
        });
        self.report(&readings);
        readings
    }

    /// Logs when samples begin to fail and when they are whole again, not each one.
    fn report(&mut self, readings: &[Reading]) {
        let failed = self
            .signals
            .iter()
            .zip(readings)
            .find_map(|(signal, reading)| Some((signal.name, reading.as_ref().err()?)));
        if self.failing == failed.is_some() {
            return;
        }
        self.failing = failed.is_some();
        let resource = self.resource.as_str();
        match failed {
            Some((signal, reason)) => {
                tracing::warn!(event = "probe", resource, signal, %reason, "samples fail");
            }
            None => tracing::info!(event = "probe", resource, "samples are whole again"),
        }
    }
}

/// The value below or at which the share `part` (0 to 1) of `values` lies, by nearest rank; none of none.
pub(super) fn quantile(values: impl IntoIterator<Item = f64>, part: f64) -> Option<f64> {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )] // dozens of values
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Panics;
    impl Source for Panics {
        fn sample(&mut self) -> BoxFuture<'_, Vec<Reading>> {
            #[allow(clippy::panic)]
            async { panic!("on purpose") }.boxed()
        }
    }

    struct Hangs;
    impl Source for Hangs {
        fn sample(&mut self) -> BoxFuture<'_, Vec<Reading>> {
            std::future::pending().boxed()
        }
    }

    #[tokio::test]
    async fn a_source_that_panics_or_hangs_gives_one_failed_reading_per_signal() {
        let signals = [Signal::new("a", 0.0, 1.0), Signal::new("b", 0.0, 1.0)];
        let mut panics = Probe::new("r", signals, Panics);
        let mut hangs = Probe::new("r", signals, Hangs).within(Duration::from_millis(5));
        for readings in [panics.sample().await, hangs.sample().await] {
            assert_eq!(readings.len(), 2);
            assert!(readings.iter().all(Result::is_err), "{readings:?}");
        }
    }

    #[test]
    fn quantiles_are_by_nearest_rank() {
        let hundred = || (1..=100).rev().map(f64::from);
        assert_eq!(quantile(hundred(), 0.95), Some(95.0));
        assert_eq!(quantile(hundred(), 0.99), Some(99.0));
        assert_eq!(quantile([3.0, 1.0], 0.95), Some(3.0));
        assert_eq!(quantile([], 0.95), None);
    }
}
