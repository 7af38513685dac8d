//! From the flows to a daemon: jobs are taken under a token, in the order of the queue, as far as limits let them.

pub use super::delivery::{Delivery, RawDelivery, Unfit};

use super::limits::{Gate, Gates, Terms};
use super::reply::Reply;
use super::script::CLAIM;
use super::{Flow, Queue, QueueError, millis};
use std::sync::Arc;

/// Times have this many digits in entries of flows: until the year 2286.
const READY_DIGITS: usize = 13;

/// A flow to claim from, and how many at most.
#[derive(Debug, Clone)]
pub struct FlowAllowance {
    /// The flow.
    pub flow: Flow,
    /// Jobs that may be taken from it.
    pub allowance: usize,
    /// What else holds for its jobs: nothing for most.
    pub terms: Terms,
}

/// What a claim brought.
#[derive(Debug)]
pub struct Claimed {
    /// Redis time, ms.
    pub now_ms: u64,
    /// When the next delayed job is due, ms.
    pub next_due_ms: Option<u64>,
    /// How each flow asked for stands now.
    pub heads: Vec<Stand>,
    /// The jobs, in the order in which they should start.
    pub jobs: Vec<RawDelivery>,
    /// Kinds whose limit is reached.
    pub shut: Vec<Shut>,
    /// Entries that were taken from flows but were no jobs any more.
    pub dropped: u64,
}

/// How a flow stands after a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stand {
    /// It holds nothing.
    Empty,
    /// It holds jobs; its place, ms.
    Waits(u64),
    /// It holds jobs, but waits for a slot of its key, or for its rate, and is put in line again by itself.
    Parked,
}

/// A kind whose limit across all daemons is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shut {
    /// The kind.
    pub kind: Arc<str>,
    /// When its rate lets it start again, ms; none if a slot must come free, of which the bell tells.
    pub until_ms: Option<u64>,
}

impl Queue {
    /// Takes up to `limit` jobs from the given flows.
    ///
    /// # Errors
    /// The lease is lost, Redis failed, or a key has the wrong type. If the reply was lost, the jobs may be under the
    /// token `incarnation:number` all the same: the sweep of the lease hands them back.
    pub async fn claim(
        &self,
        incarnation: &str,
        number: u64,
        limit: usize,
        flows: &[FlowAllowance],
    ) -> Result<Claimed, QueueError> {
        let number = claim_number(number);
        let gates = Gates::of(flows.iter().map(|f| &f.terms));
        let cmd = self.claim_cmd(incarnation, &number, limit, flows, &gates);
        let mut reply = Reply::new(CLAIM.send(self, &cmd).await?)?;
        let now_ms = reply.count()?;
        let next_due_ms = reply.maybe()?;
        let mut heads = Vec::with_capacity(flows.len());
        let mut stand = reply.array()?;
        while !stand.is_empty() {
            heads.push(match stand.int()? {
                -2 => Stand::Parked,
                place => u64::try_from(place).map_or(Stand::Empty, Stand::Waits),
            });
        }
        let jobs = read_jobs(&mut reply, flows, &format!("{incarnation}:{number}:"))?;
        let mut shut = Vec::new();
        let mut told = reply.array()?;
        while !told.is_empty() {
            // Lua counts from 1.
            let gate = usize::try_from(told.int()? - 1).ok();
            let until_ms = told.maybe()?;
            if let Some(gate) = gate.and_then(|g| gates.list().get(g)) {
                let kind = Arc::clone(gate.name());
                shut.push(Shut { kind, until_ms });
            }
        }
        Ok(Claimed {
            now_ms,
            next_due_ms,
            heads,
            jobs,
            shut,
            dropped: reply.count()?,
        })
    }

    fn claim_cmd(
        &self,
        incarnation: &str,
        number: &str,
        limit: usize,
        flows: &[FlowAllowance],
        gates: &Gates<'_>,
    ) -> redis::Cmd {
        let k = &self.keys;
        let flow_keys: Vec<String> = flows.iter().map(|f| k.flow(&f.flow)).collect();
        let slot_keys: Vec<String> = gates
            .list()
            .iter()
            .filter(|gate| matches!(gate, Gate::Slots { .. }))
            .map(|gate| k.slots(gate.name()))
            .collect();
        let fixed = [
            &k.workers, &k.running, &k.jobs, &k.meta, &k.tomb, &k.delayed, &k.resume, &k.rates,
            &k.holds, &k.parked, &k.ties, &k.locks, &k.merges,
        ];
        let keys: Vec<&String> = fixed
            .into_iter()
            .chain(&k.ready)
            .chain(&flow_keys)
            .chain(&slot_keys)
            .collect();
        let mut cmd = CLAIM.call(keys.into_iter());
        cmd.arg(incarnation)
            .arg(number)
            .arg(limit)
            .arg(millis(self.bounds.aging_after).max(1))
            .arg(gates.list().len());
        for f in flows {
            cmd.arg(f.flow.priority.index() + 1)
                .arg(&*f.flow.member())
                .arg(f.allowance)
                .arg(gates.write(&f.terms));
        }
        for gate in gates.list() {
            gate.write(&mut cmd);
        }
        cmd
    }
}

/// A claim's number as tokens hold it. So long that a token has more than 64 bytes: Redis then keeps the running jobs in
/// a hash table even when they are few, where it would else walk through a list of them at each lookup.
#[must_use]
pub fn claim_number(number: u64) -> String {
    format!("{number:020}")
}

/// The jobs of a claim: which flows they came from, in rows, then the jobs, then the histories and the ties of those that
/// have any.
fn read_jobs(
    reply: &mut Reply,
    flows: &[FlowAllowance],
    token_prefix: &str,
) -> Result<Vec<RawDelivery>, QueueError> {
    let (mut rows, mut taken, mut histories) = (reply.array()?, reply.array()?, reply.array()?);
    let mut tied = reply.array()?;
    // Lua counts from 1.
    let number = |n: u64| usize::try_from(n.saturating_sub(1)).unwrap_or(usize::MAX);
    let mut jobs = Vec::with_capacity(taken.len() / 2);
    while !rows.is_empty() {
        let flow = number(rows.count()?);
        let Some(from) = flows.get(flow) else {
            return Err(QueueError::Reply(format!("no flow of number {flow}")));
        };
        let mark = from.flow.mark().map_or_else(String::new, |m| m + ":");
        for _ in 0..rows.count()? {
            let (entry, raw) = (taken.lossy()?, taken.bytes()?);
            let (ready, id) = entry.split_at_checked(READY_DIGITS).unwrap_or_default();
            jobs.push(RawDelivery {
                flow,
                home: from.flow.clone(),
                // Digits, unless somebody else wrote them.
                ready_ms: ready.parse().unwrap_or(0),
                token: format!("{token_prefix}{mark}{ready}"),
                id: id.get(1..).unwrap_or_default().to_owned(),
                raw,
                history: Vec::new(),
                ties: String::new(),
                merges: Vec::new(),
                slots: from.terms.slots(),
            });
        }
    }
    while !histories.is_empty() {
        let (index, history) = (number(histories.count()?), histories.bytes()?);
        if let Some(job) = jobs.get_mut(index) {
            job.history = history;
        }
    }
    while !tied.is_empty() {
        let (index, ties, merges) = (number(tied.count()?), tied.lossy()?, tied.bytes()?);
        if let Some(job) = jobs.get_mut(index) {
            (job.ties, job.merges) = (ties, merges);
        }
    }
    Ok(jobs)
}
