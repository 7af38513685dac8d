//! Adding a schedule beside those of the definitions: what could never run is refused.

use super::super::output::age;
use super::super::store::Store;
use super::super::{CliError, Global, Report};
use crate::catalog::schedules::{
    AddedSchedule, MAX_ADDED, MAX_ARGS_BYTES, Scheduled, Source, check_name,
};
use crate::clock;
use crate::job::Priority;
use crate::policy::schedule::Misfire;
use crate::queue::{Queue, Verdict, admit};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// `tidegate cron add …`
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Add {
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

/// Adds it.
pub(super) async fn run(add: &Add, global: &Global) -> Result<Report, CliError> {
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
        kind: Arc::clone(&kind.kind),
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
