//! `tidegate group`: a group of jobs, looked at or cancelled as a whole.

use super::output::pairs;
use super::store::OnQueue;
use super::workflow::{Ended, cancel_whole};
use super::{CliError, Global, Report};
use clap::Subcommand;
use serde_json::{Value, json};

const EXAMPLES: &str = "\
Examples:
  tidegate group show site-4
  tidegate group cancel site-4 --queue pages";

/// `tidegate group …`
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(super) enum Command {
    /// Show how far a group is
    Show(OneGroup),
    /// Cancel its members, those that are yet to come, and what follows it
    Cancel(OneGroup),
}

#[derive(Debug, clap::Args)]
pub(super) struct OneGroup {
    /// Its id
    id: String,
    #[command(flatten)]
    on: OnQueue,
}

/// Runs one of them.
///
/// # Errors
/// There is no such group, or configuration or Redis.
pub(super) async fn run(command: Command, global: &Global) -> Result<Report, CliError> {
    let (Command::Show(group) | Command::Cancel(group)) = &command;
    let store = group.on.open(global).await?;
    for queue in store.queues() {
        let Some(state) = queue.group(&group.id).await? else {
            continue;
        };
        if matches!(command, Command::Cancel(_)) {
            let ended = cancel_whole(&store, &queue, &group.id).await?;
            return Ok(ended.report(&queue, &group.id));
        }
        let mut json = json!({
            "id": group.id,
            "queue": &*queue.name,
            "state": state.state,
            "size": state.size,
            "members": state.members,
            "done": state.done,
            "failed": state.failed,
            "when": if state.always { "always" } else { "success" },
        });
        if state.state == "open" {
            json["follows"] = state.follows.into();
        }
        let text = shown(&json);
        return Ok(Report::new(json, text));
    }
    let queues = store.names.join(", ");
    Err(CliError::NotFound(format!(
        "no group {:?} is known in {queues}: no member was admitted yet, or it is forgotten",
        group.id
    )))
}

fn shown(json: &Value) -> String {
    const NAMES: [&str; 9] = [
        "id", "queue", "state", "size", "members", "done", "failed", "when", "follows",
    ];
    let line = |name: &'static str| {
        let text = match json.get(name)? {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        Some((name, text))
    };
    pairs(&NAMES.into_iter().filter_map(line).collect::<Vec<_>>())
}

impl Ended {
    /// What was cancelled, and what runs still.
    pub(super) fn report(&self, queue: &crate::queue::Queue, id: &str) -> Report {
        let json = json!({
            "id": id,
            "queue": &*queue.name,
            "state": "cancelled",
            "cancelled": self.cancelled,
            "asked": self.asked,
        });
        let text = format!(
            "{id}  cancelled; {} jobs were waiting, {} run and were asked to end\n",
            self.cancelled.len(),
            self.asked.len()
        );
        Report::new(json, text)
    }
}
