//! `tidegate job`: one job, looked at, retried or cancelled.

mod around;
mod show;

pub(super) use around::view_around;
pub(super) use show::{view, view_text, waits_since, when};

use super::store::{OnQueue, Store};
use super::who::who;
use super::workflow::cancel_whole;
use super::{CliError, Global, Report};
use crate::clock;
use crate::config::duration;
use crate::job::Envelope;
use crate::queue::Queue;
use crate::queue::admit::flow_of;
use crate::queue::home::home_of;
use crate::queue::inspect::Found;
use crate::queue::operate::Cancelled;
use crate::queue::settle::Record;
use clap::Subcommand;
use serde_json::{Value, json};
use std::time::Duration;

/// Between two looks at a job whose end is awaited.
const WAIT_STEP: Duration = Duration::from_millis(50);

const EXAMPLES: &str = "\
Examples:
  tidegate job show 0190b6f2-6ad5-7d0e-8e2f-3f3c7d1f5a10
  tidegate job show mail-7 --payload --json
  tidegate job retry mail-7
  tidegate job cancel mail-7 --queue mail
  tidegate job cancel order-7 --workflow
  tidegate job result mail-7 --json
  tidegate job cancel report-3 --wait --wait-timeout 30s";

/// `tidegate job …`
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(super) enum Command {
    /// Show where a job is and what went wrong with it
    Show {
        #[command(flatten)]
        job: OneJob,
        /// Show its arguments too
        #[arg(long)]
        payload: bool,
    },
    /// Run a dead or delayed job now; a dead one starts afresh
    Retry(OneJob),
    /// End a job: one that waits is gone, one that runs is asked to stop
    Cancel {
        #[command(flatten)]
        job: OneJob,
        /// End what belongs to it as well: the chain it is a step of
        #[arg(long, conflicts_with = "wait")]
        workflow: bool,
        /// Wait until one that runs has ended; exit code 1 if it has not
        #[arg(long)]
        wait: bool,
        /// How long to wait, 1ms to 1day
        #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = wait_limit, requires = "wait")]
        wait_timeout: Duration,
    },
    /// Tell how a job ended, with its result, as long as that is kept
    Result(OneJob),
}

#[derive(Debug, clap::Args)]
pub(super) struct OneJob {
    /// Its id
    id: String,
    #[command(flatten)]
    on: OnQueue,
}

/// Runs one of them.
///
/// # Errors
/// The job is not known or in a state that does not allow it, or configuration or Redis.
pub(super) async fn run(command: Command, global: &Global) -> Result<Report, CliError> {
    let (Command::Show { job, .. }
    | Command::Retry(job)
    | Command::Cancel { job, .. }
    | Command::Result(job)) = &command;
    let store = job.on.open(global).await?;
    match &command {
        Command::Result(_) => return result(&store, &job.id).await,
        Command::Cancel { workflow: true, .. } => return cancel_workflow(&store, &job.id).await,
        _ => {}
    }
    let (queue, found) = store.find(&job.id).await?;
    match &command {
        Command::Show { payload, .. } => {
            let mut json = view(&store, &queue, &job.id, &found, *payload);
            view_around(&mut json, &queue, &job.id, &found).await?;
            if let Some(told) = queue.result(&job.id).await? {
                let told: Value = serde_json::from_str(&told).unwrap_or_default();
                json["result"] = told["result"].clone();
            }
            let text = view_text(&json);
            Ok(Report::new(json, text))
        }
        Command::Retry(_) => {
            if !requeue(&store, &queue, &job.id, &found).await? {
                let message = format!(
                    "{} is {}: only dead and delayed jobs can be retried",
                    job.id, found.state
                );
                return Err(CliError::failed("not_retryable", message));
            }
            Ok(done(
                &queue,
                &job.id,
                "pending",
                "runs as soon as there is a slot",
            ))
        }
        Command::Result(_) => result(&store, &job.id).await,
        Command::Cancel {
            wait, wait_timeout, ..
        } => {
            let limit = wait.then_some(*wait_timeout);
            cancel(&store, &queue, &job.id, &found, limit).await
        }
    }
}

/// Puts a dead or delayed job back into its flow; false if it is in neither state (any more).
pub(super) async fn requeue(
    store: &Store,
    queue: &Queue,
    id: &str,
    found: &Found,
) -> Result<bool, CliError> {
    let Ok(envelope) = Envelope::parse(&found.raw) else {
        return Ok(false);
    };
    let flow = home_of(&envelope, &store.catalog, &found.ties, Some(&found.history));
    Ok(queue
        .requeue(id, &flow, envelope.enqueued_at, &who())
        .await?)
}

/// How a job ended.
async fn result(store: &Store, id: &str) -> Result<Report, CliError> {
    for queue in store.queues() {
        if let Some(text) = queue.result(id).await? {
            let told: Value = serde_json::from_str(&text).unwrap_or_default();
            let shown = match (&told["result"], &told["error"]) {
                (Value::Null, Value::String(error)) => error.clone(),
                (result, _) => result.to_string(),
            };
            let state = told["state"].as_str().unwrap_or_default();
            let text = format!("{id}  {state}  {shown}\n");
            return Ok(Report::new(told, text));
        }
    }
    Err(CliError::NotFound(format!(
        "no result of {id:?} is kept: it has not ended, its time is over, or nobody asked for it \
         (--result-ttl, result_ttl_ms, or result_ttl of its definition)"
    )))
}

/// Cancels a chain, wherever it has got to.
async fn cancel_workflow(store: &Store, id: &str) -> Result<Report, CliError> {
    let (queue, root) = match store.find(id).await {
        Ok((queue, found)) => {
            let envelope = Envelope::parse(&found.raw).unwrap_or_default();
            let root = envelope
                .workflow
                .map_or_else(|| id.to_owned(), |w| w.to_string());
            (queue, root)
        }
        // What began it may be forgotten: then the queue must be named, or be the only one.
        Err(CliError::NotFound(message)) => match &store.names[..] {
            [only] => (store.queue(only), id.to_owned()),
            _ => {
                let hint = "name its queue with --queue to cancel what came of it";
                return Err(CliError::NotFound(format!("{message}; {hint}")));
            }
        },
        Err(other) => return Err(other),
    };
    let ended = cancel_whole(store, &queue, &root).await?;
    Ok(ended.report(&queue, &root))
}

/// Cancels one job that was found.
pub(super) async fn cancel_found(
    store: &Store,
    queue: &Queue,
    id: &str,
    found: &Found,
) -> Result<Cancelled, CliError> {
    let envelope = Envelope::parse(&found.raw).unwrap_or_default();
    let flow = flow_of(&envelope, &store.catalog);
    let record = Record {
        id,
        kind: &envelope.kind,
        priority: flow.priority,
        state: "cancelled",
        attempts: found.history.attempts,
        at_ms: clock::unix_ms(),
        duration_ms: 0,
    };
    let given = envelope.gives(id);
    Ok(queue
        .cancel(&record, given, envelope.enqueued_at, &who())
        .await?)
}

async fn cancel(
    store: &Store,
    queue: &Queue,
    id: &str,
    found: &Found,
    wait: Option<Duration>,
) -> Result<Report, CliError> {
    let over =
        |state: &str| CliError::failed("not_cancellable", format!("{id} is {state} already"));
    match cancel_found(store, queue, id, found).await? {
        Cancelled::Done => Ok(done(queue, id, "cancelled", "cancelled")),
        Cancelled::Asked if wait.is_some() => ended(queue, id, wait.unwrap_or_default()).await,
        Cancelled::Asked => Ok(done(
            queue,
            id,
            "running",
            "runs; its daemon was asked to end it",
        )),
        Cancelled::Dead => Err(over("dead")),
        Cancelled::Unknown => Err(over(&found.state)),
    }
}

/// Waits for the end of a job that was asked to end. It may have ended in another way before it heard of it.
async fn ended(queue: &Queue, id: &str, limit: Duration) -> Result<Report, CliError> {
    let end = async {
        loop {
            let state = queue.find(id).await?.map(|found| found.state);
            match state.as_deref() {
                Some("running") => tokio::time::sleep(WAIT_STEP).await,
                Some(state) => return Ok::<_, CliError>(state.to_owned()),
                // The ring of finished jobs is shorter than it took to look.
                None => return Ok("unknown".to_owned()),
            }
        }
    };
    match tokio::time::timeout(limit, end).await {
        Ok(state) => {
            let state = state?;
            Ok(done(queue, id, &state, &format!("ended {state}")))
        }
        Err(_) => {
            let limit = duration::format(limit);
            let json =
                json!({"id": id, "queue": &*queue.name, "state": "running", "error": "timeout"});
            let failure = format!("{id} still runs after {limit}");
            Ok(Report::new(json, String::new()).failing(Some(failure)))
        }
    }
}

/// How long to wait for an end, from the command line.
fn wait_limit(given: &str) -> Result<Duration, String> {
    let limit = duration::parse(given)?;
    let longest = Duration::from_secs(86_400);
    if limit.is_zero() || limit > longest {
        return Err("must be within 1ms and 1day".to_owned());
    }
    Ok(limit)
}

fn done(queue: &Queue, id: &str, state: &str, words: &str) -> Report {
    let json = json!({"id": id, "queue": &*queue.name, "state": state});
    Report::new(json, format!("{id}  {words}\n"))
}
