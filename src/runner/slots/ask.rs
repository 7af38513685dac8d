//! What is asked of the slots of a daemon, and what comes of it.

use crate::job::Priority;
use crate::policy::length::ShortRule;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

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

/// The slots that long jobs leave free for critical ones.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Reserve {
    /// The share of all slots, rounded down.
    pub share: f64,
    /// Kinds whose runs usually take no longer are short: they may borrow what is reserved.
    pub lend_below: Duration,
    /// What usually means.
    pub short: ShortRule,
}

impl Reserve {
    /// How many of `total` slots; never all.
    #[must_use]
    pub fn of(&self, total: usize) -> usize {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss
        )] // a share of a count
        let slots = (total as f64 * self.share) as usize;
        slots.min(total.saturating_sub(1))
    }
}

/// What a job holds besides a slot of its daemon, queue, kind and class.
#[derive(Debug, Clone, Default)]
pub struct Holds {
    /// Slots of operations.
    pub operations: OperationLimits,
    /// It counts among the long ones.
    pub long: bool,
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
    /// Whether its jobs are those that slots are reserved for, or are never held back.
    pub urgent: bool,
    /// Whether its jobs may take long, and are not urgent: they leave the reserve alone.
    pub long: bool,
    /// Whether waiting lifts its jobs over those of higher classes.
    pub ages: bool,
}

impl Ask {
    /// What a job that came of it holds.
    #[must_use]
    pub fn holds(&self) -> Holds {
        Holds {
            operations: self.operations.clone(),
            long: self.long,
        }
    }
}

/// Slots taken for a claim.
#[derive(Debug)]
pub struct Reserved {
    /// Jobs that may be claimed in all.
    pub limit: usize,
    /// And of each flow asked for.
    pub allowances: Vec<usize>,
}
