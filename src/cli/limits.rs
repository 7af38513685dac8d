//! `tidegate limits` and `audit`: limits in place of the definitions', changed while daemons run, and who changed what.

use super::output::table;
use super::store::{OnQueue, Store, kind_name, queue_name};
use super::who::who;
use super::{CliError, Global, Report};
use crate::catalog::Rate;
use crate::config::duration;
use crate::queue::Queue;
use crate::queue::control::{Change, Control, Field, LimitChange, RateChange};
use chrono::{DateTime, SecondsFormat};
use clap::Subcommand;
use serde_json::{Value, json};

const EXAMPLES: &str = "\
Examples:
  tidegate limits list
  tidegate limits set default mail.send --limit 10           across all daemons; of each key, if the kind has one
  tidegate limits set default mail.send --rate 100/1m --burst 10
  tidegate limits set default --concurrency 64               jobs of the queue at once in each daemon
  tidegate limits clear default mail.send                    what the definition says holds again
  tidegate audit default";

/// `tidegate limits …`
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(super) enum Command {
    /// Show what holds, and what of it was changed live
    List(OnQueue),
    /// Change limits for all daemons, at once and until they are cleared; what is not named stays as it is
    Set(Set),
    /// Give limits back to the definition, or to [[queue]] concurrency if no kind is named
    Clear {
        /// The queue
        #[arg(value_name = "QUEUE", value_parser = queue_name)]
        queue: String,
        /// The kind
        #[arg(value_name = "KIND", value_parser = kind_name)]
        kind: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Set {
    /// The queue
    #[arg(value_name = "QUEUE", value_parser = queue_name)]
    queue: String,
    /// The kind whose limits are changed
    #[arg(value_name = "KIND", value_parser = kind_name, required_unless_present = "concurrency",
        requires = "of_kind")]
    kind: Option<String>,
    /// Jobs of the queue at once in each daemon. 1-100000
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000), conflicts_with = "kind")]
    concurrency: Option<u32>,
    #[command(flatten)]
    limits: KindLimits,
}

#[derive(Debug, clap::Args)]
#[group(id = "of_kind", multiple = true)]
pub(super) struct KindLimits {
    /// At once across all daemons: of the kind, or of each key if it has one. 1-1000000
    #[arg(long, value_name = "N", requires = "kind")]
    limit: Option<usize>,
    /// At once across all keys of a kind with a key. 1-1000000
    #[arg(long, value_name = "N", requires = "kind")]
    total: Option<usize>,
    /// At once in one daemon. 1-1000000
    #[arg(long, value_name = "N", requires = "kind")]
    per_daemon: Option<usize>,
    /// Starts in a time, like 100/1m
    #[arg(long, value_name = "N/TIME", requires = "kind", value_parser = rate)]
    rate: Option<RateChange>,
    /// Starts at once after a pause. 1-1000000
    #[arg(long, value_name = "N", requires = "rate")]
    burst: Option<usize>,
}

fn rate(given: &str) -> Result<RateChange, String> {
    let wanted = "want a number and a time, like 100/1m";
    let (limit, per) = given.split_once('/').ok_or(wanted)?;
    let per = duration::parse(per)?;
    Ok(RateChange {
        limit: limit.trim().parse().map_err(|_| wanted)?,
        per_ms: u64::try_from(per.as_millis()).unwrap_or(u64::MAX),
        burst: None,
    })
}

/// Runs one of them.
///
/// # Errors
/// Configuration, Redis, or a limit that makes no sense.
pub(super) async fn run(command: Command, global: &Global) -> Result<Report, CliError> {
    match command {
        Command::List(on) => list(&on, global).await,
        Command::Set(set) => self::set(set, global).await,
        Command::Clear { queue, kind } => clear(queue, kind, global).await,
    }
}

async fn list(on: &OnQueue, global: &Global) -> Result<Report, CliError> {
    let store = on.open(global).await?;
    let (mut views, mut rows) = (Vec::new(), Vec::new());
    for queue in store.queues() {
        let control = queue.control().await?;
        let (view, more) = listed(&store, &queue, &control);
        views.push(view);
        rows.extend(more);
    }
    let headings = [
        "queue",
        "kind",
        "limit",
        "of each",
        "total",
        "per daemon",
        "rate",
        "changed live",
    ];
    Ok(Report::new(
        json!({"queues": views}),
        table(&headings, &rows),
    ))
}

fn listed(store: &Store, queue: &Queue, control: &Control) -> (Value, Vec<Vec<String>>) {
    let (mut kinds, mut rows) = (Vec::new(), Vec::new());
    let count = |n: Option<usize>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
    if let Some(n) = control.concurrency {
        let mut row = vec![queue.name.to_string()];
        row.extend(["(all)", "-", "-", "-"].map(str::to_owned));
        row.extend([n.to_string(), "-".to_owned(), "concurrency".to_owned()]);
        rows.push(row);
    }
    for spec in store.catalog.iter().filter(|s| s.queue == queue.name) {
        let limits = control.limits_of(spec);
        let change = control.limits.get(&*spec.kind);
        let key = spec.concurrency.key.clone();
        kinds.push(json!({
            "kind": spec.kind, "limit": limits.limit, "key": key, "total": limits.total,
            "per_daemon": limits.per_daemon, "rate": limits.rate.as_ref().map(rate_text),
            "fairness": spec.fair.then(|| spec.partition.as_ref().map(ToString::to_string)), "changed": change,
        }));
        rows.push(vec![
            queue.name.to_string(),
            spec.kind.to_string(),
            count(limits.limit),
            key.unwrap_or_else(|| "-".to_owned()),
            count(limits.total),
            count(limits.per_daemon),
            limits
                .rate
                .as_ref()
                .map_or_else(|| "-".to_owned(), rate_text),
            change.map_or_else(|| "-".to_owned(), changed_fields),
        ]);
    }
    // What was changed of kinds that are not defined here.
    let unknown = |kind: &&String| store.catalog.get(kind).is_none();
    for kind in control.limits.keys().filter(unknown) {
        let change = &control.limits[kind];
        kinds.push(json!({"kind": kind, "changed": change}));
        rows.push(vec![
            queue.name.to_string(),
            kind.clone(),
            count(change.limit),
            "?".to_owned(),
            count(change.total),
            count(change.per_daemon),
            change
                .rate
                .as_ref()
                .map_or_else(|| "-".to_owned(), |r| rate_text(&r.as_rate())),
            changed_fields(change),
        ]);
    }
    let view = json!({"name": &*queue.name, "concurrency": control.concurrency, "kinds": kinds});
    (view, rows)
}

fn rate_text(rate: &Rate) -> String {
    let per = duration::format(rate.per);
    format!("{}/{per}, burst {}", rate.limit, rate.burst())
}

fn changed_fields(change: &LimitChange) -> String {
    let fields = [
        ("limit", change.limit.is_some()),
        ("total", change.total.is_some()),
        ("per_daemon", change.per_daemon.is_some()),
        ("rate", change.rate.is_some()),
    ];
    let names: Vec<&str> = fields.iter().filter(|f| f.1).map(|f| f.0).collect();
    names.join(", ")
}

async fn set(set: Set, global: &Global) -> Result<Report, CliError> {
    let store = Store::open(global, Some(&set.queue)).await?;
    let queue = store.queue(&set.queue);
    let by = who();
    let Some(kind) = set.kind else {
        let value = set.concurrency.map(|n| n.to_string());
        let change = queue.change(&Field::Limit(None), &by, |_| value.clone());
        let was = change.await?;
        let n = value.unwrap_or_default();
        let json = json!({"queue": set.queue, "concurrency": set.concurrency, "was": was});
        let text = format!(
            "up to {n} jobs of {} run at once in each daemon\n",
            set.queue
        );
        return Ok(Report::new(json, text));
    };
    let asked = set.limits.change();
    refuse_nonsense(&store, &kind, &asked)?;
    let merged = |old: Option<&str>| {
        let old = old.and_then(|json| serde_json::from_str::<LimitChange>(json).ok());
        serde_json::to_string(&asked.clone().over(old.unwrap_or_default())).ok()
    };
    queue
        .change(&Field::Limit(Some(kind.clone())), &by, merged)
        .await?;
    let control = queue.control().await?;
    let change = control.limits.get(&kind).cloned().unwrap_or_default();
    let json = json!({"queue": set.queue, "kind": kind, "changed": change});
    let text = format!(
        "changed live for {kind} in {}: {}\n",
        set.queue,
        changed_fields(&change)
    );
    Ok(Report::new(json, text))
}

impl KindLimits {
    fn change(self) -> LimitChange {
        let burst = self.burst;
        LimitChange {
            limit: self.limit,
            total: self.total,
            per_daemon: self.per_daemon,
            rate: self.rate.map(|rate| RateChange { burst, ..rate }),
        }
    }
}

/// Refuses numbers out of range, and a kind that is not there or can't have such a limit, as far as definitions are known.
fn refuse_nonsense(store: &Store, kind: &str, change: &LimitChange) -> Result<(), CliError> {
    let problems = change.problems();
    if !problems.is_empty() {
        return Err(CliError::Usage(problems.join("; ")));
    }
    if !store.defined {
        return Ok(());
    }
    let Some(spec) = store.catalog.get(kind) else {
        let kinds: Vec<&str> = store.catalog.iter().map(|s| &*s.kind).collect();
        let kinds = kinds.join(", ");
        return Err(CliError::NotFound(format!(
            "{kind} is not defined; there are {kinds}"
        )));
    };
    if change.total.is_some() && spec.concurrency.key.is_none() {
        return Err(CliError::Usage(format!(
            "--total: {kind} has no [concurrency] key; --limit counts the whole kind"
        )));
    }
    Ok(())
}

async fn clear(
    queue_name: String,
    kind: Option<String>,
    global: &Global,
) -> Result<Report, CliError> {
    let store = Store::open(global, Some(&queue_name)).await?;
    let queue = store.queue(&queue_name);
    let field = Field::Limit(kind.clone());
    let was = queue.change(&field, &who(), |_| None).await?;
    let of = kind.as_deref().unwrap_or("the queue itself");
    let text = match &was {
        Some(_) => format!("nothing is changed live any more for {of} in {queue_name}\n"),
        None => format!("nothing was changed live for {of} in {queue_name}\n"),
    };
    Ok(Report::new(
        json!({"queue": queue_name, "kind": kind, "was": was}),
        text,
    ))
}

/// Flags of `tidegate audit`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct AuditArgs {
    /// The queue
    #[arg(value_name = "QUEUE", value_parser = queue_name)]
    queue: String,
    /// Changes at most, the latest first. 1-10000
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
}

/// Lists who changed what in a queue.
///
/// # Errors
/// Configuration or Redis.
pub async fn audit(args: AuditArgs, global: &Global) -> Result<Report, CliError> {
    let store = Store::open(global, Some(&args.queue)).await?;
    let changes = store
        .queue(&args.queue)
        .changes(args.limit as usize)
        .await?;
    let or_none = |text: &str| {
        if text.is_empty() {
            "-".to_owned()
        } else {
            text.to_owned()
        }
    };
    let row = |c: &Change| {
        let at = i64::try_from(c.at)
            .ok()
            .and_then(DateTime::from_timestamp_millis);
        let at = at.map_or_else(String::new, |at| {
            at.to_rfc3339_opts(SecondsFormat::Secs, true)
        });
        vec![
            at,
            c.who.clone(),
            c.field.clone(),
            or_none(&c.old),
            or_none(&c.new),
        ]
    };
    let rows: Vec<_> = changes.iter().map(row).collect();
    let text = table(&["at", "who", "what", "old", "new"], &rows);
    Ok(Report::new(
        json!({"queue": args.queue, "changes": changes}),
        text,
    ))
}
