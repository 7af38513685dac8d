//! Concurrency limits: how many jobs may run at once in this daemon, in a queue, of a kind, of a class, of an operation; and
//! the slots that long jobs leave free for critical ones.
//!
//! Slots are taken before a claim and what the claim did not use is given back, so that no limit is ever passed.

mod ask;
mod used;

pub use ask::{Ask, Holds, OperationLimit, OperationLimits, Reserve, Reserved};

use super::load::{Meter, Taken};
use crate::clock;
use crate::job::Priority;
use crate::policy::length::ShortRule;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use used::Used;

/// The slots of this daemon, shared by its queues.
#[derive(Debug)]
pub struct Slots {
    total: AtomicUsize,
    reserve: Reserve,
    /// Whether there are critical jobs: only then is anything reserved for them.
    critical: AtomicBool,
    used: Mutex<Used>,
    /// Locked after `used` where both are.
    load: Mutex<Meter>,
    /// One for each queue that waits for slots.
    waiters: Mutex<Vec<Arc<Notify>>>,
}

impl Slots {
    /// `total` slots, all free.
    #[must_use]
    pub fn new(total: usize) -> Self {
        Self {
            total: AtomicUsize::new(total),
            reserve: Reserve::default(),
            critical: AtomicBool::new(false),
            used: Mutex::default(),
            load: Mutex::new(Meter::new(clock::monotonic())),
            waiters: Mutex::default(),
        }
    }

    /// The same, of which some are reserved for critical jobs as soon as there are such.
    #[must_use]
    pub const fn reserving(mut self, reserve: Reserve) -> Self {
        self.reserve = reserve;
        self
    }

    /// There are critical jobs, or may be: what is reserved for them is kept from now on.
    pub fn expect_critical(&self) {
        self.critical.store(true, Ordering::Release);
    }

    /// How long the runs of a short kind may take.
    #[must_use]
    pub const fn lend_below(&self) -> Duration {
        self.reserve.lend_below
    }

    /// When the jobs of a kind usually are.
    #[must_use]
    pub const fn short_rule(&self) -> &ShortRule {
        &self.reserve.short
    }

    /// How many slots are reserved for critical jobs now.
    #[must_use]
    pub fn reserved(&self) -> usize {
        match self.critical.load(Ordering::Acquire) {
            true => self.reserve.of(self.total()),
            false => 0,
        }
    }

    /// How many long jobs run that leave the reserve alone.
    #[must_use]
    pub fn busy_long(&self) -> usize {
        self.used.lock().long
    }

    /// How many of those may run.
    fn long_limit(&self) -> usize {
        self.total().saturating_sub(self.reserved())
    }

    /// How many more jobs that are not urgent may run, as far as it goes by what is lent to nobody: of several reserved
    /// slots one, for short jobs may hang too.
    fn left_for_others(&self, used: &Used) -> usize {
        match self.reserved() {
            0 | 1 => usize::MAX,
            _ => self.total().saturating_sub(1 + used.others()),
        }
    }

    /// How many there are.
    #[must_use]
    pub fn total(&self) -> usize {
        self.total.load(Ordering::Acquire)
    }

    /// Changes how many there are. What runs beyond a smaller number runs on.
    pub fn set_total(&self, total: usize) {
        self.total.store(total, Ordering::Release);
        self.wake();
    }

    /// How many are in use, by all queues.
    #[must_use]
    pub fn busy(&self) -> usize {
        self.used.lock().total
    }

    /// How many a queue uses.
    #[must_use]
    pub fn busy_in(&self, queue: &str) -> usize {
        self.used.lock().queues.get(queue).copied().unwrap_or(0)
    }

    /// How many jobs of each class run, the highest class first.
    #[must_use]
    pub fn busy_classes(&self) -> [usize; 5] {
        self.used.lock().classes
    }

    /// How many jobs of each kind run, of those of which some do.
    #[must_use]
    pub fn busy_kinds(&self) -> BTreeMap<Arc<str>, usize> {
        let used = self.used.lock();
        let busy = used.kinds.iter().filter(|(_, n)| **n > 0);
        busy.map(|(kind, n)| (Arc::clone(kind), *n)).collect()
    }

    /// A signal that fires whenever slots come free.
    #[must_use]
    pub fn waiter(&self) -> Arc<Notify> {
        let notify = Arc::new(Notify::new());
        self.waiters.lock().push(Arc::clone(&notify));
        notify
    }

    /// Whether a claim from that flow could bring anything, as far as its own limits go.
    #[must_use]
    pub fn has_room(&self, ask: &Ask) -> bool {
        let used = self.used.lock();
        used.room(ask, self.long_limit()) > 0 && (ask.urgent || self.left_for_others(&used) > 0)
    }

    /// Takes slots for a claim of at most `most` jobs of `queue`, whose own limit is `queue_limit`. The flows are served
    /// in the order given: what one is allowed, a later one of the same kind, class or operation is not.
    #[must_use]
    pub fn reserve(
        &self,
        queue: &Arc<str>,
        queue_limit: usize,
        most: usize,
        asks: &[Ask],
    ) -> Reserved {
        if asks.iter().any(|ask| ask.class == Priority::Critical) {
            self.expect_critical();
        }
        let long_limit = self.long_limit();
        let mut used = self.used.lock();
        let others = self.left_for_others(&used);
        let has_urgent = asks.iter().any(|ask| ask.urgent);
        let most = if has_urgent { most } else { most.min(others) };
        let in_queue = used.queues.get(queue).copied().unwrap_or(0);
        let limit = (self.total().saturating_sub(used.total))
            .min(queue_limit.saturating_sub(in_queue))
            .min(most);
        let mut allowances = Vec::with_capacity(asks.len());
        let mut granted = 0;
        for ask in asks {
            let own = used.room(ask, long_limit);
            let allowance = match ask.urgent {
                true => limit.min(own),
                false => limit.min(others).min(own),
            };
            used.add_kind(&ask.kind, allowance);
            used.classes[ask.class.index()] += allowance;
            used.add_operations(&ask.operations, ask.class, allowance);
            used.long += if ask.long { allowance } else { 0 };
            granted += allowance;
            allowances.push(allowance);
        }
        let limit = limit.min(granted);
        used.total += limit;
        *used.queues.entry(Arc::clone(queue)).or_default() += limit;
        Reserved { limit, allowances }
    }

    /// Gives back what a claim did not use; `taken` is the number of jobs it brought from each flow.
    pub fn settle_claim(
        &self,
        queue: &Arc<str>,
        reserved: &Reserved,
        asks: &[Ask],
        taken: &[usize],
    ) {
        let brought: usize = taken.iter().sum();
        let mut returned = brought < reserved.limit;
        {
            let mut used = self.used.lock();
            for ((ask, allowed), taken) in asks.iter().zip(&reserved.allowances).zip(taken) {
                let unused = allowed.saturating_sub(*taken);
                used.sub_kind(&ask.kind, unused);
                used.sub_class(ask.class, unused);
                used.sub_operations(&ask.operations, ask.class, unused);
                used.sub_long(ask.long, unused);
                returned |= unused > 0;
            }
            for (ask, _) in asks.iter().zip(taken).filter(|(_, taken)| **taken > 0) {
                used.press(&ask.operations);
            }
            used.sub_queue(queue, reserved.limit.saturating_sub(brought));
            if brought > 0 {
                self.note_begun(&used, asks, taken);
            }
        }
        // Allowances may add up to more than the limit: another queue may have found its class or kind full meanwhile.
        if returned {
            self.wake();
        }
    }

    /// Whether the limit of an operation kept jobs back since this was asked last: a claim brought as many as it let.
    #[must_use]
    pub fn was_pressed(&self, operation: usize) -> bool {
        let mut used = self.used.lock();
        let of = used.operations.get_mut(operation);
        of.is_some_and(|of| std::mem::take(&mut of.pressed))
    }

    /// Gives back the slot of a job that ended; `holds` is of what it was asked for with.
    pub fn release(&self, queue: &Arc<str>, kind: &Arc<str>, class: Priority, holds: &Holds) {
        {
            let mut used = self.used.lock();
            self.note_ended(&used, class);
            used.sub_kind(kind, 1);
            used.sub_class(class, 1);
            used.sub_operations(&holds.operations, class, 1);
            used.sub_long(holds.long, 1);
            used.sub_queue(queue, 1);
        }
        self.wake();
    }

    /// What was worked since the last call; for one who asks.
    #[must_use]
    pub fn take_load(&self) -> Taken {
        self.load.lock().take(clock::monotonic())
    }

    /// A job ends that had been due for `waited` when it began, and ran for `took`.
    pub fn note_late(&self, class: Priority, waited: Duration, took: Duration) {
        let now = clock::monotonic();
        self.load.lock().late(class, waited, took, now);
    }

    fn note_begun(&self, used: &Used, asks: &[Ask], taken: &[usize]) {
        let now = clock::monotonic();
        let mut load = self.load.lock();
        for (ask, taken) in asks.iter().zip(taken) {
            load.begin(ask.class, *taken, now);
        }
        if used.total >= self.total() {
            load.full(now);
        }
    }

    fn note_ended(&self, used: &Used, class: Priority) {
        let now = clock::monotonic();
        let mut load = self.load.lock();
        load.end(class, now);
        // Until now they were.
        if used.total >= self.total() {
            load.full(now);
        }
    }

    /// Tells everyone who waits for slots to look again: some came free, or a limit rose.
    pub fn wake(&self) {
        for waiter in self.waiters.lock().iter() {
            waiter.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
