//! What a run owes its operations: how it went, or its permits back.

use super::{Admitted, Operation, Operations};
use crate::job::{Failure, Outcome};
use crate::policy::breaker::CallResult;
use std::sync::Arc;
use std::time::Duration;

/// Leave of one run to touch its resources.
pub struct Passage {
    operations: Arc<Operations>,
    calls: Vec<(Arc<Operation>, Admitted)>,
}

impl Passage {
    pub(super) fn new(operations: &Arc<Operations>, calls: usize) -> Self {
        Self {
            operations: Arc::clone(operations),
            calls: Vec::with_capacity(calls),
        }
    }

    pub(super) fn add(&mut self, operation: &Arc<Operation>, admitted: Admitted) {
        self.calls.push((Arc::clone(operation), admitted));
    }

    /// Tells the operations how the call went. One that used up its timeout counts as slow, whatever it came to; a kind
    /// that may take long is slow only when it took half of what it may.
    pub fn record(mut self, outcome: &Outcome, took: Duration, timeout: Duration) {
        let operations = &self.operations;
        let hung = took >= timeout && matches!(outcome, Outcome::Failed(_));
        let slow = took >= operations.settings.slow_call.max(timeout / 2);
        for (operation, call) in self.calls.drain(..) {
            let result = match judge(outcome, &operation.resource, slow) {
                CallResult::NotDependency if hung => CallResult::Success { slow: true },
                result => result,
            };
            let change = {
                let now = operations.epoch.now_ms();
                let mut inner = operation.inner.lock();
                inner.left(&call);
                let before = inner.share(operations.slots.total());
                let change = inner
                    .breaker
                    .record(now, call.epoch, result, rand::random());
                inner.note(change, before);
                change
            };
            operations.report(&operation, change);
        }
    }
}

impl Drop for Passage {
    /// A call that was dropped proves nothing: its permits go back.
    fn drop(&mut self) {
        for (operation, call) in self.calls.drain(..) {
            let mut inner = operation.inner.lock();
            inner.left(&call);
            if let Some(permit) = call.permit {
                inner.breaker.release(permit);
            }
        }
    }
}

/// What an outcome says about one dependency.
fn judge(outcome: &Outcome, resource: &str, slow: bool) -> CallResult {
    match outcome {
        Outcome::Done(_) => CallResult::Success { slow },
        Outcome::Failed(Failure { blame: Some(b), .. })
        | Outcome::Fatal(Failure { blame: Some(b), .. })
            if b.resource == resource =>
        {
            CallResult::DependencyFailure { connect: b.connect }
        }
        _ => CallResult::NotDependency,
    }
}
