//! What a run owes its operations: how it went, or its permits back.

use super::{Admitted, Operation, Operations};
use crate::job::{Failure, Outcome};
use crate::policy::breaker::{CallResult, Mode};
use crate::policy::limiter::Ended;
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
        let slow = took >= operations.breaker.slow_call.max(timeout / 2);
        for (operation, call) in self.calls.drain(..) {
            let result = match judge(outcome, &operation.resource, slow) {
                CallResult::NotDependency if hung => CallResult::Success { slow: true },
                result => result,
            };
            let change = {
                let now = operations.epoch.now_ms();
                let mut inner = operation.inner.lock();
                let ended = match inner.breaker.mode() {
                    Mode::On if is_for_breaker(outcome, result) => Ended::Void,
                    _ => ended(outcome, &operation.resource),
                };
                inner.left(now, &call, took, ended);
                let before = inner.limit_when_well(operations.slots.total());
                let change = inner
                    .breaker
                    .record(now, call.epoch, result, rand::random());
                inner.note(now, change, before);
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
            let now = self.operations.epoch.now_ms();
            let mut inner = operation.inner.lock();
            inner.left(now, &call, Duration::ZERO, Ended::Void);
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

/// Whether it is for the breaker to judge. A limiter that took late failures for latency would let ever fewer calls through,
/// and the breaker would wait long for the evidence it needs.
fn is_for_breaker(outcome: &Outcome, result: CallResult) -> bool {
    let failed = matches!(outcome, Outcome::Failed(_) | Outcome::Fatal(_));
    failed && result != CallResult::NotDependency
}

/// What it says about the speed of one dependency.
fn ended(outcome: &Outcome, resource: &str) -> Ended {
    match outcome {
        Outcome::Done(_) => Ended::Done,
        Outcome::Failed(failure) | Outcome::Fatal(failure) => match &failure.blame {
            Some(blame) if blame.resource != resource => Ended::Void,
            _ => Ended::Failed,
        },
        Outcome::Snooze { .. }
        | Outcome::Interrupted { .. }
        | Outcome::Yielded { .. }
        | Outcome::Cancelled => Ended::Void,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_the_dependency_are_for_the_breaker_those_of_the_job_are_not() {
        let blamed = |resource: &str| {
            let failure = Failure::new("no answer").blaming(resource, false);
            let outcome = Outcome::Failed(failure);
            is_for_breaker(&outcome, judge(&outcome, "http:a", false))
        };
        assert!(blamed("http:a") && !blamed("http:b"));
        let own = Outcome::failed("bad arguments");
        assert!(!is_for_breaker(&own, judge(&own, "http:a", true)));
        let hung = CallResult::Success { slow: true };
        assert!(is_for_breaker(&own, hung), "its timeout was used up");
        let slow = Outcome::Done(None);
        assert!(
            !is_for_breaker(&slow, judge(&slow, "http:a", true)),
            "how long an answer took is what a limiter goes by"
        );
    }
}
