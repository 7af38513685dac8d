//! What keeps schedules of a queue from making jobs.

use super::super::CliError;
use super::super::output::age;
use super::super::store::Store;
use super::reason::{Binds, Reason};
use crate::catalog::schedules::of_queue;
use crate::queue::Queue;
use serde_json::json;

/// The schedules that are paused, and those that nobody with these definitions can serve.
pub(super) async fn reasons(queue: &Queue, store: &Store) -> Result<Vec<Reason>, CliError> {
    let stored = queue.stored_schedules().await?;
    let mut paused: Vec<(&String, &u64)> = stored.paused.iter().collect();
    paused.sort();
    let mut reasons: Vec<Reason> = Vec::new();
    for (name, since) in paused {
        let ago = stored.glance.now_ms.saturating_sub(*since);
        let message = format!("the schedule {name} is paused for {}", age(ago));
        let details = json!({"schedule": name, "paused_at": since});
        let reason = Reason::new("schedule_paused", Binds::Waits, message, details);
        let lift = format!("`tidegate cron resume {name}`");
        reasons.push(reason.since(Some(ago)).lifted_by([lift]));
    }
    // Without definitions nobody knows which kinds there are.
    let added = if store.defined {
        &stored.added[..]
    } else {
        &[]
    };
    for unserved in of_queue(&store.catalog, &queue.name, added).1 {
        reasons.push(Reason::new(
            "schedule_unserved",
            Binds::Waits,
            format!(
                "the schedule {} makes no jobs: {}",
                unserved.name, unserved.reason
            ),
            json!({"schedule": unserved.name}),
        ));
    }
    Ok(reasons)
}
