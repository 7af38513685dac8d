//! Keeps a queue tidy: what is kept long enough goes, and quarantined entries that are understood by now come back.

use crate::clock;
use crate::config::RetentionConfig;
use crate::queue::QueueError;
use crate::queue::admit::{Verdict, judge};
use crate::queue::inspect::Quarantined;
use crate::queue::operate::{BURY_MAX, FORGET_MAX, RELEASE_MAX};
use crate::queue::workflow::Pruned;
use crate::runner::QueueContext;
use crate::telemetry::events;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often it looks.
const INTERVAL: Duration = Duration::from_secs(60);
/// The most steps of one look, so that it ends.
const STEPS: usize = 1_000;

/// Tidies at the start, at every interval, and when definitions were reloaded.
pub async fn run(context: Arc<QueueContext>, config: RetentionConfig, stop: CancellationToken) {
    let mut told = Told::default();
    loop {
        let tidied = match tidy(&context, &config).await {
            Ok(()) => told.tell(&context, config.ids_max).await,
            failed => failed,
        };
        if let Err(e) = tidied {
            tracing::debug!(queue = &*context.queue.name, error = %e, "not tidied");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = context.upkeep_requested() => {}
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

/// What gave way until now, as far as it was told.
#[derive(Default)]
struct Told(Option<[u64; 2]>);

impl Told {
    /// Shows what the queue takes up, and tells of what gave way since the last time.
    async fn tell(&mut self, context: &QueueContext, ids_max: u64) -> Result<(), QueueError> {
        let name = &context.queue.name;
        let (metrics, alerts) = (&context.shared.metrics, &context.shared.alerts);
        if let Some(bytes) = context.queue.memory().await? {
            metrics.queue_memory(name, bytes);
        }
        let sizes = context.queue.sizes().await?;
        let since_ever = |counter: &str| sizes.stats.get(counter).copied().unwrap_or(0);
        metrics.ids_remembered(name, sizes.ids);
        metrics.queue_dropped(name, "history", since_ever("history_dropped"));
        if sizes.ids > ids_max {
            alerts.raise(events::ids_many(name, sizes.ids, ids_max));
        }
        let dropped = [since_ever("dead_dropped"), since_ever("quarantine_dropped")];
        let before = self.0.replace(dropped).unwrap_or(dropped);
        for (n, (state, what)) in [
            ("dead", "dead jobs"),
            ("quarantined", "quarantined entries"),
        ]
        .into_iter()
        .enumerate()
        {
            metrics.queue_dropped(name, state, dropped[n]);
            let more = dropped[n].saturating_sub(before[n]);
            if more > 0 {
                alerts.raise(events::retention_dropped(name, what, more));
            }
        }
        Ok(())
    }
}

async fn tidy(context: &QueueContext, keep: &RetentionConfig) -> Result<(), QueueError> {
    let queue = &context.queue;
    // By the time of Redis, like what is compared with it: a daemon whose clock is wrong must not remove anything.
    let now_ms = queue.stored_count().await?.1;
    let before = |age: Duration| {
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        now_ms.saturating_sub(age_ms)
    };
    bury_old(context, before(keep.dead_age)).await?;
    release_understood(context).await?;
    for _ in 0..STEPS {
        if queue.discard_before(before(keep.quarantine_age)).await? < RELEASE_MAX as u64 {
            break;
        }
    }
    for _ in 0..STEPS {
        let (histories, ids) = queue.forget_before(before(keep.history_age)).await?;
        if histories < FORGET_MAX as u64 && ids < FORGET_MAX as u64 {
            break;
        }
    }
    for _ in 0..STEPS {
        let pruned = queue.prune_ties(keep.groups_age, keep.groups_max).await?;
        if pruned.open > 0 {
            events::groups_dropped(&queue.name, pruned.open, &pruned.open_name);
        }
        if pruned == Pruned::default() {
            break;
        }
    }
    Ok(())
}

async fn bury_old(context: &QueueContext, before_ms: u64) -> Result<(), QueueError> {
    for _ in 0..STEPS {
        let old = context.queue.dead_before(before_ms, BURY_MAX).await?;
        if old.is_empty() {
            break;
        }
        context.queue.bury(&old, None).await?;
    }
    Ok(())
}

/// Entries set aside for an unknown kind, field or version, which this daemon knows.
async fn release_understood(context: &QueueContext) -> Result<(), QueueError> {
    let mut after = String::new();
    let mut left = context.queue.sizes().await?.quarantine;
    // Not one more than there were: a daemon that does not know the kind may set aside again what is released here.
    for _ in 0..STEPS {
        let count = RELEASE_MAX.min(usize::try_from(left).unwrap_or(usize::MAX));
        left -= count as u64;
        if count == 0 {
            break;
        }
        let entries = context.queue.quarantined(&after, count).await?;
        let Some(last) = entries.last() else {
            break;
        };
        after.clone_from(&last.id);
        let understood: Vec<String> = entries
            .into_iter()
            .filter(|entry| is_understood(context, entry))
            .map(|entry| entry.id)
            .collect();
        if !understood.is_empty() {
            let back = context.queue.release(&understood).await?;
            tracing::info!(
                event = "released",
                queue = &*context.queue.name,
                entries = back,
                "understood now"
            );
        }
    }
    Ok(())
}

fn is_understood(context: &QueueContext, entry: &Quarantined) -> bool {
    if !matches!(
        entry.code.as_str(),
        "unknown_kind" | "unknown_field" | "unknown_version"
    ) {
        return false;
    }
    let registry = context.shared.registry.load();
    let verdict = judge(
        &entry.raw,
        &context.queue.name,
        &registry.catalog,
        clock::unix_ms(),
        [0; 10],
    );
    !matches!(verdict, Verdict::Rejected { .. })
}
