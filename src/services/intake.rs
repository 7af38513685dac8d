//! What the outbox relay and the bridges have in common: how they bear with servers that fail, and how it is told.

use crate::db::DbError;
use crate::queue::operate::{Enqueued, NewJob};
use crate::queue::{Queue, QueueError};
use crate::telemetry::{Alerts, events};
use std::fmt::Display;
use std::time::{Duration, Instant};

/// The pause after a first failure; it doubles from there.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Trouble that lasts this long is an alert; shorter ones are only logged.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a step was not finished. Nothing is lost: it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// Postgres failed.
    #[error(transparent)]
    Database(#[from] DbError),
    /// Redis failed.
    #[error(transparent)]
    Queue(#[from] QueueError),
}

/// Hands jobs to a queue, pairs of id and envelope, in order.
///
/// # Errors
/// Redis failed: then it is not known whether they arrived, and handing them over again tells.
pub async fn push(queue: &Queue, jobs: &[(String, Vec<u8>)]) -> Result<Vec<Enqueued>, QueueError> {
    let each = jobs.iter().map(|(id, envelope)| NewJob {
        id,
        // Unique jobs are for admission to sort out: nobody waits for an answer here.
        lock: "",
        envelope,
    });
    queue.enqueue_all(&each.collect::<Vec<_>>()).await
}

/// What steps brought.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// Jobs that are new.
    pub created: u64,
    /// Jobs that were handed over before, or whose id the app used before.
    pub duplicates: u64,
    /// Those that can't be jobs.
    pub rejected: u64,
}

impl Moved {
    /// Adds the answers of the enqueue script.
    pub fn count(&mut self, answers: &[Enqueued]) {
        let created = answers.iter().filter(|a| matches!(a, Enqueued::Created));
        let created = created.count() as u64;
        self.created += created;
        self.duplicates += answers.len() as u64 - created;
    }
}

/// How long a source has been failing, how long to leave it alone, and who was told.
pub struct Trouble {
    source: String,
    alerts: Alerts,
    since: Option<Instant>,
    told: bool,
    pause: Duration,
}

impl Trouble {
    /// No trouble yet.
    #[must_use]
    pub fn none(source: &str, alerts: Alerts) -> Self {
        Self {
            source: source.to_owned(),
            alerts,
            since: None,
            told: false,
            pause: PAUSE_MIN,
        }
    }

    /// It failed again; answers how long to wait.
    pub fn failed(&mut self, error: &dyn Display, now: Instant) -> Duration {
        let error = error.to_string();
        let Some(since) = self.since else {
            self.since = Some(now);
            events::intake_failed(&self.source, &error);
            return self.pause;
        };
        if !self.told && now.saturating_duration_since(since) >= PATIENCE {
            self.told = true;
            self.alerts.raise(events::intake_lost(&self.source, &error));
        }
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        self.pause
    }

    /// It works, perhaps again.
    pub fn over(&mut self, now: Instant) {
        let Some(since) = self.since.take() else {
            return;
        };
        let alert = events::intake_back(&self.source, now.saturating_duration_since(since));
        if self.told {
            self.alerts.raise(alert);
        }
        self.told = false;
        self.pause = PAUSE_MIN;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_only_lasting_trouble_is_told() {
        let mut trouble = Trouble::none("outbox", Alerts::default());
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(trouble.failed(&"gone", at(0)), PAUSE_MIN);
        assert_eq!(trouble.failed(&"gone", at(100)), 2 * PAUSE_MIN);
        assert!(!trouble.told);
        for _ in 0..20 {
            trouble.failed(&"gone", at(10_000));
        }
        assert!(trouble.told);
        assert_eq!(trouble.failed(&"gone", at(60_000)), PAUSE_MAX);
        trouble.over(at(61_000));
        assert!(!trouble.told);
        assert_eq!(trouble.failed(&"gone", at(70_000)), PAUSE_MIN, "afresh");
    }
}
