//! One thing that happened to a job, as it is stored.

use serde::{Deserialize, Serialize};

/// The longest note or name in an event, bytes.
const MAX_NOTE_BYTES: usize = 400;

/// What can happen to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Its app sent it, by the app's clock.
    Enqueued,
    /// It could have run from then on.
    Ready,
    /// A daemon took it to run.
    Started,
    /// An attempt failed; `due` is when it is tried again.
    Failed,
    /// It asked to be run later.
    Snoozed,
    /// It was taken, but could not start just then.
    PutOff,
    /// Its run was interrupted and it went back to its place.
    HandedBack,
    /// The daemon that ran it died.
    Crashed,
    /// It was given up.
    Dead,
    /// An operator started it afresh after it had died.
    Retried,
    /// An operator made it run before it was due.
    Hurried,
    /// A later job took its place under its lock: it has that one's envelope, and starts afresh.
    Replaced,
    /// It took a later job in.
    Merged,
    /// An operator asked for the end of its run.
    CancelAsked,
    /// It was cancelled.
    Cancelled,
    /// It had not started by its time.
    Expired,
    /// What is stored of it can't run.
    Quarantined,
    /// An operator removed it.
    Deleted,
    /// An operator took it out of its queue, to bring it to another one, the note.
    Moving,
    /// It went to another queue, the note.
    Moved,
    /// It gave way to others, or was kept long enough.
    Dropped,
    /// The auditor put it right.
    Repaired,
    /// It succeeded.
    Done,
    /// Written by a later version.
    #[serde(other)]
    Unknown,
}

/// One thing that happened to a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, in milliseconds since the epoch.
    pub at: u64,
    /// What.
    pub event: What,
    /// The attempt it belongs to, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// When the job is due again, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<u64>,
    /// Who did it: a daemon's incarnation, or an operator as `user@host`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// What there is to say, like the beginning of an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// How often it happened in a row, if more than once; `at` is the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
}

impl Event {
    /// An event of which no more is known.
    #[must_use]
    pub const fn new(at: u64, event: What) -> Self {
        Self {
            at,
            event,
            attempt: None,
            due: None,
            by: None,
            note: None,
            times: None,
        }
    }

    /// The same, in this attempt.
    #[must_use]
    pub const fn attempt(mut self, attempt: u32) -> Self {
        self.attempt = Some(attempt);
        self
    }

    /// The same, with the time at which the job is due again.
    #[must_use]
    pub const fn due(mut self, due_ms: u64) -> Self {
        self.due = Some(due_ms);
        self
    }

    /// The same, by somebody.
    #[must_use]
    pub fn by(mut self, who: &str) -> Self {
        self.by = Some(cut(who, MAX_NOTE_BYTES).to_owned());
        self
    }

    /// The same, with something to say.
    #[must_use]
    pub fn note(mut self, text: &str) -> Self {
        self.note = Some(cut(text, MAX_NOTE_BYTES).to_owned());
        self
    }

    /// As it is stored and appended.
    #[must_use]
    pub fn encode(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The longest prefix of `text` that fits in `max` bytes without splitting a character.
#[must_use]
pub fn cut(text: &str, max: usize) -> &str {
    if text.len() <= max {
        return text;
    }
    let mut end = max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
