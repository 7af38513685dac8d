//! What holds a queue back, and each of its kinds.

use super::super::fleet::Fleet;
use super::super::output::age;
use super::super::queues::{self, oldest_age};
use super::super::store::Store;
use super::super::{CliError, Report};
use super::gate::gates;
use super::live::Live;
use super::operation::operations;
use super::reason::{Binds, Reason, Reasons};
use super::retries::{budgets, reserves};
use super::workers::Workers;
use super::{limits, schedules, slots, supply};
use crate::catalog::JobSpec;
use crate::daemon::NEVER_SHED;
use crate::queue::Queue;
use crate::queue::inspect::Counts;
use serde_json::{Value, json};
use std::sync::Arc;

/// Explains some queues.
///
/// # Errors
/// Redis failed.
pub(super) async fn explain(
    store: &Store,
    names: &[String],
    fleet: &Fleet,
) -> Result<Report, CliError> {
    let (mut views, mut text) = (Vec::new(), String::new());
    for name in names {
        let (view, told) = one(store, name, fleet).await?;
        views.push(view);
        text.push_str(&told);
    }
    let json = json!({"queues": views, "health": fleet.health, "orders": fleet.orders});
    Ok(Report::new(json, text))
}

async fn one(store: &Store, name: &str, fleet: &Fleet) -> Result<(Value, String), CliError> {
    let queue = store.queue(name);
    let fleet = &fleet.serving(name);
    let counts = queue.counts().await?;
    let workers = Workers::of(&queue, store).await?;
    let specs: Vec<&JobSpec> = store
        .catalog
        .iter()
        .filter(|spec| &*spec.queue == name)
        .map(|spec| &**spec)
        .collect();
    let mut all: Vec<Reason> = workers.missing(name).into_iter().collect();
    all.extend(limits::pauses(name, &counts, None));
    all.extend(limits::parked(&counts));
    let shed = specs.iter().filter(|spec| spec.handler != NEVER_SHED);
    let mut resources: Vec<Arc<str>> = shed
        .flat_map(|spec| spec.resources.iter().cloned())
        .collect();
    resources.sort_unstable();
    resources.dedup();
    all.extend(budgets(fleet, &resources));
    let resources: Vec<&str> = resources.iter().map(|r| &**r).collect();
    all.extend(gates(fleet, &fleet.rules(store), &resources, None));
    all.extend(reserves(fleet, None));
    all.extend(supply::forecasts(fleet));
    let live = Live::of(&queue, &counts.control, counts.now_ms).await?;
    let mut kinds = Vec::with_capacity(specs.len());
    for spec in specs {
        let mut own = of_kind(store, &queue, spec, fleet, &counts).await?;
        live.of_kind(&counts.control, &spec.kind, &mut own);
        kinds.push(kind_view(store, spec, fleet, &own));
        all.extend(own);
    }
    let mut slots = slots::slots(store, name, &counts, &workers, fleet);
    live.of_queue(&counts.control, &mut slots);
    all.extend(slots);
    all.extend(schedules::reasons(&queue, store).await?);
    let reasons: Reasons = all.into_iter().collect();
    let mut view = queues::view(name, &counts);
    view["workers"] = workers.alive.len().into();
    view["kinds"] = kinds.into();
    reasons.write(&mut view);
    let mut text = headline(name, &counts, workers.alive.len());
    text.push_str(&reasons.text("nothing holds this queue back"));
    Ok((view, text))
}

/// What is about one kind alone.
async fn of_kind(
    store: &Store,
    queue: &Queue,
    spec: &JobSpec,
    fleet: &Fleet,
    counts: &Counts,
) -> Result<Vec<Reason>, CliError> {
    let mut own = limits::of_kind(queue, spec, &counts.control).await?;
    own.extend(limits::per_daemon(spec, &counts.control, fleet));
    let (handler, resources) = (&spec.handler, &spec.resources);
    let breaker = &store.config.breaker;
    own.extend(operations(fleet, breaker, handler, resources));
    own.extend(supply::pool(fleet, handler, resources));
    Ok(own)
}

/// What binds a kind most, of what is about it: for its own class.
fn kind_view(store: &Store, spec: &JobSpec, fleet: &Fleet, own: &[Reason]) -> Value {
    let resources: Vec<&str> = spec.resources.iter().map(|r| &**r).collect();
    let gates = match spec.handler == NEVER_SHED {
        true => Vec::new(),
        false => gates(fleet, &fleet.rules(store), &resources, Some(spec.priority)),
    };
    let first = own
        .iter()
        .chain(&gates)
        .filter(|reason| reason.binds != Binds::Not)
        .min_by_key(|reason| reason.binds);
    json!({
        "kind": spec.kind,
        "class": spec.priority,
        "handler": spec.handler,
        "resources": resources,
        "held_by": first.map(|reason| reason.code),
        "message": first.map(|reason| reason.message.as_str()),
    })
}

fn headline(name: &str, counts: &Counts, workers: usize) -> String {
    let waiting: u64 = counts.lanes.iter().sum();
    let oldest = oldest_age(counts).map_or_else(String::new, |ms| format!(", oldest {}", age(ms)));
    format!(
        "queue {name}: {waiting} waiting{oldest}, {} delayed, {} running, {} in the inbox, {} dead, \
         {} in quarantine; daemons: {workers}\n",
        counts.delayed, counts.running, counts.inbox, counts.dead, counts.quarantine
    )
}
