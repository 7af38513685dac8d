//! The model of what jobs are tied to: locks, groups, results, what follows. Knows nothing of Redis.

use super::expected::{Job, Model, Place, Sent};
use super::op::{Bond, Entry, Form, Rule};
use std::collections::BTreeMap;

/// What one job is tied to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ties {
    /// The letter and the name of its lock.
    pub lock: Option<(char, String)>,
    pub group: Option<String>,
    /// It was counted in that group already.
    pub counted: bool,
    pub result: bool,
    pub workflow: Option<String>,
    /// It came in delayed, and which key it is of its definition says: that is noted.
    pub flow: bool,
}

#[derive(Debug, Clone)]
pub struct Lock {
    pub holder: String,
    /// As it was taken: 't' is held until time is over.
    pub letter: char,
}

#[derive(Debug, Clone)]
pub struct Group {
    pub size: u32,
    pub always: bool,
    pub members: u32,
    pub done: u32,
    pub failed: u32,
    /// 'o' open, 'd' done, 'f' failed.
    pub state: char,
    pub then: bool,
}

/// All ties there are.
#[derive(Debug, Default)]
pub struct Bonds {
    pub locks: BTreeMap<String, Lock>,
    pub groups: BTreeMap<String, Group>,
    /// Ids that were counted in a group, and whether they were refused there and may come back.
    pub members: BTreeMap<(String, String), bool>,
    /// Entries are being admitted, all in one step.
    pub admitting: bool,
    /// What is told at the result list of each id.
    pub results: BTreeMap<String, &'static str>,
}

/// What becomes of an entry that has ties.
pub enum Bound {
    Job(Ties),
    Away,
}

impl Ties {
    pub fn of(sent: &Sent) -> Self {
        let entry = &sent.entry;
        Self {
            lock: entry.lock(),
            group: entry.group(),
            counted: false,
            result: entry.result,
            workflow: sent.workflow.clone(),
            flow: entry.partition().is_some() && entry.place() != Place::Waiting,
        }
    }

    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl Entry {
    /// The letter and the name of the lock that it must hold.
    pub fn lock(&self) -> Option<(char, String)> {
        let Some(Bond::Unique { lock, rule }) = self.bond else {
            return None;
        };
        let letter = match rule {
            Rule::Skip | Rule::Replace => 'f',
            Rule::SkipClaimed | Rule::Merge | Rule::Debounce => 'c',
            Rule::Timed | Rule::TimedReplace => 't',
        };
        let kind = super::limits::kind(self.kind);
        Some((letter, format!("{kind}:k{lock}")))
    }

    /// The lock that is reserved for it by the enqueue script.
    pub fn reserves(&self) -> Option<String> {
        let (_, name) = self.lock()?;
        let skips = matches!(self.rule(), Some(Rule::Skip | Rule::SkipClaimed));
        (skips && self.id.is_some() && self.form != Form::Broken).then_some(name)
    }

    pub fn group(&self) -> Option<String> {
        match self.bond {
            Some(Bond::Group { group, .. }) => Some(format!("g{group}")),
            _ => None,
        }
    }

    fn rule(&self) -> Option<Rule> {
        match self.bond {
            Some(Bond::Unique { rule, .. }) => Some(rule),
            _ => None,
        }
    }

    fn brings_then(&self) -> bool {
        matches!(self.bond, Some(Bond::Group { then: true, .. }))
    }

    pub fn is_debounced(&self) -> bool {
        self.rule() == Some(Rule::Debounce)
    }

    /// Where it waits when it is admitted.
    pub fn place(&self) -> Place {
        match self.form {
            _ if self.is_debounced() => Place::Delayed { due: false },
            Form::Later => Place::Delayed { due: false },
            _ => Place::Waiting,
        }
    }
}

impl Job {
    /// How many steps follow it, as those are told who want to merge with it; none if it did not come to be merged with.
    fn follows_merging(&self) -> u8 {
        let merges = self.sent.entry.rule() == Some(Rule::Merge);
        if merges { self.sent.entry.then } else { 0 }
    }
}

impl Model {
    /// An entry with ties is admitted under this id, if it may be a job of its own.
    pub fn bind(&mut self, id: &str, sent: &Sent) -> Bound {
        let ties = Ties::of(sent);
        if let Some((letter, name)) = &ties.lock
            && let Some(how) = self.take_lock(id, sent, *letter, name)
        {
            self.turned_away(id, sent, how);
            return Bound::Away;
        }
        if let Some(group) = &ties.group
            && !self.join(group, sent)
        {
            self.set_aside(sent, false);
            if sent.entry.result {
                self.bonds.results.insert(id.to_owned(), "quarantined");
            }
            return Bound::Away;
        }
        Bound::Job(ties)
    }

    fn turned_away(&mut self, id: &str, sent: &Sent, how: &'static str) {
        self.count(match how {
            "skipped" => "unique_skipped",
            "replaced" => "unique_replaced",
            _ => "unique_merged",
        });
        if sent.id.is_some() && self.remember {
            self.remembered.insert(id.to_owned(), how);
        }
        if sent.entry.result {
            self.bonds.results.insert(id.to_owned(), how);
        }
    }

    /// How an entry gives way to the holder of its lock, if it has to.
    fn take_lock(
        &mut self,
        id: &str,
        sent: &Sent,
        letter: char,
        name: &str,
    ) -> Option<&'static str> {
        if let Some(lock) = self
            .bonds
            .locks
            .get(name)
            .filter(|lock| lock.holder != id)
            .cloned()
        {
            let holder = self.jobs.get(&lock.holder);
            let holds = |job: &&Job| job.ties.lock.as_ref().is_some_and(|(_, held)| held == name);
            let holder = holder.filter(|job| job.place != Place::Dead).filter(holds);
            let waits = holder.is_some_and(|job| !matches!(job.place, Place::Running { .. }));
            match sent.entry.rule() {
                Some(Rule::Replace | Rule::TimedReplace | Rule::Debounce) if waits => {
                    self.replace(&lock.holder, sent);
                    let lock = self.bonds.locks.get_mut(name).expect("it is held");
                    lock.letter = letter;
                    return Some("replaced");
                }
                Some(Rule::Merge) if waits => {
                    let job = self.jobs.get_mut(&lock.holder).expect("it waits");
                    let follows = (sent.entry.then, sent.entry.then == job.follows_merging());
                    if matches!(follows, (0, _) | (_, true)) {
                        job.merged.push(sent.raw.clone().expect("it was seen"));
                        job.taken_in.push(sent.clone());
                        job.troubled = true;
                        return Some("merged");
                    }
                }
                _ if holder.is_some() || lock.letter == 't' => {
                    if sent.entry.then > 0 {
                        self.count("then_skipped");
                    }
                    return Some("skipped");
                }
                _ => {}
            }
        }
        let lock = Lock {
            holder: id.to_owned(),
            letter,
        };
        self.bonds.locks.insert(name.to_owned(), lock);
        None
    }

    /// An entry that came to nothing leaves no lock that only it had asked for.
    pub fn give_up_reservation(&mut self, id: &str, sent: &Sent) {
        let Some((_, name)) = sent.entry.lock() else {
            return;
        };
        let own = self.jobs.get(id).and_then(|job| job.ties.lock.as_ref());
        let own = own.is_some_and(|(_, held)| *held == name);
        let timed = self
            .bonds
            .locks
            .get(&name)
            .is_some_and(|lock| lock.letter == 't');
        if !own && !timed {
            self.unlock(&name, id);
        }
    }

    /// A waiting job takes over what an entry says; it stays who it is.
    fn replace(&mut self, holder: &str, sent: &Sent) {
        let job = self.jobs.get_mut(holder).expect("it waits");
        let result = job.ties.result;
        job.ties = Ties::of(sent);
        job.ties.result |= result;
        job.place = sent.entry.place();
        job.sent = sent.clone();
        job.merged.clear();
        job.taken_in.clear();
        (job.attempts, job.crashes, job.troubled) = (0, 0, true);
    }

    fn group(&mut self, sent: &Sent) -> &mut Group {
        let Some(Bond::Group { group: number, .. }) = sent.entry.bond else {
            panic!("{sent:?} is no member");
        };
        let (size, always) = group_rule(number);
        let name = format!("g{number}");
        self.bonds.groups.entry(name).or_insert(Group {
            size,
            always,
            members: 0,
            done: 0,
            failed: 0,
            state: 'o',
            then: false,
        })
    }

    fn join(&mut self, name: &str, sent: &Sent) -> bool {
        self.group(sent);
        if let Some(id) = &sent.id {
            self.forget_refused(name, id);
        }
        let group = self.group(sent);
        if group.members >= group.size {
            return false;
        }
        group.members += 1;
        group.then |= sent.entry.brings_then() && group.state == 'o';
        true
    }

    /// One that can't be a member counts as failed, once for each id.
    pub fn refuse(&mut self, sent: &Sent) -> bool {
        let name = sent.entry.group().expect("it is a member");
        let group = self.group(sent);
        if group.state != 'o' || group.members >= group.size {
            return false;
        }
        if let Some(id) = &sent.id {
            let key = (name.clone(), id.clone());
            let tied = self.jobs.get(id).and_then(|job| job.ties.group.as_ref());
            if tied == Some(&name) || self.bonds.members.contains_key(&key) {
                return false;
            }
            self.bonds.members.insert(key, true);
        }
        let group = self.group(sent);
        group.members += 1;
        group.then |= sent.entry.brings_then();
        self.count_member(&name, false);
        true
    }

    /// What was refused comes back.
    pub fn forget_refused(&mut self, name: &str, id: &str) {
        let key = (name.to_owned(), id.to_owned());
        if self.bonds.members.get(&key) == Some(&true) {
            self.bonds.members.remove(&key);
            self.discount(name);
        }
    }

    /// One that was counted as failed counts no more.
    pub fn discount(&mut self, name: &str) {
        let group = self.bonds.groups.get_mut(name).expect("it counted one");
        if group.failed > 0 && group.members > 0 {
            group.failed -= 1;
            group.members -= 1;
        }
    }

    /// A daemon took a job.
    pub fn untie_claimed(&mut self, id: &str) {
        if let Some(('c', name)) = &self.jobs[id].ties.lock {
            let name = name.clone();
            self.unlock(&name, id);
        }
    }

    fn unlock(&mut self, name: &str, id: &str) {
        if self
            .bonds
            .locks
            .get(name)
            .is_some_and(|lock| lock.holder == id)
        {
            self.bonds.locks.remove(name);
        }
    }

    /// A job that was tied to something ended like this.
    pub fn untie(&mut self, id: &str, job: &mut Job, how: &'static str) {
        if let Some((letter, name)) = job.ties.lock.clone()
            && !(letter == 't' && how == "done")
        {
            self.unlock(&name, id);
        }
        if job.ties.result && how != "purged" {
            self.bonds.results.insert(id.to_owned(), how);
        }
        if let Some(name) = job.ties.group.clone() {
            let always = self.bonds.groups[&name].always;
            if !job.ties.counted && (how != "dead" || always) {
                job.ties.counted = true;
                self.count_member(&name, how == "done");
            }
            let key = (name, id.to_owned());
            if how == "quarantined" {
                self.bonds.members.insert(key, true);
            } else if self.remember && job.given && how != "purged" {
                self.bonds.members.insert(key, false);
            }
        }
        if how == "done" && job.sent.entry.then > 0 {
            let workflow = job.sent.workflow.as_deref();
            let mut next = Sent::step(job.sent.entry.then - 1);
            next.id = Some(next_id(id, workflow));
            next.workflow = Some(workflow.unwrap_or(id).to_owned());
            self.inbox.push_back(next);
        }
    }

    fn count_member(&mut self, name: &str, good: bool) {
        let group = self.bonds.groups.get_mut(name).expect("it has members");
        *(if good {
            &mut group.done
        } else {
            &mut group.failed
        }) += 1;
        if !self.bonds.admitting {
            self.end_group(name);
        }
    }

    /// A group whose members have all ended is over. While entries are admitted that shows when all of them are: what was
    /// refused may come back with a later one.
    fn end_group(&mut self, name: &str) {
        let group = self.bonds.groups.get_mut(name).expect("it has members");
        if group.state != 'o' || group.done + group.failed < group.size {
            return;
        }
        let good = group.always || group.failed == 0;
        group.state = if good { 'd' } else { 'f' };
        if std::mem::take(&mut group.then) && good {
            let mut next = Sent::step(0);
            next.id = Some(format!("{name}-then"));
            next.workflow = Some(name.to_owned());
            self.inbox.push_back(next);
        }
    }

    /// Entries are admitted in one step from now on, or have been.
    pub fn admit_in_one(&mut self, begin: bool) {
        self.bonds.admitting = begin;
        let names: Vec<String> = self.bonds.groups.keys().cloned().collect();
        for name in names.iter().filter(|_| !begin) {
            self.end_group(name);
        }
    }

    /// A job that had died lives again: it holds its lock again, unless another one does.
    pub fn tie_again(&mut self, id: &str) {
        if let Some(('f', name)) = self.jobs[id].ties.lock.clone() {
            let lock = Lock {
                holder: id.to_owned(),
                letter: 'f',
            };
            self.bonds.locks.entry(name).or_insert(lock);
        }
    }

    /// What the queue put into the inbox by itself is taken as it stands there; where several came at once, in any order.
    pub fn adopt(&mut self, found: &[String]) {
        for (at, raw) in found.iter().enumerate() {
            let id = tidegate::job::envelope::id_alone(raw.as_bytes());
            let Some(id) = id.map(|id| id.as_str().to_owned()) else {
                continue;
            };
            let unseen = |sent: &Sent| sent.raw.is_none() && sent.id.as_ref() == Some(&id);
            let Some(place) = self.inbox.iter().position(unseen) else {
                continue;
            };
            if at < self.inbox.len() {
                self.inbox.swap(at, place);
                self.inbox[at].raw = Some(raw.clone());
            }
        }
    }
}

/// How many members a group has, and whether it goes on whatever becomes of them.
pub fn group_rule(number: u8) -> (u32, bool) {
    (u32::from(number) % 3 + 1, number % 2 == 1)
}

/// The id of what follows a job: the steps count up.
fn next_id(id: &str, workflow: Option<&str>) -> String {
    let step = workflow.and_then(|_| {
        let (root, step) = id.rsplit_once("-t")?;
        Some((root, step.parse::<u32>().ok()?))
    });
    let (root, step) = step.unwrap_or((id, 0));
    format!("{root}-t{}", step + 1)
}
