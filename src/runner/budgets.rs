//! The retry budgets of this daemon: one per resource, kept over reloads.
//!
//! Owns: which budgets there are, what they are told of starts, and which due retries have to wait. Must not know how
//! jobs are promoted: the queue asks through [`Holds`].

use super::context::Shared;
use super::registry::{Kind, Registry};
use crate::clock::Epoch;
use crate::policy::budget::{BudgetConfig, BudgetSnapshot, RetryBudget};
use crate::queue::Flow;
use crate::queue::promote::Holds;
use crate::telemetry::Metrics;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long a retry waits at least whose class or operation is closed.
const CLOSED_WAIT: Duration = Duration::from_secs(2);

/// All budgets, by resource.
pub struct Budgets {
    /// None if there are to be no budgets.
    settings: Option<BudgetConfig>,
    epoch: Epoch,
    known: Mutex<BTreeMap<Arc<str>, Arc<Budget>>>,
    metrics: Arc<Metrics>,
}

/// The budget of one resource.
pub struct Budget {
    /// Whose it is.
    pub resource: Arc<str>,
    inner: Mutex<RetryBudget>,
}

impl Budgets {
    /// No budget yet, and never one without `settings`.
    #[must_use]
    pub fn new(settings: Option<BudgetConfig>, metrics: Arc<Metrics>) -> Self {
        Self {
            settings,
            epoch: Epoch::start(),
            known: Mutex::default(),
            metrics,
        }
    }

    /// The budgets of what touches `resources`, made on first use.
    #[must_use]
    pub fn of(&self, resources: &[Arc<str>]) -> Vec<Arc<Budget>> {
        let Some(settings) = self.settings else {
            return Vec::new();
        };
        let mut known = self.known.lock();
        let get = |resource: &Arc<str>| {
            let made = || {
                Arc::new(Budget {
                    resource: Arc::clone(resource),
                    inner: Mutex::new(RetryBudget::new(self.epoch.now_ms(), settings)),
                })
            };
            Arc::clone(known.entry(Arc::clone(resource)).or_insert_with(made))
        };
        resources.iter().map(get).collect()
    }

    /// A new job of a kind with these budgets starts.
    pub fn fresh(&self, budgets: &[Arc<Budget>]) {
        self.each(budgets, RetryBudget::fresh);
    }

    /// How long a due retry has to wait; none if it may go, and is counted. `closed` says that its kind may not run now.
    fn wait(&self, budgets: &[Arc<Budget>], closed: bool) -> Option<Duration> {
        let now = self.epoch.now_ms();
        let short = |budget: &&Arc<Budget>| closed || !budget.inner.lock().has_room(now);
        let waits = budgets.iter().filter(short).map(|budget| {
            self.metrics.retries_held(&budget.resource);
            budget.inner.lock().hold(now)
        });
        let longest = waits.max();
        if longest.is_none() {
            self.each(budgets, RetryBudget::spend);
        }
        // What is closed opens in seconds at best; to ask more often would only keep Redis busy.
        longest.map(|wait| if closed { wait.max(CLOSED_WAIT) } else { wait })
    }

    fn each(&self, budgets: &[Arc<Budget>], change: impl Fn(&mut RetryBudget, u64)) {
        if budgets.is_empty() {
            return;
        }
        let now = self.epoch.now_ms();
        for budget in budgets {
            change(&mut budget.inner.lock(), now);
        }
    }

    /// Forgets the budgets that no kind has any more.
    pub fn forget_unused(&self) {
        let is_used = |budget: &Arc<Budget>| Arc::strong_count(budget) > 1;
        self.known.lock().retain(|_, budget| is_used(budget));
    }

    fn all(&self) -> Vec<Arc<Budget>> {
        self.known.lock().values().map(Arc::clone).collect()
    }

    /// The budgets that begin or end to hold retries back since the last call, with how they stand.
    #[must_use]
    pub fn changes(&self) -> Vec<(Arc<str>, BudgetSnapshot)> {
        let now = self.epoch.now_ms();
        let changed = |budget: Arc<Budget>| {
            let mut inner = budget.inner.lock();
            inner.judge(now)?;
            Some((Arc::clone(&budget.resource), inner.snapshot(now)))
        };
        self.all().into_iter().filter_map(changed).collect()
    }

    /// Every budget as it stands, for reports.
    #[must_use]
    pub fn snapshots(&self) -> Vec<(Arc<str>, BudgetSnapshot)> {
        let now = self.epoch.now_ms();
        let snapshot = |budget: Arc<Budget>| {
            let snapshot = budget.inner.lock().snapshot(now);
            (Arc::clone(&budget.resource), snapshot)
        };
        self.all().into_iter().map(snapshot).collect()
    }
}

/// What a promotion asks of the budgets.
pub(super) struct Keeper<'a> {
    shared: &'a Shared,
    registry: &'a Registry,
}

impl<'a> Keeper<'a> {
    pub(super) const fn new(shared: &'a Shared, registry: &'a Registry) -> Self {
        Self { shared, registry }
    }

    /// Whether no job of this class may start now, by its gate or its operations. A retry that went to its flow would stand
    /// there before all new work when they open.
    fn is_closed(&self, kind: &Kind, flow: &Flow) -> bool {
        let slots = self.shared.slots.total();
        (self.shared.gate)(&kind.spec, flow.priority, slots) == 0
            || self.shared.operations.are_shut(&kind.operations)
    }
}

impl Holds for Keeper<'_> {
    fn watches(&self, kind: &str) -> bool {
        let kind = self.registry.get(kind);
        kind.is_some_and(|kind| !kind.budgets.is_empty())
    }

    fn wait(&mut self, flow: &Flow) -> Option<Duration> {
        let kind = self.registry.get(&flow.kind)?;
        let closed = self.is_closed(kind, flow);
        self.shared.budgets.wait(&kind.budgets, closed)
    }

    fn had_gone(&mut self, flow: &Flow) {
        if let Some(kind) = self.registry.get(&flow.kind) {
            let budgets = &self.shared.budgets;
            budgets.each(&kind.budgets, RetryBudget::refund);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const CONFIG: BudgetConfig = BudgetConfig {
        share: 0.2,
        floor: 2.0,
        window: Duration::from_secs(600),
        line: Duration::from_secs(5),
        crowd: 100.0,
        longest: Duration::from_secs(60),
    };

    #[test]
    fn a_retry_needs_room_in_the_budget_of_each_resource_and_takes_it_from_none_else() {
        let budgets = Budgets::new(Some(CONFIG), Arc::default());
        let both = budgets.of(&["a:1".into(), "b:1".into()]);
        let first = budgets.of(&["a:1".into()]);
        assert_eq!(budgets.wait(&first, false), None);
        assert_eq!(budgets.wait(&first, false), None);
        assert!(budgets.wait(&both, false).is_some(), "a:1 is used up");
        let left: Vec<u64> = budgets
            .snapshots()
            .iter()
            .map(|(_, budget)| budget.left.round() as u64)
            .collect();
        assert_eq!(left, [0, 2]);
        for _ in 0..4 {
            budgets.fresh(&first);
        }
        assert_eq!(budgets.wait(&both, false), None);
        assert!(budgets.wait(&budgets.of(&["b:1".into()]), true).is_some());
    }

    #[test]
    fn without_settings_there_is_none() {
        let budgets = Budgets::new(None, Arc::default());
        assert!(budgets.of(&["a:1".into()]).is_empty());
    }
}
