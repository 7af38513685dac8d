//! Telling of what was settled: log events, metrics, alerts. After the fact, so that nothing is reported that Redis refused.

use super::context::{KindTelemetry, QueueContext};
use crate::clock;
use crate::job::{Job, Outcome};
use crate::queue::settle::Ending;
use crate::queue::{Delivery, Settlement};
use crate::telemetry::events::{self, JobRef};
use std::sync::Arc;
use std::time::Duration;

/// What a settlement was about.
pub(super) enum Subject {
    /// A run, its outcome and how long it took.
    Ran(Arc<Delivery>, Outcome, Duration),
    /// A delivery of this kind that never started.
    Unrun(Arc<str>),
}

/// Reports a batch; `stale` are the indices Redis refused.
pub(super) fn settled(
    context: &QueueContext,
    now_ms: u64,
    settlements: &[Settlement],
    subjects: &[Subject],
    stale: &[usize],
) {
    for (index, (settlement, subject)) in settlements.iter().zip(subjects).enumerate() {
        let is_stale = stale.contains(&index);
        match subject {
            Subject::Ran(delivery, outcome, _) if is_stale => {
                events::stale_settlement(&*delivery.job, outcome.label());
                context.shared.metrics.stale_acks(outcome.label(), 1);
            }
            Subject::Unrun(kind) if is_stale => {
                let job = JobRef::bare(&settlement.id, kind, &context.queue.name);
                events::stale_settlement(job, "unrun");
                context.shared.metrics.stale_acks("unrun", 1);
            }
            Subject::Ran(delivery, outcome, took) => {
                ran(
                    context,
                    now_ms,
                    delivery,
                    outcome,
                    *took,
                    &settlement.ending,
                );
            }
            Subject::Unrun(kind) => unrun(context, settlement, kind),
        }
    }
}

fn ran(
    context: &QueueContext,
    now_ms: u64,
    delivery: &Delivery,
    outcome: &Outcome,
    took: Duration,
    ending: &Ending,
) {
    let job: &Job = &delivery.job;
    let kind = context.telemetry(&job.kind);
    let KindTelemetry {
        metrics,
        successes,
        lengths,
    } = &*kind;
    lengths.note(took > context.shared.slots.lend_below());
    metrics.observe_duration(outcome, took);
    match (outcome, ending) {
        (Outcome::Done(_), _) => {
            metrics.completed(1);
            if delivery.history.is_none() {
                successes.record(now_ms, [(job.into(), took)]);
            } else {
                events::job_done(job, took);
            }
        }
        (Outcome::Failed(failure) | Outcome::Fatal(failure), Ending::Later { delay, .. }) => {
            metrics.failed(1);
            metrics.retried(1);
            events::job_failed(job, took, *delay, &failure.message);
        }
        (Outcome::Failed(failure) | Outcome::Fatal(failure), _) => {
            metrics.failed(1);
            metrics.dead(1);
            let alert = events::job_dead(job, Some(took), &failure.message);
            context.shared.alerts.raise(alert);
        }
        (Outcome::Snooze { after, reason }, _) => {
            events::job_snoozed(job, took, *after, reason);
        }
        (Outcome::Interrupted { reason }, _) => events::job_handed_back(job, took, reason),
        (Outcome::Yielded { reason }, _) => events::job_yielded(job, took, reason),
        (Outcome::Cancelled, _) => events::job_cancelled(job),
    }
}

fn unrun(context: &QueueContext, settlement: &Settlement, kind: &Arc<str>) {
    match &settlement.ending {
        Ending::Quarantined(reject) => {
            context.telemetry(kind).metrics.quarantined(1);
            let reason = reject.to_string();
            events::job_quarantined(&context.queue.name, &settlement.id, &reason);
        }
        Ending::Finished { .. } => {
            let job = JobRef::bare(&settlement.id, kind, &context.queue.name);
            events::job_expired(job);
        }
        // Put off or handed back before it started: nothing happened to it.
        Ending::Later { .. } | Ending::HandedBack { .. } | Ending::Dead { .. } => {}
    }
}

/// Sets aside keys of the wrong type and says so.
pub async fn heal(context: &QueueContext) {
    let registry = context.shared.registry.load_full();
    let healed = context
        .queue
        .heal(clock::unix_ms(), &registry.catalog)
        .await;
    match healed {
        Ok(set_aside) => {
            for key in set_aside {
                let what = format!("{} was a {}, moved to {}", key.key, key.found, key.moved_to);
                let alert = events::audit_repair(&context.queue.name, &what, 1);
                context.shared.alerts.raise(alert);
                context.shared.metrics.audit_repairs(&context.queue.name, 1);
            }
        }
        Err(e) => {
            tracing::error!(queue = &*context.queue.name, error = %e, "can't set a wrong key aside")
        }
    }
}
