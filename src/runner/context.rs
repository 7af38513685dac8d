//! What the parts that work on one queue share.

use super::budgets::Budgets;
use super::inflight::InFlight;
use super::lease::Lease;
use super::operations::Operations;
use super::registry::Registry;
use super::slots::Slots;
use crate::catalog::JobSpec;
use crate::handlers::progress::Board;
use crate::job::Priority;
use crate::policy::gate::{GateState, Shares};
use crate::policy::length::{LastRuns, ShortRule};
use crate::queue::{Control, Queue};
use crate::telemetry::{Alerts, KindMetrics, KindSuccesses, Metrics, Successes};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, Semaphore};

/// How many jobs of a class a definition may run at once, by the health of what it touches.
pub type Gate = Arc<dyn Fn(&JobSpec, Priority, usize) -> usize + Send + Sync>;

/// The state of what a definition touches, as far as the gate heeds it, and the resource that is in it.
pub type Standing = Arc<dyn Fn(&JobSpec) -> (GateState, String) + Send + Sync>;

/// What does not depend on the queue.
#[derive(Clone)]
pub struct Shared {
    /// The kinds.
    pub registry: Arc<ArcSwap<Registry>>,
    /// The slots of this daemon.
    pub slots: Arc<Slots>,
    /// What handlers do to resources, and how much of it may be done.
    pub operations: Arc<Operations>,
    /// The retry budgets of this daemon.
    pub budgets: Arc<Budgets>,
    /// The gate.
    pub gate: Gate,
    /// And what it goes by.
    pub standing: Standing,
    /// What states leave to classes.
    pub shares: Shares,
    /// Counters and histograms.
    pub metrics: Arc<Metrics>,
    /// Sampling of clean successes in the log.
    pub successes: Arc<Successes>,
    /// Where alerts go.
    pub alerts: Alerts,
    /// One permit: jobs that crashed their daemons twice run one at a time.
    pub suspect_turn: Arc<Semaphore>,
}

/// One queue at work.
pub struct QueueContext {
    /// The queue.
    pub queue: Queue,
    own_limit: Option<usize>,
    /// Silence after which a daemon is dead.
    pub lease_time: Duration,
    /// The longest time between looks.
    pub poll: Duration,
    /// What does not depend on the queue.
    pub shared: Shared,
    /// The identity it works under.
    pub lease: Lease,
    /// The deliveries it holds.
    pub inflight: InFlight,
    /// What its running jobs have told.
    pub told: Arc<Board>,
    /// What operators changed live, as last seen.
    pub control: ArcSwap<Control>,
    /// How it gets on.
    pub progress: Progress,
    /// The last claim whose answer, or failure, is known.
    pub resolved_claim: AtomicU64,
    nudge: Nudge,
    upkeep: Notify,
    sweep: Notify,
    terms: AtomicU64,
    kinds: Mutex<HashMap<Arc<str>, Arc<KindTelemetry>>>,
}

/// Where the reports of one kind in one queue go.
pub struct KindTelemetry {
    /// Counters and histograms.
    pub metrics: KindMetrics,
    /// Sampling of clean successes.
    pub successes: Arc<KindSuccesses>,
    /// How long its last runs took.
    pub lengths: Lengths,
}

/// Whether the jobs of a kind are usually short.
#[derive(Debug)]
pub struct Lengths(AtomicU64);

impl Default for Lengths {
    fn default() -> Self {
        Self(AtomicU64::new(LastRuns::NONE.to_bits()))
    }
}

impl Lengths {
    /// A run ended that was longer than the bound, or not.
    pub fn note(&self, long: bool) {
        let after = |bits| Some(LastRuns::from_bits(bits).after(long).to_bits());
        // It never refuses.
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, after);
    }

    /// As far as is known.
    #[must_use]
    pub fn usually_short(&self, rule: &ShortRule) -> bool {
        LastRuns::from_bits(self.0.load(Ordering::Relaxed)).usually_short(rule)
    }
}

impl QueueContext {
    /// A queue about to work. Without a limit of its own, it may use every slot of the daemon.
    #[must_use]
    pub fn new(
        queue: Queue,
        own_limit: Option<usize>,
        lease_time: Duration,
        poll: Duration,
        shared: Shared,
    ) -> Self {
        Self {
            lease: Lease::new(Arc::clone(&queue.name)),
            queue,
            own_limit,
            lease_time,
            poll,
            shared,
            inflight: InFlight::default(),
            told: Arc::default(),
            control: ArcSwap::default(),
            progress: Progress::default(),
            resolved_claim: AtomicU64::new(0),
            nudge: Nudge::default(),
            upkeep: Notify::new(),
            sweep: Notify::new(),
            terms: AtomicU64::new(0),
            kinds: Mutex::default(),
        }
    }

    /// How many of its jobs may run at once here.
    #[must_use]
    pub fn limit(&self) -> usize {
        let live = self.control.load().concurrency;
        live.or(self.own_limit)
            .unwrap_or_else(|| self.shared.slots.total())
    }

    /// Where the reports of a kind go.
    #[must_use]
    pub fn telemetry(&self, kind: &Arc<str>) -> Arc<KindTelemetry> {
        let mut kinds = self.kinds.lock();
        if let Some(found) = kinds.get(kind) {
            return Arc::clone(found);
        }
        let made = Arc::new(KindTelemetry {
            metrics: self.shared.metrics.kind(&self.queue.name, kind),
            successes: self.shared.successes.kind(kind),
            lengths: Lengths::default(),
        });
        kinds.insert(Arc::clone(kind), Arc::clone(&made));
        made
    }

    /// Wakes the feeder: deliveries were let go, and it may have waited for that.
    pub fn wake(&self) {
        self.nudge.signal.notify_one();
    }

    /// Tells the feeder that jobs came to a flow in another way than by it.
    pub fn nudge(&self) {
        self.nudge.look.store(true, Ordering::Release);
        self.nudge.signal.notify_one();
    }

    /// Asks for the queue to be tidied soon: definitions may have come that understand more.
    pub fn request_upkeep(&self) {
        self.upkeep.notify_one();
    }

    /// Waits until tidying is asked for.
    pub async fn upkeep_requested(&self) {
        self.upkeep.notified().await;
    }

    /// Limits were changed: who waits under the old ones may go on, and is looked for soon.
    pub fn limits_changed(&self) {
        self.terms.fetch_add(1, Ordering::AcqRel);
        self.sweep.notify_one();
        self.nudge();
    }

    /// How often limits were changed.
    #[must_use]
    pub fn terms(&self) -> u64 {
        self.terms.load(Ordering::Acquire)
    }

    /// Waits until such a look is asked for.
    pub async fn sweep_requested(&self) {
        self.sweep.notified().await;
    }

    /// Tells the feeder that a job is due at a time it may not know of, Redis ms.
    pub fn due_at(&self, due_ms: u64) {
        if self.nudge.due_ms.fetch_min(due_ms, Ordering::AcqRel) > due_ms {
            self.nudge.signal.notify_one();
        }
    }

    /// Whether the feeder was nudged since it last asked.
    pub(super) fn take_nudge(&self) -> bool {
        self.nudge.look.swap(false, Ordering::AcqRel)
    }

    /// The earliest due time told since the feeder last asked.
    pub(super) fn take_due(&self) -> Option<u64> {
        let due = self.nudge.due_ms.swap(u64::MAX, Ordering::AcqRel);
        (due != u64::MAX).then_some(due)
    }

    /// Waits for a nudge or a due time.
    pub(super) async fn nudged(&self) {
        self.nudge.signal.notified().await;
    }
}

struct Nudge {
    look: AtomicBool,
    due_ms: AtomicU64,
    signal: Notify,
}

impl Default for Nudge {
    fn default() -> Self {
        Self {
            look: AtomicBool::new(false),
            due_ms: AtomicU64::new(u64::MAX),
            signal: Notify::new(),
        }
    }
}

/// How the claim loop of one queue gets on: what readiness and the watchdog go by.
#[derive(Debug, Default)]
pub struct Progress {
    seen: Mutex<Seen>,
}

/// What the claim loop saw last.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// When its loop last turned, whatever came of it.
    pub turned: Option<Instant>,
    /// When the task that runs handlers last had its turn.
    pub ran: Option<Instant>,
    /// When it last had an answer from Redis.
    pub looked: Option<Instant>,
    /// How long the oldest waiting job waited by then.
    pub oldest_age: Duration,
}

impl Progress {
    /// The loop turned.
    pub fn turn(&self, now: Instant) {
        self.seen.lock().turned = Some(now);
    }

    /// The task that runs handlers had its turn: none of them blocks it.
    pub fn pulse(&self, now: Instant) {
        self.seen.lock().ran = Some(now);
    }

    /// The loop had an answer.
    pub fn look(&self, now: Instant) {
        self.seen.lock().looked = Some(now);
    }

    /// The job that waits longest waits this long.
    pub fn waits(&self, oldest_age: Duration) {
        self.seen.lock().oldest_age = oldest_age;
    }

    /// What it saw last.
    #[must_use]
    pub fn seen(&self) -> Seen {
        *self.seen.lock()
    }
}
