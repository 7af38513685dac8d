//! What is done with the jobs that are meant.

use super::super::store::Store;
use super::super::who::who;
use super::super::{CliError, Global, Report};
use super::filter::{Filter, Matched};
use super::moving::Moving;
use super::walk::Walk;
use crate::clock;
use crate::job::Envelope;
use crate::queue::Queue;
use crate::queue::admit::flow_of;
use crate::queue::home::home_of;
use crate::queue::scan::{SCAN_STEP, State};
use crate::queue::settle::Record;
use futures::future::try_join_all;
use serde_json::json;

/// What to do.
pub(super) enum Act {
    /// Run them now.
    Retry,
    /// Remove or cancel them.
    Delete,
    /// Hand them to another queue.
    Move {
        /// Its name.
        to: String,
    },
}

/// What was done.
#[derive(Default)]
pub(super) struct Tally {
    /// Jobs that were meant.
    pub chosen: u64,
    /// Jobs it was done with.
    pub done: u64,
    /// Jobs that had changed their state meanwhile.
    pub changed: u64,
    /// Jobs whose id the other queue knows.
    pub known_there: u64,
    /// Jobs that stay because others depend on them.
    pub bound: u64,
    /// Jobs that were left out because nobody knows their age.
    pub age_unknown: u64,
}

impl Tally {
    pub(super) fn add(&mut self, more: Self) {
        self.chosen += more.chosen;
        self.done += more.done;
        self.changed += more.changed;
        self.known_there += more.known_there;
        self.bound += more.bound;
        self.age_unknown += more.age_unknown;
    }

    /// What came of `chosen` jobs of which `done` were still as they were.
    pub(super) fn of(chosen: usize, done: u64) -> Self {
        let chosen = chosen as u64;
        Self {
            chosen,
            done,
            changed: chosen.saturating_sub(done),
            ..Self::default()
        }
    }

    pub(super) fn report(&self, act: &Act) -> Report {
        let mut json = json!({
            "dry_run": false,
            act.word(): self.done,
            "changed": self.changed,
            "age_unknown": self.age_unknown,
        });
        let mut text = format!("{} {}\n", self.done, act.word());
        if let Act::Move { to } = act {
            json["to"] = to.as_str().into();
            json["known_there"] = self.known_there.into();
            json["bound"] = self.bound.into();
        }
        for (count, why) in [
            (
                self.changed,
                "left alone: they had changed their state meanwhile",
            ),
            (
                self.known_there,
                "left alone: the other queue knows a job of that id",
            ),
            (
                self.bound,
                "left alone: they belong to a group or workflow, or others were merged into them",
            ),
            (self.age_unknown, "left out: nobody knows their age"),
        ] {
            if count > 0 {
                text.push_str(&format!("{count} {why}\n"));
            }
        }
        Report::new(json, text)
    }
}

impl Act {
    pub(super) const fn verb(&self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Delete => "delete",
            Self::Move { .. } => "move",
        }
    }

    pub(super) const fn word(&self) -> &'static str {
        match self {
            Self::Retry => "retried",
            Self::Delete => "deleted",
            Self::Move { .. } => "moved",
        }
    }

    /// Refuses states in which it can't be done.
    pub(super) fn check_states(&self, states: &[State]) -> Result<(), CliError> {
        let (allowed, hint): (&[State], _) = match self {
            Self::Retry => (
                &[State::Dead, State::Delayed],
                "dead and delayed jobs can be retried",
            ),
            _ => (
                &[State::Pending, State::Delayed, State::Dead],
                "running jobs can only be asked to end, one by one: `tidegate job cancel`",
            ),
        };
        match states.iter().find(|state| !allowed.contains(state)) {
            Some(state) => Err(CliError::Usage(format!("--state {state}: {hint}"))),
            None => Ok(()),
        }
    }

    /// A move goes to another queue, and to one that somebody serves.
    pub(super) async fn check_target(
        &self,
        store: &mut Store,
        global: &Global,
    ) -> Result<(), CliError> {
        let Self::Move { to } = self else {
            return Ok(());
        };
        store.names.retain(|name| name != to);
        if store.names.is_empty() {
            return Err(CliError::Usage(format!(
                "--to {to}: that is where they are"
            )));
        }
        let named =
            crate::daemon::queue_names(&store.config, &global.load_catalog()?.unwrap_or_default());
        if !named.contains(to) && store.queue(to).workers().await?.workers.is_empty() {
            let message = format!(
                "--to {to}: neither the configuration nor a definition names this queue, and no daemon serves it"
            );
            return Err(CliError::failed("unknown_queue", message));
        }
        Ok(())
    }

    /// Does it with the jobs of one step.
    pub(super) async fn on(
        &self,
        store: &Store,
        queue: &Queue,
        jobs: &[Matched],
    ) -> Result<Tally, CliError> {
        let mut tally = Tally::default();
        for step in jobs.chunks(SCAN_STEP) {
            tally.add(match self {
                Self::Retry => retry(store, queue, step).await?,
                Self::Delete => delete(store, queue, step).await?,
                Self::Move { to } => {
                    let moving = Moving::new(store, queue, to);
                    moving.start(step).await?
                }
            });
        }
        Ok(tally)
    }

    /// Moves that an earlier command began and did not finish.
    pub(super) async fn finish_begun(
        &self,
        store: &Store,
        queue: &Queue,
    ) -> Result<Tally, CliError> {
        let mut tally = Tally::default();
        let Self::Move { to } = self else {
            return Ok(tally);
        };
        let moving = Moving::new(store, queue, to);
        let filter = Filter::new(vec![State::Dead], None, None, None);
        let mut walk = Walk::start(queue, &filter).await?;
        while let Some(jobs) = walk.next().await? {
            let begun: Vec<&Matched> = jobs
                .iter()
                .filter(|job| moving.begun(job).is_some())
                .collect();
            tally.add(moving.finish(&begun).await?);
        }
        Ok(tally)
    }
}

async fn retry(store: &Store, queue: &Queue, jobs: &[Matched]) -> Result<Tally, CliError> {
    let by = &who();
    let ids: Vec<&str> = jobs.iter().map(|job| job.seen.id.as_str()).collect();
    let ties = queue.ties_of(&ids).await?;
    let each = jobs.iter().zip(&ties).map(|(job, ties)| async move {
        let Ok(envelope) = Envelope::parse(&job.seen.raw) else {
            return Ok(false);
        };
        let history = Some(&job.seen.history);
        let flow = home_of(&envelope, &store.catalog, ties, history);
        let (id, sent) = (&job.seen.id, envelope.enqueued_at);
        queue.requeue_if(job.seen.state, id, &flow, sent, by).await
    });
    let done = try_join_all(each).await?;
    Ok(Tally::of(jobs.len(), trues(&done)))
}

async fn delete(store: &Store, queue: &Queue, jobs: &[Matched]) -> Result<Tally, CliError> {
    let (dead, waiting): (Vec<&Matched>, Vec<&Matched>) =
        jobs.iter().partition(|job| job.seen.state == State::Dead);
    let mut done = 0;
    if !dead.is_empty() {
        let ids: Vec<String> = dead.iter().map(|job| job.seen.id.clone()).collect();
        done += queue.bury(&ids, Some(&who())).await?;
    }
    let by = &who();
    let each = waiting.iter().map(|job| async move {
        let envelope = Envelope::parse(&job.seen.raw).unwrap_or_default();
        let record = Record {
            id: &job.seen.id,
            kind: &job.kind,
            priority: flow_of(&envelope, &store.catalog).priority,
            state: "cancelled",
            attempts: job.seen.history.attempts,
            at_ms: clock::unix_ms(),
            duration_ms: 0,
        };
        let given = envelope.gives(&job.seen.id);
        queue
            .cancel_if(job.seen.state, &record, given, envelope.enqueued_at, by)
            .await
    });
    done += trues(&try_join_all(each).await?);
    Ok(Tally::of(jobs.len(), done))
}

fn trues(answers: &[bool]) -> u64 {
    answers.iter().filter(|done| **done).count() as u64
}
