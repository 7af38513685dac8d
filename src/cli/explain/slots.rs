//! Slots of daemons, and what of them a queue may use.

use super::super::fleet::Fleet;
use super::super::store::Store;
use super::reason::{Binds, Reason};
use super::workers::Workers;
use crate::queue::inspect::Counts;
use serde_json::{Value, json};

/// The slots of the daemons that serve a queue, and the limit of the queue itself.
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
    let serving = fleet.pages.iter().filter(|page| serves(page, name));
    let serving: Vec<&Value> = serving.collect();
    let sum = |field: &str| {
        let each = serving
            .iter()
            .filter_map(|page| page["slots"][field].as_u64());
        each.sum::<u64>()
    };
    let daemons = match serving.is_empty() {
        // Nobody told: by the configuration here.
        true => (
            counts.running,
            (store.config.daemon.concurrency as u64).saturating_mul(alive),
        ),
        false => (sum("used"), sum("total")),
    };
    let mut found = vec![reason(
        "slots",
        daemons,
        "slots of the daemons are in use: [daemon] concurrency",
    )];
    let own = store.config.queue.iter().find(|q| q.name == name);
    let live = counts.control.concurrency;
    if let Some(limit) = live.or(own.and_then(|q| q.concurrency)) {
        let limit = (limit as u64).saturating_mul(alive);
        let whose = match live {
            Some(_) => "jobs of the queue run: tidegate limits --concurrency",
            None => "jobs of the queue run: [[queue]] concurrency",
        };
        found.push(reason("queue_slots", (counts.running, limit), whose));
    }
    found
}

fn serves(page: &Value, queue: &str) -> bool {
    let queues = page["queues"].as_array().into_iter().flatten();
    queues.into_iter().any(|name| name == queue)
}

fn reason(code: &'static str, (used, limit): (u64, u64), whose: &str) -> Reason {
    Reason::new(
        code,
        Binds::full(used, limit),
        format!("{used} of {limit} {whose}"),
        json!({"used": used, "limit": limit}),
    )
}
