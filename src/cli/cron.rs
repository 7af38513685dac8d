//! `tidegate cron`: what runs by itself, listed in plain words, run now, paused, added and removed.

use super::output::{age, table};
use super::store::{OnQueue, Store};
use super::{CliError, Global, Report};
use crate::catalog::schedules::{
    AddedSchedule, MAX_ADDED, MAX_ARGS_BYTES, Scheduled, Source, Unserved, check_name, of_queue,
};
use crate::clock;
use crate::job::Priority;
use crate::policy::schedule::Misfire;
use crate::queue::operate::Enqueued;
use crate::queue::schedules::{Stored, any_last_tick, envelope, run_id};
use crate::queue::{Queue, QueueError, Verdict, admit};
use clap::Subcommand;
use serde_json::{Map, Value, json};

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
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
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
    Add(Box<Add>),
    /// Remove a schedule that was added
    Remove(Named),
}

#[derive(Debug, clap::Args)]
struct Named {
    /// Its name: the kind, for the schedule of a definition
    name: String,
    #[command(flatten)]
    on: OnQueue,
}

#[derive(Debug, clap::Args)]
struct Add {
    /// Its name: words of a-z 0-9 _ joined by dots, not the kind of a definition
    name: String,
    /// When, like '0 7 * * mon'
    #[arg(long, value_name = "EXPR")]
    cron: String,
    /// What to run: the kind of a job definition
    #[arg(long)]
    kind: String,
    /// Arguments of each job as a JSON object
    #[arg(long, value_name = "JSON", default_value = "{}")]
    args: String,
    /// The time zone of the expression, like Europe/Amsterdam
    #[arg(long, value_name = "NAME", default_value = "UTC")]
    timezone: String,
    /// What becomes of missed ticks: skip, once or all
    #[arg(long, default_value = "once", value_parser = misfire)]
    misfire: Misfire,
    /// With --misfire all: how many are made up for, 1 to 10000 [default: 100]
    #[arg(long, value_name = "N")]
    catch_up: Option<usize>,
    /// critical, high, normal, low or bulk [default: the definition's]
    #[arg(long)]
    priority: Option<Priority>,
    /// Replace the one of that name
    #[arg(long)]
    replace: bool,
}

fn misfire(given: &str) -> Result<Misfire, String> {
    serde_json::from_value(Value::from(given)).map_err(|_| "want skip, once or all".to_owned())
}

/// Runs one of them.
///
/// # Errors
/// The schedule is not known or can't be one, or configuration or Redis.
pub async fn run(args: Args, global: &Global) -> Result<Report, CliError> {
    match args.command {
        Command::List { on, next } => {
            let store = Store::open(global, on.queue.as_deref()).await?;
            list(&store, usize::from(next)).await
        }
        Command::Run(named) => run_now(&found(&named, global).await?).await,
        Command::Pause(named) => pause(&found(&named, global).await?).await,
        Command::Resume(named) => resume(&named, global).await,
        Command::Add(add) => self::add(&add, global).await,
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
    let store = Store::open(global, named.on.queue.as_deref()).await?;
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

async fn list(store: &Store, next: usize) -> Result<Report, CliError> {
    let (mut views, mut rows) = (Vec::new(), Vec::new());
    for board in boards(store).await? {
        for scheduled in &board.schedules {
            let view = view(&board, scheduled, next);
            rows.push(row(&board, scheduled, &view));
            views.push(view);
        }
        for Unserved { name, reason } in &board.unserved {
            let queue = &*board.queue.name;
            views.push(
                json!({"name": name, "queue": queue, "source": Source::Added, "problem": reason}),
            );
            let row = [name, queue, "-", "-", reason, "added"];
            rows.push(row.map(str::to_owned).to_vec());
        }
        // A pause outlives its definition, so that it still counts when that comes back.
        let known = |name: &str| board.schedules.iter().any(|s| *s.name == *name);
        for name in board.stored.paused.keys().filter(|name| !known(name)) {
            let problem = "paused, but defined nowhere here";
            let queue = &*board.queue.name;
            views.push(json!({"name": name, "queue": queue, "problem": problem}));
            rows.push(
                [name, queue, "-", "-", problem, "-"]
                    .map(str::to_owned)
                    .to_vec(),
            );
        }
    }
    let text = if rows.is_empty() {
        "nothing runs by itself: give a definition a [schedule], or see `tidegate cron add --help`\n".to_owned()
    } else {
        table(
            &["schedule", "queue", "kind", "when", "next", "from"],
            &rows,
        )
    };
    Ok(Report::new(json!({"schedules": views}), text))
}

fn view(board: &Board, scheduled: &Scheduled, next: usize) -> Value {
    let schedule = &scheduled.spec.schedule;
    let now_ms = board.stored.glance.now_ms;
    let runs = std::iter::successors(schedule.next_after(now_ms), |t| schedule.next_after(*t));
    let record = board.stored.records.get(&*scheduled.name);
    let paused = board.stored.paused.get(&*scheduled.name);
    let mut view = json!({
        "name": &*scheduled.name,
        "queue": &*board.queue.name,
        "kind": &*scheduled.kind,
        "source": scheduled.source,
        "cron": schedule.to_string(),
        "timezone": schedule.zone(),
        "when": schedule.describe(),
        "misfire": scheduled.spec.misfire,
        "paused": paused.is_some(),
        "last": record.and_then(|r| any_last_tick(r)),
        "next": runs.take(next).collect::<Vec<u64>>(),
    });
    if let Some(since) = paused {
        view["paused_at"] = (*since).into();
    }
    if scheduled.spec.misfire == Misfire::All {
        view["catch_up"] = scheduled.spec.catch_up.into();
    }
    if !scheduled.args.is_empty() {
        view["args"] = Value::Object(scheduled.args.clone());
    }
    view
}

fn row(board: &Board, scheduled: &Scheduled, view: &Value) -> Vec<String> {
    let schedule = &scheduled.spec.schedule;
    let now_ms = board.stored.glance.now_ms;
    let next = match (view["paused_at"].as_u64(), view["next"][0].as_u64()) {
        (Some(since), _) => format!("paused for {}", age(now_ms.saturating_sub(since))),
        (None, Some(at)) => format!("{}, in {}", schedule.say(at, now_ms), age(at - now_ms)),
        (None, None) => "never again".to_owned(),
    };
    let from = match scheduled.source {
        Source::Definition => "definition",
        Source::Added => "added",
    };
    vec![
        scheduled.name.to_string(),
        board.queue.name.to_string(),
        scheduled.kind.to_string(),
        format!("{} ({})", schedule.describe(), schedule.zone()),
        next,
        from.to_owned(),
    ]
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
    let store = Store::open(global, named.on.queue.as_deref()).await?;
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
    let store = Store::open(global, named.on.queue.as_deref()).await?;
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

async fn add(add: &Add, global: &Global) -> Result<Report, CliError> {
    let refuse = |message: String| CliError::failed("bad_schedule", message);
    let store = Store::open(global, None).await?;
    check_name(&add.name, &store.catalog).map_err(refuse)?;
    let kind = store.catalog.get(&add.kind).ok_or_else(|| {
        let message = format!("kind: {:?} is not defined here", add.kind);
        CliError::failed("unknown_kind", message)
    })?;
    let queue = store.queue(&kind.queue);
    let added = AddedSchedule {
        kind: add.kind.clone(),
        cron: add.cron.clone(),
        timezone: add.timezone.clone(),
        misfire: add.misfire,
        catch_up: add.catch_up,
        args: read_args(&add.args)?,
        priority: add.priority,
    };
    let spec = added.spec().map_err(|e| {
        let option = e.strip_prefix("schedule.").unwrap_or(&e);
        refuse(format!("--{}", option.replacen("catch_up", "catch-up", 1)))
    })?;
    let scheduled = Scheduled {
        name: add.name.as_str().into(),
        kind: std::sync::Arc::clone(&kind.kind),
        spec,
        args: added.args.clone(),
        priority: add.priority,
        source: Source::Added,
    };
    check_jobs(&scheduled, &add.args, &queue, &store)?;
    let json = serde_json::to_string(&added).map_err(|e| refuse(e.to_string()))?;
    let same = check_free(add, &queue, &store, &added).await?;
    if !same && !queue.add_schedule(&add.name, &json).await? {
        let message = format!(
            "{} has {MAX_ADDED} added schedules already, the most there may be",
            queue.name
        );
        return Err(CliError::failed("too_many", message));
    }
    Ok(added_report(&scheduled, &queue, !same))
}

fn read_args(text: &str) -> Result<Map<String, Value>, CliError> {
    if text.len() > MAX_ARGS_BYTES {
        let message = format!("--args: more than {MAX_ARGS_BYTES} bytes");
        return Err(CliError::failed("too_large", message));
    }
    serde_json::from_str(text).map_err(|e| CliError::Usage(format!("--args: no JSON object: {e}")))
}

/// Judges the jobs it will make as admission will: with the arguments as they were given, so that a duplicate key shows.
fn check_jobs(
    scheduled: &Scheduled,
    args: &str,
    queue: &Queue,
    store: &Store,
) -> Result<(), CliError> {
    let kind = &*scheduled.kind;
    let raw = format!(r#"{{"kind":"{kind}","args":{args}}}"#);
    let now_ms = clock::unix_ms();
    match admit::judge(raw.as_bytes(), &queue.name, &store.catalog, now_ms, [0; 10]) {
        Verdict::Rejected { reject, .. } => Err(CliError::failed(
            reject.code.as_str(),
            format!("--args: {}", reject.message),
        )),
        _ => Ok(()),
    }
}

/// Whether the very same schedule is there already; an error if another one has its name.
async fn check_free(
    add: &Add,
    home: &Queue,
    store: &Store,
    added: &AddedSchedule,
) -> Result<bool, CliError> {
    for queue in store.queues() {
        let stored = queue.stored_schedules().await?;
        let Some((_, json)) = stored.added.iter().find(|(name, _)| *name == add.name) else {
            continue;
        };
        let here = queue.name == home.name;
        if here && serde_json::from_slice::<AddedSchedule>(json).is_ok_and(|old| old == *added) {
            return Ok(true);
        }
        if !here || !add.replace {
            let message = format!(
                "{} is there already, in queue {}: `tidegate cron remove {0}` first{}",
                add.name,
                queue.name,
                if here { ", or --replace" } else { "" }
            );
            return Err(CliError::failed("exists", message));
        }
    }
    Ok(false)
}

fn added_report(scheduled: &Scheduled, queue: &Queue, changed: bool) -> Report {
    let schedule = &scheduled.spec.schedule;
    let now_ms = clock::unix_ms();
    let next = schedule.next_after(now_ms);
    let when = schedule.describe();
    let json = json!({
        "name": &*scheduled.name,
        "queue": &*queue.name,
        "kind": &*scheduled.kind,
        "when": when,
        "timezone": schedule.zone(),
        "next": next,
        "changed": changed,
    });
    let next = next.map_or_else(
        || "never".to_owned(),
        |at| format!("{}, in {}", schedule.say(at, now_ms), age(at - now_ms)),
    );
    let words = if changed { "" } else { " (no change)" };
    let text = format!(
        "{}  {when} ({}); next: {next}{words}\n",
        scheduled.name,
        schedule.zone()
    );
    Report::new(json, text)
}
