//! How long the queues are and how long jobs wait in them: gauges, and an alert when a queue is past its objective.

use crate::clock;
use crate::config::Config;
use crate::runner::QueueContext;
use crate::telemetry::events;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How often a queue is counted.
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

/// Counts one queue at every interval.
pub async fn run(context: Arc<QueueContext>, objective: Duration, stop: CancellationToken) {
    let mut told: Option<Instant> = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL.min(objective)) => {}
        }
        // Redis in trouble is told of elsewhere.
        let Ok(counts) = context.queue.counts().await else {
            continue;
        };
        let name = &context.queue.name;
        let metrics = &context.shared.metrics;
        for (state, jobs) in [
            ("waiting", counts.lanes.iter().sum::<u64>() - counts.parked),
            ("parked", counts.parked),
            ("inbox", counts.inbox),
            ("delayed", counts.delayed),
            ("running", counts.running),
            ("dead", counts.dead),
            ("quarantined", counts.quarantine),
        ] {
            metrics.queue_depth(name, state, jobs);
        }
        let oldest = counts
            .oldest_ready_ms
            .map_or(0, |ready| counts.now_ms.saturating_sub(ready));
        let age = Duration::from_millis(oldest);
        metrics.queue_oldest_age(name, age);
        metrics.queue_paused(name, counts.control.paused.is_some());
        metrics.workers(name, context.shared.slots.busy_in(name), context.limit());
        if age <= objective {
            told = None;
        } else if told.is_none_or(|at| clock::since(at) >= REMIND) {
            told = Some(clock::monotonic());
            context
                .shared
                .alerts
                .raise(events::queue_lag(name, age, objective));
        }
    }
}
