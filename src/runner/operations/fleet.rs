//! The breakers of this daemon as members of a fleet: what they say, and how they follow what all decided.

use super::{Operation, Operations};
use crate::policy::breaker::Stand;
use crate::policy::breaker::fleet::Record;
use std::sync::Arc;

impl Operations {
    /// How the breaker of each operation stands; none for one that takes no part, by an operator's order.
    #[must_use]
    pub fn stands(&self) -> Vec<(Arc<Operation>, Option<Stand>)> {
        let now = self.epoch.now_ms();
        let stand = |operation: Arc<Operation>| {
            let stand = operation.inner.lock().breaker.stand(now);
            (operation, stand)
        };
        self.each().into_iter().map(stand).collect()
    }

    /// Follows what the fleet decided about an operation, at the time of the fleet.
    pub fn follow(
        &self,
        operation: &Operation,
        record: Option<&Record>,
        me: &str,
        fleet_now_ms: u64,
    ) {
        let now = self.epoch.now_ms();
        let (transition, is_other) = {
            let mut inner = operation.inner.lock();
            let (share, before) = (
                inner.limit_when_well(self.slots.total()),
                inner.breaker.peek(now),
            );
            let transition = inner.breaker.follow(now, record, me, fleet_now_ms);
            inner.note(now, transition, share);
            (transition, before != inner.breaker.peek(now))
        };
        self.report(operation, transition);
        if is_other {
            self.slots.wake();
        }
    }

    /// The fleet is out of reach: each breaker goes on by itself from where it is.
    pub fn alone(&self) {
        for operation in self.each() {
            operation.inner.lock().breaker.alone();
        }
        self.slots.wake();
    }
}
