//! The counts of slots in use.
//!
//! Owns the arithmetic: what there is room for, what is taken and given back. Must not know who waits.

use super::ask::{Ask, OperationLimit};
use crate::job::Priority;
use std::collections::HashMap;
use std::sync::Arc;

#[derive(Debug, Default)]
pub(super) struct Used {
    pub(super) total: usize,
    pub(super) queues: HashMap<Arc<str>, usize>,
    pub(super) kinds: HashMap<Arc<str>, usize>,
    pub(super) classes: [usize; 5],
    /// Of those that leave the reserve alone.
    pub(super) long: usize,
    /// By the number of the operation.
    pub(super) operations: Vec<UsedBy>,
}

/// The jobs of one operation.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct UsedBy {
    all: usize,
    critical: usize,
    /// Whether a claim brought all that its limit let.
    pub(super) pressed: bool,
}

impl Used {
    /// How many more jobs that ask may bring, as far as its own limits go.
    pub(super) fn room(&self, ask: &Ask, long_limit: usize) -> usize {
        let of_kind = self.kinds.get(&ask.kind).copied().unwrap_or(0);
        let of_class = self.classes[ask.class.index()];
        let own = ask
            .kind_limit
            .saturating_sub(of_kind)
            .min(ask.class_limit.saturating_sub(of_class))
            .min(ask.flow_limit);
        let own = match ask.long {
            true => own.min(long_limit.saturating_sub(self.long)),
            false => own,
        };
        let each = ask.operations.iter();
        each.map(|of| self.room_of(of, ask.class))
            .fold(own, usize::min)
    }

    /// How many jobs run that are not critical.
    pub(super) fn others(&self) -> usize {
        let [_, others @ ..] = self.classes;
        others.iter().sum()
    }

    fn room_of(&self, of: &OperationLimit, class: Priority) -> usize {
        let used = self.operations.get(of.operation).copied();
        let used = used.unwrap_or_default();
        let floor = of.floor && class == Priority::Critical && used.critical == 0;
        of.limit.saturating_sub(used.all).max(floor.into())
    }

    /// Jobs came, and nothing is left of these limits: they may be what kept back more.
    pub(super) fn press(&mut self, operations: &[OperationLimit]) {
        for of in operations {
            if let Some(used) = self.operations.get_mut(of.operation) {
                used.pressed |= used.all >= of.limit;
            }
        }
    }

    pub(super) fn add_operations(
        &mut self,
        operations: &[OperationLimit],
        class: Priority,
        n: usize,
    ) {
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

    pub(super) fn sub_operations(
        &mut self,
        operations: &[OperationLimit],
        class: Priority,
        n: usize,
    ) {
        for of in operations {
            if let Some(used) = self.operations.get_mut(of.operation) {
                used.all = used.all.saturating_sub(n);
                if class == Priority::Critical {
                    used.critical = used.critical.saturating_sub(n);
                }
            }
        }
    }

    pub(super) fn sub_long(&mut self, long: bool, n: usize) {
        self.long = self.long.saturating_sub(if long { n } else { 0 });
    }

    pub(super) fn add_kind(&mut self, kind: &Arc<str>, n: usize) {
        if n > 0 {
            *self.kinds.entry(Arc::clone(kind)).or_default() += n;
        }
    }

    pub(super) fn sub_kind(&mut self, kind: &Arc<str>, n: usize) {
        if let Some(of_kind) = self.kinds.get_mut(kind) {
            *of_kind = of_kind.saturating_sub(n);
        }
    }

    pub(super) fn sub_class(&mut self, class: Priority, n: usize) {
        let of_class = &mut self.classes[class.index()];
        *of_class = of_class.saturating_sub(n);
    }

    pub(super) fn sub_queue(&mut self, queue: &Arc<str>, n: usize) {
        self.total = self.total.saturating_sub(n);
        if let Some(in_queue) = self.queues.get_mut(queue) {
            *in_queue = in_queue.saturating_sub(n);
        }
    }
}
