//! Concurrency limits: how many jobs may run at once in this daemon, in a queue, of a kind, of a class, of an operation.
//!
//! Slots are taken before a claim and what the claim did not use is given back, so that no limit is ever passed.

use super::load::{Meter, Taken};
use crate::clock;
use crate::job::Priority;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// The slots of this daemon, shared by its queues.
#[derive(Debug)]
pub struct Slots {
    total: AtomicUsize,
    used: Mutex<Used>,
    /// Locked after `used` where both are.
    load: Mutex<Meter>,
    /// One for each queue that waits for slots.
    waiters: Mutex<Vec<Arc<Notify>>>,
}

#[derive(Debug, Default)]
struct Used {
    total: usize,
    queues: HashMap<Arc<str>, usize>,
    kinds: HashMap<Arc<str>, usize>,
    classes: [usize; 5],
    /// By the number of the operation.
    operations: Vec<UsedBy>,
}

/// The jobs of one operation.
#[derive(Debug, Clone, Copy, Default)]
struct UsedBy {
    all: usize,
    critical: usize,
    /// Whether a claim brought all that its limit let.
    pressed: bool,
}

/// How many jobs of one operation may run at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperationLimit {
    /// The operation, by its number.
    pub operation: usize,
    /// The limit, all kinds and queues together.
    pub limit: usize,
    /// Whether a critical job may go one beyond it when none runs: others can't shut it out.
    pub floor: bool,
}

/// The limits of all operations of a kind. Nothing for a kind without any: such jobs cost nothing here.
#[derive(Debug, Clone, Default)]
pub struct OperationLimits(Option<Arc<[OperationLimit]>>);

impl FromIterator<OperationLimit> for OperationLimits {
    fn from_iter<T: IntoIterator<Item = OperationLimit>>(limits: T) -> Self {
        let limits: Arc<[OperationLimit]> = limits.into_iter().collect();
        Self((!limits.is_empty()).then_some(limits))
    }
}

impl Deref for OperationLimits {
    type Target = [OperationLimit];

    fn deref(&self) -> &[OperationLimit] {
        self.0.as_deref().unwrap_or_default()
    }
}

/// What one flow asks for.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The kind of its jobs.
    pub kind: Arc<str>,
    /// Their class.
    pub class: Priority,
    /// How many of that kind may run at once.
    pub kind_limit: usize,
    /// How many of that class may run at once, by the gate.
    pub class_limit: usize,
    /// How many more may be taken from this flow, if it takes turns with others.
    pub flow_limit: usize,
    /// How many of its operations may run at once.
    pub operations: OperationLimits,
    /// Whether waiting lifts its jobs over those of higher classes.
    pub ages: bool,
}

/// Slots taken for a claim.
#[derive(Debug)]
pub struct Reserved {
    /// Jobs that may be claimed in all.
    pub limit: usize,
    /// And of each flow asked for.
    pub allowances: Vec<usize>,
}

impl Slots {
    /// `total` slots, all free.
    #[must_use]
    pub fn new(total: usize) -> Self {
        Self {
            total: AtomicUsize::new(total),
            used: Mutex::default(),
            load: Mutex::new(Meter::new(clock::monotonic())),
            waiters: Mutex::default(),
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
        self.used.lock().room(ask) > 0
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
        let mut used = self.used.lock();
        let in_queue = used.queues.get(queue).copied().unwrap_or(0);
        let limit = (self.total().saturating_sub(used.total))
            .min(queue_limit.saturating_sub(in_queue))
            .min(most);
        let mut allowances = Vec::with_capacity(asks.len());
        let mut granted = 0;
        for ask in asks {
            let allowance = limit.min(used.room(ask));
            used.add_kind(&ask.kind, allowance);
            used.classes[ask.class.index()] += allowance;
            used.add_operations(&ask.operations, ask.class, allowance);
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

    /// Gives back the slot of a job that ended; `operations` are those it was asked for with.
    pub fn release(
        &self,
        queue: &Arc<str>,
        kind: &Arc<str>,
        class: Priority,
        operations: &[OperationLimit],
    ) {
        {
            let mut used = self.used.lock();
            self.note_ended(&used, class);
            used.sub_kind(kind, 1);
            used.sub_class(class, 1);
            used.sub_operations(operations, class, 1);
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

impl Used {
    /// How many more jobs that ask may bring, as far as its own limits go.
    fn room(&self, ask: &Ask) -> usize {
        let of_kind = self.kinds.get(&ask.kind).copied().unwrap_or(0);
        let of_class = self.classes[ask.class.index()];
        let own = ask
            .kind_limit
            .saturating_sub(of_kind)
            .min(ask.class_limit.saturating_sub(of_class))
            .min(ask.flow_limit);
        let each = ask.operations.iter();
        each.map(|of| self.room_of(of, ask.class))
            .fold(own, usize::min)
    }

    fn room_of(&self, of: &OperationLimit, class: Priority) -> usize {
        let used = self.operations.get(of.operation).copied();
        let used = used.unwrap_or_default();
        let floor = of.floor && class == Priority::Critical && used.critical == 0;
        of.limit.saturating_sub(used.all).max(floor.into())
    }

    /// Jobs came, and nothing is left of these limits: they may be what kept back more.
    fn press(&mut self, operations: &[OperationLimit]) {
        for of in operations {
            if let Some(used) = self.operations.get_mut(of.operation) {
                used.pressed |= used.all >= of.limit;
            }
        }
    }

    fn add_operations(&mut self, operations: &[OperationLimit], class: Priority, n: usize) {
        for of in operations {
            if self.operations.len() <= of.operation {
                self.operations
                    .resize_with(of.operation + 1, UsedBy::default);
            }
            let used = &mut self.operations[of.operation];
            used.all += n;
            used.critical += if class == Priority::Critical { n } else { 0 };
        }
    }

    fn sub_operations(&mut self, operations: &[OperationLimit], class: Priority, n: usize) {
        for of in operations {
            if let Some(used) = self.operations.get_mut(of.operation) {
                used.all = used.all.saturating_sub(n);
                if class == Priority::Critical {
                    used.critical = used.critical.saturating_sub(n);
                }
            }
        }
    }

    fn add_kind(&mut self, kind: &Arc<str>, n: usize) {
        if n > 0 {
            *self.kinds.entry(Arc::clone(kind)).or_default() += n;
        }
    }

    fn sub_kind(&mut self, kind: &Arc<str>, n: usize) {
        if let Some(of_kind) = self.kinds.get_mut(kind) {
            *of_kind = of_kind.saturating_sub(n);
        }
    }

    fn sub_class(&mut self, class: Priority, n: usize) {
        let of_class = &mut self.classes[class.index()];
        *of_class = of_class.saturating_sub(n);
    }

    fn sub_queue(&mut self, queue: &Arc<str>, n: usize) {
        self.total = self.total.saturating_sub(n);
        if let Some(in_queue) = self.queues.get_mut(queue) {
            *in_queue = in_queue.saturating_sub(n);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: usize = usize::MAX;

    fn ask(kind: &str, kind_limit: usize, class_limit: usize) -> Ask {
        Ask {
            kind: kind.into(),
            class: Priority::Normal,
            kind_limit,
            class_limit,
            flow_limit: FREE,
            operations: OperationLimits::default(),
            ages: true,
        }
    }

    fn of(limits: &[(usize, usize)], ask: Ask) -> Ask {
        let limit = |&(operation, limit): &(usize, usize)| OperationLimit {
            operation,
            limit,
            floor: true,
        };
        Ask {
            operations: limits.iter().map(limit).collect(),
            ..ask
        }
    }

    fn critical(ask: Ask) -> Ask {
        Ask {
            class: Priority::Critical,
            ..ask
        }
    }

    #[test]
    fn every_limit_holds_and_what_is_unused_comes_back() {
        let slots = Slots::new(10);
        let queue: Arc<str> = "q".into();
        let asks = [ask("a", 3, FREE), ask("b", FREE, FREE)];
        let got = slots.reserve(&queue, 8, 100, &asks);
        assert_eq!((got.limit, got.allowances.as_slice()), (8, &[3, 8][..]));
        slots.settle_claim(&queue, &got, &asks, &[3, 1]);
        assert_eq!((slots.busy(), slots.busy_in("q")), (4, 4));
        let got = slots.reserve(&queue, 8, 100, &asks);
        assert_eq!((got.limit, got.allowances.as_slice()), (4, &[0, 4][..]));
        slots.settle_claim(&queue, &got, &asks, &[0, 0]);
        slots.release(&queue, &asks[0].kind, Priority::Normal, &[]);
        assert_eq!(slots.reserve(&queue, 8, 1, &asks).allowances, [1, 1]);
    }

    #[tokio::test]
    async fn what_a_claim_kept_from_others_for_a_moment_wakes_them() {
        let slots = Slots::new(10);
        let asks = [ask("a", FREE, 8), ask("b", FREE, 8)];
        let queue: Arc<str> = "q".into();
        let got = slots.reserve(&queue, 4, FREE, &asks);
        assert!(!slots.has_room(&ask("c", FREE, 8)), "for a moment");
        let waiter = slots.waiter();
        slots.settle_claim(&queue, &got, &asks, &[4, 0]);
        assert!(slots.has_room(&ask("c", FREE, 8)));
        let deadline = std::time::Duration::from_secs(5);
        tokio::time::timeout(deadline, waiter.notified())
            .await
            .expect("woken");
    }

    #[test]
    fn two_flows_of_one_kind_or_class_share_its_limit() {
        let slots = Slots::new(100);
        let queue: Arc<str> = "q".into();
        let asks = [ask("a", 3, 4), ask("a", 3, 4), ask("b", FREE, 4)];
        let got = slots.reserve(&queue, FREE, FREE, &asks);
        assert_eq!((got.limit, got.allowances.as_slice()), (4, &[3, 0, 1][..]));
    }

    #[test]
    fn queues_share_the_total() {
        let slots = Slots::new(5);
        let asks = [ask("a", FREE, FREE)];
        assert_eq!(slots.reserve(&"q".into(), 4, FREE, &asks).limit, 4);
        assert_eq!(slots.reserve(&"r".into(), 4, FREE, &asks).limit, 1);
        assert_eq!(slots.reserve(&"s".into(), 4, FREE, &asks).limit, 0);
    }

    #[test]
    fn kinds_flows_and_queues_share_an_operation_and_a_kind_keeps_to_each_of_its_own() {
        let slots = Slots::new(100);
        let (q, r): (Arc<str>, Arc<str>) = ("q".into(), "r".into());
        let one = of(&[(0, 4)], ask("a", FREE, FREE));
        let two = of(&[(0, 4), (3, 2)], ask("b", FREE, FREE));
        let asks = [two.clone(), one.clone(), one.clone()];
        let got = slots.reserve(&q, FREE, FREE, &asks);
        assert_eq!(got.allowances, [2, 2, 0]);
        assert!(!slots.was_pressed(0));
        assert!(!slots.has_room(&one) && !slots.has_room(&two));
        assert_eq!(slots.reserve(&r, FREE, FREE, &asks).limit, 0);
        slots.settle_claim(&q, &got, &asks, &[2, 1, 0]);
        let pressed = [0, 3, 0, 9].map(|of| slots.was_pressed(of));
        assert_eq!(pressed, [false, true, false, false], "told once");
        let got = slots.reserve(&r, FREE, FREE, &asks);
        assert_eq!(
            got.allowances,
            [0, 1, 0],
            "b is at the limit of its other one"
        );
        slots.settle_claim(&r, &got, &asks, &[0, 0, 0]);
        slots.release(&q, &two.kind, Priority::Normal, &two.operations);
        let got = slots.reserve(&r, FREE, FREE, &asks);
        assert_eq!(got.allowances, [1, 1, 0]);
    }

    #[test]
    fn one_critical_job_goes_beyond_the_limit_of_its_operation_but_not_past_an_open_breaker() {
        let slots = Slots::new(100);
        let queue: Arc<str> = "q".into();
        let bulk = of(&[(1, 2)], ask("a", FREE, FREE));
        let urgent = critical(bulk.clone());
        let got = slots.reserve(&queue, FREE, FREE, std::slice::from_ref(&bulk));
        assert_eq!(got.allowances, [2]);
        let asks = [urgent.clone(), urgent.clone()];
        let got = slots.reserve(&queue, FREE, FREE, &asks);
        assert_eq!(got.allowances, [1, 0]);
        slots.release(&queue, &urgent.kind, urgent.class, &urgent.operations);
        let shut = OperationLimit {
            floor: false,
            ..urgent.operations[0]
        };
        let refused = Ask {
            operations: [shut].into_iter().collect(),
            ..urgent.clone()
        };
        assert!(slots.has_room(&urgent) && !slots.has_room(&refused));
    }

    #[tokio::test]
    async fn who_waits_is_woken_by_a_limit_that_rose() {
        let slots = Slots::new(10);
        let waiter = slots.waiter();
        // Before anybody waits: the wake-up is kept.
        slots.wake();
        let deadline = std::time::Duration::from_secs(5);
        tokio::time::timeout(deadline, waiter.notified())
            .await
            .expect("woken");
    }

    #[test]
    fn what_was_reserved_but_not_claimed_is_no_load() {
        let slots = Slots::new(4);
        let queue: Arc<str> = "q".into();
        let asks = [ask("a", FREE, FREE)];
        let class = asks[0].class.index();
        let reserved = slots.reserve(&queue, 4, 4, &asks);
        slots.settle_claim(&queue, &reserved, &asks, &[3]);
        assert_eq!(slots.take_load().done[class].jobs, 3);
        for _ in 0..3 {
            slots.release(&queue, &asks[0].kind, asks[0].class, &[]);
        }
        let _ = slots.take_load();
        assert_eq!(slots.take_load().done[class], Default::default());
    }
}
