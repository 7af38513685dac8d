//! What happened to a job: kept from its first failure, snooze, crash or operator act on, or from the start where its kind
//! asks for that.
//!
//! Stored as JSON. Scripts, which decode nothing, add an event by appending a tab and the event's own JSON; reading takes
//! those in.

mod event;

pub use event::{Event, What, cut};

use super::Priority;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The longest error text that is stored, in bytes.
pub const MAX_ERROR_BYTES: usize = 4096;
/// How many of the last errors are stored.
pub const MAX_ERRORS: usize = 10;
/// How many events are stored: the first ones, and the last.
pub const MAX_EVENTS: usize = 60;
/// How many of them are the first ones: what came between is dropped and counted.
const FIRST_EVENTS: usize = 12;

/// A job's troubles. A job that never had any has none stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Its kind, as it was when the history began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Arc<str>>,
    /// Its class then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// What it was told apart by when it was last put off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Arc<str>>,
    /// Attempts that ended as failures, since an operator last started it afresh.
    #[serde(default)]
    pub attempts: u32,
    /// Deliveries whose daemon died before it could say how they ended, since then.
    #[serde(default)]
    pub crashes: u32,
    /// Times it was put off without burning an attempt, since then.
    #[serde(default)]
    pub snoozes: u32,
    /// The last errors, the oldest first.
    #[serde(default)]
    pub errors: Vec<AttemptError>,
    /// What happened, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Event>,
    /// Events that were dropped after the first twelve.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropped: u32,
}

/// One stored error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptError {
    /// When, in milliseconds since the epoch.
    pub at: u64,
    /// Which attempt failed, from 1.
    pub attempt: u32,
    /// What it said, cut to 4 KiB.
    pub error: String,
}

impl History {
    /// The history of a job of which only this much is known.
    #[must_use]
    pub fn of(kind: &Arc<str>, priority: Priority) -> Self {
        Self {
            kind: Some(Arc::clone(kind)),
            priority: Some(priority),
            ..Self::default()
        }
    }

    /// The same, with the times of a job that nothing happened to until now: when its app sent it, if it said so, and
    /// when it could have run.
    #[must_use]
    pub fn begun(mut self, enqueued_ms: Option<u64>, ready_ms: u64) -> Self {
        self.events
            .extend(enqueued_ms.map(|at| Event::new(at, What::Enqueued)));
        self.events.push(Event::new(ready_ms, What::Ready));
        self
    }

    /// Reads what is stored. None if it is no history.
    #[must_use]
    pub fn parse(stored: &[u8]) -> Option<Self> {
        let mut parts = stored.split(|b| *b == b'\t');
        let mut history: Self = serde_json::from_slice(parts.next()?).ok()?;
        for added in parts {
            if let Ok(event) = serde_json::from_slice(added) {
                history.push(event);
            }
        }
        Some(history)
    }

    /// As it is stored.
    #[must_use]
    pub fn encode(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Adds a failed attempt.
    pub fn fail(&mut self, at: u64, error: &str) {
        self.attempts = self.attempts.saturating_add(1);
        self.note(at, self.attempts, error);
        self.push(
            Event::new(at, What::Failed)
                .attempt(self.attempts)
                .note(error),
        );
    }

    /// Says when the attempt that just failed is tried again.
    pub fn retry_at(&mut self, due_ms: u64) {
        if let Some(last) = self.events.last_mut() {
            last.due = Some(due_ms);
        }
    }

    /// When the attempt that failed last was to be tried again, if nothing happened since, ms.
    #[must_use]
    pub fn retry_due(&self) -> Option<u64> {
        let last = self.events.last()?;
        last.due.filter(|_| last.event == What::Failed)
    }

    /// Whether a delivery of it ran before, however that ended, since an operator last started it afresh.
    #[must_use]
    pub fn has_run(&self) -> bool {
        let afresh = |event: &&Event| matches!(event.event, What::Retried | What::Replaced);
        let mut since = self.events.iter().rev().take_while(|event| !afresh(event));
        self.attempts + self.crashes + self.snoozes > 0
            || since.any(|event| event.event == What::HandedBack)
    }

    /// Whether an operator made it run before it was due.
    #[must_use]
    pub fn was_hurried(&self) -> bool {
        self.events.iter().any(|event| event.event == What::Hurried)
    }

    /// Whether it is to be tried again after a failure: not one that only snoozed, or was put off, since.
    #[must_use]
    pub fn is_retry(&self) -> bool {
        let last = self.events.last().map(|event| event.event);
        self.attempts > 0 && !matches!(last, Some(What::Snoozed | What::PutOff))
    }

    /// Adds a delivery that ended with the death of its daemon.
    pub fn crash(&mut self, at: u64, daemon: &str) {
        const ERROR: &str = "the daemon that ran it died";
        self.crashes = self.crashes.saturating_add(1);
        let attempt = self.attempts.saturating_add(1);
        self.note(at, attempt, ERROR);
        self.push(
            Event::new(at, What::Crashed)
                .attempt(attempt)
                .by(daemon)
                .note(ERROR),
        );
    }

    /// Adds a wish to be run later.
    pub fn snooze(&mut self, at: u64, due_ms: u64, reason: &str) {
        self.snoozes = self.snoozes.saturating_add(1);
        self.push(Event::new(at, What::Snoozed).due(due_ms).note(reason));
    }

    /// Adds an event; the oldest in the middle gives way when there are too many.
    pub fn push(&mut self, event: Event) {
        if matches!(event.event, What::Retried | What::Replaced) {
            (self.attempts, self.crashes, self.snoozes) = (0, 0, 0);
        }
        if event.event == What::PutOff
            && let Some(last) = self.events.last_mut()
            && last.event == What::PutOff
        {
            let times = last.times.unwrap_or(1).saturating_add(1);
            *last = event;
            last.times = Some(times);
            return;
        }
        // It is added when the run has ended, but it was told of while it went on.
        let place = match event.event {
            What::CancelAsked => self.events.iter().rposition(|e| e.at <= event.at),
            _ => self.events.len().checked_sub(1),
        };
        self.events.insert(place.map_or(0, |last| last + 1), event);
        let excess = self.events.len().saturating_sub(MAX_EVENTS);
        if excess > 0 {
            self.events.drain(FIRST_EVENTS..FIRST_EVENTS + excess);
            let excess = u32::try_from(excess).unwrap_or(u32::MAX);
            self.dropped = self.dropped.saturating_add(excess);
        }
    }

    fn note(&mut self, at: u64, attempt: u32, error: &str) {
        self.errors.push(AttemptError {
            at,
            attempt,
            error: cut(error, MAX_ERROR_BYTES).to_owned(),
        });
        let excess = self.errors.len().saturating_sub(MAX_ERRORS);
        self.errors.drain(..excess);
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde asks for a reference.
const fn is_zero(n: &u32) -> bool {
    *n == 0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn keeps_the_last_ten_errors_each_cut_to_four_kib() {
        let mut history = History::default();
        for n in 0..12_u64 {
            history.fail(n, &"é".repeat(10_000));
        }
        history.crash(99, "gone");
        assert_eq!(history.attempts, 12);
        assert_eq!(history.crashes, 1);
        assert_eq!(history.errors.len(), MAX_ERRORS);
        assert_eq!(history.errors[0].at, 3);
        assert_eq!(history.errors[0].error.len(), MAX_ERROR_BYTES);
        assert_eq!(history.errors[9].attempt, 13);
    }

    #[test]
    fn the_first_and_the_last_events_stay_and_the_others_are_counted() {
        let mut history = History::of(&"app.x".into(), Priority::Low).begun(Some(1), 2);
        for n in 0..10_000_u64 {
            history.snooze(10 + n, 20 + n, &"é".repeat(10_000));
        }
        history.push(Event::new(99_999, What::Done));
        assert_eq!(history.events.len(), MAX_EVENTS);
        assert_eq!(history.dropped, 10_003 - 60);
        assert_eq!(history.events[0].event, What::Enqueued);
        assert_eq!(history.events[FIRST_EVENTS - 1].at, 19);
        assert_eq!(history.events[MAX_EVENTS - 2].at, 10_009);
        assert_eq!(history.events[MAX_EVENTS - 1].event, What::Done);
        assert!(history.encode().len() < 64 * 1024);
    }

    #[test]
    fn what_a_script_appended_is_read_and_a_retry_starts_afresh() {
        let mut history = History::default();
        history.fail(5, "tab\tand\nline");
        history.crash(6, "d-1");
        let added = Event::new(9, What::Retried).by("ann@host");
        let stored = format!("{}\t{}", history.encode(), added.encode());
        let read = History::parse(stored.as_bytes()).unwrap();
        assert_eq!((read.attempts, read.crashes), (0, 0));
        assert_eq!(read.errors, history.errors, "what went wrong stays known");
        assert_eq!(read.events.last(), Some(&added));
        assert_eq!(read.events.len(), 3);
        let bare = History::parse(b"{}\t{\"at\":1,\"event\":\"hurried\"}").unwrap();
        assert_eq!(bare.events, [Event::new(1, What::Hurried)]);
        assert_eq!(History::parse(b"garbage"), None);
        let later = History::parse(b"{\"events\":[{\"at\":1,\"event\":\"sung\"}]}").unwrap();
        assert_eq!(later.events[0].event, What::Unknown);
    }

    #[test]
    fn whoever_ran_has_run_until_an_operator_starts_it_afresh() {
        let ran = |tell: fn(&mut History)| {
            let mut history = History::of(&"app.x".into(), Priority::Low).begun(Some(1), 2);
            tell(&mut history);
            history.has_run()
        };
        assert!(!ran(|_| ()));
        assert!(
            !ran(|h| h.push(Event::new(3, What::PutOff))),
            "it could not start"
        );
        assert!(!ran(|h| h.push(Event::new(3, What::Hurried))));
        assert!(ran(|h| h.fail(3, "no")));
        assert!(ran(|h| h.crash(3, "d-1")));
        assert!(ran(|h| h.snooze(3, 4, "not now")));
        assert!(ran(|h| h.push(Event::new(3, What::HandedBack))));
        assert!(!ran(|h| {
            h.push(Event::new(3, What::HandedBack));
            h.fail(4, "no");
            h.push(Event::new(5, What::Retried));
        }));
    }

    #[test]
    fn being_put_off_again_and_again_is_one_event() {
        let mut history = History::default();
        for n in 1..=500_u64 {
            history.push(Event::new(n, What::PutOff).due(n + 1_000));
        }
        assert_eq!(history.events.len(), 1);
        let last = &history.events[0];
        assert_eq!(
            (last.at, last.due, last.times),
            (500, Some(1_500), Some(500))
        );
    }
}
