//! A histogram of durations that is cheap to feed.
//!
//! The library's own takes a lock per observation; jobs are observed twice each, from many tasks. This one is two
//! relaxed additions, with the sum kept in whole microseconds. Must not know what is measured.

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets, in microseconds, ascending; above the last is +Inf.
pub(super) type Bounds = &'static [u64];

/// Counts of durations by bucket. Clones share their counts.
#[derive(Debug, Clone)]
pub(super) struct DurationHistogram {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    bounds: Bounds,
    /// One more than there are bounds.
    counts: Box<[AtomicU64]>,
    sum_micros: AtomicU64,
}

impl DurationHistogram {
    pub(super) fn new(bounds: Bounds) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self {
            inner: Arc::new(Inner {
                bounds,
                counts,
                sum_micros: AtomicU64::new(0),
            }),
        }
    }

    pub(super) fn observe(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = self.inner.bounds.partition_point(|bound| *bound < micros);
        self.inner.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.inner.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }
}

impl TypedMetric for DurationHistogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for DurationHistogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let bounds = self.inner.bounds.iter().map(|micros| seconds(*micros));
        let counts = self.inner.counts.iter().map(|c| c.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.chain([f64::INFINITY]).zip(counts).collect();
        let total = buckets.iter().map(|(_, count)| count).sum();
        let sum = seconds(self.inner.sum_micros.load(Ordering::Relaxed));
        encoder.encode_histogram::<NoLabelSet>(sum, total, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// Exact to the microsecond for 285 years.
#[allow(clippy::cast_precision_loss)]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}
