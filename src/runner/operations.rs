//! The operations of this daemon: what a handler kind does to a resource, each with its breaker and its limiter. Kept
//! over reloads.
//!
//! Owns: which operations there are, how many calls of each may run by what breaker, limiter and pool say, and who hears
//! of changes. The slots themselves are counted in [`super::slots`]. Must not know where evidence of others or orders
//! come from: whoever has them changes a breaker by [`Operations::adjust`].

mod fleet;
mod limit;
mod limiters;
mod limiting;
mod passage;

pub use limit::LimiterSnapshot;
pub use limiting::Resumed;
pub use passage::Passage;

use super::slots::{OperationLimits, Slots};
use crate::clock::Epoch;
use crate::config::{BreakerConfig as BreakerSettings, BreakerMode, LimiterConfig};
use crate::handlers;
use crate::policy::breaker::{
    Breaker, BreakerConfig, Mode, Outlook, Permit, Snapshot, State, Transition, Verdict,
};
use crate::policy::limiter::Ended;
use limiting::Limiting;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// What operations go by.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `[breaker]`
    pub breaker: BreakerSettings,
    /// `[limiter]`
    pub limiter: LimiterConfig,
    /// How many connections there are for handlers that share the pool of Postgres.
    pub pool: usize,
}

/// All operations, by handler and resource.
pub struct Operations {
    breaker: BreakerSettings,
    limiter: RwLock<LimiterConfig>,
    pool: usize,
    epoch: Epoch,
    slots: Arc<Slots>,
    known: Mutex<Known>,
    tell: Tell,
    /// Whether a call was let through since the last look at all of them.
    used: AtomicBool,
    begins: Notify,
}

#[derive(Default)]
struct Known {
    /// By handler and resource.
    operations: BTreeMap<(Arc<str>, Arc<str>), Arc<Operation>>,
    /// How many were ever made: the place of the next one among the slots.
    made: usize,
}

/// Hears of every change of a breaker's state.
type Tell = Box<dyn Fn(&Operation, &Transition) + Send + Sync>;

/// A handler kind on a resource.
pub struct Operation {
    /// The handler kind whose calls it is.
    pub handler: Arc<str>,
    /// The dependency they touch.
    pub resource: Arc<str>,
    /// Its place among the slots; they are numbered as they are made.
    index: usize,
    inner: Mutex<Inner>,
}

struct Inner {
    breaker: Breaker,
    limiting: Option<Limiting>,
    /// The connections its calls share, if they share any.
    pool: Option<usize>,
    /// The limit that an operator ordered in place of the limiter's.
    ordered: Option<usize>,
    /// Calls that were let through and have not ended.
    running: usize,
    /// How often the breaker opened.
    openings: u64,
    /// Of the calls that run, those from before it last opened.
    outlasted: usize,
    /// The limit there was when it opened, which the way back is a share of.
    limit_before: usize,
    /// Its limit by the last look, to see when it rises.
    seen: usize,
}

/// A call that was let through, as its operation knows it.
struct Admitted {
    epoch: u64,
    permit: Option<Permit>,
    openings: u64,
}

impl Operations {
    /// No operation yet; `tell` hears of every change of a breaker's state.
    pub fn new(
        settings: Settings,
        epoch: Epoch,
        slots: Arc<Slots>,
        tell: impl Fn(&Operation, &Transition) + Send + Sync + 'static,
    ) -> Self {
        Self {
            breaker: settings.breaker,
            limiter: RwLock::new(settings.limiter),
            pool: settings.pool,
            epoch,
            slots,
            known: Mutex::default(),
            tell: Box::new(tell),
            used: AtomicBool::new(false),
            begins: Notify::new(),
        }
    }

    /// The operations of a handler that touches `resources`, made on first use.
    pub fn of(&self, handler: &Arc<str>, resources: &[Arc<str>]) -> Vec<Arc<Operation>> {
        let Known { operations, made } = &mut *self.known.lock();
        let get = |resource: &Arc<str>| {
            let key = (Arc::clone(handler), Arc::clone(resource));
            let make = || {
                *made += 1;
                Arc::new(self.made(handler, resource, *made - 1))
            };
            Arc::clone(operations.entry(key).or_insert_with(make))
        };
        resources.iter().map(get).collect()
    }

    fn pool_of(&self, handler: &str, resource: &str) -> Option<usize> {
        handlers::uses_pool(handler, resource).then_some(self.pool)
    }

    fn made(&self, handler: &Arc<str>, resource: &Arc<str>, index: usize) -> Operation {
        let (now, slots) = (self.epoch.now_ms(), self.slots.total());
        let mut breaker = Breaker::new(BreakerConfig::from(&self.breaker));
        breaker.set_mode(now, Mode::from(self.breaker.mode));
        Operation {
            handler: Arc::clone(handler),
            resource: Arc::clone(resource),
            index,
            inner: Mutex::new(Inner {
                breaker,
                limiting: self.limiting(handler),
                pool: self.pool_of(handler, resource),
                ordered: None,
                running: 0,
                openings: 0,
                outlasted: 0,
                limit_before: slots,
                seen: slots,
            }),
        }
    }

    /// Forgets the operations that no kind has any more and no call is under way of: nobody would ever try what is open.
    pub fn forget_unused(&self) {
        let is_used = |of: &Arc<Operation>| Arc::strong_count(of) > 1;
        self.known.lock().operations.retain(|_, of| is_used(of));
    }

    /// Every operation there is, in the order of handlers and resources.
    #[must_use]
    pub fn each(&self) -> Vec<Arc<Operation>> {
        self.known
            .lock()
            .operations
            .values()
            .map(Arc::clone)
            .collect()
    }

    /// One operation; none if no definition needed it yet.
    #[must_use]
    pub fn get(&self, handler: &str, resource: &str) -> Option<Arc<Operation>> {
        self.known
            .lock()
            .operations
            .get(&(handler.into(), resource.into()))
            .map(Arc::clone)
    }

    /// How many calls of each operation of a kind may run now, and whether a critical one may go beyond.
    #[must_use]
    pub fn limits(&self, operations: &[Arc<Operation>]) -> OperationLimits {
        let now = self.epoch.now_ms();
        let slots = self.slots.total();
        operations
            .iter()
            .map(|operation| {
                let mut inner = operation.inner.lock();
                let limit = inner.limit(now, slots);
                if limit.calls == 0 {
                    inner.breaker.want(now);
                }
                limit.of(operation)
            })
            .collect()
    }

    /// Whether one of these operations lets nothing through now, not even a trial.
    #[must_use]
    pub fn are_shut(&self, operations: &[Arc<Operation>]) -> bool {
        self.limits(operations).iter().any(|of| of.limit == 0)
    }

    /// The first of these operations whose breaker is open and lets nothing through, not even a trial.
    #[must_use]
    pub fn open_of<'a>(&self, operations: &'a [Arc<Operation>]) -> Option<&'a Operation> {
        let now = self.epoch.now_ms();
        let open = |operation: &&Arc<Operation>| {
            let breaker = &operation.inner.lock().breaker;
            // A job that is the trial itself sees its breaker half-open, and goes on.
            breaker.state(now) == State::Open && matches!(breaker.peek(now), Outlook::Refuse { .. })
        };
        operations.iter().find(open).map(|operation| &**operation)
    }

    /// Asks all of a kind's operations to let one call through; none if one refuses.
    pub fn pass(self: &Arc<Self>, operations: &[Arc<Operation>]) -> Option<Passage> {
        let mut passage = Passage::new(self, operations.len());
        for operation in operations {
            let (admitted, change) = operation.inner.lock().admit(self.epoch.now_ms());
            self.report(operation, change);
            passage.add(operation, admitted?);
        }
        if !self.used.swap(true, Ordering::AcqRel) {
            self.begins.notify_one();
        }
        Some(passage)
    }

    /// Changes a breaker from outside (an order, the evidence of others): `change` is handed the breaker and the time of
    /// its clock. What it did is told as any other transition, and who waits for slots looks again.
    pub fn adjust(
        &self,
        operation: &Operation,
        change: impl FnOnce(&mut Breaker, u64) -> Option<Transition>,
    ) {
        let now = self.epoch.now_ms();
        let transition = {
            let mut inner = operation.inner.lock();
            let before = inner.limit_when_well(self.slots.total());
            let transition = change(&mut inner.breaker, now);
            inner.note(now, transition, before);
            transition
        };
        self.report(operation, transition);
        self.slots.wake();
    }

    /// Holds a breaker open for `ttl`, whatever the evidence.
    pub fn force_open(&self, operation: &Operation, ttl: Duration) {
        self.adjust(operation, |breaker, now| Some(breaker.force_open(now, ttl)));
    }

    /// Sets how far a breaker is heeded, and closes it.
    pub fn set_mode(&self, operation: &Operation, mode: Mode) {
        self.adjust(operation, |breaker, now| breaker.set_mode(now, mode));
    }

    /// Sets how many calls run at once in place of what the limiter finds, which goes on looking; none gives it back.
    pub fn set_limit(&self, operation: &Operation, limit: Option<usize>) {
        operation.inner.lock().ordered = limit;
        self.slots.wake();
    }

    /// Every breaker as it stands, for reports; none if there are to be none.
    #[must_use]
    pub fn snapshots(&self) -> Vec<(Arc<str>, Arc<str>, Snapshot)> {
        if self.breaker.mode == BreakerMode::Off {
            return Vec::new();
        }
        let now = self.epoch.now_ms();
        let snapshot = |operation: Arc<Operation>| {
            let breaker = operation.inner.lock().breaker.snapshot(now);
            let (handler, resource) = (&operation.handler, &operation.resource);
            (Arc::clone(handler), Arc::clone(resource), breaker)
        };
        self.each().into_iter().map(snapshot).collect()
    }

    fn report(&self, operation: &Operation, change: Option<Transition>) {
        if let Some(change) = change {
            (self.tell)(operation, &change);
        }
    }
}

impl Inner {
    fn admit(&mut self, now_ms: u64) -> (Option<Admitted>, Option<Transition>) {
        let (verdict, change) = self.breaker.admit(now_ms);
        let (epoch, permit) = match verdict {
            Verdict::Allow { epoch, .. } => (epoch, None),
            Verdict::Trial(permit) => (permit.epoch, Some(permit)),
            Verdict::Refuse { .. } => return (None, change),
        };
        self.running += 1;
        if let Some(limiting) = &mut self.limiting {
            limiting.started(now_ms);
        }
        let admitted = Admitted {
            epoch,
            permit,
            openings: self.openings,
        };
        (Some(admitted), change)
    }

    /// A call that was let through is over. One from before an opening says nothing of how things are now.
    fn left(&mut self, now_ms: u64, call: &Admitted, took: Duration, ended: Ended) {
        self.running = self.running.saturating_sub(1);
        let outlasted = call.openings != self.openings;
        if outlasted {
            self.outlasted = self.outlasted.saturating_sub(1);
        }
        if let Some(limiting) = &mut self.limiting {
            let ended = if outlasted { Ended::Void } else { ended };
            limiting.finished(now_ms, took, ended);
        }
    }

    /// Takes note of what the breaker did; `before` is the limit there was.
    fn note(&mut self, now_ms: u64, change: Option<Transition>, before: usize) {
        if change.is_some_and(|change| change.to == State::Open) {
            self.openings += 1;
            self.outlasted = self.running;
            self.limit_before = before;
            if let Some(limiting) = &mut self.limiting {
                limiting.opened(now_ms, self.running);
            }
        }
    }
}

#[cfg(test)]
mod tests;
