//! Slots of daemons, and what of them a queue may use.

use super::super::fleet::Fleet;
use super::super::store::Store;
use super::reason::{Binds, Reason};
use super::workers::Workers;
use crate::queue::inspect::Counts;
use serde_json::json;

/// The slots of the daemons that serve a queue, which `fleet` is, and the limit of the queue itself.
pub(super) fn slots(
    store: &Store,
    name: &str,
    counts: &Counts,
    workers: &Workers,
    fleet: &Fleet,
) -> Vec<Reason> {
    let alive = workers.alive.len() as u64;
    if alive == 0 {
        return Vec::new();
    }
    let sum = |field: &str| {
        let each = fleet.pages.iter();
        each.filter_map(|page| page["slots"][field].as_u64())
            .sum::<u64>()
    };
    let daemons = match fleet.pages.is_empty() {
        // Nobody told: by the configuration here.
        true => (
            counts.running,
            (store.config.daemon.concurrency as u64).saturating_mul(alive),
        ),
        false => (sum("used"), sum("total")),
    };
    let age_ms = fleet.oldest_page();
    let ends = "a job ends".to_owned();
    let more = "more slots: [daemon] concurrency, taken over by a reload".to_owned();
    let all = reason("slots", daemons, "slots of the daemons are in use", age_ms);
    let mut found = vec![all.lifted_by([ends.clone(), more])];
    let own = store.config.queue.iter().find(|q| q.name == name);
    let live = counts.control.concurrency;
    if let Some(limit) = live.or(own.and_then(|q| q.concurrency)) {
        let limit = (limit as u64).saturating_mul(alive);
        let whose = match live {
            Some(_) => "jobs of the queue run: tidegate limits --concurrency",
            None => "jobs of the queue run: [[queue]] concurrency",
        };
        let more = format!("more: `tidegate limits set {name} --concurrency N`");
        let own = reason("queue_slots", (counts.running, limit), whose, Some(0));
        found.push(own.lifted_by([ends, more]));
    }
    found
}

fn reason(
    code: &'static str,
    (used, limit): (u64, u64),
    whose: &str,
    age_ms: Option<u64>,
) -> Reason {
    let message = format!("{used} of {limit} {whose}");
    Reason::new(
        code,
        Binds::full(used, limit),
        message,
        json!({"used": used}),
    )
    .measured(used, limit, age_ms)
}
