//! `tidegate pause`, `resume` and `drain`: whether a queue, or one kind in it, is claimed from. Admission goes on.

use super::output::age;
use super::store::{Store, kind_name, queue_name};
use super::who::who;
use super::{CliError, Global, Report};
use crate::clock;
use crate::config::duration;
use crate::queue::Queue;
use crate::queue::control::{Field, Pause};
use serde_json::json;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  tidegate pause default --reason 'database is moved'      nothing is claimed any more; what runs runs on
  tidegate pause default --kind mail.send                  that kind alone
  tidegate drain default --timeout 5m                      pause, and wait until nothing runs
  tidegate resume default";

/// How often a draining queue is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// The longest reason, bytes.
const REASON_BYTES: usize = 500;

/// Flags of `tidegate pause`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct PauseArgs {
    #[command(flatten)]
    what: What,
    /// Why, for who looks at the queue: up to 500 bytes
    #[arg(long, value_name = "TEXT", value_parser = reason, default_value = "", hide_default_value = true)]
    reason: String,
}

/// Flags of `tidegate resume`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ResumeArgs {
    #[command(flatten)]
    what: What,
}

/// Flags of `tidegate drain`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct DrainArgs {
    /// The queue
    #[arg(value_name = "QUEUE", value_parser = queue_name)]
    queue: String,
    /// How long to wait until nothing runs; the queue stays paused in either case. 0s to 1day
    #[arg(long, value_name = "TIME", value_parser = timeout, default_value = "10m")]
    timeout: Duration,
    /// Why, for who looks at the queue: up to 500 bytes
    #[arg(long, value_name = "TEXT", value_parser = reason, default_value = "drained", hide_default_value = true)]
    reason: String,
}

#[derive(Debug, clap::Args)]
struct What {
    /// The queue
    #[arg(value_name = "QUEUE", value_parser = queue_name)]
    queue: String,
    /// Only jobs of this kind
    #[arg(long, value_name = "KIND", value_parser = kind_name)]
    kind: Option<String>,
}

impl What {
    fn name(&self) -> String {
        match &self.kind {
            Some(kind) => format!("{kind} in {}", self.queue),
            None => self.queue.clone(),
        }
    }
}

/// Reads why something is done.
pub(super) fn reason(given: &str) -> Result<String, String> {
    if given.len() > REASON_BYTES {
        return Err(format!("{} bytes; at most {REASON_BYTES}", given.len()));
    }
    Ok(given.to_owned())
}

fn timeout(given: &str) -> Result<Duration, String> {
    let time = duration::parse(given)?;
    if time > Duration::from_secs(86_400) {
        return Err("longer than 1day".to_owned());
    }
    Ok(time)
}

/// Pauses a queue or a kind.
///
/// # Errors
/// Configuration or Redis.
pub async fn pause(args: PauseArgs, global: &Global) -> Result<Report, CliError> {
    let store = Store::open(global, Some(&args.what.queue)).await?;
    let queue = store.queue(&args.what.queue);
    let was = set_pause(&queue, args.what.kind.clone(), &args.reason).await?;
    let workers = queue.workers().await?.workers.len();
    let name = args.what.name();
    let text = match &was {
        Some(_) => format!("{name} was paused already; the reason is a new one\n"),
        None if workers == 0 => format!("{name} is paused; no daemon serves the queue now\n"),
        None => format!("{name} is paused; what runs runs on, and new jobs are taken in\n"),
    };
    let json = json!({
        "queue": args.what.queue, "kind": args.what.kind, "paused": true, "was_paused": was.is_some(),
        "workers": workers,
    });
    Ok(Report::new(json, text))
}

async fn set_pause(
    queue: &Queue,
    kind: Option<String>,
    reason: &str,
) -> Result<Option<String>, CliError> {
    let by = who();
    let pause = Pause {
        by: by.clone(),
        at: clock::unix_ms(),
        reason: reason.to_owned(),
    };
    let value = serde_json::to_string(&pause).ok();
    let field = Field::Pause(kind);
    Ok(queue.change(&field, &by, |_| value.clone()).await?)
}

/// Resumes a queue or a kind.
///
/// # Errors
/// Configuration or Redis.
pub async fn resume(args: ResumeArgs, global: &Global) -> Result<Report, CliError> {
    let store = Store::open(global, Some(&args.what.queue)).await?;
    let queue = store.queue(&args.what.queue);
    let field = Field::Pause(args.what.kind.clone());
    let was = queue.change(&field, &who(), |_| None).await?;
    let name = args.what.name();
    let mut text = match &was {
        Some(_) => format!("{name} goes on\n"),
        None => format!("{name} was not paused\n"),
    };
    let control = queue.control().await?;
    let still = match &args.what.kind {
        Some(_) => control.paused.is_some(),
        None => !control.paused_kinds.is_empty(),
    };
    match &args.what.kind {
        Some(_) if still => text.push_str("the whole queue is still paused\n"),
        None if still => {
            let kinds: Vec<&str> = control.paused_kinds.keys().map(String::as_str).collect();
            text.push_str(&format!("still paused: {}\n", kinds.join(", ")));
        }
        _ => {}
    }
    let json = json!({
        "queue": args.what.queue, "kind": args.what.kind, "paused": false, "was_paused": was.is_some(),
        "paused_kinds": control.paused_kinds.keys().collect::<Vec<_>>(), "queue_paused": control.paused.is_some(),
    });
    Ok(Report::new(json, text))
}

/// Pauses a queue and waits until nothing of it runs.
///
/// # Errors
/// Configuration or Redis. That something still runs at the deadline is told in the answer.
pub async fn drain(args: DrainArgs, global: &Global) -> Result<Report, CliError> {
    let store = Store::open(global, Some(&args.queue)).await?;
    let queue = store.queue(&args.queue);
    if queue.control().await?.paused.is_none() {
        set_pause(&queue, None, &args.reason).await?;
    }
    let started = clock::monotonic();
    let running = loop {
        let running = queue.look().await?.running;
        if running == 0 || clock::since(started) >= args.timeout {
            break running;
        }
        tokio::time::sleep(LOOK.min(args.timeout)).await;
    };
    let waited = u64::try_from(clock::since(started).as_millis()).unwrap_or(u64::MAX);
    let json =
        json!({"queue": args.queue, "paused": true, "running": running, "waited_ms": waited});
    if running == 0 {
        let text = format!("{} is paused, and nothing of it runs\n", args.queue);
        return Ok(Report::new(json, text));
    }
    let failure = format!(
        "{running} jobs of {} still run after {}; it stays paused",
        args.queue,
        age(waited)
    );
    Ok(Report::new(json, "").failing(Some(failure)))
}
