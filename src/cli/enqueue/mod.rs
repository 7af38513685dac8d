//! `tidegate enqueue`: one job, through the same script as any client, but checked before it is sent.

mod ties;
mod wait;

use super::store::{Store, queue_name};
use super::{CliError, Global, Report};
use crate::clock;
use crate::config::duration;
use crate::daemon::DEFAULT_QUEUE;
use crate::job::envelope::MAX_ENTRY_BYTES;
use crate::job::{Envelope, JobId, Priority, RejectCode};
use crate::queue::operate::{Enqueued, NewJob};
use crate::queue::{QueueError, Verdict, admit};
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;
use ties::TieArgs;
use wait::{Awaited, SPARE};

const EXAMPLES: &str = "\
Examples:
  tidegate enqueue mail.send --args '{\"to\":7}'
  tidegate enqueue mail.send --args @mail.json --priority high --delay 15m
  echo '{\"to\":7}' | tidegate enqueue mail.send --args - --id mail-7 --wait --wait-timeout 2m
  tidegate enqueue mail.send --args @mail.json --ttl 10m --concurrency-key acme
  tidegate enqueue report.build --unique-key daily --on-conflict replace
  tidegate enqueue search.index --debounce-key user-7 --debounce-wait 5s
  tidegate enqueue order.pack --then '{\"kind\":\"order.ship\"}' --then '{\"kind\":\"mail.send\"}'
  tidegate enqueue page.render --group site-4 --group-size 3 --group-then @publish.json";

/// Flags of `tidegate enqueue`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// What to run: the kind of a job definition
    kind: String,
    /// Arguments as a JSON object; @FILE reads a file, - reads standard input
    #[arg(long, value_name = "JSON", default_value = "{}")]
    args: String,
    /// Its id: the same id again is a duplicate, not a second job [default: a new UUIDv7]
    #[arg(long, value_parser = JobId::parse)]
    id: Option<JobId>,
    /// The queue [default: the definition's]
    #[arg(long, value_name = "NAME", value_parser = queue_name)]
    queue: Option<String>,
    /// critical, high, normal, low or bulk [default: the definition's]
    #[arg(long)]
    priority: Option<Priority>,
    /// Not before this much time has passed, like 15m
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, conflicts_with = "run_at")]
    delay: Option<Duration>,
    /// Not before this time: RFC 3339, or milliseconds since 1970
    #[arg(long, value_name = "TIME", value_parser = instant)]
    run_at: Option<u64>,
    /// Expires if it has not started after this much time
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    ttl: Option<Duration>,
    /// Expires if it has not started by this time: RFC 3339, or milliseconds since 1970
    #[arg(long, value_name = "TIME", value_parser = instant, conflicts_with = "ttl")]
    expires_at: Option<u64>,
    /// What limits and turns tell it apart by, in place of what its definition says
    #[arg(long, value_name = "KEY")]
    concurrency_key: Option<String>,
    /// Attempts at most [default: the definition's]
    #[arg(long, value_name = "N")]
    max_attempts: Option<u32>,
    /// How long one attempt may take [default: the definition's]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    job_timeout: Option<Duration>,
    #[command(flatten)]
    ties: TieArgs,
    /// Send it even if its kind is not defined here
    #[arg(long)]
    force: bool,
    /// Wait for its end; any other end than `done` exits 1
    #[arg(long)]
    wait: bool,
    /// How long to wait
    #[arg(long, alias = "timeout", value_name = "DURATION", value_parser = duration::parse, default_value = "60s")]
    wait_timeout: Duration,
}

/// The envelope that is sent. The arguments stay as they were given, to be judged as they are.
#[derive(Serialize)]
struct Outgoing<'a> {
    kind: &'a str,
    id: &'a str,
    args: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<Priority>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_ms: Option<u64>,
    enqueued_at: u64,
    #[serde(flatten)]
    ties: Map<String, Value>,
}

/// Checks, sends and, if asked, waits.
///
/// # Errors
/// The job can't be one, or configuration or Redis.
pub async fn run(args: Args, global: &Global) -> Result<Report, CliError> {
    let given = read_args(&args.args)?;
    let store = Store::open(global, args.queue.as_deref()).await?;
    let now_ms = clock::unix_ms();
    let id = args.id.clone();
    let id = id.unwrap_or_else(|| JobId::mint(now_ms, rand::random()));
    let queue = store.queue(&target(&args, &store)?);
    let envelope = envelope(&args, &id, &given, now_ms)?;
    check(&envelope, &queue.name, &store, args.force, now_ms)?;
    let job = NewJob {
        id: id.as_str(),
        lock: &args.ties.lock(&args.kind),
        envelope: &envelope,
    };
    let answer = queue.enqueue_all(&[job]).await?.into_iter().next();
    let (status, state, id) = match answer {
        Some(Enqueued::Created) => ("created", "pending".to_owned(), id.to_string()),
        Some(Enqueued::Duplicate(state)) => ("duplicate", state, id.to_string()),
        Some(Enqueued::Held { state, id }) => ("duplicate", state, id),
        None => return Err(QueueError::Reply("nothing".to_owned()).into()),
    };
    if args.wait {
        let awaited = Awaited {
            store: &store,
            queue: &queue,
            id,
            status,
            state,
        };
        return awaited.end(args.wait_timeout).await;
    }
    let text = format!("{id}  {status}  {state}\n");
    Ok(Report::new(
        json!({"id": id, "status": status, "state": state}),
        text,
    ))
}

/// The arguments as text that is JSON of some form.
fn read_args(given: &str) -> Result<Box<RawValue>, CliError> {
    let text = read_text("--args", given)?;
    serde_json::from_str(&text).map_err(|e| CliError::Usage(format!("--args: not JSON: {e}")))
}

/// What a flag says: itself, `@FILE`, or `-` for standard input.
fn read_text(flag: &str, given: &str) -> Result<String, CliError> {
    match given.strip_prefix('@') {
        _ if given == "-" => read_bounded(flag, std::io::stdin().lock(), "standard input"),
        Some(path) => {
            let path = PathBuf::from(path);
            let name = path.display().to_string();
            let file = std::fs::File::open(&path)
                .map_err(|e| CliError::Usage(format!("{flag}: {name}: {e}")))?;
            read_bounded(flag, file, &name)
        }
        None => Ok(given.to_owned()),
    }
}

fn read_bounded(flag: &str, from: impl Read, name: &str) -> Result<String, CliError> {
    let mut text = String::new();
    let limit = MAX_ENTRY_BYTES as u64;
    // One more than allowed, so that the check of the envelope sees that it is too large.
    from.take(limit + 1)
        .read_to_string(&mut text)
        .map_err(|e| CliError::Usage(format!("{flag}: {name}: {e}")))?;
    if text.len() > MAX_ENTRY_BYTES {
        let message = format!("{flag}: {name}: more than {MAX_ENTRY_BYTES} bytes");
        return Err(CliError::failed(RejectCode::TooLarge.as_str(), message));
    }
    Ok(text)
}

/// The queue it goes to: the one named, the definition's, or the only one there can be.
fn target(args: &Args, store: &Store) -> Result<String, CliError> {
    if let Some(queue) = &args.queue {
        return Ok(queue.clone());
    }
    if let Some(spec) = store.catalog.get(&args.kind) {
        return Ok(spec.queue.to_string());
    }
    match &store.names[..] {
        [only] => Ok(only.clone()),
        names if names.iter().any(|n| n == DEFAULT_QUEUE) => Ok(DEFAULT_QUEUE.to_owned()),
        names => Err(CliError::Usage(format!(
            "{:?} is not defined here, so name its queue with --queue: {}",
            args.kind,
            names.join(", ")
        ))),
    }
}

fn envelope(args: &Args, id: &JobId, given: &RawValue, now_ms: u64) -> Result<Vec<u8>, CliError> {
    let outgoing = Outgoing {
        kind: &args.kind,
        id: id.as_str(),
        args: given,
        priority: args.priority,
        run_at: args.run_at,
        delay_ms: args.delay.map(millis),
        ttl_ms: args.ttl.map(millis),
        expires_at: args.expires_at,
        concurrency_key: args.concurrency_key.as_deref(),
        max_attempts: args.max_attempts,
        timeout_ms: args.job_timeout.map(millis),
        enqueued_at: now_ms,
        ties: args
            .ties
            .fields(args.wait.then_some(args.wait_timeout + SPARE))?,
    };
    serde_json::to_vec(&outgoing).map_err(|e| CliError::failed("malformed", e.to_string()))
}

/// Judges the envelope as admission will.
fn check(
    envelope: &[u8],
    queue: &str,
    store: &Store,
    force: bool,
    now_ms: u64,
) -> Result<(), CliError> {
    let reject = if store.defined {
        match admit::judge(envelope, queue, &store.catalog, now_ms, [0; 10]) {
            Verdict::Rejected { reject, .. } => Some(reject),
            _ => None,
        }
    } else {
        Envelope::parse(envelope).err()
    };
    match reject {
        Some(reject) if reject.code == RejectCode::UnknownKind && force => Ok(()),
        Some(reject) if reject.code == RejectCode::UnknownKind => Err(CliError::failed(
            reject.code.as_str(),
            format!("{}; --force sends it all the same", reject.message),
        )),
        Some(reject) => Err(CliError::failed(reject.code.as_str(), reject.message)),
        None => Ok(()),
    }
}

/// A time on the command line, as ms since the epoch.
fn instant(given: &str) -> Result<u64, String> {
    if let Ok(ms) = given.parse() {
        return Ok(ms);
    }
    let wanted = "want RFC 3339 like 2030-01-31T12:00:00Z, or milliseconds since 1970";
    let parsed =
        chrono::DateTime::parse_from_rfc3339(given).map_err(|e| format!("{e}; {wanted}"))?;
    u64::try_from(parsed.timestamp_millis()).map_err(|_| wanted.to_owned())
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn times_are_read_in_both_forms() {
        assert_eq!(instant("1700000000000"), Ok(1_700_000_000_000));
        assert_eq!(instant("2023-11-14T22:13:20Z"), Ok(1_700_000_000_000));
        assert_eq!(instant("2023-11-14T23:13:20+01:00"), Ok(1_700_000_000_000));
        assert!(instant("tomorrow").unwrap_err().contains("RFC 3339"));
        assert!(instant("1900-01-01T00:00:00Z").is_err());
    }
}
