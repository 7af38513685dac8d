//! How long the queues are and how long jobs wait in them: gauges, and an alert when a queue is past its objective.

use crate::clock;
use crate::config::Config;
use crate::queue::Depth;
use crate::runner::QueueContext;
use crate::telemetry::events;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How often a queue is measured.
const INTERVAL: Duration = Duration::from_secs(5);
/// How often a queue that stays past its objective is told of again.
const REMIND: Duration = Duration::from_secs(60);

/// The age past which the oldest waiting job of a queue is too old.
#[must_use]
pub fn objective(config: &Config, queue: &str) -> Duration {
    let own = config.queue.iter().find(|q| q.name == queue);
    own.and_then(|q| q.objective)
        .unwrap_or(config.queues.objective)
}

/// Measures one queue now and at every interval.
pub async fn run(context: Arc<QueueContext>, objective: Duration, stop: CancellationToken) {
    let mut told: Option<Instant> = None;
    loop {
        // Redis in trouble is told of elsewhere.
        if let Ok(depth) = context.queue.depth().await {
            let age = show(&context, &depth);
            if age <= objective {
                told = None;
            } else if told.is_none_or(|at| clock::since(at) >= REMIND) {
                told = Some(clock::monotonic());
                let alert = events::queue_lag(&context.queue.name, age, objective);
                context.shared.alerts.raise(alert);
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL.min(objective)) => {}
        }
    }
}

/// Shows how a queue gets on; returns how long the job that waits longest has waited.
fn show(context: &QueueContext, depth: &Depth) -> Duration {
    let name = &context.queue.name;
    let metrics = &context.shared.metrics;
    let sizes = &depth.sizes;
    for (state, jobs) in [
        ("waiting", depth.waiting),
        ("parked", depth.parked),
        ("inbox", sizes.inbox),
        ("delayed", sizes.delayed),
        ("running", sizes.running),
        ("dead", sizes.dead),
        ("quarantined", sizes.quarantine),
    ] {
        metrics.queue_depth(name, state, jobs);
    }
    let oldest = depth.oldest_ready_ms;
    let age = oldest.map_or(0, |ready| sizes.now_ms.saturating_sub(ready));
    let age = Duration::from_millis(age);
    context.progress.waits(age);
    metrics.queue_oldest_age(name, age);
    metrics.queue_paused(name, depth.control.paused.is_some());
    metrics.workers(name, context.shared.slots.busy_in(name), context.limit());
    age
}
