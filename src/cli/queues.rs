//! `tidegate queues`: every queue in numbers.

use super::output::{age, bytes, table};
use super::store::OnQueue;
use super::{CliError, Global, Report};
use crate::job::Priority;
use crate::queue::inspect::Counts;
use serde_json::{Map, Value, json};

const EXAMPLES: &str = "\
Examples:
  tidegate queues
  tidegate queues --queue mail --json";

/// Flags of `tidegate queues`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    on: OnQueue,
}

/// Counts every queue.
///
/// # Errors
/// Configuration or Redis.
pub async fn run(args: Args, global: &Global) -> Result<Report, CliError> {
    let store = args.on.open(global).await?;
    let (mut views, mut rows) = (Vec::new(), Vec::new());
    for queue in store.queues() {
        let counts = queue.counts().await?;
        let memory = queue.memory().await?;
        let mut shown = view(&queue.name, &counts);
        shown["memory_bytes"] = memory.into();
        views.push(shown);
        rows.push(row(&queue.name, &counts, memory));
    }
    let classes = Priority::ALL.map(Priority::as_str);
    let headings = [
        &["queue", "inbox"][..],
        &classes[..],
        &[
            "parked",
            "delayed",
            "running",
            "dead",
            "quarantine",
            "oldest",
            "memory",
            "paused",
        ][..],
    ]
    .concat();
    Ok(Report::new(
        json!({"queues": views}),
        table(&headings, &rows),
    ))
}

/// A queue for programs.
pub(super) fn view(name: &str, counts: &Counts) -> Value {
    let lanes = Priority::ALL.iter().zip(counts.lanes);
    let lanes: Map<String, Value> = lanes.map(|(p, n)| (p.to_string(), n.into())).collect();
    json!({
        "name": name,
        "paused": counts.control.paused.is_some(),
        "pause": counts.control.paused,
        "paused_kinds": counts.control.paused_kinds,
        "parked": counts.parked,
        "lanes": lanes,
        "delayed": counts.delayed,
        "running": counts.running,
        "dead": counts.dead,
        "quarantine": counts.quarantine,
        "histories": counts.archived,
        "ids": counts.ids,
        "locks": counts.locks,
        "groups": counts.groups,
        "limits": counts.control.limits,
        "counters": counts.stats,
        "inbox": counts.inbox,
        "oldest_age_ms": oldest_age(counts),
    })
}

/// How long the job that waits longest has waited, ms.
pub(super) fn oldest_age(counts: &Counts) -> Option<u64> {
    let ready = counts.oldest_ready_ms?;
    Some(counts.now_ms.saturating_sub(ready))
}

fn row(name: &str, counts: &Counts, memory: Option<u64>) -> Vec<String> {
    let mut row = vec![name.to_owned(), counts.inbox.to_string()];
    row.extend(counts.lanes.iter().map(u64::to_string));
    let others = [
        counts.parked,
        counts.delayed,
        counts.running,
        counts.dead,
        counts.quarantine,
    ];
    row.extend(others.iter().map(u64::to_string));
    row.push(oldest_age(counts).map_or_else(|| "-".to_owned(), age));
    row.push(memory.map_or_else(|| "-".to_owned(), bytes));
    let kinds = counts.control.paused_kinds.keys();
    row.push(match &counts.control.paused {
        Some(_) => "yes".to_owned(),
        None if kinds.len() == 0 => "-".to_owned(),
        None => kinds.map(String::as_str).collect::<Vec<_>>().join(", "),
    });
    row
}
