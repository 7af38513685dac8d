//! What a job has to do with others, as it stands now: its lock, its group, its slots, what was merged into it.

use super::super::CliError;
use crate::clock;
use crate::queue::Queue;
use crate::queue::inspect::Found;
use serde_json::{Value, json};

/// Adds what is to be asked for beyond the job itself; nothing for a job that has nothing to do with others.
///
/// # Errors
/// Redis failed.
pub(in crate::cli) async fn view_around(
    view: &mut Value,
    queue: &Queue,
    id: &str,
    found: &Found,
) -> Result<(), CliError> {
    if let Some(name) = view["lock"].as_str().map(str::to_owned) {
        let held = queue.lock(&name).await?;
        view["lock_until"] = match &held {
            Some(lock) if lock.holder == id => lock.until.into(),
            _ => Value::Null,
        };
        if let Some(lock) = held {
            view["lock_holder"] = lock.holder.into();
            view["lock_first_at"] = lock.first_ms.into();
            view["lock_gone_at"] = lock.gone_ms.into();
        }
        let merged = queue.merged_into(id).await?;
        if merged > 0 {
            view["merged"] = merged.into();
        }
    }
    if let Some(name) = view["group"].as_str().map(str::to_owned)
        && let Some(group) = queue.group(&name).await?
    {
        view["group_state"] = json!({
            "state": group.state,
            "size": group.size,
            "members": group.members,
            "done": group.done,
            "failed": group.failed,
        });
    }
    if found.state == "running" {
        let slots = queue.held_by(&[id]).await?.remove(0);
        if !slots.is_empty() {
            view["slots"] = slots.iter().map(|name| Value::from(&**name)).collect();
        }
    }
    Ok(())
}

/// `held until finished`, or who has it instead.
pub(super) fn lock_text(view: &Value) -> String {
    let name = view["lock"].as_str().unwrap_or_default();
    let gone = view["lock_gone_at"]
        .as_u64()
        .map_or_else(String::new, |at| {
            format!(", gone {}", super::when(at, clock::unix_ms()))
        });
    match (view["lock_until"].as_str(), view["lock_holder"].as_str()) {
        (Some("ttl"), _) => format!("{name} (held{gone})"),
        (Some(until), _) => format!("{name} (held until {until}{gone})"),
        (None, Some(holder)) => format!("{name} (held by {holder} now{gone})"),
        (None, None) => format!("{name} (held no more)"),
    }
}

/// `site-4 (open: 1 done, 0 failed, 2 of 3 came)`.
pub(super) fn group_text(view: &Value) -> String {
    let name = view["group"].as_str().unwrap_or_default();
    let state = &view["group_state"];
    let Some(word) = state["state"].as_str() else {
        return format!("{name} (forgotten)");
    };
    format!(
        "{name} ({word}: {} done, {} failed, {} of {} came)",
        state["done"], state["failed"], state["members"], state["size"]
    )
}
