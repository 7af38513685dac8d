//! How many calls of an operation may run: the least of what its breaker, its limiter, its pool and the slots say.

use super::{Inner, Operation, Operations};
use crate::config::GateMode;
use crate::policy::breaker::{Outlook, State};
use crate::policy::limiter;
use crate::runner::slots::OperationLimit;
use serde::Serialize;
use std::sync::Arc;

/// How many calls may run now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit {
    pub(super) calls: usize,
    /// Whether the breaker lets any number through, so that a critical call may go one beyond.
    floor: bool,
    by: LimitedBy,
}

/// What sets a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum LimitedBy {
    /// The slots of the daemon.
    Slots,
    /// The connections there are.
    Pool,
    /// The latency of its calls.
    Limiter,
    /// Failures of its dependency.
    Breaker,
    /// An operator, in place of the limiter.
    Order,
}

/// An operation and its limiter at one moment, for `/health`, `explain` and metrics.
#[derive(Debug, Clone, Serialize)]
pub struct LimiterSnapshot {
    /// The handler kind.
    pub handler: Arc<str>,
    /// The resource.
    pub resource: Arc<str>,
    /// Whether the limiter acts.
    pub mode: GateMode,
    /// Calls that may run at once, all told.
    pub limit: usize,
    /// What sets that limit.
    by: LimitedBy,
    /// The limiter itself.
    pub limiter: limiter::Snapshot,
}

impl Limit {
    pub(super) const fn of(self, operation: &Operation) -> OperationLimit {
        OperationLimit {
            operation: operation.index,
            limit: self.calls,
            floor: self.floor,
        }
    }
}

impl Operations {
    /// Every limiter as it stands, for reports; none if there are to be none.
    #[must_use]
    pub fn limiters(&self) -> Vec<LimiterSnapshot> {
        let (now, slots) = (self.epoch.now_ms(), self.slots.total());
        let mode = self.limiter.read().mode;
        let snapshot = |operation: Arc<Operation>| {
            let inner = operation.inner.lock();
            let limit = inner.limit(now, slots);
            Some(LimiterSnapshot {
                handler: Arc::clone(&operation.handler),
                resource: Arc::clone(&operation.resource),
                mode,
                limit: limit.calls,
                by: limit.by,
                limiter: inner.limiting.as_ref()?.snapshot(now),
            })
        };
        self.each().into_iter().filter_map(snapshot).collect()
    }
}

impl Inner {
    pub(super) fn limit(&self, now_ms: u64, slots: usize) -> Limit {
        let (own, by) = self.without_breaker(slots, |limiting| limiting.limit());
        let breaker = |calls, floor| Limit {
            calls,
            floor,
            by: LimitedBy::Breaker,
        };
        match self.breaker.peek(now_ms) {
            Outlook::Allow { limit: None } => Limit {
                calls: own,
                floor: true,
                by,
            },
            // What hung when it opened may hang on. The way back is for calls that were let through since.
            Outlook::Allow { limit: Some(share) } => {
                let part = share_of(self.limit_before.min(slots), share).min(own);
                breaker(self.outlasted + part, true)
            }
            // Slots taken for a claim whose jobs did not come here yet are none that run: there is one trial.
            Outlook::Trial => breaker(self.running + 1, false),
            Outlook::Refuse { .. } => breaker(0, false),
        }
    }

    /// The limit that a way back is a share of, should the breaker open now.
    pub(super) fn limit_when_well(&self, slots: usize) -> usize {
        match self.breaker.state(0) {
            State::Closed => {
                self.without_breaker(slots, |limiting| limiting.limit_when_well())
                    .0
            }
            State::Open | State::HalfOpen | State::Ramping => self.limit_before,
        }
    }

    fn without_breaker(
        &self,
        slots: usize,
        of: impl Fn(&super::Limiting) -> usize,
    ) -> (usize, LimitedBy) {
        let limiting = self.limiting.as_ref().filter(|limiting| limiting.acts());
        let own = match self.ordered {
            Some(limit) => (limit, LimitedBy::Order),
            None => (limiting.map_or(usize::MAX, of), LimitedBy::Limiter),
        };
        [
            (slots, LimitedBy::Slots),
            (self.pool.unwrap_or(usize::MAX), LimitedBy::Pool),
            own,
        ]
        .into_iter()
        .min_by_key(|(limit, _)| *limit)
        .unwrap_or((slots, LimitedBy::Slots))
    }
}

/// At least one call.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss
)] // a share of a count
fn share_of(limit: usize, share: f64) -> usize {
    ((limit as f64 * share) as usize).max(1)
}
