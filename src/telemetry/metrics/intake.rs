//! What is counted of the outbox and of bridges. A source is `outbox` or `bridge <name>`, so their number is bounded by
//! the configuration.

use super::labels::{Source, SourceResult, SourceState};
use super::{FloatGauge, add, signed};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::time::Duration;

/// The metrics of what takes in jobs from elsewhere.
#[derive(Debug)]
pub struct IntakeMetrics {
    jobs: Family<SourceResult, Counter>,
    depth: Family<SourceState, Gauge>,
    lag: Family<Source, FloatGauge>,
}

impl IntakeMetrics {
    pub(super) fn register(r: &mut Registry) -> Self {
        Self {
            jobs: add(r, "intake_jobs", "Jobs taken in from a source, by result"),
            depth: add(
                r,
                "intake_depth",
                "Jobs that a source still holds, by state",
            ),
            lag: add(
                r,
                "intake_lag_seconds",
                "Age of the oldest job that a source still holds",
            ),
        }
    }

    /// So many jobs were new, known already, or can't be jobs.
    pub fn moved(&self, source: &str, created: u64, duplicates: u64, rejected: u64) {
        for (result, n) in [
            ("created", created),
            ("duplicate", duplicates),
            ("rejected", rejected),
        ] {
            let source = source.into();
            self.jobs
                .get_or_create(&SourceResult { source, result })
                .inc_by(n);
        }
    }

    /// So many jobs are still in the source: `waiting` or `rejected`.
    pub fn depth(&self, source: &str, state: &'static str, jobs: u64) {
        let source = source.into();
        self.depth
            .get_or_create(&SourceState { source, state })
            .set(signed(jobs));
    }

    /// The age of the oldest job that waits in the source; zero if none does.
    pub fn lag(&self, source: &str, age: Duration) {
        let source = source.into();
        self.lag
            .get_or_create(&Source { source })
            .set(age.as_secs_f64());
    }
}
