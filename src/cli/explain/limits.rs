//! Pauses, and limits across the fleet, read as reasons.

use super::super::CliError;
use super::super::job::when;
use super::Reason;
use crate::catalog::JobSpec;
use crate::queue::control::Pause;
use crate::queue::inspect::Counts;
use crate::queue::limits::Gate;
use crate::queue::{Control, Flow, Queue, Terms};
use serde_json::json;

/// Pauses that hold back jobs of `kind`, or of any kind if none is given.
pub(super) fn pauses(control: &Control, kind: Option<&str>, now_ms: u64) -> Vec<Reason> {
    let reason = |code, what: &str, pause: &Pause| {
        let why = match pause.reason.as_str() {
            "" => String::new(),
            text => format!(": {text}"),
        };
        Reason {
            code,
            message: format!(
                "{what} was paused by {} {}{why}",
                pause.by,
                when(pause.at, now_ms)
            ),
            details: json!({"by": pause.by, "at": pause.at, "reason": pause.reason}),
        }
    };
    let queue = control.paused.iter();
    let mut reasons: Vec<Reason> = queue.map(|p| reason("paused", "the queue", p)).collect();
    for (paused, pause) in &control.paused_kinds {
        if kind.is_none_or(|kind| kind == paused) {
            reasons.push(reason("kind_paused", paused, pause));
        }
    }
    reasons
}

/// That jobs of a queue wait for limits of their keys.
pub(super) fn parked(counts: &Counts) -> Option<Reason> {
    (counts.parked > 0).then(|| Reason {
        code: "parked",
        message: format!(
            "{} jobs wait for a slot or the rate of their key; `tidegate explain <job>` names it",
            counts.parked
        ),
        details: json!({"parked": counts.parked}),
    })
}

/// Limits of a kind that hold back the jobs of a flow now, with what is in use of each.
///
/// # Errors
/// Redis failed.
pub(super) async fn of_flow(
    queue: &Queue,
    flow: &Flow,
    spec: &JobSpec,
    control: &Control,
) -> Result<Vec<Reason>, CliError> {
    let mut reasons = of_gates(queue, Terms::of(flow, spec, control).gates()).await?;
    // A flow that waits for a slot or the rate of its key is not looked at meanwhile.
    let parked = !reasons.is_empty() && queue.place_in_line(flow).await?.is_none();
    for reason in &mut reasons {
        reason.details["parked"] = parked.into();
    }
    if let Some(limit) = control.limits_of(spec).per_daemon {
        reasons.push(Reason {
            code: "kind_limit",
            message: format!("at most {limit} of {} run at once in one daemon", spec.kind),
            details: json!({"limit": limit}),
        });
    }
    Ok(reasons)
}

/// Limits of whole kinds that let nobody start now.
///
/// # Errors
/// Redis failed.
pub(super) async fn of_kinds<'s>(
    queue: &Queue,
    specs: impl Iterator<Item = &'s JobSpec>,
    control: &Control,
) -> Result<Vec<Reason>, CliError> {
    let mut reasons = Vec::new();
    for spec in specs {
        let any = Flow {
            priority: spec.priority,
            kind: spec.kind.clone(),
            key: None,
        };
        let terms = Terms::of(&any, spec, control);
        let wide: Vec<Gate> = terms
            .gates()
            .iter()
            .filter(|g| g.is_wide())
            .cloned()
            .collect();
        reasons.extend(of_gates(queue, &wide).await?);
    }
    Ok(reasons)
}

/// That others of its class have their turn before a flow.
pub(super) fn turn(flow: &Flow, before: u64) -> Reason {
    let key = flow.key.as_deref().unwrap_or_default();
    Reason {
        code: "turn",
        message: format!(
            "keys take turns: {before} flows of its class are served before that of {} with the key {key:?}",
            flow.kind
        ),
        details: json!({"flows_before": before, "key": key}),
    }
}

async fn of_gates(queue: &Queue, gates: &[Gate]) -> Result<Vec<Reason>, CliError> {
    let mut reasons = Vec::new();
    for gate in gates {
        match gate {
            Gate::Slots { name, limit } => {
                let holders = queue.holders(name).await?;
                if holders >= *limit as u64 {
                    let some = queue.some_holders(name).await?;
                    reasons.push(Reason {
                        code: "slots_full",
                        message: format!(
                            "{holders} of {limit} slots of {name} are held, across all daemons; by {}",
                            some.join(", ")
                        ),
                        details: json!({"slots": name, "holders": holders, "limit": limit, "held_by": some}),
                    });
                }
            }
            Gate::Rate {
                name,
                every_ms,
                burst,
            } => {
                let (now_ms, next_ms) = queue.rate_allows(name, *every_ms, *burst).await?;
                if next_ms > now_ms {
                    reasons.push(Reason {
                        code: "rate",
                        message: format!(
                            "the rate of {name} allows the next start {}",
                            when(next_ms, now_ms)
                        ),
                        details: json!({"rate": name, "next_at": next_ms}),
                    });
                }
            }
        }
    }
    Ok(reasons)
}
