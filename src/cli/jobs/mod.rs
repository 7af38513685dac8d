//! `tidegate jobs`: many jobs at once, chosen by what they have in common: counted, listed, retried, deleted, moved.
//!
//! What changes jobs says first what it would do, and does it with `--yes`. It works in bounded steps, each of which
//! leaves a job where it was or where it belongs; a job that changed its state meanwhile is left alone, and counted.

mod act;
mod filter;
mod moving;
mod walk;

use super::output::{age, brief, progress, table};
use super::store::{OnQueue, Store, queue_name};
use super::{CliError, Global, Report};
use crate::clock;
use crate::config::duration;
use crate::queue::Queue;
use crate::queue::scan::State;
use act::{Act, Tally};
use clap::Subcommand;
use filter::{Filter, Matched};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use walk::Walk;

const EXAMPLES: &str = "\
Examples:
  tidegate jobs count --state pending,delayed --kind mail.send
  tidegate jobs list --state dead --error timeout --limit 20
  tidegate jobs retry --state dead --kind mail.send --older-than 1h          says what it would do
  tidegate jobs retry --state dead --kind mail.send --older-than 1h --yes
  tidegate jobs delete --state pending --kind report.build --yes
  tidegate jobs move --state pending --kind report.build --to slow --yes

--older-than: of dead jobs since they died, of the others since they were enqueued: by `enqueued_at` of the envelope, or
by an id that was minted. A job whose age nobody knows is left out, and counted.

move: a job is first put among the dead of its queue, with a word of where it goes, then pushed to the other queue's inbox
under the same id, then removed. So a crash in between neither loses it nor runs it twice: the same command again
finishes what was begun. Its attempts start afresh, and its `ttl_ms` counts anew. What it is to tell is told
there. A job whose id the other queue knows, one of a group or workflow, and one that others were merged into, stay.";

/// How often work that takes long tells how far it is.
const TELL: Duration = Duration::from_secs(2);
/// The most characters of an error in a table.
const ERROR_WIDTH: usize = 60;

/// `tidegate jobs …`
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(super) enum Command {
    /// Count jobs by queue, state and kind
    Count(Filters),
    /// List jobs
    List {
        #[command(flatten)]
        filters: Filters,
        /// Jobs at most
        #[arg(long, default_value_t = 50, value_name = "N")]
        limit: u64,
    },
    /// Run dead or delayed jobs now; dead ones start afresh
    Retry(Chosen),
    /// Remove dead jobs for good, cancel waiting ones
    Delete(Chosen),
    /// Move jobs to another queue
    Move {
        #[command(flatten)]
        chosen: Chosen,
        /// The other queue
        #[arg(long, value_name = "QUEUE", value_parser = queue_name)]
        to: String,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Filters {
    #[command(flatten)]
    on: OnQueue,
    /// pending, delayed, running, dead; several with commas [default: all of them]
    #[arg(long, value_name = "STATE", value_delimiter = ',', value_parser = state)]
    state: Vec<State>,
    #[command(flatten)]
    more: MoreFilters,
}

#[derive(Debug, clap::Args)]
pub(super) struct MoreFilters {
    /// Only jobs of this kind
    #[arg(long)]
    kind: Option<String>,
    /// Only jobs older than this, like 1h
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    older_than: Option<Duration>,
    /// Only jobs with this text in one of their errors, in capitals or not
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Chosen {
    #[command(flatten)]
    on: OnQueue,
    /// pending, delayed, dead; several with commas
    #[arg(long, required = true, value_name = "STATE", value_delimiter = ',', value_parser = state)]
    state: Vec<State>,
    #[command(flatten)]
    more: MoreFilters,
    /// Jobs at most; of the dead and the delayed, the oldest and those due first
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Really do it; without this it only counts
    #[arg(long)]
    yes: bool,
}

fn state(given: &str) -> Result<State, String> {
    let found = State::ALL.into_iter().find(|s| s.as_str() == given);
    found.ok_or_else(|| "want pending, delayed, running or dead".to_owned())
}

impl MoreFilters {
    fn with(self, states: Vec<State>) -> Filter {
        let states = if states.is_empty() {
            State::ALL.to_vec()
        } else {
            states
        };
        Filter::new(states, self.kind, self.older_than, self.error.as_deref())
    }
}

/// Runs one of them.
///
/// # Errors
/// What is asked for makes no sense, or configuration or Redis.
pub(super) async fn run(command: Command, global: &Global) -> Result<Report, CliError> {
    match command {
        Command::Count(Filters { on, state, more }) => {
            let store = on.open(global).await?;
            count(&store, &more.with(state), global).await
        }
        Command::List { filters, limit } => {
            let store = filters.on.open(global).await?;
            list(&store, &filters.more.with(filters.state), limit).await
        }
        Command::Retry(chosen) => change(Act::Retry, chosen, global).await,
        Command::Delete(chosen) => change(Act::Delete, chosen, global).await,
        Command::Move { chosen, to } => change(Act::Move { to }, chosen, global).await,
    }
}

/// Jobs by queue, state and kind.
#[derive(Default)]
struct Census {
    by: BTreeMap<(String, &'static str, String), u64>,
    matching: u64,
    age_unknown: u64,
}

impl Census {
    fn add(&mut self, queue: &Queue, jobs: &[Matched]) {
        for job in jobs {
            let key = (
                queue.name.to_string(),
                job.seen.state.as_str(),
                job.kind.clone(),
            );
            *self.by.entry(key).or_default() += 1;
        }
        self.matching += jobs.len() as u64;
    }

    fn json(&self) -> Value {
        let group = |((queue, state, kind), jobs): (&(String, &str, String), &u64)| json!({"queue": queue, "state": state, "kind": kind, "jobs": jobs});
        let by: Vec<Value> = self.by.iter().map(group).collect();
        json!({"matching": self.matching, "age_unknown": self.age_unknown, "by": by})
    }

    fn text(&self) -> String {
        let row = |((queue, state, kind), jobs): (&(String, &str, String), &u64)| {
            vec![
                queue.clone(),
                (*state).to_owned(),
                kind.clone(),
                jobs.to_string(),
            ]
        };
        let rows: Vec<Vec<String>> = self.by.iter().map(row).collect();
        let mut text = if rows.is_empty() {
            String::new()
        } else {
            table(&["queue", "state", "kind", "jobs"], &rows)
        };
        if self.age_unknown > 0 {
            text.push_str(&format!(
                "{} left out: nobody knows their age\n",
                self.age_unknown
            ));
        }
        text
    }
}

/// Counts what matches, `limit` at most.
async fn census(
    store: &Store,
    filter: &Filter,
    limit: u64,
    quiet: bool,
) -> Result<Census, CliError> {
    let mut census = Census::default();
    let mut teller = Teller::new(quiet);
    for queue in store.queues() {
        let mut walk = Walk::start(&queue, filter).await?;
        while census.matching < limit
            && let Some(mut jobs) = walk.next().await?
        {
            jobs.truncate(usize::try_from(limit - census.matching).unwrap_or(usize::MAX));
            census.add(&queue, &jobs);
            teller.tell(&walk, &format!("{} match", census.matching));
        }
        census.age_unknown += walk.age_unknown();
    }
    Ok(census)
}

async fn count(store: &Store, filter: &Filter, global: &Global) -> Result<Report, CliError> {
    let census = census(store, filter, u64::MAX, global.json).await?;
    let text = format!("{}{} jobs\n", census.text(), census.matching);
    Ok(Report::new(census.json(), text))
}

async fn list(store: &Store, filter: &Filter, limit: u64) -> Result<Report, CliError> {
    let (mut views, mut rows) = (Vec::new(), Vec::new());
    let (mut more, mut age_unknown) = (false, 0);
    for queue in store.queues() {
        let mut walk = Walk::start(&queue, filter).await?;
        while !more && let Some(jobs) = walk.next().await? {
            let left = usize::try_from(limit).unwrap_or(usize::MAX) - views.len();
            more = jobs.len() > left;
            for job in jobs.iter().take(left) {
                views.push(view(&queue, job));
                rows.push(row(&queue, job, walk.now_ms()));
            }
        }
        age_unknown += walk.age_unknown();
    }
    let headings = ["id", "queue", "kind", "state", "age", "attempts", "error"];
    let mut text = table(&headings, &rows);
    if more {
        text.push_str(&format!("… and more: --limit {limit}\n"));
    }
    let json = json!({"jobs": views, "more": more, "age_unknown": age_unknown});
    Ok(Report::new(json, text))
}

fn view(queue: &Queue, job: &Matched) -> Value {
    let history = &job.seen.history;
    let at = |state| job.seen.at_ms.filter(|_| job.seen.state == state);
    json!({
        "id": job.seen.id,
        "queue": &*queue.name,
        "kind": job.kind,
        "state": job.seen.state.as_str(),
        "enqueued_at": job.enqueued_ms,
        "due_at": at(State::Delayed),
        "died_at": at(State::Dead),
        "attempts": history.attempts,
        "crashes": history.crashes,
        "error": history.errors.last().map(|e| e.error.as_str()),
    })
}

fn row(queue: &Queue, job: &Matched, now_ms: u64) -> Vec<String> {
    let error = job.seen.history.errors.last().map(|e| e.error.as_str());
    vec![
        job.seen.id.clone(),
        queue.name.to_string(),
        job.kind.clone(),
        job.seen.state.to_string(),
        job.since_ms()
            .map_or_else(|| "?".to_owned(), |at| age(now_ms.saturating_sub(at))),
        job.seen.history.attempts.to_string(),
        brief(error.unwrap_or("-"), ERROR_WIDTH),
    ]
}

async fn change(act: Act, chosen: Chosen, global: &Global) -> Result<Report, CliError> {
    act.check_states(&chosen.state)?;
    let mut store = chosen.on.open(global).await?;
    act.check_target(&mut store, global).await?;
    let filter = chosen.more.with(chosen.state);
    let limit = chosen.limit.unwrap_or(u64::MAX);
    if !chosen.yes {
        let census = census(&store, &filter, limit, global.json).await?;
        return Ok(dry(&act, &census));
    }
    let mut tally = Tally::default();
    let mut teller = Teller::new(global.json);
    for queue in store.queues() {
        tally.add(act.finish_begun(&store, &queue).await?);
        let mut walk = Walk::start(&queue, &filter).await?;
        while tally.chosen < limit
            && let Some(mut jobs) = walk.next().await?
        {
            jobs.truncate(usize::try_from(limit - tally.chosen).unwrap_or(usize::MAX));
            tally.add(act.on(&store, &queue, &jobs).await?);
            teller.tell(&walk, &format!("{} {}", tally.done, act.word()));
        }
        tally.age_unknown += walk.age_unknown();
    }
    Ok(tally.report(&act))
}

/// What would be done.
fn dry(act: &Act, census: &Census) -> Report {
    let mut json = census.json();
    json["dry_run"] = true.into();
    let text = match census.matching {
        0 => format!("{}nothing to {}\n", census.text(), act.verb()),
        n => format!(
            "{}would {} {n} jobs; nothing was changed: add --yes to do it\n",
            census.text(),
            act.verb()
        ),
    };
    Report::new(json, text)
}

/// Tells now and then how far long work is.
struct Teller {
    last: Instant,
    quiet: bool,
}

impl Teller {
    fn new(quiet: bool) -> Self {
        Self {
            last: clock::monotonic(),
            quiet,
        }
    }

    fn tell(&mut self, walk: &Walk<'_>, done: &str) {
        if !self.quiet && clock::since(self.last) >= TELL {
            self.last = clock::monotonic();
            let (looked, total) = walk.looked();
            progress(&format!("{looked} of about {total} looked at, {done}"));
        }
    }
}
