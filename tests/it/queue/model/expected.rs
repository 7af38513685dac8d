//! The model: what must be where after each operation. Knows nothing of Redis.

use super::bonds::{Bonds, Bound, Lock, Ties};
use super::limits::TWELFTHS;
use super::op::{End, Entry, Form};
use super::schedules::Ticks;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Crashes that end a job.
pub const POISON: u32 = 3;
/// Dead jobs kept.
pub const DEAD_MAX: usize = 2;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Waiting,
    Delayed { due: bool },
    Running { token: String },
    Dead,
}

/// An entry of the inbox.
#[derive(Debug, Clone)]
pub struct Sent {
    pub entry: Entry,
    /// The id it gives.
    pub id: Option<String>,
    /// Its text; none as long as only the queue knows it.
    pub raw: Option<String>,
    /// The first job of its chain, or the group before it.
    pub workflow: Option<String>,
}

impl Sent {
    /// A step of a workflow, with so many after it.
    pub fn step(then: u8) -> Self {
        let entry = Entry {
            then,
            ..Entry::plain()
        };
        Self {
            entry,
            id: None,
            raw: None,
            workflow: None,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Job {
    /// What it says; its id may be another one's.
    pub sent: Sent,
    /// Whether an app gave its id.
    pub given: bool,
    pub ties: Ties,
    /// Entries that are to be united with it.
    pub merged: Vec<String>,
    pub taken_in: Vec<Sent>,
    pub place: Place,
    pub attempts: u32,
    pub crashes: u32,
    /// What it told last of how far it has come, in this delivery.
    pub told: Option<String>,
    /// Whether a history is stored.
    pub troubled: bool,
}

/// A member that was counted when it was set aside: its group, and its id if it has one.
#[derive(Debug, Clone)]
pub struct Counted {
    pub group: String,
    pub id: Option<String>,
}

/// The queue as it must be.
#[derive(Debug, Default)]
pub struct Model {
    pub remember: bool,
    /// Entries and what was made of them.
    pub inbox: VecDeque<Sent>,
    /// Entries ever removed from the inbox.
    pub taken: u64,
    pub jobs: BTreeMap<String, Job>,
    /// Given ids that are taken by nothing but their entry in the inbox.
    pub reserved: BTreeSet<String>,
    /// Given ids of ended jobs, with the state in which they ended.
    pub remembered: BTreeMap<String, &'static str>,
    /// Ids whose time of being remembered is over: they may still be listed.
    pub forgotten: BTreeSet<String>,
    /// Running jobs whose end was asked for, or that ran when it was.
    pub asked: BTreeSet<String>,
    /// Ended jobs, the latest first: id and state.
    pub recent: VecDeque<(String, &'static str)>,
    /// Quarantined entries, the oldest first, and whether they were counted in their groups.
    pub quarantine: Vec<(Sent, Option<Counted>)>,
    pub bonds: Bonds,
    /// The pauses there are, as the queue names them.
    pub paused: BTreeSet<String>,
    /// Limits that operators changed, by kind: of a key, and of all keys.
    pub limits: BTreeMap<String, (Option<usize>, Option<usize>)>,
    /// Whether one of them was lowered while jobs may have run.
    pub lowered: bool,
    /// Rates that operators changed, by kind: starts in a time that does not pass.
    pub paces: BTreeMap<String, usize>,
    /// How much of each rate is used up, in twelfths.
    pub used: BTreeMap<String, usize>,
    pub ticks: Ticks,
    pub stats: BTreeMap<&'static str, u64>,
}

impl Model {
    pub(super) fn count(&mut self, name: &'static str) {
        *self.stats.entry(name).or_default() += 1;
    }

    pub fn pushed(&mut self, entry: &Entry, raw: String) {
        self.inbox.push_back(Sent {
            entry: entry.clone(),
            id: entry.given(),
            raw: Some(raw),
            workflow: None,
        });
    }

    /// What the enqueue script answers, and what it leaves behind.
    pub fn enqueued(&mut self, entry: &Entry, raw: String) -> String {
        let state = entry.given().and_then(|id| self.state_of(&id));
        if let Some(state) = state.or_else(|| self.holder_of(entry)) {
            return state.to_owned();
        }
        if let Some(lock) = entry.reserves() {
            let holder = entry.given().expect("a lock is reserved for an id");
            self.bonds.locks.insert(
                lock,
                Lock {
                    holder,
                    letter: 'f',
                },
            );
        }
        if let Some(id) = entry.given() {
            self.forgotten.remove(&id);
            self.reserved.insert(id);
        }
        self.pushed(entry, raw);
        "created".to_owned()
    }

    /// The state of the job that holds the lock which an entry reserves.
    fn holder_of(&self, entry: &Entry) -> Option<&'static str> {
        let lock = self.bonds.locks.get(&entry.reserves()?)?;
        let timed = (lock.letter == 't').then_some("done");
        let state = self.state_of(&lock.holder).or(timed);
        state.filter(|state| *state != "dead")
    }

    fn state_of(&self, id: &str) -> Option<&'static str> {
        if let Some(job) = self.jobs.get(id) {
            return Some(match job.place {
                Place::Waiting => "pending",
                Place::Delayed { .. } => "delayed",
                Place::Running { .. } => "running",
                Place::Dead => "dead",
            });
        }
        if self.reserved.contains(id) {
            return Some("pending");
        }
        self.remembered.get(id).copied()
    }

    /// The first entries of the inbox are admitted under these ids (given or minted); returns which are duplicates.
    pub fn admitted(&mut self, ids: &[Option<String>]) -> Vec<usize> {
        let mut duplicates = Vec::new();
        self.admit_in_one(true);
        for (index, id) in ids.iter().enumerate() {
            let sent = self.inbox.pop_front().expect("it was peeked");
            self.taken += 1;
            if sent.entry.form == Form::Broken {
                sent.id.as_ref().map(|id| self.reserved.remove(id));
                let counted = sent.entry.group().is_some() && self.refuse(&sent);
                if let Some(id) = sent.id.as_ref().filter(|_| sent.entry.result)
                    && !self.jobs.contains_key(id)
                {
                    self.bonds.results.insert(id.clone(), "quarantined");
                }
                self.set_aside(&sent, counted);
                continue;
            }
            let id = id.clone().expect("a job has an id");
            let taken = self.jobs.contains_key(&id) || self.remembered.contains_key(&id);
            // The queue itself made the ids of steps: they are not lost for another job that is called so.
            if sent.workflow.is_some() && taken {
                duplicates.push(index);
                self.set_aside(&sent, false);
                continue;
            }
            if sent.id.is_some() && taken {
                duplicates.push(index);
                self.count("duplicates");
                self.give_up_reservation(&id, &sent);
                if sent.entry.group().is_some() {
                    self.refuse(&sent);
                }
                continue;
            }
            self.reserved.remove(&id);
            self.forgotten.remove(&id);
            let Bound::Job(ties) = self.bind(&id, &sent) else {
                duplicates.push(index);
                continue;
            };
            self.count("admitted");
            let job = Job {
                place: sent.entry.place(),
                given: sent.id.is_some(),
                ties,
                sent,
                merged: Vec::new(),
                taken_in: Vec::new(),
                attempts: 0,
                crashes: 0,
                troubled: false,
                told: None,
            };
            self.jobs.insert(id, job);
        }
        self.admit_in_one(false);
        duplicates
    }

    /// An entry is set aside; as a member that failed, if it was counted.
    pub fn set_aside(&mut self, sent: &Sent, counted: bool) {
        let group = sent.entry.group().filter(|_| counted);
        let id = sent.id.clone();
        let counted = group.map(|group| Counted { group, id });
        self.quarantine.push((sent.clone(), counted));
        self.count("quarantined");
    }

    pub fn claimed(&mut self, id: &str, token: &str) {
        let job = self.jobs.get_mut(id).expect("it waited");
        assert_eq!(job.place, Place::Waiting, "{id} was claimed");
        job.place = Place::Running {
            token: token.to_owned(),
        };
        let rate = job.sent.entry.rate();
        if let Some(rate) = rate {
            let start = TWELFTHS / self.pace(&rate);
            *self.used.entry(rate).or_default() += start;
        }
        self.untie_claimed(id);
    }

    /// A delivery ends; false if it is stale.
    pub fn settled(&mut self, id: &str, token: &str, end: End) -> bool {
        let running =
            |job: &&mut Job| matches!(&job.place, Place::Running { token: t } if t == token);
        let Some(job) = self.jobs.get_mut(id).filter(running) else {
            return false;
        };
        job.told = None;
        match end {
            End::Done => drop(self.over(id, Some("done"), "completed")),
            End::Expired => drop(self.over(id, Some("expired"), "expired")),
            End::Cancelled => drop(self.over(id, Some("cancelled"), "cancelled")),
            End::Retry | End::Snooze => {
                job.place = Place::Delayed {
                    due: matches!(end, End::Retry),
                };
                job.attempts += 1;
                job.troubled = true;
                self.count("retried");
            }
            End::Dead => {
                job.attempts += 1;
                self.dies(id, "dead");
            }
            End::HandBack => {
                job.place = Place::Waiting;
                self.count("handed_back");
            }
            End::Quarantine => {
                let job = self.over(id, None, "quarantined");
                let counted = job.ties.group.map(|group| Counted {
                    group,
                    id: Some(id.to_owned()),
                });
                self.quarantine.push((job.sent, counted));
                let more = job.taken_in.into_iter();
                self.quarantine.extend(more.map(|sent| (sent, None)));
            }
        }
        true
    }

    /// The daemon that ran it died.
    pub fn crashed(&mut self, id: &str) {
        let job = self.jobs.get_mut(id).expect("it ran");
        job.crashes += 1;
        job.told = None;
        job.troubled = true;
        if job.crashes >= POISON {
            self.dies(id, "poisoned");
        } else {
            job.place = Place::Waiting;
            self.count("recovered");
        }
    }

    fn dies(&mut self, id: &str, counter: &'static str) {
        let mut job = self.jobs.remove(id).expect("it ran");
        job.place = Place::Dead;
        job.troubled = true;
        self.untie(id, &mut job, "dead");
        if self.remember && job.given {
            self.forgotten.remove(id);
            self.remembered.insert(id.to_owned(), "dead");
        }
        self.jobs.insert(id.to_owned(), job);
        self.asked.remove(id);
        self.count(counter);
    }

    pub fn dead(&self) -> BTreeSet<&String> {
        let dead = self.jobs.iter().filter(|(_, job)| job.place == Place::Dead);
        dead.map(|(id, _)| id).collect()
    }

    /// One of the dead had to give way.
    pub fn dropped(&mut self, id: &str) {
        let mut job = self.jobs.remove(id).expect("it was dead");
        self.untie(id, &mut job, "purged");
        assert_eq!(job.place, Place::Dead, "{id} was dropped");
        self.count("dead_dropped");
    }

    /// A job is at its end.
    fn over(&mut self, id: &str, state: Option<&'static str>, counter: &'static str) -> Job {
        let mut job = self.jobs.remove(id).expect("it lived");
        self.untie(id, &mut job, state.unwrap_or("quarantined"));
        self.asked.remove(id);
        self.count(counter);
        if let Some(state) = state {
            self.recent.push_front((id.to_owned(), state));
            if self.remember && job.given {
                self.remembered.insert(id.to_owned(), state);
            }
        }
        job
    }

    /// Due jobs go to their flows.
    pub fn promoted(&mut self) {
        for job in self.jobs.values_mut() {
            if job.place == (Place::Delayed { due: true }) {
                job.place = Place::Waiting;
            }
        }
    }

    /// The same, but retries wait on.
    pub fn promoted_but_retries(&mut self) {
        for job in self.jobs.values_mut() {
            if job.place == (Place::Delayed { due: true }) && job.attempts > 0 {
                job.place = Place::Delayed { due: false };
            }
        }
        self.promoted();
    }

    /// What the cancel script answers.
    pub fn cancelled(&mut self, id: &str) -> &'static str {
        match self.jobs[id].place {
            Place::Dead => return "dead",
            Place::Running { .. } => {
                self.asked.insert(id.to_owned());
                return "asked";
            }
            Place::Waiting | Place::Delayed { .. } => {}
        }
        self.over(id, Some("cancelled"), "cancelled");
        "cancelled"
    }

    /// Whether a job could be put back into its flow.
    pub fn requeued(&mut self, id: &str) -> bool {
        let job = self.jobs.get_mut(id).expect("it lives");
        if !matches!(job.place, Place::Dead | Place::Delayed { .. }) {
            return false;
        }
        if job.place == Place::Dead {
            self.remembered.remove(id);
            self.forgotten.remove(id);
            (job.attempts, job.crashes) = (0, 0);
        }
        job.place = Place::Waiting;
        // What the operator did is told.
        job.troubled = true;
        self.tie_again(id);
        self.count("requeued");
        true
    }

    pub fn buried(&mut self, id: &str) -> bool {
        let dead = self.jobs[id].place == Place::Dead;
        if let Some(mut job) = self.jobs.get(id).filter(|_| dead).cloned() {
            self.jobs.remove(id);
            self.untie(id, &mut job, "purged");
            self.count("purged");
        }
        dead
    }

    /// A job is put among the dead, as one that died, but nobody is told; true if others depend on it, and it stays.
    pub fn shelved(&mut self, id: &str) -> bool {
        let ties = &self.jobs[id].ties;
        if ties.group.is_some() || ties.workflow.is_some() || !self.jobs[id].merged.is_empty() {
            return true;
        }
        let mut job = self.jobs.remove(id).expect("it waits");
        let result = std::mem::take(&mut job.ties.result);
        self.untie(id, &mut job, "dead");
        job.ties.result = result;
        job.place = Place::Dead;
        job.troubled = true;
        self.jobs.insert(id.to_owned(), job);
        false
    }

    pub fn released(&mut self, index: usize) {
        let (sent, counted) = self.quarantine.remove(index);
        match counted {
            Some(Counted {
                group,
                id: Some(id),
            }) => self.forget_refused(&group, &id),
            Some(Counted { group, id: None }) => self.discount(&group),
            None => {}
        }
        self.inbox.push_back(sent);
    }

    pub fn forgot(&mut self, id: &str) {
        self.remembered.remove(id);
        self.forgotten.insert(id.to_owned());
    }
}
