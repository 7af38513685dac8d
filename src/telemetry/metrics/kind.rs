//! What is counted per queue and kind, as a handle that is resolved once and fed on the hot path without a look-up.

use super::histogram::{Bounds, DurationHistogram};
use super::labels::{QueueKind, Run};
use crate::job::Outcome;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::time::Duration;

/// From a no-op to an hour.
const RUN_BOUNDS: Bounds = &[
    500,
    1_000,
    5_000,
    25_000,
    100_000,
    500_000,
    1_000_000,
    5_000_000,
    15_000_000,
    60_000_000,
    300_000_000,
    1_800_000_000,
    3_600_000_000,
];
/// From an idle pick-up to half a day of backlog.
const WAIT_BOUNDS: Bounds = &[
    1_000,
    2_500,
    10_000,
    50_000,
    250_000,
    1_000_000,
    5_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    1_800_000_000,
    7_200_000_000,
    43_200_000_000,
];

/// The families behind the handles.
#[derive(Debug)]
pub(super) struct KindFamilies {
    enqueued: Family<QueueKind, Counter>,
    started: Family<QueueKind, Counter>,
    completed: Family<QueueKind, Counter>,
    failed: Family<QueueKind, Counter>,
    retried: Family<QueueKind, Counter>,
    dead: Family<QueueKind, Counter>,
    recovered: Family<QueueKind, Counter>,
    poisoned: Family<QueueKind, Counter>,
    quarantined: Family<QueueKind, Counter>,
    durations: Family<Run, DurationHistogram, fn() -> DurationHistogram>,
    waits: Family<QueueKind, DurationHistogram, fn() -> DurationHistogram>,
}

impl KindFamilies {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let mut counter = |name: &str, help: &str| {
            let family = Family::<QueueKind, Counter>::default();
            registry.register(name, help, family.clone());
            family
        };
        let families = Self {
            enqueued: counter("jobs_enqueued", "Jobs admitted from an inbox"),
            started: counter("jobs_started", "Deliveries given to a handler"),
            completed: counter("jobs_completed", "Jobs that succeeded"),
            failed: counter("jobs_failed", "Attempts that failed"),
            retried: counter("jobs_retried", "Failed attempts that will be repeated"),
            dead: counter("jobs_dead", "Jobs that failed for good"),
            recovered: counter("jobs_recovered", "Jobs taken back from dead daemons"),
            poisoned: counter("jobs_poisoned", "Jobs given up because they crash daemons"),
            quarantined: counter("jobs_quarantined", "Inbox entries refused"),
            durations: Family::new_with_constructor(|| DurationHistogram::new(RUN_BOUNDS)),
            waits: Family::new_with_constructor(|| DurationHistogram::new(WAIT_BOUNDS)),
        };
        registry.register(
            "job_duration_seconds",
            "How long a run took, by what came of it",
            families.durations.clone(),
        );
        registry.register(
            "job_wait_seconds",
            "From ready to started",
            families.waits.clone(),
        );
        families
    }

    pub(super) fn handle(&self, queue: &Arc<str>, kind: &Arc<str>) -> KindMetrics {
        let labels = QueueKind {
            queue: Arc::clone(queue),
            kind: Arc::clone(kind),
        };
        let runs = |outcome| {
            self.durations.get_or_create_owned(&Run {
                queue: Arc::clone(queue),
                kind: Arc::clone(kind),
                outcome,
            })
        };
        KindMetrics {
            enqueued: self.enqueued.get_or_create_owned(&labels),
            started: self.started.get_or_create_owned(&labels),
            completed: self.completed.get_or_create_owned(&labels),
            failed: self.failed.get_or_create_owned(&labels),
            retried: self.retried.get_or_create_owned(&labels),
            dead: self.dead.get_or_create_owned(&labels),
            recovered: self.recovered.get_or_create_owned(&labels),
            poisoned: self.poisoned.get_or_create_owned(&labels),
            quarantined: self.quarantined.get_or_create_owned(&labels),
            runs: RunHistograms {
                done: runs("done"),
                failed: runs("failed"),
                fatal: runs("fatal"),
                snoozed: runs("snoozed"),
                interrupted: runs("interrupted"),
                yielded: runs("yielded"),
                cancelled: runs("cancelled"),
            },
            wait: self.waits.get_or_create_owned(&labels),
        }
    }
}

/// The metrics of one kind in one queue. Every method is one or two atomic additions.
#[derive(Debug, Clone)]
pub struct KindMetrics {
    enqueued: Counter,
    started: Counter,
    completed: Counter,
    failed: Counter,
    retried: Counter,
    dead: Counter,
    recovered: Counter,
    poisoned: Counter,
    quarantined: Counter,
    runs: RunHistograms,
    wait: DurationHistogram,
}

/// One histogram per outcome, so that none has to be looked up.
#[derive(Debug, Clone)]
struct RunHistograms {
    done: DurationHistogram,
    failed: DurationHistogram,
    fatal: DurationHistogram,
    snoozed: DurationHistogram,
    interrupted: DurationHistogram,
    yielded: DurationHistogram,
    cancelled: DurationHistogram,
}

impl KindMetrics {
    /// `n` jobs were admitted.
    pub fn enqueued(&self, n: u64) {
        self.enqueued.inc_by(n);
    }

    /// `n` deliveries were given to the handler.
    pub fn started(&self, n: u64) {
        self.started.inc_by(n);
    }

    /// `n` jobs succeeded.
    pub fn completed(&self, n: u64) {
        self.completed.inc_by(n);
    }

    /// `n` attempts failed, whatever comes next.
    pub fn failed(&self, n: u64) {
        self.failed.inc_by(n);
    }

    /// `n` failed attempts will be repeated.
    pub fn retried(&self, n: u64) {
        self.retried.inc_by(n);
    }

    /// `n` jobs failed for good.
    pub fn dead(&self, n: u64) {
        self.dead.inc_by(n);
    }

    /// `n` jobs were taken back from dead daemons.
    pub fn recovered(&self, n: u64) {
        self.recovered.inc_by(n);
    }

    /// `n` jobs were given up because they crash daemons.
    pub fn poisoned(&self, n: u64) {
        self.poisoned.inc_by(n);
    }

    /// `n` entries were refused.
    pub fn quarantined(&self, n: u64) {
        self.quarantined.inc_by(n);
    }

    /// One run ended like this after this long.
    pub fn observe_duration(&self, outcome: &Outcome, took: Duration) {
        let histogram = match outcome {
            Outcome::Done(_) => &self.runs.done,
            Outcome::Failed(_) => &self.runs.failed,
            Outcome::Fatal(_) => &self.runs.fatal,
            Outcome::Snooze { .. } => &self.runs.snoozed,
            Outcome::Interrupted { .. } => &self.runs.interrupted,
            Outcome::Yielded { .. } => &self.runs.yielded,
            Outcome::Cancelled => &self.runs.cancelled,
        };
        histogram.observe(took);
    }

    /// One job waited this long from ready to started.
    pub fn observe_wait(&self, waited: Duration) {
        self.wait.observe(waited);
    }
}
