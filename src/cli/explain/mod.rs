//! `tidegate explain`: what holds work back, with the measured values.
//!
//! Everything here is read from Redis: queues, signs of life, and the health that daemons publish. What only a daemon
//! knows of itself (its free slots) can be told as far as limits go, not exactly.

mod gate;
mod job;
mod limits;
mod resource;
mod schedules;

use super::output::age;
use super::queues::{self, oldest_age};
use super::store::{OnQueue, Store};
use super::{CliError, Global, Report};
use crate::queue::inspect::Counts;
use crate::queue::lease::Heartbeat;
use crate::queue::{Queue, board};
use gate::Health;
use serde_json::{Value, json};

const EXAMPLES: &str = "\
Examples:
  tidegate explain                     every queue
  tidegate explain default             one queue
  tidegate explain redis:main          how a resource fares: every signal, and the last hour
  tidegate explain mail-7 --json       why a job does not run";

/// Flags of `tidegate explain`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A queue, a resource, or the id of a job [default: every queue]
    #[arg(value_name = "QUEUE|RESOURCE|JOB")]
    target: Option<String>,
    #[command(flatten)]
    on: OnQueue,
}

/// One thing that holds work back.
struct Reason {
    /// A stable word.
    code: &'static str,
    /// The sentence.
    message: String,
    /// Measured values, if there are any.
    details: Value,
}

impl Reason {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: json!({}),
        }
    }

    fn to_json(&self) -> Value {
        let mut json = self.details.clone();
        json["code"] = self.code.into();
        json["message"] = self.message.as_str().into();
        json
    }
}

/// Explains all queues, one, a resource, or a job.
///
/// # Errors
/// There is no such queue, resource or job, or configuration or Redis.
pub async fn run(args: Args, global: &Global) -> Result<Report, CliError> {
    let store = args.on.open(global).await?;
    let key = board::health_key(&store.config.redis.prefix);
    let published = board::read(&store.conn, &key).await?;
    let health = Health::read(published.as_deref(), store.config.gate.mode);
    let Some(target) = args.target else {
        return explain_queues(&store, &store.names, &health).await;
    };
    if store.names.contains(&target) {
        return explain_queues(&store, &[target], &health).await;
    }
    if resource::is_one(&target, &health) {
        return resource::explain(&store, &target, &health).await;
    }
    job::explain(&store, &target, &health).await
}

async fn explain_queues(
    store: &Store,
    names: &[String],
    health: &Health,
) -> Result<Report, CliError> {
    let (mut views, mut text) = (Vec::new(), String::new());
    for name in names {
        let queue = store.queue(name);
        let counts = queue.counts().await?;
        let workers = Workers::of(&queue, store).await?;
        let mut reasons = queue_reasons(store, name, &counts, &workers, health);
        let specs = store.catalog.iter().filter(|spec| *spec.queue == **name);
        let specs = specs.map(|spec| &**spec);
        reasons.extend(limits::of_kinds(&queue, specs, &counts.control).await?);
        reasons.extend(schedules::reasons(&queue, store).await?);
        let mut view = queues::view(name, &counts);
        view["workers"] = workers.alive.len().into();
        view["reasons"] = reasons.iter().map(Reason::to_json).collect();
        views.push(view);
        text.push_str(&headline(name, &counts, workers.alive.len()));
        text.push_str(&bullets(&reasons, "nothing holds this queue back"));
    }
    let json = json!({"queues": views, "health": health.published()});
    Ok(Report::new(json, text))
}

fn headline(name: &str, counts: &Counts, workers: usize) -> String {
    let waiting: u64 = counts.lanes.iter().sum();
    let oldest = oldest_age(counts).map_or_else(String::new, |ms| format!(", oldest {}", age(ms)));
    format!(
        "queue {name}: {waiting} waiting{oldest}, {} delayed, {} running, {} in the inbox, {} dead, \
         {} in quarantine; daemons: {workers}\n",
        counts.delayed, counts.running, counts.inbox, counts.dead, counts.quarantine
    )
}

/// Reasons as a list for people.
fn bullets(reasons: &[Reason], none: &str) -> String {
    if reasons.is_empty() {
        return format!("  - {none}\n");
    }
    let line = |r: &Reason| format!("  - {}: {}\n", r.code, r.message.replace('\n', " "));
    reasons.iter().map(line).collect()
}

fn queue_reasons(
    store: &Store,
    name: &str,
    counts: &Counts,
    workers: &Workers,
    health: &Health,
) -> Vec<Reason> {
    let mut reasons: Vec<Reason> = workers.missing(name).into_iter().collect();
    reasons.extend(limits::pauses(&counts.control, None, counts.now_ms));
    reasons.extend(limits::parked(counts));
    let specs: Vec<_> = store.catalog.iter().filter(|s| &*s.queue == name).collect();
    let mut resources: Vec<&str> = specs
        .iter()
        .flat_map(|s| s.resources.iter().map(|r| &**r))
        .collect();
    resources.sort_unstable();
    resources.dedup();
    reasons.extend(health.gates(&resources, None));
    for spec in specs {
        for found in health.operations(&spec.handler, &spec.resources) {
            // Kinds of one handler share its operations.
            if reasons.iter().all(|r| r.message != found.message) {
                reasons.push(found);
            }
        }
    }
    reasons.extend(slots(store, name, counts, workers));
    reasons
}

/// Whether all slots for this queue are taken, as far as can be told from outside.
fn slots(store: &Store, name: &str, counts: &Counts, workers: &Workers) -> Option<Reason> {
    let own = store.config.queue.iter().find(|q| q.name == name);
    let live = counts.control.concurrency;
    let limit = live
        .or(own.and_then(|q| q.concurrency))
        .unwrap_or(store.config.daemon.concurrency);
    let limit = (limit as u64).saturating_mul(workers.alive.len() as u64);
    let full = limit > 0 && counts.running >= limit;
    full.then(|| Reason {
        code: "slots",
        message: format!(
            "{} jobs run, and {limit} may at once: [daemon] concurrency",
            counts.running
        ),
        details: json!({"running": counts.running, "limit": limit}),
    })
}

/// Who serves a queue.
struct Workers {
    alive: Vec<String>,
    beats: Heartbeat,
    lease_ms: u64,
}

impl Workers {
    async fn of(queue: &Queue, store: &Store) -> Result<Self, CliError> {
        let beats = queue.workers().await?;
        let lease_ms = u64::try_from(store.config.daemon.lease.as_millis()).unwrap_or(u64::MAX);
        let fresh = |at: u64| beats.now_ms.saturating_sub(at) < lease_ms;
        let alive = beats.workers.iter().filter(|(_, at)| fresh(*at));
        Ok(Self {
            alive: alive.map(|(worker, _)| worker.clone()).collect(),
            beats,
            lease_ms,
        })
    }

    /// That nobody serves the queue.
    fn missing(&self, queue: &str) -> Option<Reason> {
        self.alive.is_empty().then(|| {
            let within = age(self.lease_ms);
            let message =
                format!("no daemon that serves {queue} gave a sign of life within {within}");
            Reason::new("no_daemon", message)
        })
    }
}

/// Where a job that is not known may still be: what waits for admission, and what was refused it.
async fn whereabouts(store: &Store) -> Result<String, CliError> {
    let mut hints = Vec::new();
    for queue in store.queues() {
        let counts = queue.counts().await?;
        if counts.inbox + counts.quarantine == 0 {
            continue;
        }
        let workers = Workers::of(&queue, store).await?;
        hints.push(format!(
            "{} has {} in its inbox, {} in quarantine, daemons: {}",
            queue.name,
            counts.inbox,
            counts.quarantine,
            workers.alive.len()
        ));
    }
    Ok(hints.join("; "))
}
