//! All limiters together: their settings, when they judge, and what of them outlives the daemon.

use super::limiting::{Limiting, Resumed};
use super::{Inner, Operation, Operations};
use crate::catalog::NEVER_SHED;
use crate::config::{GateMode, LimiterConfig};
use crate::policy::limiter::{Change, Saved};
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Operations {
    /// The limiter of a new operation, if it is to have one.
    pub(super) fn limiting(&self, handler: &str) -> Option<Limiting> {
        let limited = handler != NEVER_SHED;
        let slots = self.slots.total();
        let made = || Limiting::new(&self.limiter.read(), slots, self.epoch.now_ms());
        limited.then(made).flatten()
    }

    /// Takes over other settings of limiters, and the slots there are now; what they have learnt stays.
    pub fn configure(&self, settings: &LimiterConfig) {
        let (now, slots) = (self.epoch.now_ms(), self.slots.total());
        self.limiter.write().clone_from(settings);
        for operation in self.each() {
            let inner = &mut *operation.inner.lock();
            match &mut inner.limiting {
                Some(_) if settings.mode == GateMode::Off => inner.limiting = None,
                Some(limiting) => limiting.configure(settings, slots, now, inner.running),
                None => {
                    inner.limiting = self.limiting(&operation.handler);
                    if let Some(limiting) = &mut inner.limiting {
                        limiting.configure(settings, slots, now, inner.running);
                    }
                }
            }
        }
        self.slots.wake();
    }

    /// Waits until there is something to judge: calls were let through since the last [`Operations::tick`], or some run.
    pub async fn in_use(&self) {
        while !self.used.load(Ordering::Acquire) {
            self.begins.notified().await;
        }
    }

    /// Has every limiter judge what was reported to it, and time do its part with the breakers. Who waits for slots is woken
    /// where a limit rose, be it because a breaker lets a trial through by now. Answers with the changes of limiters, and
    /// whether each is only what would be done.
    pub fn tick(&self, may_grow: impl Fn(&str) -> bool) -> Vec<(Arc<Operation>, Change, bool)> {
        self.forget_unused();
        // Before the look, so that what begins meanwhile is not missed.
        self.used.store(false, Ordering::Release);
        let (now, slots) = (self.epoch.now_ms(), self.slots.total());
        let (mut changes, mut rose, mut busy) = (Vec::new(), false, false);
        for operation in self.each() {
            let pressed = self.slots.was_pressed(operation.index);
            let by_time = {
                let inner = &mut *operation.inner.lock();
                if let Some(limiting) = inner.limiting.as_mut().filter(|_| pressed) {
                    limiting.pressed();
                }
                let by_time = inner.breaker.tick(now, inner.running > 0);
                let may_grow = || may_grow(&operation.resource);
                let change = inner.tick(now, slots, may_grow);
                let limit = inner.limit(now, slots).calls;
                rose |= limit > std::mem::replace(&mut inner.seen, limit);
                busy |= inner.running > 0 || inner.breaker.changes_by_time();
                let acts = inner.limiting.as_ref().is_some_and(Limiting::acts);
                changes.extend(change.map(|change| (Arc::clone(&operation), change, !acts)));
                by_time
            };
            self.report(&operation, by_time);
        }
        if busy {
            self.used.store(true, Ordering::Release);
        }
        if rose {
            self.slots.wake();
        }
        changes
    }

    /// Operations whose limiter has not been handed what was kept of it.
    #[must_use]
    pub fn unasked(&self) -> Vec<Arc<Operation>> {
        let unasked =
            |of: &Arc<Operation>| of.inner.lock().limiting.as_ref().is_some_and(|l| !l.asked);
        self.each().into_iter().filter(unasked).collect()
    }

    /// A limiter was, or there was nothing.
    pub fn was_asked(&self, operation: &Operation) {
        if let Some(limiting) = &mut operation.inner.lock().limiting {
            limiting.asked = true;
        }
    }

    /// Has a limiter go on from what was kept of it.
    pub fn resume(&self, operation: &Operation, saved: Saved) -> Resumed {
        let now = self.epoch.now_ms();
        let inner = &mut *operation.inner.lock();
        let running = inner.running;
        inner
            .limiting
            .as_mut()
            .map_or(Resumed::TooLate, |limiting| {
                limiting.resume(saved, now, running)
            })
    }

    /// What limiters have learnt that is worth keeping.
    #[must_use]
    pub fn learnt(&self) -> Vec<(Arc<Operation>, Saved)> {
        let learnt = |of: Arc<Operation>| {
            let saved = of.inner.lock().limiting.as_ref()?.learnt()?;
            Some((of, saved))
        };
        self.each().into_iter().filter_map(learnt).collect()
    }
}

impl Inner {
    fn tick(&mut self, now_ms: u64, slots: usize, may_grow: impl Fn() -> bool) -> Option<Change> {
        let limiting = self.limiting.as_mut()?;
        limiting.follow_slots(slots, now_ms, self.running);
        let breaker = self.breaker.snapshot(now_ms);
        limiting.tick(now_ms, &breaker, may_grow(), rand::random())
    }
}
