//! What running jobs are told when they ask: the same that decides whether they would be claimed now.

use super::context::Shared;
use crate::handlers::Adviser;
use crate::job::Job;
use crate::policy::gate::Advice;

/// The gate and the operations of this daemon, for jobs that work in batches.
pub(super) struct OfGate(pub Shared);

impl Adviser for OfGate {
    /// Yield is said only to who would not be claimed again now: its class has no slot, or the breaker of what it touches is
    /// open. So a job that makes room does not come back at once.
    fn advise(&self, job: &Job) -> Advice {
        let shared = &self.0;
        let registry = shared.registry.load();
        let Some(kind) = registry.get(&job.kind) else {
            return Advice::Go;
        };
        if let Some(operation) = shared.operations.open_of(&kind.operations) {
            let (handler, resource) = (&operation.handler, &operation.resource);
            return Advice::Yield(format!("the breaker of {handler} on {resource} is open"));
        }
        let (state, resource) = (shared.standing)(&kind.spec);
        let share = shared.shares.of(job.priority, state);
        Advice::of(share, job.priority, state, &resource)
    }
}
