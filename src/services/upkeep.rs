//! Keeps a queue tidy: what is kept long enough goes, and quarantined entries that are understood by now come back.

use crate::clock;
use crate::config::RetentionConfig;
use crate::queue::QueueError;
use crate::queue::admit::{Verdict, judge};
use crate::queue::inspect::Quarantined;
use crate::queue::operate::{BURY_MAX, FORGET_MAX, RELEASE_MAX};
use crate::queue::workflow::Pruned;
use crate::runner::QueueContext;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often it looks.
const INTERVAL: Duration = Duration::from_secs(60);
/// The most steps of one look, so that it ends.
const STEPS: usize = 1_000;

/// How long what is set aside is kept.
#[derive(Debug, Clone, Copy)]
pub struct Ages {
    /// Dead jobs.
    pub dead: Duration,
    /// Quarantined entries.
    pub quarantine: Duration,
    /// Histories of jobs that ended.
    pub history: Duration,
    /// Groups after their last change.
    pub groups: Duration,
    /// Groups kept at most.
    pub groups_max: usize,
}

impl From<&RetentionConfig> for Ages {
    fn from(config: &RetentionConfig) -> Self {
        Self {
            dead: config.dead_age,
            quarantine: config.quarantine_age,
            history: config.history_age,
            groups: config.groups_age,
            groups_max: config.groups_max,
        }
    }
}

/// Tidies at the start, at every interval, and when definitions were reloaded.
pub async fn run(context: Arc<QueueContext>, ages: Ages, stop: CancellationToken) {
    loop {
        if let Err(e) = tidy(&context, &ages).await {
            tracing::debug!(queue = &*context.queue.name, error = %e, "not tidied");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = context.upkeep_requested() => {}
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

async fn tidy(context: &QueueContext, ages: &Ages) -> Result<(), QueueError> {
    bury_old(context, before(ages.dead)).await?;
    release_understood(context).await?;
    let queue = &context.queue;
    for _ in 0..STEPS {
        if queue.discard_before(before(ages.quarantine)).await? < RELEASE_MAX as u64 {
            break;
        }
    }
    for _ in 0..STEPS {
        if queue.forget_before(before(ages.history)).await? < FORGET_MAX as u64 {
            break;
        }
    }
    for _ in 0..STEPS {
        let pruned = queue.prune_ties(ages.groups, ages.groups_max).await?;
        if pruned == Pruned::default() {
            break;
        }
    }
    Ok(())
}

/// The time before which what is so old came.
fn before(age: Duration) -> u64 {
    let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    clock::unix_ms().saturating_sub(age_ms)
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
    let mut left = context.queue.counts().await?.quarantine;
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
