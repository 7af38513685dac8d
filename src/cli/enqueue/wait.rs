//! Waiting for the end of an enqueued job.

use super::super::job::{view, view_text};
use super::super::store::Store;
use super::super::{CliError, Report};
use crate::clock;
use crate::config::duration;
use crate::queue::inspect::Found;
use crate::queue::wait::{Asked, ResultWaiter};
use crate::queue::{Queue, QueueError};
use serde_json::{Value, json};
use std::time::Duration;

/// How long results are kept beyond the wait for them.
pub(super) const SPARE: Duration = Duration::from_secs(60);
/// How often a job is looked for that is not admitted yet, and can't be asked.
const LOOK: Duration = Duration::from_secs(1);
/// How often one is looked at that will tell its end, should that be lost.
const CHECK: Duration = Duration::from_secs(10);

/// A job whose end is awaited.
pub(super) struct Awaited<'a> {
    pub store: &'a Store,
    pub queue: &'a Queue,
    pub id: String,
    /// `created` or `duplicate`.
    pub status: &'a str,
    /// Its state when it was enqueued.
    pub state: String,
}

/// How far the wait came.
#[derive(Default)]
struct Seen {
    found: Option<Found>,
    told: Option<Value>,
}

impl Awaited<'_> {
    /// Waits for the end of the job and reports it; any other end than `done` fails.
    pub(super) async fn end(mut self, limit: Duration) -> Result<Report, CliError> {
        let mut seen = Seen::default();
        let timed_out = match tokio::time::timeout(limit, self.watch(limit, &mut seen)).await {
            Ok(result) => {
                result?;
                false
            }
            Err(_) => true,
        };
        let id = &self.id;
        let mut json = match &seen.found {
            Some(found) => view(self.store, self.queue, id, found, false),
            None => json!({"id": id, "queue": &*self.queue.name, "state": self.state}),
        };
        if let Some(told) = &seen.told {
            json["state"] = told["state"].clone();
            for field in ["kind", "result", "error"] {
                if !told[field].is_null() {
                    json[field] = told[field].clone();
                }
            }
        }
        json["status"] = self.status.into();
        let reached = json["state"].as_str().unwrap_or_default().to_owned();
        let failure = if timed_out {
            json["error"] = "timeout".into();
            let limit = duration::format(limit);
            Some(format!(
                "{id} has not ended within {limit}; it is {reached}: `tidegate explain {id}` says why"
            ))
        } else {
            (reached != "done").then(|| format!("{id} ended {reached}"))
        };
        let text = view_text(&json);
        Ok(Report::new(json, text).failing(failure))
    }

    /// Ends when the job has. What was seen last is in `seen`.
    async fn watch(&mut self, limit: Duration, seen: &mut Seen) -> Result<(), CliError> {
        if self.look(seen).await? {
            return Ok(());
        }
        // One that is new asks by its envelope.
        let mut asked = self.status == "created" || self.ask(limit).await?;
        let config = &self.store.config.redis;
        let mut waiter = ResultWaiter::connect(self.queue.clone(), config).await?;
        loop {
            let step = if asked { CHECK } else { LOOK };
            if let Some(text) = waiter.wait(&self.id, step).await? {
                let told: Value = serde_json::from_str(&text)
                    .map_err(|_| QueueError::Reply("a result that is no JSON".to_owned()))?;
                // Another job stands for this one: its end is the answer.
                if let Some(of) = told["of"].as_str() {
                    of.clone_into(&mut self.id);
                    self.status = "duplicate";
                    asked = self.ask(limit).await?;
                } else {
                    seen.found = self.queue.find(&self.id).await?;
                    seen.told = Some(told);
                    return Ok(());
                }
            }
            if self.look(seen).await? {
                return Ok(());
            }
            asked = asked || self.ask(limit).await?;
        }
    }

    /// Whether the job will tell its end, waiting or running.
    async fn ask(&self, limit: Duration) -> Result<bool, CliError> {
        let answer = self.queue.ask_result(&self.id, limit + SPARE).await?;
        Ok(answer == Asked::Yes)
    }

    /// Whether the job has ended already, by what the queue still knows of it.
    async fn look(&self, seen: &mut Seen) -> Result<bool, CliError> {
        let found = self.queue.find(&self.id).await?;
        let state = found.as_ref().map(|found| found.state.as_str());
        let over = !matches!(state, None | Some("pending" | "delayed" | "running"));
        seen.found = found.or(seen.found.take());
        if over {
            let told = self.queue.result(&self.id).await?;
            seen.told = told.and_then(|text| serde_json::from_str(&text).ok());
            return Ok(true);
        }
        // Known by its id alone: what it was is forgotten.
        let only_id = matches!(
            self.state.as_str(),
            "done" | "dead" | "cancelled" | "expired" | "skipped" | "replaced" | "merged"
        );
        if seen.found.is_none() && only_id {
            seen.told = Some(json!({"state": self.state, "at": clock::unix_ms()}));
        }
        Ok(seen.told.is_some())
    }
}
