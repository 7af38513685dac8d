//! From the flows to a daemon: look, promote what is due, claim under a token, make deliveries of what came.

use super::admit::flow_of;
use super::control::Control;
use super::limits::{Gate, Terms};
use super::reply::Reply;
use super::script::{CLAIM, LOOK, PROMOTE};
use super::settle::Ending;
use super::ties::{Notice, id_was_given, notice_unrun};
use super::{Flow, Queue, QueueError, millis};
use crate::catalog::{Catalog, JobSpec};
use crate::job::{Envelope, History, Job, JobId, Priority, Reject, RejectCode, merge};
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;

/// The most flows of one priority a look returns.
pub const LOOK_FLOWS: usize = 2_000;
/// The most due jobs promoted in one step.
const PROMOTE_MAX: usize = 256;

/// The most bytes of their envelopes that a look returns, but for the last one.
const LOOK_BYTES: usize = 1 << 20;
/// Times have this many digits in entries of flows: until the year 2286.
const READY_DIGITS: usize = 13;
const TIMES_END_MS: u64 = 10_000_000_000_000;

/// A queue as a daemon sees it when it plans its next step.
#[derive(Debug)]
pub struct Look {
    /// Redis time, ms.
    pub now_ms: u64,
    /// When the next delayed job is due, ms.
    pub next_due_ms: Option<u64>,
    /// Entries in the inbox.
    pub inbox: u64,
    /// Jobs running anywhere.
    pub running: u64,
    /// Ids of running jobs whose end was asked for.
    pub cancels: Vec<String>,
    /// Jobs that are due, not yet in a flow.
    pub due: Vec<Due>,
    /// Whether flows are due whose rate made them wait.
    pub resumes: bool,
    /// What operators changed live.
    pub control: Control,
    /// Flows that hold jobs and may be claimed from, with their places, ms: the ready time of the head, or for one that
    /// takes turns its place in line. Of each class the first ones alone, if there are thousands.
    pub heads: Vec<(Flow, u64)>,
    /// Of each class with more flows than that, the place up to which they are all known.
    pub horizon: [Option<u64>; 5],
}

/// A delayed job that is due.
#[derive(Debug)]
pub struct Due {
    id: Vec<u8>,
    /// As Redis wrote it: what is promoted must still have it.
    score: String,
    raw: Vec<u8>,
}

impl Due {
    /// When it is due, ms; none if nobody of us wrote that.
    fn due_ms(&self) -> Option<u64> {
        self.score.parse().ok().filter(|ms| *ms < TIMES_END_MS)
    }
}

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

/// A claimed job as it is stored.
#[derive(Debug, Clone)]
pub struct RawDelivery {
    /// Number of its flow in the claim, from 0.
    pub flow: usize,
    /// That flow. What the definition says of class and key may have changed since admission.
    pub home: Flow,
    /// When it became ready, ms.
    pub ready_ms: u64,
    /// Its id.
    pub id: String,
    /// Its envelope.
    pub raw: Vec<u8>,
    /// Its stored history, empty if it has none.
    pub history: Vec<u8>,
    /// What it is tied to besides its flow, as it is stored; empty for most.
    pub ties: String,
    /// Envelopes whose arguments are to be united with its own, joined by NULs; empty for most.
    pub merges: Vec<u8>,
    /// The token under which it runs.
    pub token: String,
    /// The slots it holds, by name; empty for most.
    pub slots: Arc<[Arc<str>]>,
}

/// A job about to run.
#[derive(Debug)]
pub struct Delivery {
    /// What the handler gets.
    pub job: Arc<Job>,
    /// Its definition.
    pub spec: Arc<JobSpec>,
    /// How long this attempt may take.
    pub timeout: Duration,
    /// Its troubles so far; none stored if it had none.
    pub history: Option<History>,
    /// Whether the app gave its id.
    pub given: bool,
    /// When its app sent it, by the app's clock, if it said so, ms.
    pub enqueued_ms: Option<u64>,
    /// When it became ready, ms.
    pub ready_ms: u64,
    /// Redis time when it was claimed, ms.
    pub claimed_ms: u64,
    /// Whether anything is tied to its end: a lock, a group, somebody who waits for its result.
    pub tied: bool,
    /// Whether its result is to be kept.
    pub keeps_result: bool,
    /// The envelope that follows when it is done.
    pub then: Option<Box<str>>,
    /// The first job of its chain, if it is not that itself.
    pub workflow: Option<JobId>,
    /// Where it was taken from, and goes when it is handed back.
    pub flow: Flow,
    /// The slots it holds, by name; empty for most.
    pub slots: Arc<[Arc<str>]>,
}

/// A claimed entry that will not run.
#[derive(Debug)]
pub enum Unfit {
    /// Its time to start had passed.
    Expired {
        /// Whether the app gave its id.
        given: bool,
    },
    /// What is stored is no job any more.
    Rejected(Reject),
}

impl RawDelivery {
    /// What others are told if it ends before it starts.
    #[must_use]
    pub fn notice(&self, kind: &str, ending: &Ending, now_ms: u64) -> Notice {
        notice_unrun(&self.id, kind, &self.ties, ending, now_ms)
    }

    /// Whether an app gave its id, so that it is remembered; `envelope` is its own.
    #[must_use]
    pub fn id_was_given(&self, envelope: &Envelope) -> bool {
        id_was_given(&self.id, &self.ties, envelope)
    }

    /// Parses what is stored.
    ///
    /// # Errors
    /// It expired before it started, or what is stored does not fit its definition any more.
    pub fn open(&self, queue: &Queue, catalog: &Catalog, now_ms: u64) -> Result<Delivery, Unfit> {
        let mut envelope = Envelope::parse(&self.raw).map_err(Unfit::Rejected)?;
        let history = History::parse(&self.history);
        let started = history
            .as_ref()
            .is_some_and(|h| h.attempts + h.crashes + h.snoozes > 0);
        if !started && expiry(&envelope, self.ready_ms).is_some_and(|at| at < now_ms) {
            let given = self.id_was_given(&envelope);
            return Err(Unfit::Expired { given });
        }
        let reject = |code, message: String| Unfit::Rejected(Reject::new(code, message));
        let spec = catalog.get(&envelope.kind).ok_or_else(|| {
            reject(
                RejectCode::UnknownKind,
                format!("kind: {:?} is not defined here", envelope.kind),
            )
        })?;
        let mut given_args = envelope.take_args();
        let bind = |given: &mut _| spec.bind(given).map_err(|e| reject(RejectCode::BadArgs, e));
        bind(&mut given_args)?;
        if !self.merges.is_empty() {
            let mut later = merged(&self.merges).map_err(Unfit::Rejected)?;
            later.iter_mut().try_for_each(bind)?;
            given_args = merge::unite(given_args, later);
        }
        let id = JobId::parse(&self.id)
            .map_err(|e| reject(RejectCode::Malformed, format!("id: {e}")))?;
        let job = Job {
            id,
            kind: Arc::clone(&spec.kind),
            queue: Arc::clone(&queue.name),
            priority: self.home.priority,
            args: given_args,
            attempt: history.as_ref().map_or(0, |h| h.attempts) + 1,
            max_attempts: envelope.max_attempts.unwrap_or(spec.retry.max_attempts),
            traceparent: envelope.traceparent.take(),
            parents: std::mem::take(&mut envelope.parents),
            token: self.token.as_str().into(),
        };
        Ok(Delivery {
            job: Arc::new(job),
            timeout: envelope
                .timeout_ms
                .map_or(spec.timeout, Duration::from_millis),
            spec: Arc::clone(spec),
            history,
            given: self.id_was_given(&envelope),
            enqueued_ms: envelope.enqueued_at,
            ready_ms: self.ready_ms,
            claimed_ms: now_ms,
            tied: !self.ties.is_empty(),
            keeps_result: super::ties::keeps_result(&self.ties),
            then: envelope.then.map(|then| then.get().into()),
            workflow: envelope.workflow,
            flow: self.home.clone(),
            slots: Arc::clone(&self.slots),
        })
    }
}

/// The arguments of envelopes that were merged into another one's job.
fn merged(joined: &[u8]) -> Result<Vec<Map<String, Value>>, Reject> {
    let parse = |raw: &[u8]| Envelope::parse(raw).map(|mut e| e.take_args());
    joined.split(|byte| *byte == 0).map(parse).collect()
}

/// When a job that never started expires. A relative time counts from admission, which was when it became ready,
/// or its delay earlier.
fn expiry(envelope: &Envelope, ready_ms: u64) -> Option<u64> {
    let admitted = ready_ms.saturating_sub(envelope.delay_ms.unwrap_or(0));
    envelope
        .expires_at
        .or_else(|| envelope.ttl_ms.map(|ttl| admitted.saturating_add(ttl)))
}

impl Queue {
    /// Looks at everything that matters for planning.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn look(&self) -> Result<Look, QueueError> {
        let k = &self.keys;
        let fixed = [
            &k.jobs, &k.delayed, &k.inbox, &k.cancels, &k.running, &k.stats, &k.resume, &k.control,
        ];
        let keys: Vec<&String> = fixed.into_iter().chain(&k.ready).collect();
        let mut cmd = LOOK.call(keys.into_iter());
        cmd.arg(LOOK_FLOWS).arg(PROMOTE_MAX).arg(LOOK_BYTES);
        let mut reply = Reply::new(LOOK.send(self, &cmd).await?)?;
        let mut look = Look {
            now_ms: reply.count()?,
            next_due_ms: reply.maybe()?,
            inbox: reply.count()?,
            running: reply.count()?,
            cancels: Vec::new(),
            due: Vec::new(),
            resumes: false,
            control: Control::default(),
            heads: Vec::new(),
            horizon: [None; 5],
        };
        let mut cancels = reply.array()?;
        while !cancels.is_empty() {
            look.cancels.push(cancels.lossy()?);
            cancels.bytes()?;
        }
        let mut due = reply.array()?;
        while !due.is_empty() {
            look.due.push(Due {
                id: due.bytes()?,
                score: due.text()?,
                raw: due.bytes()?,
            });
        }
        look.resumes = reply.count()? > 0;
        let mut control = reply.array()?;
        let mut fields = Vec::new();
        while !control.is_empty() {
            fields.push((control.lossy()?, control.lossy()?));
        }
        look.control = Control::read(&fields);
        for priority in Priority::ALL {
            let mut flows = reply.array()?;
            let cut = flows.len() >= LOOK_FLOWS * 2;
            while !flows.is_empty() {
                let flow = Flow::of(priority, &flows.lossy()?);
                look.heads.push((flow, flows.count()?));
            }
            if cut {
                look.horizon[priority.index()] = look.heads.last().map(|(_, place)| *place);
            }
        }
        Ok(look)
    }

    /// The next flows of a class from a place on, as many as a look returns.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn look_further(
        &self,
        class: Priority,
        from_ms: u64,
    ) -> Result<Vec<(Flow, u64)>, QueueError> {
        let mut conn = self.conn.clone();
        let found: Vec<(Vec<u8>, f64)> = redis::cmd("ZRANGE")
            .arg(&self.keys.ready[class.index()])
            .arg(from_ms)
            .arg("+inf")
            .arg(&["BYSCORE", "LIMIT", "0"])
            .arg(LOOK_FLOWS)
            .arg("WITHSCORES")
            .query_async(&mut conn)
            .await?;
        let flow = |(member, place): (Vec<u8>, f64)| {
            let flow = Flow::of(class, &String::from_utf8_lossy(&member));
            (flow, place as u64)
        };
        Ok(found.into_iter().map(flow).collect())
    }

    /// Moves due jobs to their flows, and lets flows go on whose rate made them wait; returns the flows they went to with their ready times.
    ///
    /// # Errors
    /// The lease is lost, Redis failed, or a key has the wrong type.
    pub async fn promote(
        &self,
        incarnation: &str,
        due: &[Due],
        catalog: &Catalog,
    ) -> Result<Vec<(Flow, u64)>, QueueError> {
        let mut flows: Vec<(Flow, u64)> = Vec::new();
        let mut numbers = Vec::with_capacity(due.len());
        for job in due {
            // What is no job, or has no time, goes to quarantine: number 0.
            let (Ok(envelope), Some(due_ms)) = (Envelope::parse(&job.raw), job.due_ms()) else {
                numbers.push(0);
                continue;
            };
            let flow = flow_of(&envelope, catalog);
            let at = flows.iter().position(|(f, _)| *f == flow);
            numbers.push(at.unwrap_or(flows.len()) + 1);
            if at.is_none() {
                flows.push((flow, due_ms));
            }
        }
        let k = &self.keys;
        let flow_keys: Vec<String> = flows.iter().map(|(f, _)| k.flow(f)).collect();
        let set_aside = due.iter().zip(&numbers).filter(|(_, number)| **number == 0);
        let results: Vec<String> = set_aside
            .map(|(job, _)| k.result(&String::from_utf8_lossy(&job.id)))
            .collect();
        let own = [
            &k.workers,
            &k.delayed,
            &k.jobs,
            &k.meta,
            &k.quarantine,
            &k.stats,
            &k.tomb,
            &k.archive,
            &k.archived,
            &k.resume,
            &k.ids,
        ];
        let keys: Vec<&String> = k
            .of_ties()
            .into_iter()
            .chain(own)
            .chain(&k.ready)
            .chain(&flow_keys)
            .chain(&results)
            .collect();
        let mut cmd = PROMOTE.call(keys.into_iter());
        cmd.arg(incarnation)
            .arg(self.bounds.quarantine_max)
            .arg(self.bounds.quarantine_bytes)
            .arg(self.bounds.history_max)
            .arg(self.bounds.history_bytes)
            .arg(due.len())
            .arg(flows.len());
        for (job, number) in due.iter().zip(&numbers) {
            let priority = number
                .checked_sub(1)
                .map_or(0, |n| flows[n].0.priority.index() + 1);
            cmd.arg(&job.id).arg(&job.score).arg(*number).arg(priority);
        }
        for (flow, _) in &flows {
            cmd.arg(&*flow.member());
        }
        PROMOTE.send(self, &cmd).await?;
        Ok(flows)
    }

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
        let gates = distinct_gates(flows);
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
            if let Some(gate) = gate.and_then(|g| gates.get(g)) {
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
        gates: &[&Gate],
    ) -> redis::Cmd {
        let k = &self.keys;
        let flow_keys: Vec<String> = flows.iter().map(|f| k.flow(&f.flow)).collect();
        let slot_keys: Vec<String> = gates
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
            .arg(gates.len());
        for f in flows {
            cmd.arg(f.flow.priority.index() + 1)
                .arg(&*f.flow.member())
                .arg(f.allowance)
                .arg(f.terms.numbers(gates));
        }
        for gate in gates {
            gate.write(&mut cmd);
        }
        cmd
    }
}

/// The limits of some flows, each once.
fn distinct_gates(flows: &[FlowAllowance]) -> Vec<&Gate> {
    let mut gates: Vec<&Gate> = Vec::new();
    for gate in flows.iter().flat_map(|f| f.terms.gates()) {
        if !gates.contains(&gate) {
            gates.push(gate);
        }
    }
    gates
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
        for _ in 0..rows.count()? {
            let (entry, raw) = (taken.lossy()?, taken.bytes()?);
            let (ready, id) = entry.split_at_checked(READY_DIGITS).unwrap_or_default();
            jobs.push(RawDelivery {
                flow,
                home: from.flow.clone(),
                // Digits, unless somebody else wrote them.
                ready_ms: ready.parse().unwrap_or(0),
                token: format!("{token_prefix}{ready}"),
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
