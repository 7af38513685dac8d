//! A bridge: what Rust apps push with apalis-redis becomes jobs here.
//!
//! Look at the head of the namespace's line, push it under ids that follow from those of the tasks, take it out of the
//! line. Whoever dies in between leaves the tasks to the next daemon, and the ids tell the queue which of them it has
//! already. Any number of daemons may run the same bridge. Must not know what the jobs are.

pub mod translate;

use super::intake::{IntakeError, Moved, Trouble, push};
use crate::clock;
use crate::config::RedisConfig;
use crate::job::envelope::MAX_ENTRY_BYTES;
use crate::queue::Queue;
use crate::queue::QueueError;
use crate::queue::bridge::{Fate, Namespace, Taken, Task};
use crate::queue::connection::{self, Connection};
use crate::queue::operate::Enqueued;
use crate::telemetry::{Alerts, Metrics, events};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use translate::{Rules, Translated, translate};

/// One bridge.
pub struct Bridge {
    /// How tasks become jobs.
    pub rules: Rules,
    /// The namespace, as apalis-redis calls it.
    pub namespace: String,
    /// Where it lives.
    pub from: From,
    /// Where the jobs go.
    pub queue: Queue,
    /// Tasks taken in one step.
    pub batch: usize,
    /// How often the namespace is looked at.
    pub poll: Duration,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Who hears of tasks that can't be jobs.
    pub alerts: Alerts,
}

/// The Redis of a namespace.
pub enum From {
    /// The one of the queues.
    Main(Connection),
    /// Another one, connected to when it can be.
    Other(RedisConfig),
}

/// Tasks, sorted by what is to become of them; in order.
pub struct Sorted {
    /// Jobs to be pushed: id and envelope.
    pub jobs: Vec<(String, Vec<u8>)>,
    /// Every task with its fate once they are.
    pub fates: Vec<(Task, Fate)>,
}

/// Bridges until it is told to stop.
pub async fn run(bridge: Bridge, stop: CancellationToken) {
    let mut trouble = Trouble::none(&bridge.source(), bridge.alerts.clone());
    let mut namespace = None;
    while !stop.is_cancelled() {
        let pause = match bridge.round(&mut namespace, &stop).await {
            Ok(()) => {
                trouble.over(clock::monotonic());
                bridge.poll
            }
            Err(e) => trouble.failed(&e, clock::monotonic()),
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

impl Bridge {
    /// Its name in logs, metrics and alerts.
    fn source(&self) -> String {
        format!("bridge {}", self.rules.name)
    }

    /// Takes tasks in until none are left.
    async fn round(
        &self,
        namespace: &mut Option<Namespace>,
        stop: &CancellationToken,
    ) -> Result<(), IntakeError> {
        if namespace.is_none() {
            *namespace = Some(self.open().await?);
        }
        let Some(namespace) = namespace else {
            return Ok(());
        };
        while !stop.is_cancelled() && self.step(namespace).await? {}
        Ok(())
    }

    /// Connects to the namespace.
    ///
    /// # Errors
    /// Its Redis can't be reached.
    pub async fn open(&self) -> Result<Namespace, IntakeError> {
        let conn = match &self.from {
            From::Main(conn) => conn.clone(),
            From::Other(config) => connection::connect(config)
                .await
                .map_err(QueueError::from)?,
        };
        Ok(Namespace::new(&self.namespace, conn))
    }

    /// Takes one batch in; whether there may be more.
    ///
    /// # Errors
    /// Redis failed: the tasks are still in the line, or known by their ids.
    pub async fn step(&self, namespace: &Namespace) -> Result<bool, IntakeError> {
        let taken = self.take(namespace).await?;
        self.gauge(&taken);
        let more = taken.tasks.len() < usize::try_from(taken.waiting).unwrap_or(usize::MAX);
        if taken.tasks.is_empty() {
            return Ok(false);
        }
        let sorted = self.sort(taken);
        let answers = push(&self.queue, &sorted.jobs).await?;
        namespace.done(&sorted.fates).await?;
        self.report(&answers, &sorted.fates);
        Ok(more)
    }

    /// Looks at the next tasks.
    ///
    /// # Errors
    /// Redis failed.
    pub async fn take(&self, namespace: &Namespace) -> Result<Taken, QueueError> {
        namespace.take(self.batch, MAX_ENTRY_BYTES).await
    }

    /// Decides what becomes of each.
    #[must_use]
    pub fn sort(&self, taken: Taken) -> Sorted {
        let mut sorted = Sorted {
            jobs: Vec::with_capacity(taken.tasks.len()),
            fates: Vec::with_capacity(taken.tasks.len()),
        };
        for task in taken.tasks {
            let fate = match translate(&self.rules, &task, taken.now_ms) {
                Translated::Job(id, envelope) => {
                    sorted.jobs.push((id, envelope));
                    Fate::HandedOver
                }
                Translated::Not(reason) => Fate::SetAside(reason),
                Translated::Nothing => Fate::Gone,
            };
            sorted.fates.push((task, fate));
        }
        sorted
    }

    fn gauge(&self, taken: &Taken) {
        let due = taken.tasks.iter().filter_map(|task| task.due_s).next();
        let lag_ms = due.map_or(0, |s| taken.now_ms.saturating_sub(s.saturating_mul(1_000)));
        let (intake, source) = (self.metrics.intake(), self.source());
        intake.lag(&source, Duration::from_millis(lag_ms));
        intake.depth(&source, "waiting", taken.waiting);
    }

    fn report(&self, answers: &[Enqueued], fates: &[(Task, Fate)]) {
        let mut moved = Moved::default();
        moved.count(answers);
        let source = self.source();
        let named = |task: &Task| String::from_utf8_lossy(&task.id).into_owned();
        let mut first_reason = None;
        for (task, fate) in fates {
            match fate {
                Fate::HandedOver => {}
                Fate::SetAside(reason) => {
                    moved.rejected += 1;
                    first_reason.get_or_insert_with(|| format!("task {}: {reason}", named(task)));
                }
                Fate::Gone => events::intake_orphan(&source, &named(task)),
            }
        }
        self.metrics
            .intake()
            .moved(&source, moved.created, moved.duplicates, moved.rejected);
        tracing::debug!(
            event = "intake",
            source,
            created = moved.created,
            duplicates = moved.duplicates,
            rejected = moved.rejected,
            "moved"
        );
        if let Some(first) = first_reason {
            self.alerts
                .raise(events::intake_rejected(&source, moved.rejected, &first));
        }
    }
}
