//! How a delivery ended, as a daemon says it, and as the script that settles it reads it.

use super::Flow;
use super::millis;
use super::ties::Notice;
use crate::clock;
use crate::job::ties::outcome;
use crate::job::{History, JobId, Priority, Reject};
use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

/// How one delivery ended.
#[derive(Debug)]
pub struct Settlement {
    /// The job, as it is stored.
    pub id: Arc<str>,
    /// The token of the delivery.
    pub token: Arc<str>,
    /// What is to become of it.
    pub ending: Ending,
    /// What others are told if that is its end.
    pub notice: Notice,
    /// The slots it holds, by name; empty for most.
    pub slots: Arc<[Arc<str>]>,
    /// It may have told how far it had come: that goes with it.
    pub told: bool,
}

/// What is to become of a job whose delivery ended.
#[derive(Debug)]
pub enum Ending {
    /// It is over: done, expired or cancelled.
    Finished {
        /// For the ring of finished jobs.
        record: String,
        /// Counter that grows by one.
        counter: &'static str,
        /// The app gave its id, so it is remembered.
        given: bool,
        /// What happened to it, where that is to be kept; what is stored of it is then removed.
        history: Option<Box<History>>,
    },
    /// Again after a while: a retry or a snooze.
    Later {
        /// After how long.
        delay: Duration,
        /// Its history from now on.
        history: Box<History>,
        /// Counter that grows by one.
        counter: &'static str,
    },
    /// Given up, kept for an operator.
    Dead {
        /// Its history, the last error included.
        history: Box<History>,
        /// The app gave its id, so it is remembered.
        given: bool,
        /// Counter that grows by one.
        counter: &'static str,
    },
    /// Back to the head of its flow, as if it had not been taken.
    HandedBack {
        /// Its flow.
        flow: Flow,
        /// Its history, if that changed (a crash).
        history: Option<Box<History>>,
        /// Counter that grows by one.
        counter: &'static str,
    },
    /// What is stored can't run.
    Quarantined(Reject),
}

/// A finished job as the ring keeps it.
#[derive(Debug, Clone)]
pub struct Record<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its kind.
    pub kind: &'a str,
    /// Its class.
    pub priority: Priority,
    /// `done`, `expired` or `cancelled`.
    pub state: &'a str,
    /// Attempts made, the last included.
    pub attempts: u32,
    /// When, ms.
    pub at_ms: u64,
    /// How long the last run took, ms.
    pub duration_ms: u64,
}

impl Record<'_> {
    /// The compact form: fields that hold no tab, with tabs between.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::with_capacity(96);
        // Writing to a String can't fail.
        let _ = write!(
            text,
            "{}\t{}\t{}\t{}\t{}\t{}\t{}",
            self.id,
            self.state,
            self.kind,
            self.priority,
            self.attempts,
            self.at_ms,
            self.duration_ms
        );
        text
    }
}

/// What is told of an end, and whether at the job's result list too.
pub(super) struct Told<'a> {
    pub(super) outcome: Option<Cow<'a, str>>,
    pub(super) list: bool,
}

impl Settlement {
    pub(super) fn told(&self, late: bool) -> Told<'_> {
        let notice = &self.notice;
        let outcome = notice.outcome.as_deref().filter(|_| self.ending.is_end());
        let outcome = outcome.map(Cow::Borrowed);
        let list = late || notice.result && outcome.is_some();
        let outcome = outcome.or_else(|| late.then(|| self.late_outcome()));
        Told { outcome, list }
    }

    /// What is told of an end that nobody had asked for when the run began.
    fn late_outcome(&self) -> Cow<'_, str> {
        if let Some(told) = &self.notice.late {
            return Cow::Borrowed(told);
        }
        let (kind, state, error) = match &self.ending {
            Ending::Finished { record, .. } => {
                let mut fields = record.split('\t').skip(1);
                let state = fields.next().unwrap_or_default();
                (fields.next().unwrap_or_default(), state, None)
            }
            Ending::Dead { history, .. } => {
                let error = history.errors.last().map(|e| e.error.clone());
                (history.kind.as_deref().unwrap_or_default(), "dead", error)
            }
            Ending::Quarantined(reject) => ("", "quarantined", Some(reject.to_string())),
            Ending::Later { .. } | Ending::HandedBack { .. } => return Cow::Borrowed("{}"),
        };
        let told = JobId::parse(&self.id).map(|id| {
            let error = error.as_deref();
            outcome(&id, kind, state, clock::unix_ms(), None, error)
        });
        Cow::Owned(told.unwrap_or_else(|_| "{}".to_owned()))
    }

    /// A letter, the number of the counter, and flags, as the script's header lists them.
    pub(super) fn write_verb(&self, cmd: &mut redis::Cmd, counters: &[&str], told: &Told<'_>) {
        let counter = counters.iter().position(|c| *c == self.ending.counter());
        // There are few counters: their numbers stay within ASCII.
        let counter = counter.and_then(|n| u8::try_from(n).ok()).unwrap_or(0) + b'1';
        let mut verb = vec![self.ending.letter(), counter];
        let mut flag = |letter: u8, set: bool| verb.extend(set.then_some(letter));
        match &self.ending {
            Ending::Finished { given, counter, .. } => {
                flag(b'g', *given);
                flag(b'c', *counter == "cancelled");
                flag(b'e', *counter == "expired");
                flag(b'n', self.notice.follow.is_some());
            }
            Ending::Dead { given, .. } => flag(b'g', *given),
            _ => {}
        }
        flag(b't', told.outcome.is_some());
        cmd.arg(verb);
    }
}

impl Ending {
    /// The arguments of its verb, as the script's header lists them.
    pub(super) fn write(&self, cmd: &mut redis::Cmd, flows: &[&Flow]) {
        match self {
            Self::Finished {
                record, history, ..
            } => {
                cmd.arg(record);
                if let Some(history) = history {
                    cmd.arg(history.encode());
                }
                cmd
            }
            Self::Later { delay, history, .. } => cmd.arg(millis(*delay)).arg(history.encode()),
            Self::Dead { history, .. } => cmd.arg(history.encode()),
            Self::HandedBack { flow, history, .. } => {
                let number = flows.iter().position(|f| *f == flow).map_or(0, |n| n + 1);
                cmd.arg(number)
                    .arg(flow.priority.index() + 1)
                    .arg(history.as_ref().map_or_else(String::new, |h| h.encode()))
            }
            Self::Quarantined(reject) => cmd.arg(reject.code.as_str()).arg(&reject.message),
        };
    }

    const fn letter(&self) -> u8 {
        match self {
            Self::Finished { history: None, .. } => b'd',
            Self::Finished { .. } => b'e',
            Self::Later { .. } => b'r',
            Self::Dead { .. } => b'x',
            Self::HandedBack { .. } => b'h',
            Self::Quarantined(_) => b'q',
        }
    }

    /// Whether the job is over, as far as it goes by itself.
    const fn is_end(&self) -> bool {
        matches!(
            self,
            Self::Finished { .. } | Self::Dead { .. } | Self::Quarantined(_)
        )
    }

    pub(super) const fn counter(&self) -> &'static str {
        match self {
            Self::Finished { counter, .. }
            | Self::Later { counter, .. }
            | Self::Dead { counter, .. }
            | Self::HandedBack { counter, .. } => counter,
            Self::Quarantined(_) => "quarantined",
        }
    }
}
