//! Whether a queue is whole: its counts compared in one instant, and a sweep that finds, and may repair, what is not.
//!
//! A job is in exactly one place; so there are as many jobs as entries in flows, but for those that cancelled jobs left
//! behind, and delayed, running and dead ids together. Where that does not hold, a sweep goes through everything in bounded
//! steps. Each finding is confirmed by the script that repairs it, in one instant, so that a queue at work is never taken
//! for a broken one. Must not know when or how often it is asked.

mod bonds;
mod steps;
mod stones;
mod sweep;

use super::reply::Reply;
use super::script::{LEAD, TALLY};
use super::{Flow, Queue, QueueError, millis};
use crate::catalog::Catalog;
use crate::job::Priority;
use std::collections::BTreeSet;
use std::time::Duration;

/// The most flows counted in one instant.
const FLOWS_MAX: usize = 2_000;
/// The most tombstones counted in one instant.
const STONES_MAX: usize = 10_000;
/// How often flows that are listed meanwhile are added to those that are counted.
const TRIES: usize = 5;
/// Ids told of one sort of damage.
const EXAMPLES: usize = 10;

/// A queue, counted in one instant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Jobs stored.
    pub jobs: u64,
    /// Entries in flows.
    pub waiting: u64,
    /// Those among them that cancelled jobs left behind.
    pub stones: u64,
    /// Delayed jobs.
    pub delayed: u64,
    /// Running jobs.
    pub running: u64,
    /// Dead jobs.
    pub dead: u64,
    /// Flows that hold entries, but of which no claim would know.
    pub unlisted: Vec<Flow>,
}

impl Tally {
    /// Jobs that are in no place, less places that hold no job: 0 in a whole queue.
    #[must_use]
    pub fn mismatch(&self) -> i64 {
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let places = [self.waiting, self.delayed, self.running, self.dead];
        let places: i64 = places.into_iter().map(signed).sum();
        signed(self.jobs) - (places - signed(self.stones))
    }

    /// Whether nothing is wrong as far as counts tell.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.mismatch() == 0 && self.unlisted.is_empty()
    }
}

/// What can be wrong with a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Damage {
    /// A job that is in no place. It goes back to its flow.
    Lost,
    /// An entry in a flow whose job is elsewhere, or is none. It is taken out.
    Stray,
    /// A second entry of a waiting job. It is taken out.
    Twin,
    /// A flow of which no claim knows. It is listed.
    Unlisted,
    /// A delayed or dead id of no job. It is removed.
    Bodiless,
    /// Something kept for a job that is gone, like its ties or its lock. It is removed.
    Orphan,
    /// A tombstone for entries that are not there. It is corrected.
    Stone,
    /// An id reserved for an entry that never came. It is released.
    Reservation,
    /// A slot held by a job that does not run, or not counted for one that does. It is given back, or counted.
    Slot,
    /// Flows that wait for a slot that nobody holds, so that nobody would wake them. They are put in line.
    Parked,
    /// A group that waits for members that are gone. They are counted as failed.
    Group,
}

impl Damage {
    /// Its name for programs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Stray => "stray",
            Self::Twin => "twin",
            Self::Unlisted => "unlisted",
            Self::Bodiless => "bodiless",
            Self::Orphan => "orphan",
            Self::Stone => "stone",
            Self::Reservation => "reservation",
            Self::Slot => "slot",
            Self::Parked => "parked",
            Self::Group => "group",
        }
    }

    /// What it is, for people.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Lost => "jobs that were in no place",
            Self::Stray => "entries of jobs that were elsewhere or gone",
            Self::Twin => "second entries of waiting jobs",
            Self::Unlisted => "flows of which no claim knew",
            Self::Bodiless => "delayed or dead ids of no job",
            Self::Orphan => "things kept for jobs that are gone",
            Self::Stone => "tombstones without entries",
            Self::Reservation => "ids reserved for entries that never came",
            Self::Slot => "jobs whose slots were held or counted wrongly",
            Self::Parked => "slots that were waited for though nobody held one",
            Self::Group => "groups that waited for members that were gone",
        }
    }
}

/// One sort of damage that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub damage: Damage,
    /// How often.
    pub count: u64,
    /// Some of the ids or flows, at most ten.
    pub examples: Vec<String>,
}

/// How a queue is swept.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Whether what is found is repaired.
    pub repair: bool,
    /// How long to wait between two steps.
    pub pace: Duration,
}

/// Everything that was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings(Vec<Finding>);

impl Findings {
    /// By sort of damage.
    pub fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.0.iter()
    }

    /// Whether nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How often this was found.
    #[must_use]
    pub fn count(&self, damage: Damage) -> u64 {
        let mut found = self.0.iter().filter(|f| f.damage == damage);
        found.next().map_or(0, |f| f.count)
    }

    fn note(&mut self, damage: Damage, what: impl Into<String>) {
        let at = self.0.iter().position(|f| f.damage == damage);
        let at = at.unwrap_or_else(|| {
            self.0.push(Finding {
                damage,
                count: 0,
                examples: Vec::new(),
            });
            self.0.len() - 1
        });
        let finding = &mut self.0[at];
        finding.count += 1;
        if finding.examples.len() < EXAMPLES {
            finding.examples.push(what.into());
        }
    }
}

/// The flows a queue is known to have.
#[derive(Debug, Clone, Default)]
pub struct KnownFlows(BTreeSet<Flow>);

impl KnownFlows {
    /// Adds those that the definitions make possible.
    pub fn add(&mut self, catalog: &Catalog) {
        let each = catalog.iter().flat_map(|spec| {
            Priority::ALL.map(|priority| Flow {
                priority,
                kind: spec.kind.clone(),
                key: None,
            })
        });
        self.0.extend(each);
    }
}

impl Queue {
    /// Counts everything in one instant. None if there are too many flows or tombstones for that.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn tally(&self, flows: &mut KnownFlows) -> Result<Option<Tally>, QueueError> {
        for _ in 0..TRIES {
            if flows.0.len() > FLOWS_MAX {
                return Ok(None);
            }
            let named: Vec<&Flow> = flows.0.iter().collect();
            let mut reply = self.ask_tally(&named).await?;
            match reply.text()?.as_str() {
                "ok" => return read_tally(&mut reply, &named).map(Some),
                "more" => {}
                _ => return Ok(None),
            }
            while !reply.is_empty() {
                let class = usize::try_from(reply.count()?).unwrap_or(usize::MAX);
                let member = reply.lossy()?;
                // Lua counts from 1.
                if let Some(priority) = Priority::ALL.get(class.wrapping_sub(1)) {
                    flows.0.insert(Flow::of(*priority, &member));
                }
            }
        }
        Ok(None)
    }

    async fn ask_tally(&self, flows: &[&Flow]) -> Result<Reply, QueueError> {
        let k = &self.keys;
        let flow_keys: Vec<String> = flows.iter().map(|f| k.flow(f)).collect();
        let fixed = [
            &k.jobs, &k.delayed, &k.running, &k.dead, &k.tomb, &k.parked, &k.resume,
        ];
        let keys: Vec<&String> = fixed
            .into_iter()
            .chain(&k.ready)
            .chain(&flow_keys)
            .collect();
        let mut cmd = TALLY.call(keys.into_iter());
        cmd.arg(FLOWS_MAX).arg(STONES_MAX);
        for flow in flows {
            cmd.arg(flow.priority.index() + 1).arg(&*flow.member());
        }
        Reply::new(TALLY.send(self, &cmd).await?)
    }

    /// Goes through everything and finds what is wrong, in bounded steps with bounded memory.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn sweep(&self, catalog: &Catalog, options: Options) -> Result<Findings, QueueError> {
        sweep::Sweep::new(self, catalog, options).run().await
    }

    /// The part of [`Queue::sweep`] that does not look at every job: what is kept beside them, like ties, locks, groups
    /// and slots. Nothing of that shows in the counts.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn sweep_bonds(
        &self,
        catalog: &Catalog,
        options: Options,
    ) -> Result<Findings, QueueError> {
        sweep::Sweep::new(self, catalog, options).run_bonds().await
    }

    /// Takes or keeps the right to audit this queue for so long; false if somebody else has it.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn lead_audit(&self, who: &str, lease: Duration) -> Result<bool, QueueError> {
        let mut cmd = LEAD.call([&self.keys.auditor].into_iter());
        cmd.arg(who).arg(millis(lease).max(1));
        Ok(LEAD.send(self, &cmd).await? == redis::Value::Int(1))
    }
}

fn read_tally(reply: &mut Reply, named: &[&Flow]) -> Result<Tally, QueueError> {
    let mut tally = Tally {
        jobs: reply.count()?,
        waiting: reply.count()?,
        stones: reply.count()?,
        delayed: reply.count()?,
        running: reply.count()?,
        dead: reply.count()?,
        unlisted: Vec::new(),
    };
    let mut unlisted = reply.array()?;
    while !unlisted.is_empty() {
        let number = usize::try_from(unlisted.count()?).unwrap_or(usize::MAX);
        let flow = named.get(number.wrapping_sub(1));
        tally.unlisted.extend(flow.map(|flow| (*flow).clone()));
    }
    Ok(tally)
}
