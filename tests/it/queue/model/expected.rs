//! The model: what must be where after each operation. Knows nothing of Redis.

use super::op::{End, Entry, Form};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Crashes that end a job.
pub const POISON: u32 = 3;
/// Dead jobs kept.
pub const DEAD_MAX: usize = 4;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Waiting,
    Delayed { due: bool },
    Running { token: String },
    Dead,
}

#[derive(Debug, Clone)]
pub struct Job {
    pub entry: Entry,
    pub raw: String,
    pub place: Place,
    pub attempts: u32,
    pub crashes: u32,
    /// What it told last of how far it has come, in this delivery.
    pub told: Option<String>,
    /// Whether a history is stored.
    pub troubled: bool,
}

/// The queue as it must be.
#[derive(Debug, Default)]
pub struct Model {
    pub remember: bool,
    /// Entries and what was made of them.
    pub inbox: VecDeque<(Entry, String)>,
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
    /// Quarantined entries, the oldest first.
    pub quarantine: Vec<(Entry, String)>,
    pub stats: BTreeMap<&'static str, u64>,
}

impl Model {
    fn count(&mut self, name: &'static str) {
        *self.stats.entry(name).or_default() += 1;
    }

    pub fn pushed(&mut self, entry: &Entry, raw: String) {
        self.inbox.push_back((entry.clone(), raw));
    }

    /// What the enqueue script answers, and what it leaves behind.
    pub fn enqueued(&mut self, entry: &Entry, raw: String) -> String {
        let state = entry.given().and_then(|id| self.state_of(&id));
        if let Some(state) = state {
            return state.to_owned();
        }
        if let Some(id) = entry.given() {
            self.forgotten.remove(&id);
            self.reserved.insert(id);
        }
        self.pushed(entry, raw);
        "created".to_owned()
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
        for (index, id) in ids.iter().enumerate() {
            let (entry, raw) = self.inbox.pop_front().expect("it was peeked");
            self.taken += 1;
            if entry.form == Form::Broken {
                entry.given().map(|id| self.reserved.remove(&id));
                self.quarantine.push((entry, raw));
                self.count("quarantined");
                continue;
            }
            let id = id.clone().expect("a job has an id");
            let taken = self.jobs.contains_key(&id) || self.remembered.contains_key(&id);
            if entry.given().is_some() && taken {
                duplicates.push(index);
                self.count("duplicates");
                continue;
            }
            self.reserved.remove(&id);
            self.forgotten.remove(&id);
            self.count("admitted");
            let place = match entry.form {
                Form::Later => Place::Delayed { due: false },
                _ => Place::Waiting,
            };
            let job = Job {
                entry,
                raw,
                place,
                attempts: 0,
                crashes: 0,
                troubled: false,
                told: None,
            };
            self.jobs.insert(id, job);
        }
        duplicates
    }

    /// Waiting jobs in the flows that are not closed, by class.
    pub fn claimable(&self, closed: Option<u8>) -> Vec<u8> {
        let open = |job: &&Job| job.place == Place::Waiting && Some(job.entry.kind) != closed;
        let mut classes: Vec<u8> = self
            .jobs
            .values()
            .filter(open)
            .map(|j| j.entry.class)
            .collect();
        classes.sort_unstable();
        classes
    }

    pub fn claimed(&mut self, id: &str, token: &str) {
        let job = self.jobs.get_mut(id).expect("it waited");
        assert_eq!(job.place, Place::Waiting, "{id} was claimed");
        job.place = Place::Running {
            token: token.to_owned(),
        };
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
                self.quarantine.push((job.entry, job.raw));
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
        let job = self.jobs.get_mut(id).expect("it ran");
        job.place = Place::Dead;
        job.troubled = true;
        if self.remember && job.entry.id.is_some() {
            self.forgotten.remove(id);
            self.remembered.insert(id.to_owned(), "dead");
        }
        self.asked.remove(id);
        self.count(counter);
    }

    pub fn dead(&self) -> BTreeSet<&String> {
        let dead = self.jobs.iter().filter(|(_, job)| job.place == Place::Dead);
        dead.map(|(id, _)| id).collect()
    }

    /// One of the dead had to give way.
    pub fn dropped(&mut self, id: &str) {
        let job = self.jobs.remove(id).expect("it was dead");
        assert_eq!(job.place, Place::Dead, "{id} was dropped");
        self.count("dead_dropped");
    }

    /// A job is at its end.
    fn over(&mut self, id: &str, state: Option<&'static str>, counter: &'static str) -> Job {
        let job = self.jobs.remove(id).expect("it lived");
        self.asked.remove(id);
        self.count(counter);
        if let Some(state) = state {
            self.recent.push_front((id.to_owned(), state));
            if self.remember && job.entry.id.is_some() {
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
        self.count("requeued");
        true
    }

    pub fn buried(&mut self, id: &str) -> bool {
        let dead = self.jobs[id].place == Place::Dead;
        if dead {
            self.jobs.remove(id);
            self.count("purged");
        }
        dead
    }

    pub fn released(&mut self, index: usize) {
        let (entry, raw) = self.quarantine.remove(index);
        self.pushed(&entry, raw);
    }

    pub fn forgot(&mut self, id: &str) {
        self.remembered.remove(id);
        self.forgotten.insert(id.to_owned());
    }
}
