//! `tidegate quarantine`: entries that could not be jobs, listed, tried again or removed.
//!
//! Their bytes are anybody's: shown as base64 to programs, escaped to people.

use super::act::{Act, Sure, acted};
use super::output::{age, brief, table};
use super::store::OnQueue;
use super::{CliError, Global, Report};
use crate::queue::Queue;
use crate::queue::inspect::Quarantined;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Subcommand;
use serde_json::{Value, json};

const EXAMPLES: &str = "\
Examples:
  tidegate quarantine list --json | jq -r '.entries[0].raw' | base64 -d
  tidegate quarantine retry --all --code unknown_kind      after the definition was added
  tidegate quarantine purge 1700000000000-0 --queue mail";

/// Entries read, put back or removed at once. One may take 384 KiB.
const PAGE: usize = 25;
/// The most characters of a reason and of an entry in a table.
const REASON_WIDTH: usize = 60;
const RAW_WIDTH: usize = 40;

/// `tidegate quarantine …`
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(super) enum Command {
    /// List quarantined entries, the oldest first
    List {
        #[command(flatten)]
        filter: Filter,
        /// Entries at most
        #[arg(long, default_value_t = 50, value_name = "N")]
        limit: usize,
    },
    /// Put entries back into the inbox, to be judged anew
    Retry(Chosen),
    /// Remove entries for good
    Purge {
        #[command(flatten)]
        chosen: Chosen,
        #[command(flatten)]
        sure: Sure,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Filter {
    #[command(flatten)]
    on: OnQueue,
    /// Only entries with this fault, like unknown_kind
    #[arg(long)]
    code: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Chosen {
    /// Ids of entries, as `list` shows them
    #[arg(required_unless_present = "all", conflicts_with_all = ["all", "code"], value_parser = entry_id)]
    ids: Vec<String>,
    /// All entries that the filters leave
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    filter: Filter,
}

/// Runs one of them.
///
/// # Errors
/// Configuration, Redis, or a purge of everything that was not confirmed.
pub(super) async fn run(command: Command, global: &Global) -> Result<Report, CliError> {
    match command {
        Command::List { filter, limit } => list(&filter, limit, global).await,
        Command::Retry(chosen) => act(Act::Retry, &chosen, global).await,
        Command::Purge { chosen, sure } => {
            sure.confirm(chosen.all)?;
            act(Act::Purge, &chosen, global).await
        }
    }
}

async fn list(filter: &Filter, limit: usize, global: &Global) -> Result<Report, CliError> {
    let store = filter.on.open(global).await?;
    let (mut views, mut rows, mut total) = (Vec::new(), Vec::new(), 0);
    for queue in store.queues() {
        let mut pages = Pages::start(&queue, filter).await?;
        total += pages.total;
        while views.len() < limit
            && let Some(page) = pages.next().await?
        {
            for entry in page.iter().take(limit - views.len()) {
                views.push(view(&queue, entry));
                rows.push(row(&queue, entry, pages.now_ms));
            }
        }
    }
    let mut text = table(&["id", "queue", "age", "code", "reason", "entry"], &rows);
    text.push_str(&format!("{} of {total} in quarantine\n", views.len()));
    Ok(Report::new(json!({"entries": views, "total": total}), text))
}

fn view(queue: &Queue, entry: &Quarantined) -> Value {
    json!({
        "id": entry.id,
        "at": entry.at_ms,
        "code": entry.code,
        "reason": entry.reason,
        "raw": STANDARD.encode(&entry.raw),
        "queue": &*queue.name,
    })
}

fn row(queue: &Queue, entry: &Quarantined, now_ms: u64) -> Vec<String> {
    vec![
        entry.id.clone(),
        queue.name.to_string(),
        age(now_ms.saturating_sub(entry.at_ms)),
        entry.code.clone(),
        brief(&entry.reason, REASON_WIDTH),
        brief(&String::from_utf8_lossy(&entry.raw), RAW_WIDTH),
    ]
}

async fn act(what: Act, chosen: &Chosen, global: &Global) -> Result<Report, CliError> {
    let store = chosen.filter.on.open(global).await?;
    if !chosen.all && store.names.len() > 1 {
        // Each queue counts its own entries, so that two may bear the same id.
        let queues = store.names.join(", ");
        return Err(CliError::Usage(format!(
            "name the queue of these entries with --queue: {queues}"
        )));
    }
    let (mut changed, mut asked) = (0, 0);
    for queue in store.queues() {
        if chosen.all {
            let mut pages = Pages::start(&queue, &chosen.filter).await?;
            while let Some(page) = pages.next().await? {
                let ids: Vec<String> = page.into_iter().map(|entry| entry.id).collect();
                changed += act_on(what, &queue, &ids).await?;
            }
            continue;
        }
        for ids in chosen.ids.chunks(PAGE) {
            asked += ids.len() as u64;
            changed += act_on(what, &queue, ids).await?;
        }
    }
    let missing = asked.saturating_sub(changed);
    let missing = if chosen.all { 0 } else { missing };
    let failure = (missing > 0).then(|| format!("{missing} not in quarantine"));
    Ok(acted(what, changed, missing, failure))
}

async fn act_on(what: Act, queue: &Queue, ids: &[String]) -> Result<u64, CliError> {
    if ids.is_empty() {
        return Ok(0);
    }
    Ok(match what {
        Act::Retry => queue.release(ids).await?,
        Act::Purge => queue.discard(ids).await?,
    })
}

/// A walk through the quarantine of one queue, as it was at the start: what comes back at once is not met again.
struct Pages<'a> {
    queue: &'a Queue,
    filter: &'a Filter,
    /// Redis time at the start, ms.
    now_ms: u64,
    /// How many entries there were then.
    total: u64,
    after: String,
}

impl<'a> Pages<'a> {
    async fn start(queue: &'a Queue, filter: &'a Filter) -> Result<Self, CliError> {
        let counts = queue.counts().await?;
        Ok(Self {
            queue,
            filter,
            now_ms: counts.now_ms,
            total: counts.quarantine,
            after: String::new(),
        })
    }

    /// The entries of the next page that the filter leaves; none at the end.
    async fn next(&mut self) -> Result<Option<Vec<Quarantined>>, CliError> {
        let mut page = self.queue.quarantined(&self.after, PAGE).await?;
        page.retain(|entry| entry.at_ms <= self.now_ms);
        let Some(last) = page.last() else {
            return Ok(None);
        };
        self.after.clone_from(&last.id);
        if let Some(code) = &self.filter.code {
            page.retain(|entry| entry.code == *code);
        }
        Ok(Some(page))
    }
}

/// The id of an entry: `<ms>-<number>`.
fn entry_id(given: &str) -> Result<String, String> {
    let number = |part: &str| part.parse::<u64>().is_ok();
    match given.split_once('-') {
        Some((ms, n)) if number(ms) && number(n) => Ok(given.to_owned()),
        _ => Err("want an id as `quarantine list` shows it, like 1700000000000-0".to_owned()),
    }
}
