//! Concurrency limits: how many jobs may run at once in this daemon, in a queue, of a kind.
//!
//! Slots are taken before a claim and what the claim did not use is given back, so that no limit is ever passed.

use crate::job::Priority;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// The slots of this daemon, shared by its queues.
#[derive(Debug)]
pub struct Slots {
    total: AtomicUsize,
    used: Mutex<Used>,
    /// One for each queue that waits for slots.
    waiters: Mutex<Vec<Arc<Notify>>>,
}

#[derive(Debug, Default)]
struct Used {
    total: usize,
    queues: HashMap<Arc<str>, usize>,
    kinds: HashMap<Arc<str>, usize>,
    classes: [usize; 5],
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
    /// How many more may be taken from this flow, by its breaker.
    pub flow_limit: usize,
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
        let of_kind = used.kinds.get(&ask.kind).copied().unwrap_or(0);
        ask.flow_limit > 0
            && ask.kind_limit > of_kind
            && ask.class_limit > used.classes[ask.class.index()]
    }

    /// Takes slots for a claim of at most `most` jobs of `queue`, whose own limit is `queue_limit`. The flows are served
    /// in the order given: what one is allowed, a later one of the same kind or class is not.
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
            let of_kind = used.kinds.get(&ask.kind).copied().unwrap_or(0);
            let of_class = used.classes[ask.class.index()];
            let allowance = limit
                .min(ask.kind_limit.saturating_sub(of_kind))
                .min(ask.class_limit.saturating_sub(of_class))
                .min(ask.flow_limit);
            used.add_kind(&ask.kind, allowance);
            used.classes[ask.class.index()] += allowance;
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
                returned |= unused > 0;
            }
            used.sub_queue(queue, reserved.limit.saturating_sub(brought));
        }
        // Allowances may add up to more than the limit: another queue may have found its class or kind full meanwhile.
        if returned {
            self.wake();
        }
    }

    /// Gives back the slot of a job that ended.
    pub fn release(&self, queue: &Arc<str>, kind: &Arc<str>, class: Priority) {
        {
            let mut used = self.used.lock();
            used.sub_kind(kind, 1);
            used.sub_class(class, 1);
            used.sub_queue(queue, 1);
        }
        self.wake();
    }

    fn wake(&self) {
        for waiter in self.waiters.lock().iter() {
            waiter.notify_one();
        }
    }
}

impl Used {
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
        slots.release(&queue, &asks[0].kind, Priority::Normal);
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
}
