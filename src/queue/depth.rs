//! How long a queue is and how long its jobs wait, at a price that does not grow with it: sizes that Redis knows, and
//! samples where there are very many flows.

use super::{Control, Flow, Queue, QueueError};
use crate::job::Priority;
use std::collections::{BTreeMap, BTreeSet};

/// Flows looked at one by one: those first in line of each class, and of those out of line for a slot or a rate.
const SAMPLE: usize = 256;

/// What Redis knows without counting.
#[derive(Debug, Clone, Default)]
pub struct Sizes {
    /// Entries not yet admitted.
    pub inbox: u64,
    /// Jobs stored, wherever they are.
    pub jobs: u64,
    /// Jobs that wait for their time.
    pub delayed: u64,
    /// Jobs that run.
    pub running: u64,
    /// Dead jobs.
    pub dead: u64,
    /// Quarantined entries.
    pub quarantine: u64,
    /// Histories of jobs that ended.
    pub archived: u64,
    /// Ids that are remembered or reserved.
    pub ids: u64,
    /// Locks that are held.
    pub locks: u64,
    /// Groups that are known.
    pub groups: u64,
    /// Counters since ever.
    pub stats: BTreeMap<String, u64>,
    /// Redis time, ms.
    pub now_ms: u64,
}

/// How a queue gets on.
#[derive(Debug, Clone, Default)]
pub struct Depth {
    /// What Redis knows without counting.
    pub sizes: Sizes,
    /// Jobs that may be claimed.
    pub waiting: u64,
    /// Jobs that wait for a slot or the rate of their key; where they are of very many keys, as many as a part of them
    /// lets expect.
    pub parked: u64,
    /// Ready time of the job that waits longest, ms: of those first in line, and of those that wait for a slot or a rate.
    pub oldest_ready_ms: Option<u64>,
    /// What operators changed live.
    pub control: Control,
}

/// Flows that are out of line, and how many there are for each of them.
struct Aside {
    flows: BTreeSet<Flow>,
    scale: f64,
}

impl Queue {
    /// What Redis knows of the queue without counting, all but in one instant.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn sizes(&self) -> Result<Sizes, QueueError> {
        let k = &self.keys;
        // No transaction: a server that is out of memory refuses even those that only read.
        let mut pipe = redis::pipe();
        for (command, key) in [
            ("LLEN", &k.inbox),
            ("HLEN", &k.jobs),
            ("ZCARD", &k.delayed),
            ("HLEN", &k.running),
            ("ZCARD", &k.dead),
            ("XLEN", &k.quarantine),
            ("ZCARD", &k.archived),
            ("ZCARD", &k.ids),
            ("HLEN", &k.locks),
            ("HLEN", &k.groups),
        ] {
            pipe.cmd(command).arg(key);
        }
        pipe.cmd("HGETALL").arg(&k.stats).cmd("TIME");
        type Answer = (
            u64,
            u64,
            u64,
            u64,
            u64,
            u64,
            u64,
            u64,
            u64,
            u64,
            BTreeMap<String, String>,
            (u64, u64),
        );
        let answer: Answer = pipe.query_async(&mut self.conn.clone()).await?;
        let (
            inbox,
            jobs,
            delayed,
            running,
            dead,
            quarantine,
            archived,
            ids,
            locks,
            groups,
            stats,
            time,
        ) = answer;
        // A counter that somebody made unusable counts for nothing.
        let counter = |(name, n): (String, String)| Some((name, n.parse().ok()?));
        Ok(Sizes {
            inbox,
            jobs,
            delayed,
            running,
            dead,
            quarantine,
            archived,
            ids,
            locks,
            groups,
            stats: stats.into_iter().filter_map(counter).collect(),
            now_ms: time.0 * 1_000 + time.1 / 1_000,
        })
    }

    /// How long the queue is, and how long its jobs wait: some hundred commands at most, however many jobs and flows it
    /// holds.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn depth(&self) -> Result<Depth, QueueError> {
        let sizes = self.sizes().await?;
        let aside = self.aside().await?;
        let in_line = self.first_in_line().await?;
        let parked = self.lengths(aside.flows.iter().cloned().collect()).await?;
        let parked: u64 = parked.iter().map(|(_, length)| length).sum();
        let flows = aside.flows.into_iter().chain(in_line).collect();
        // A job is in one place: what is in no other one waits in a flow.
        let elsewhere = sizes.delayed + sizes.running + sizes.dead;
        let in_flows = sizes.jobs.saturating_sub(elsewhere);
        let parked = ((parked as f64 * aside.scale).round() as u64).min(in_flows);
        Ok(Depth {
            waiting: in_flows - parked,
            parked,
            oldest_ready_ms: self.oldest_of(&flows).await?,
            control: self.control().await?,
            sizes,
        })
    }

    /// The first flows in line of each class.
    async fn first_in_line(&self) -> Result<Vec<Flow>, QueueError> {
        let mut pipe = redis::pipe();
        for ready in &self.keys.ready {
            pipe.cmd("ZRANGE").arg(ready).arg(0).arg(SAMPLE - 1);
        }
        let first: Vec<Vec<Vec<u8>>> = pipe.query_async(&mut self.conn.clone()).await?;
        let of_class = |(class, members): (Priority, Vec<Vec<u8>>)| {
            let flow = move |member: Vec<u8>| Flow::of(class, &String::from_utf8_lossy(&member));
            members.into_iter().map(flow)
        };
        Ok(Priority::ALL
            .into_iter()
            .zip(first)
            .flat_map(of_class)
            .collect())
    }

    /// A bounded part of the flows that wait for a slot or the rate of their key.
    async fn aside(&self) -> Result<Aside, QueueError> {
        let k = &self.keys;
        type Page = (u64, Vec<(Vec<u8>, Vec<u8>)>);
        let (slots, resuming, page, resumes): (u64, u64, Page, Vec<Vec<u8>>) = redis::pipe()
            .cmd("HLEN")
            .arg(&k.parked)
            .cmd("ZCARD")
            .arg(&k.resume)
            .cmd("HSCAN")
            .arg(&k.parked)
            .arg(0)
            .arg("COUNT")
            .arg(SAMPLE)
            .cmd("ZRANGE")
            .arg(&k.resume)
            .arg(0)
            .arg(SAMPLE - 1)
            .query_async(&mut self.conn.clone())
            .await?;
        let mut flows = BTreeSet::new();
        let (_, page) = page;
        for (_, lines) in &page {
            let text = String::from_utf8_lossy(lines);
            let named = |line: &str| Flow::named(line.rsplit_once(':')?.0);
            flows.extend(text.lines().filter_map(named));
        }
        let named = |flow: &Vec<u8>| Flow::named(&String::from_utf8_lossy(flow));
        flows.extend(resumes.iter().filter_map(named));
        let (seen, all) = (
            (page.len() + resumes.len()) as f64,
            (slots + resuming) as f64,
        );
        Ok(Aside {
            flows,
            scale: if seen < all { all / seen.max(1.0) } else { 1.0 },
        })
    }

    /// The ready time of the oldest head of some flows, ms.
    async fn oldest_of(&self, flows: &BTreeSet<Flow>) -> Result<Option<u64>, QueueError> {
        if flows.is_empty() {
            return Ok(None);
        }
        let mut pipe = redis::pipe();
        for flow in flows {
            pipe.cmd("LINDEX").arg(self.keys.flow(flow)).arg(0);
        }
        let heads: Vec<Option<Vec<u8>>> = pipe.query_async(&mut self.conn.clone()).await?;
        Ok(heads.iter().flatten().filter_map(|e| ready_of(e)).min())
    }

    /// The ready time of the job that waits longest, ms: of those first in line, and of those out of line.
    pub(super) async fn oldest_ready(&self) -> Result<Option<u64>, QueueError> {
        let mut flows = self.aside().await?.flows;
        flows.extend(self.first_in_line().await?);
        self.oldest_of(&flows).await
    }
}

/// The ready time of an entry of a flow, ms; none if nobody of us wrote it.
fn ready_of(entry: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(entry.split(|b| *b == b':').next()?).ok()?;
    digits.parse().ok()
}
