//! `tidegate dead`: jobs that were given up, listed, retried or removed.
//!
//! Works through the dead in pages, the latest first, and only on those that were dead when it began: a job that is
//! retried and dies again at once is not retried for ever.

use super::act::{Act, Sure, acted};
use super::job::requeue;
use super::output::{age, brief, table};
use super::store::{OnQueue, Store};
use super::who::who;
use super::{CliError, Global, Report};
use crate::config::duration;
use crate::job::{Envelope, History};
use crate::queue::Queue;
use crate::queue::admit::flow_of;
use crate::queue::home::home_of;
use clap::Subcommand;
use serde_json::{Value, json};
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  tidegate dead list --kind mail.send --limit 20
  tidegate dead retry mail-7 mail-8
  tidegate dead retry --all --kind mail.send
  tidegate dead purge --all --older 30d --yes";

/// Dead jobs read at once. An envelope may take 384 KiB.
const PAGE: usize = 50;
/// The most characters of an error in a table.
const ERROR_WIDTH: usize = 60;

/// `tidegate dead …`
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(super) enum Command {
    /// List dead jobs, the latest first
    List {
        #[command(flatten)]
        filter: Filter,
        /// Jobs at most
        #[arg(long, default_value_t = 50, value_name = "N")]
        limit: usize,
    },
    /// Run dead jobs again, their attempts counted from the start
    Retry(Chosen),
    /// Remove dead jobs for good
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
    /// Only jobs of this kind
    #[arg(long)]
    kind: Option<String>,
    /// Only jobs that died longer ago than this, like 7d
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    older: Option<Duration>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Chosen {
    /// Ids of dead jobs
    #[arg(required_unless_present = "all", conflicts_with_all = ["all", "kind", "older", "limit"])]
    ids: Vec<String>,
    /// All dead jobs that the filters leave
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    filter: Filter,
    /// Jobs at most
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

/// A dead job.
struct Dead {
    id: String,
    died_ms: u64,
    raw: Vec<u8>,
    history: History,
}

/// Runs one of them.
///
/// # Errors
/// Configuration, Redis, or a purge of everything that was not confirmed.
pub(super) async fn run(command: Command, global: &Global) -> Result<Report, CliError> {
    match command {
        Command::List { filter, limit } => {
            let store = filter.on.open(global).await?;
            list(&store, &filter, limit).await
        }
        Command::Retry(chosen) => act(Act::Retry, &chosen, global).await,
        Command::Purge { chosen, sure } => {
            sure.confirm(chosen.all)?;
            act(Act::Purge, &chosen, global).await
        }
    }
}

async fn list(store: &Store, filter: &Filter, limit: usize) -> Result<Report, CliError> {
    let (mut views, mut rows, mut total) = (Vec::new(), Vec::new(), 0);
    for queue in store.queues() {
        let mut pages = Pages::start(&queue, filter).await?;
        total += pages.total;
        while views.len() < limit
            && let Some(page) = pages.next().await?
        {
            pages.passed(page.seen);
            for dead in page.matching.iter().take(limit - views.len()) {
                views.push(view(store, &queue, dead));
                rows.push(row(store, &queue, dead, pages.now_ms));
            }
        }
    }
    let headings = [
        "id", "queue", "kind", "priority", "attempts", "died", "error",
    ];
    let mut text = table(&headings, &rows);
    text.push_str(&format!("{} of {total} dead\n", views.len()));
    Ok(Report::new(json!({"jobs": views, "total": total}), text))
}

fn view(store: &Store, queue: &Queue, dead: &Dead) -> Value {
    let envelope = Envelope::parse(&dead.raw).unwrap_or_default();
    json!({
        "id": dead.id,
        "queue": &*queue.name,
        "kind": envelope.kind,
        "priority": flow_of(&envelope, &store.catalog).priority,
        "died_at": dead.died_ms,
        "attempts": dead.history.attempts,
        "crashes": dead.history.crashes,
        "error": dead.history.errors.last().map(|e| e.error.as_str()),
    })
}

fn row(store: &Store, queue: &Queue, dead: &Dead, now_ms: u64) -> Vec<String> {
    let envelope = Envelope::parse(&dead.raw).unwrap_or_default();
    let error = dead.history.errors.last().map(|e| e.error.as_str());
    vec![
        dead.id.clone(),
        queue.name.to_string(),
        envelope.kind.clone(),
        flow_of(&envelope, &store.catalog).priority.to_string(),
        dead.history.attempts.to_string(),
        format!("{} ago", age(now_ms.saturating_sub(dead.died_ms))),
        brief(error.unwrap_or("-"), ERROR_WIDTH),
    ]
}

async fn act(what: Act, chosen: &Chosen, global: &Global) -> Result<Report, CliError> {
    let store = chosen.filter.on.open(global).await?;
    let (changed, missing) = if chosen.all {
        let limit = chosen.limit.unwrap_or(usize::MAX);
        (
            act_on_all(what, &store, &chosen.filter, limit).await?,
            Vec::new(),
        )
    } else {
        act_on_ids(what, &store, &chosen.ids).await?
    };
    let failure =
        (!missing.is_empty()).then(|| format!("not among the dead: {}", missing.join(", ")));
    Ok(acted(what, changed, missing, failure))
}

/// Acts on the named ones; returns how many were dead, and which were not.
async fn act_on_ids(
    what: Act,
    store: &Store,
    ids: &[String],
) -> Result<(u64, Vec<String>), CliError> {
    let (mut changed, mut missing) = (0, Vec::new());
    for id in ids {
        let done = match store.find(id).await {
            Ok((queue, found)) if found.state == "dead" => match what {
                Act::Retry => requeue(store, &queue, id, &found).await?,
                Act::Purge => queue.bury(std::slice::from_ref(id), Some(&who())).await? == 1,
            },
            Ok(_) | Err(CliError::NotFound(_)) => false,
            Err(error) => return Err(error),
        };
        if done {
            changed += 1;
        } else {
            missing.push(id.clone());
        }
    }
    Ok((changed, missing))
}

/// Acts on all that match, page by page; returns how many.
async fn act_on_all(
    what: Act,
    store: &Store,
    filter: &Filter,
    limit: usize,
) -> Result<u64, CliError> {
    let mut changed = 0;
    for queue in store.queues() {
        let mut pages = Pages::start(&queue, filter).await?;
        while let Some(mut page) = pages.next().await? {
            let left = usize::try_from(changed).map_or(0, |n| limit.saturating_sub(n));
            page.matching.truncate(left);
            let gone = match what {
                Act::Retry => retry_page(store, &queue, &page.matching).await?,
                Act::Purge => {
                    let ids: Vec<String> = page.matching.into_iter().map(|d| d.id).collect();
                    if ids.is_empty() {
                        0
                    } else {
                        queue.bury(&ids, Some(&who())).await?
                    }
                }
            };
            changed += gone;
            if left == 0 {
                break;
            }
            // What is gone makes the later pages move up.
            pages.passed(
                page.seen
                    .saturating_sub(usize::try_from(gone).unwrap_or(page.seen)),
            );
        }
    }
    Ok(changed)
}

async fn retry_page(store: &Store, queue: &Queue, page: &[Dead]) -> Result<u64, CliError> {
    let mut retried = 0;
    for dead in page {
        let Ok(envelope) = Envelope::parse(&dead.raw) else {
            continue;
        };
        // Its history says where it was when it died.
        let flow = home_of(&envelope, &store.catalog, "", Some(&dead.history));
        let enqueued = envelope.enqueued_at;
        let done = queue.requeue(&dead.id, &flow, enqueued, &who()).await?;
        retried += u64::from(done);
    }
    Ok(retried)
}

/// A walk through the dead of one queue.
struct Pages<'a> {
    queue: &'a Queue,
    filter: &'a Filter,
    /// Redis time at the start, ms.
    now_ms: u64,
    /// How many were dead then.
    total: u64,
    from: usize,
    /// Pages that may still be read, whatever else happens to the queue meanwhile.
    left: u64,
}

/// A page, and those of it that the filter leaves.
struct Page {
    seen: usize,
    matching: Vec<Dead>,
}

impl<'a> Pages<'a> {
    async fn start(queue: &'a Queue, filter: &'a Filter) -> Result<Self, CliError> {
        let counts = queue.counts().await?;
        Ok(Self {
            queue,
            filter,
            now_ms: counts.now_ms,
            total: counts.dead,
            from: 0,
            left: 2 + 2 * counts.dead / PAGE as u64,
        })
    }

    /// The caller says how many of the page are still there.
    fn passed(&mut self, kept: usize) {
        self.from += kept;
    }

    async fn next(&mut self) -> Result<Option<Page>, CliError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let found = self.queue.dead(self.from, PAGE).await?;
        if found.is_empty() {
            return Ok(None);
        }
        let seen = found.len();
        let oldest = self.filter.older.map_or(0, |d| d.as_millis());
        let before = self
            .now_ms
            .saturating_sub(u64::try_from(oldest).unwrap_or(u64::MAX));
        let old: Vec<(String, u64)> = found
            .into_iter()
            .filter(|(_, died)| *died <= before)
            .collect();
        let ids: Vec<&str> = old.iter().map(|(id, _)| id.as_str()).collect();
        let stored = self.queue.stored(&ids).await?;
        let each = old
            .iter()
            .zip(stored)
            .map(|((id, died_ms), (raw, history))| Dead {
                id: id.clone(),
                died_ms: *died_ms,
                raw,
                history: History::parse(&history).unwrap_or_default(),
            });
        let matching = each.filter(|dead| self.is_of_kind(dead)).collect();
        Ok(Some(Page { seen, matching }))
    }

    fn is_of_kind(&self, dead: &Dead) -> bool {
        self.filter.kind.as_ref().is_none_or(|kind| {
            Envelope::parse(&dead.raw).is_ok_and(|envelope| envelope.kind == *kind)
        })
    }
}
