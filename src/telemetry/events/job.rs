//! What happens to a single job.

use super::{ms, whole_ms};
use crate::job::Job;
use crate::telemetry::alerts::{Alert, AlertName};
use crate::telemetry::clip;
use std::time::Duration;
use tracing::{debug, error, info, warn};

/// What is known of a job where something happens to it; what is not known is left out of the event.
#[derive(Debug, Clone, Copy)]
pub struct JobRef<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its kind.
    pub kind: &'a str,
    /// Its queue.
    pub queue: &'a str,
    /// Its priority class.
    pub priority: Option<&'a str>,
    /// The attempt, from 1.
    pub attempt: Option<u32>,
    /// The token of its delivery.
    pub token: Option<&'a str>,
}

impl<'a> JobRef<'a> {
    /// A job of which only this much is known.
    #[must_use]
    pub fn bare(id: &'a str, kind: &'a str, queue: &'a str) -> Self {
        Self {
            id,
            kind,
            queue,
            priority: None,
            attempt: None,
            token: None,
        }
    }
}

impl<'a> From<&'a Job> for JobRef<'a> {
    fn from(job: &'a Job) -> Self {
        Self {
            id: job.id.as_str(),
            kind: &job.kind,
            queue: &job.queue,
            priority: Some(job.priority.as_str()),
            attempt: Some(job.attempt),
            token: Some(&job.token),
        }
    }
}

/// An event about one job: its level, its name, the job, then what else there is to say.
macro_rules! job_event {
    ($level:ident, $event:literal, $job:expr, $($rest:tt)+) => {{
        let job: JobRef<'_> = $job;
        $level!(
            event = $event,
            job_id = job.id,
            kind = job.kind,
            queue = job.queue,
            priority = job.priority,
            attempt = job.attempt,
            token = job.token,
            $($rest)+
        );
    }};
}

/// A handler begins.
pub fn job_started<'a>(job: impl Into<JobRef<'a>>) {
    job_event!(debug, "job_started", job.into(), "started");
}

/// A job succeeded. Clean successes go through [`crate::telemetry::Successes`], which calls this within its budget.
pub fn job_done<'a>(job: impl Into<JobRef<'a>>, took: Duration) {
    job_event!(
        info,
        "job_done",
        job.into(),
        duration_ms = ms(took),
        outcome = "done",
        "done"
    );
}

/// An attempt failed, and there will be another.
pub fn job_failed<'a>(job: impl Into<JobRef<'a>>, took: Duration, retry_in: Duration, error: &str) {
    job_event!(
        warn,
        "job_failed",
        job.into(),
        duration_ms = ms(took),
        outcome = "failed",
        retry_in_ms = whole_ms(retry_in),
        error = clip(error),
        "failed, to be retried"
    );
}

/// A job asked to be run later; no attempt was burned.
pub fn job_snoozed<'a>(job: impl Into<JobRef<'a>>, took: Duration, after: Duration, reason: &str) {
    job_event!(
        info,
        "job_snoozed",
        job.into(),
        duration_ms = ms(took),
        outcome = "snoozed",
        retry_in_ms = whole_ms(after),
        reason = clip(reason),
        "not now"
    );
}

/// A job failed for good: fatally, or its attempts are used up. `took` is none if its last run is not known.
#[must_use = "hand the alert to Alerts::raise"]
pub fn job_dead<'a>(job: impl Into<JobRef<'a>>, took: Option<Duration>, error: &str) -> Alert {
    let job = job.into();
    let error = clip(error);
    job_event!(
        error,
        "job_dead",
        job,
        alert = AlertName::JobDead.as_str(),
        duration_ms = took.map(ms),
        outcome = "dead",
        error,
        "dead"
    );
    Alert::new(AlertName::JobDead, job.kind, error).about_job(job.id)
}

/// A job is dead because it took its daemon down too often.
#[must_use = "hand the alert to Alerts::raise"]
pub fn job_poison<'a>(job: impl Into<JobRef<'a>>, crashes: u32) -> Alert {
    let job = job.into();
    job_event!(
        error,
        "job_dead",
        job,
        alert = AlertName::JobPoison.as_str(),
        outcome = "dead",
        reason = "poison",
        crashes,
        "dead: it crashed its daemon too often"
    );
    let message = format!("crashed its daemon {crashes} times");
    Alert::new(AlertName::JobPoison, job.kind, &message).about_job(job.id)
}

/// A job was interrupted and goes back to its queue; no attempt was burned.
pub fn job_handed_back<'a>(job: impl Into<JobRef<'a>>, took: Duration, reason: &str) {
    job_event!(
        info,
        "job_handed_back",
        job.into(),
        duration_ms = ms(took),
        outcome = "interrupted",
        reason = clip(reason),
        "handed back"
    );
}

/// A job made room for others at a safe point, and goes on later; no attempt was burned.
pub fn job_yielded<'a>(job: impl Into<JobRef<'a>>, took: Duration, reason: &str) {
    job_event!(
        info,
        "job_yielded",
        job.into(),
        duration_ms = ms(took),
        outcome = "yielded",
        reason = clip(reason),
        "made room"
    );
}

/// A job was cancelled by an operator or its app.
pub fn job_cancelled<'a>(job: impl Into<JobRef<'a>>) {
    job_event!(
        info,
        "job_cancelled",
        job.into(),
        outcome = "cancelled",
        "cancelled"
    );
}

/// A job was not started in time.
pub fn job_expired<'a>(job: impl Into<JobRef<'a>>) {
    job_event!(
        warn,
        "job_expired",
        job.into(),
        outcome = "expired",
        "expired before it could start"
    );
}

/// An inbox entry was refused. Only the reason is told, never what it held; the id may be one we gave it.
pub fn job_quarantined(queue: &str, id: &str, reason: &str) {
    warn!(
        event = "job_quarantined",
        job_id = id,
        queue,
        outcome = "quarantined",
        reason = clip(reason),
        "quarantined"
    );
}

/// A settlement (`op`: done, retry, dead …) came after its delivery was given to another daemon; it changed nothing.
pub fn stale_settlement<'a>(job: impl Into<JobRef<'a>>, op: &str) {
    job_event!(
        warn,
        "stale_settlement",
        job.into(),
        outcome = "stale",
        op,
        "too late: the job was given to another daemon"
    );
}
