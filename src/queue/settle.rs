//! From a daemon back into the queue: one script for a batch of endings, each fenced by its token.

use super::reply::Reply;
use super::script::SETTLE;
use super::ties::Notice;
use super::{Flow, Keys, Queue, QueueError, millis};
use crate::clock;
use crate::job::ties::outcome;
use crate::job::{History, JobId, Priority, Reject};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

/// The most endings in one call.
pub const SETTLE_MAX: usize = 500;

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

/// What a settlement changed.
#[derive(Debug)]
pub struct Settled {
    /// Redis time, ms.
    pub now_ms: u64,
    /// Indices of endings that were refused: the job was not under that token any more.
    pub stale: Vec<usize>,
    /// Slots came free that others wait for.
    pub woke: bool,
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

impl Queue {
    /// Settles up to [`SETTLE_MAX`] deliveries. `batch` counts up by one with every batch of an incarnation, so that a
    /// batch whose reply was lost can be repeated under its number and is told what happened; 0 for single calls.
    ///
    /// # Errors
    /// The lease is lost, Redis failed, or a key has the wrong type.
    pub async fn settle(
        &self,
        incarnation: &str,
        batch: u64,
        settlements: &[Settlement],
    ) -> Result<Settled, QueueError> {
        debug_assert!(settlements.len() <= SETTLE_MAX);
        let mut late = vec![false; settlements.len()];
        loop {
            let cmd = self.settle_cmd(incarnation, batch, settlements, &late);
            let mut reply = Reply::new(SETTLE.send(self, &cmd).await?)?;
            let word = reply.text()?;
            let now_ms = reply.count()?;
            let mut named = Vec::new();
            while !reply.is_empty() {
                // Lua counts from 1.
                named.push(usize::try_from(reply.int()? - 1).unwrap_or(usize::MAX));
            }
            if word != "wanted" {
                return Ok(Settled::read(&word, now_ms, named, settlements.len()));
            }
            // Nothing was done: each time there are more whose ends are told.
            for at in named {
                late[at.min(settlements.len() - 1)] = true;
            }
        }
    }

    /// `late` tells whose end is waited for though nobody had asked when its run began.
    fn settle_cmd(
        &self,
        incarnation: &str,
        batch: u64,
        settlements: &[Settlement],
        late: &[bool],
    ) -> redis::Cmd {
        let k = &self.keys;
        let told: Vec<Told<'_>> = settlements
            .iter()
            .zip(late)
            .map(|(s, late)| s.told(*late))
            .collect();
        let mut flows: Vec<&Flow> = Vec::new();
        let mut counters: Vec<&str> = Vec::new();
        for s in settlements {
            if let Ending::HandedBack { flow, .. } = &s.ending
                && !flows.contains(&flow)
            {
                flows.push(flow);
            }
            if !counters.contains(&s.ending.counter()) {
                counters.push(s.ending.counter());
            }
        }
        let flow_keys: Vec<String> = flows.iter().map(|f| k.flow(f)).collect();
        let asked = settlements.iter().zip(&told).filter(|(_, told)| told.list);
        let results: Vec<String> = asked.map(|(s, _)| k.result(&s.id)).collect();
        let own = [
            &k.workers,
            &k.running,
            &k.jobs,
            &k.meta,
            &k.delayed,
            &k.dead,
            &k.recent,
            &k.stats,
            &k.ids,
            &k.settled,
            &k.quarantine,
            &k.cancels,
            &k.progress,
            &k.archive,
            &k.archived,
        ];
        let slots = Slots::of(settlements);
        let slot_keys = slots.keys(k);
        let keys: Vec<&String> = k
            .of_ties()
            .into_iter()
            .chain(own)
            .chain(&k.ready)
            .chain(&flow_keys)
            .chain(&results)
            .chain(&slot_keys)
            .collect();
        let mut cmd = SETTLE.call(keys.into_iter());
        cmd.arg(incarnation)
            .arg(batch)
            .arg(self.bounds.dead_max)
            .arg(self.bounds.dead_bytes)
            .arg(self.bounds.recent_max)
            .arg(millis(self.bounds.dedupe_window))
            .arg(self.bounds.quarantine_max)
            .arg(self.bounds.quarantine_bytes)
            .arg(self.bounds.history_max)
            .arg(self.bounds.history_bytes)
            .arg(settlements.len())
            .arg(u8::from(settlements.iter().any(|s| s.told)))
            .arg(results.len())
            .arg(slots.names.len())
            .arg(counters.len())
            .arg(&counters);
        for flow in &flows {
            cmd.arg(&*flow.member());
        }
        let mut list = 0;
        for (s, told) in settlements.iter().zip(&told) {
            cmd.arg(&*s.id).arg(&*s.token);
            s.write_verb(&mut cmd, &counters, told);
            s.ending.write(&mut cmd, &flows);
            if let Some(outcome) = &told.outcome {
                list += usize::from(told.list);
                cmd.arg(&**outcome).arg(if told.list { list } else { 0 });
            }
            if let (Ending::Finished { .. }, Some(follow)) = (&s.ending, &s.notice.follow) {
                cmd.arg(follow);
            }
        }
        slots.write(&mut cmd);
        cmd
    }
}

/// The slots that a batch of settlements gives back.
struct Slots<'a> {
    names: Vec<&'a str>,
    /// Item and slot, counted from 1.
    held: Vec<(usize, usize)>,
}

impl<'a> Slots<'a> {
    fn of(settlements: &'a [Settlement]) -> Self {
        let (mut names, mut held) = (Vec::new(), Vec::new());
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        for (item, settlement) in settlements.iter().enumerate() {
            for name in settlement.slots.iter() {
                let number = *numbers.entry(name).or_insert_with(|| {
                    names.push(&**name);
                    names.len()
                });
                held.push((item + 1, number));
            }
        }
        Self { names, held }
    }

    /// What the script needs of them; nothing if there are none.
    fn keys(&self, k: &Keys) -> Vec<String> {
        if self.names.is_empty() {
            return Vec::new();
        }
        let fixed = [&k.holds, &k.parked, &k.bell].map(Clone::clone);
        let own = self.names.iter().map(|name| k.slots(name));
        fixed.into_iter().chain(own).collect()
    }

    fn write(&self, cmd: &mut redis::Cmd) {
        cmd.arg(&self.names);
        for (item, slot) in &self.held {
            cmd.arg(*item).arg(*slot);
        }
    }
}

/// What is told of an end, and whether at the job's result list too.
struct Told<'a> {
    outcome: Option<Cow<'a, str>>,
    list: bool,
}

impl Settled {
    /// What the script says: `named` are the stale ones of `count`.
    fn read(word: &str, now_ms: u64, named: Vec<usize>, count: usize) -> Self {
        Self {
            now_ms,
            stale: match word {
                "old" => (0..count).collect(),
                _ => named,
            },
            woke: word == "woke",
        }
    }
}

impl Settlement {
    fn told(&self, late: bool) -> Told<'_> {
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
    fn write_verb(&self, cmd: &mut redis::Cmd, counters: &[&str], told: &Told<'_>) {
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
    fn write(&self, cmd: &mut redis::Cmd, flows: &[&Flow]) {
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

    const fn counter(&self) -> &'static str {
        match self {
            Self::Finished { counter, .. }
            | Self::Later { counter, .. }
            | Self::Dead { counter, .. }
            | Self::HandedBack { counter, .. } => counter,
            Self::Quarantined(_) => "quarantined",
        }
    }
}
