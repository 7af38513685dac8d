//! Pauses, and limits across the fleet, read as reasons.

use super::super::CliError;
use super::super::fleet::Fleet;
use super::super::job::when;
use super::reason::{Binds, Reason};
use crate::catalog::JobSpec;
use crate::queue::control::Pause;
use crate::queue::inspect::Counts;
use crate::queue::limits::Gate;
use crate::queue::{Control, Flow, Queue, Terms};
use serde_json::json;

/// Pauses of a queue that hold back jobs of `kind`, or of any kind if none is given.
pub(super) fn pauses(queue: &str, counts: &Counts, kind: Option<&str>) -> Vec<Reason> {
    let (control, now_ms) = (&counts.control, counts.now_ms);
    let reason = |code, what: &str, pause: &Pause, lift: String| {
        let why = match pause.reason.as_str() {
            "" => String::new(),
            text => format!(": {text}"),
        };
        let (by, at) = (&pause.by, when(pause.at, now_ms));
        let message = format!("{what} was paused by {by} {at}{why}");
        let details = json!({"by": by, "at": pause.at, "reason": pause.reason});
        Reason::new(code, Binds::Stops, message, details)
            .since(Some(now_ms.saturating_sub(pause.at)))
            .lifted_by([lift])
    };
    let whole = control.paused.iter().map(|pause| {
        let lift = format!("`tidegate resume {queue}`");
        reason("paused", "the queue", pause, lift)
    });
    let paused = control.paused_kinds.iter();
    let paused = paused.filter(|(paused, _)| kind.is_none_or(|kind| kind == *paused));
    let kinds = paused.map(|(kind, pause)| {
        let lift = format!("`tidegate resume {queue} --kind {kind}`");
        reason("kind_paused", kind, pause, lift)
    });
    whole.chain(kinds).collect()
}

/// That jobs of a queue wait for limits of their keys.
pub(super) fn parked(counts: &Counts) -> Option<Reason> {
    (counts.parked > 0).then(|| {
        let parked = counts.parked;
        let message = format!("{parked} jobs wait for a slot or the rate of their key");
        let lift = "`tidegate explain <job>` names the limit of each";
        Reason::new("parked", Binds::Slows, message, json!({"parked": parked}))
            .measured(parked, 0, Some(0))
            .lifted_by([lift.to_owned()])
    })
}

/// Limits of a kind across all daemons as they concern the jobs of a flow, with what is in use of each.
///
/// # Errors
/// Redis failed.
pub(super) async fn of_flow(
    queue: &Queue,
    flow: &Flow,
    spec: &JobSpec,
    control: &Control,
) -> Result<Vec<Reason>, CliError> {
    let terms = Terms::of(flow, spec, control);
    let mut reasons = of_gates(queue, spec, terms.gates()).await?;
    // A flow that waits for a slot or the rate of its key is not looked at meanwhile.
    let full = reasons.iter().any(|reason| reason.binds != Binds::Not);
    let parked = full && queue.place_in_line(flow).await?.is_none();
    for reason in reasons.iter_mut().filter(|r| r.binds != Binds::Not) {
        reason.details["parked"] = parked.into();
    }
    Ok(reasons)
}

/// Limits of a whole kind across all daemons, with what is in use of each.
///
/// # Errors
/// Redis failed.
pub(super) async fn of_kind(
    queue: &Queue,
    spec: &JobSpec,
    control: &Control,
) -> Result<Vec<Reason>, CliError> {
    let any = Flow {
        priority: spec.priority,
        kind: spec.kind.clone(),
        key: None,
    };
    let terms = Terms::of(&any, spec, control);
    let wide = terms.gates().iter().filter(|gate| gate.is_wide());
    let wide: Vec<Gate> = wide.cloned().collect();
    of_gates(queue, spec, &wide).await
}

/// How many of a kind each daemon may run, and how many it does.
pub(super) fn per_daemon(spec: &JobSpec, control: &Control, fleet: &Fleet) -> Option<Reason> {
    let limit = control.limits_of(spec).per_daemon? as u64;
    let kind = &*spec.kind;
    let used: Vec<u64> = fleet
        .pages
        .iter()
        .map(|page| page["kinds"][kind].as_u64().unwrap_or_default())
        .collect();
    let full = !used.is_empty() && used.iter().all(|n| *n >= limit);
    let message = format!(
        "at most {limit} of {kind} run at once in one daemon; now {}",
        match used.is_empty() {
            true => "nobody tells".to_owned(),
            false => used
                .iter()
                .map(u64::to_string)
                .collect::<Vec<_>>()
                .join(", "),
        }
    );
    let binds = if full { Binds::Stops } else { Binds::Not };
    let details = json!({"kind": kind, "used": used});
    let reason = Reason::new("kind_limit", binds, message, details);
    let reason = reason.measured(used, limit, fleet.oldest_page());
    Some(reason.lifted_by(freed(spec, "--per-daemon")))
}

/// What lifts a limit of a kind that is full.
fn freed(spec: &JobSpec, flag: &str) -> [String; 2] {
    let (queue, kind) = (&spec.queue, &spec.kind);
    let larger = format!("a larger limit: `tidegate limits set {queue} {kind} {flag} N`");
    ["one of them ends".to_owned(), larger]
}

/// That others of its class have their turn before a flow.
pub(super) fn turn(flow: &Flow, before: u64) -> Reason {
    let key = flow.key.as_deref().unwrap_or_default();
    Reason::new(
        "turn",
        Binds::Waits,
        format!(
            "keys take turns: {before} flows of its class are served before that of {} with the key {key:?}",
            flow.kind
        ),
        json!({"flows_before": before, "key": key}),
    )
    .measured(before, 0, Some(0))
    .lifted_by(["its turn".to_owned()])
}

async fn of_gates(queue: &Queue, spec: &JobSpec, gates: &[Gate]) -> Result<Vec<Reason>, CliError> {
    let mut reasons = Vec::new();
    for gate in gates {
        reasons.push(match gate {
            Gate::Slots { name, limit } => held(queue, spec, name, *limit as u64).await?,
            Gate::Rate {
                name,
                every_ms,
                burst,
            } => {
                let (now_ms, next_ms) = queue.rate_allows(name, *every_ms, *burst).await?;
                rate(name, *every_ms, *burst, now_ms, next_ms)
            }
        });
    }
    Ok(reasons)
}

/// Slots that jobs of all daemons hold.
async fn held(queue: &Queue, spec: &JobSpec, name: &str, limit: u64) -> Result<Reason, CliError> {
    let holders = queue.holders(name).await?;
    let message = format!("{holders} of {limit} slots of {name} are held, across all daemons");
    let details = json!({"slots": name, "holders": holders});
    if holders < limit {
        let reason = Reason::new("kind_slots", Binds::Not, message, details);
        return Ok(reason.measured(holders, limit, Some(0)));
    }
    let some = queue.some_holders(name).await?;
    let message = format!("{message}; by {}", some.join(", "));
    let mut full = Reason::new("slots_full", Binds::Stops, message, details);
    full.details["held_by"] = some.into();
    let full = full.measured(holders, limit, Some(0));
    Ok(full.lifted_by(freed(spec, "--limit")))
}

/// What is measured of a rate is how long it is until the next start, ms.
fn rate(name: &str, every_ms: f64, burst: usize, now_ms: u64, next_ms: u64) -> Reason {
    let details = json!({"rate": name, "every_ms": every_ms, "burst": burst, "next_at": next_ms});
    let (binds, message) = match next_ms > now_ms {
        true => (
            Binds::Stops,
            format!(
                "the rate of {name} is used up: a start every {every_ms:.0} ms, {burst} at once"
            ),
        ),
        false => (
            Binds::Not,
            format!(
                "the rate of {name} allows a start every {every_ms:.0} ms, {burst} at once; one now"
            ),
        ),
    };
    let lift = format!("the next start is {}", when(next_ms, now_ms));
    Reason::new("rate", binds, message, details)
        .measured(next_ms.saturating_sub(now_ms), 0, Some(0))
        .lifted_by([lift])
}
