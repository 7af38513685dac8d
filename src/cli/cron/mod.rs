//! `tidegate cron`: what runs by itself, listed in plain words, run now, paused, added and removed.

mod add;
mod list;

use super::store::{OnQueue, Store};
use super::{CliError, Global, Report};
use crate::catalog::schedules::{Scheduled, Unserved, of_queue};
use crate::clock;
use crate::queue::operate::Enqueued;
use crate::queue::schedules::{Stored, envelope, run_id};
use crate::queue::{Queue, QueueError};
use clap::Subcommand;
use serde_json::json;

const EXAMPLES: &str = "\
Examples:
  tidegate cron list
  tidegate cron run stats.rollup
  tidegate cron pause stats.rollup
  tidegate cron resume stats.rollup
  tidegate cron add report.monday --cron '0 7 * * mon' --timezone Europe/Amsterdam --kind report.build --args '{\"week\":true}'
  tidegate cron add beat --cron '*/30 * * * * *' --kind app.beat --misfire skip
  tidegate cron remove report.monday

Five fields as in cron(5), six with the seconds first, seven with a year last, or @hourly, @daily, @weekly, @monthly,
@yearly. Missed ticks: skip drops them, once makes up for all of them with one run, all runs each, the last --catch-up
of them at most.";

/// `tidegate cron …`
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(super) enum Command {
    /// List schedules, with their next runs in plain words
    List {
        #[command(flatten)]
        on: OnQueue,
        /// How many of the next runs `--json` tells
        #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
        next: u16,
    },
    /// Put a job of a schedule into its queue now, whatever the time, paused or not
    Run(Named),
    /// Let a schedule make no jobs until it is resumed
    Pause(Named),
    /// Let a paused schedule go on; the ticks of the pause are not made up for
    Resume(Named),
    /// Add a schedule beside those of the definitions; the same again changes nothing
    Add(Box<add::Add>),
    /// Remove a schedule that was added
    Remove(Named),
}

#[derive(Debug, clap::Args)]
pub(super) struct Named {
    /// Its name: the kind, for the schedule of a definition
    name: String,
    #[command(flatten)]
    on: OnQueue,
}

/// Runs one of them.
///
/// # Errors
/// The schedule is not known or can't be one, or configuration or Redis.
pub(super) async fn run(command: Command, global: &Global) -> Result<Report, CliError> {
    match command {
        Command::List { on, next } => {
            let store = on.open(global).await?;
            list::run(&store, usize::from(next)).await
        }
        Command::Run(named) => run_now(&found(&named, global).await?).await,
        Command::Pause(named) => pause(&found(&named, global).await?).await,
        Command::Resume(named) => resume(&named, global).await,
        Command::Add(add) => add::run(&add, global).await,
        Command::Remove(named) => remove(&named, global).await,
    }
}

/// The schedules of one queue.
struct Board {
    queue: Queue,
    stored: Stored,
    schedules: Vec<Scheduled>,
    unserved: Vec<Unserved>,
}

async fn boards(store: &Store) -> Result<Vec<Board>, CliError> {
    let mut boards = Vec::new();
    for queue in store.queues() {
        let stored = queue.stored_schedules().await?;
        let (schedules, unserved) = of_queue(&store.catalog, &queue.name, &stored.added);
        boards.push(Board {
            queue,
            stored,
            schedules,
            unserved,
        });
    }
    Ok(boards)
}

/// One schedule, and the queue it is of.
struct Found {
    queue: Queue,
    scheduled: Scheduled,
    now_ms: u64,
}

async fn found(named: &Named, global: &Global) -> Result<Found, CliError> {
    let store = named.on.open(global).await?;
    for board in boards(&store).await? {
        if let Some(unserved) = board.unserved.iter().find(|s| s.name == named.name) {
            return Err(CliError::failed(
                "unserved",
                format!("{}: {}", named.name, unserved.reason),
            ));
        }
        let mut schedules = board.schedules.into_iter();
        if let Some(scheduled) = schedules.find(|s| *s.name == *named.name) {
            return Ok(Found {
                queue: board.queue,
                scheduled,
                now_ms: board.stored.glance.now_ms,
            });
        }
    }
    Err(unknown(named, &store))
}

fn unknown(named: &Named, store: &Store) -> CliError {
    let queues = store.names.join(", ");
    let mut message = format!("no schedule {:?} in {queues}", named.name);
    if store.catalog.get(&named.name).is_some() {
        message.push_str(&format!(
            ": the kind has no [schedule]; `tidegate enqueue {}` runs it",
            named.name
        ));
    }
    CliError::NotFound(message)
}

async fn run_now(found: &Found) -> Result<Report, CliError> {
    let now_ms = clock::unix_ms();
    let id = run_id(now_ms, rand::random());
    let envelope = envelope(&found.scheduled, &id, None, now_ms);
    let answer = found.queue.enqueue(&[(id.as_str(), envelope)]).await?.pop();
    if answer != Some(Enqueued::Created) {
        return Err(QueueError::Reply(format!("{answer:?}")).into());
    }
    let queue = &*found.queue.name;
    let json =
        json!({"name": &*found.scheduled.name, "queue": queue, "id": id, "status": "created"});
    Ok(Report::new(json, format!("{id}  created in {queue}\n")))
}

async fn pause(found: &Found) -> Result<Report, CliError> {
    let name = &*found.scheduled.name;
    let changed = found.queue.pause_schedule(name, found.now_ms).await?;
    let words = if changed {
        "paused"
    } else {
        "was paused already"
    };
    Ok(changed_report(name, &found.queue, "paused", changed, words))
}

fn changed_report(name: &str, queue: &Queue, state: &str, changed: bool, words: &str) -> Report {
    let json = json!({"name": name, "queue": &*queue.name, "state": state, "changed": changed});
    Report::new(json, format!("{name}  {words}\n"))
}

/// Also of a schedule that nothing defines any more.
async fn resume(named: &Named, global: &Global) -> Result<Report, CliError> {
    let store = named.on.open(global).await?;
    let mut known = None;
    for board in boards(&store).await? {
        if board.queue.resume_schedule(&named.name).await? {
            return Ok(changed_report(
                &named.name,
                &board.queue,
                "active",
                true,
                "goes on",
            ));
        }
        if board.schedules.iter().any(|s| *s.name == *named.name) {
            known = Some(board.queue);
        }
    }
    match known {
        Some(queue) => Ok(changed_report(
            &named.name,
            &queue,
            "active",
            false,
            "was not paused",
        )),
        None => Err(unknown(named, &store)),
    }
}

async fn remove(named: &Named, global: &Global) -> Result<Report, CliError> {
    let store = named.on.open(global).await?;
    for queue in store.queues() {
        let stored = queue.stored_schedules().await?;
        if stored.added.iter().any(|(name, _)| *name == named.name)
            && queue.remove_schedule(&named.name).await?
        {
            return Ok(changed_report(
                &named.name,
                &queue,
                "removed",
                true,
                "removed",
            ));
        }
    }
    let spec = store.catalog.get(&named.name);
    if spec.is_some_and(|spec| spec.schedule.is_some()) {
        let message = format!(
            "{} is scheduled by its definition: remove [schedule] there, or `tidegate cron pause {0}`",
            named.name
        );
        return Err(CliError::failed("defined", message));
    }
    Err(unknown(named, &store))
}
