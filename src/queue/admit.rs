//! From the inbox into the queue: look at entries, decide in Rust, move them in one script.

use super::reply::Reply;
use super::script::{ADMIT, PEEK};
use super::{Flow, Queue, QueueError, Ties, millis};
use crate::catalog::{Catalog, JobSpec};
use crate::job::partition::safe_key;
use crate::job::{Envelope, JobId, Reject, RejectCode, envelope, history};
use std::fmt::Write;
use std::sync::Arc;

/// The most entries looked at in one step.
pub const PEEK_ENTRIES: usize = 256;
/// The most bytes looked at in one step.
const PEEK_BYTES: usize = 1 << 20;
/// How much of an oversize entry is kept in quarantine.
const OVERSIZE_KEPT: usize = 4096;
/// The longest reason stored with a quarantined entry, bytes.
const REASON_BYTES: usize = 512;

/// The head of an inbox.
#[derive(Debug)]
pub struct Peeked {
    /// Entries ever removed when it was looked at.
    pub taken: u64,
    /// Redis time, ms.
    pub now_ms: u64,
    /// The entries, the oldest first.
    pub entries: Vec<Vec<u8>>,
}

/// What is to become of one entry.
#[derive(Debug)]
pub enum Verdict {
    /// It may run now.
    Ready {
        /// Where it waits.
        flow: Flow,
        /// Its id.
        id: JobId,
        /// Whether the app gave the id.
        given: bool,
        /// What it is to be tied to.
        ties: Option<Box<Ties>>,
    },
    /// It may run later.
    Delayed {
        /// When, ms.
        due_ms: u64,
        /// Where it will wait.
        flow: Flow,
        /// Its id.
        id: JobId,
        /// Whether the app gave the id.
        given: bool,
        /// What it is to be tied to.
        ties: Option<Box<Ties>>,
    },
    /// It can't be a job.
    Rejected {
        /// Why.
        reject: Reject,
        /// Its id, if that much could be read.
        id: Option<JobId>,
        /// How long somebody wants its result kept, ms; 0 if nobody does, or that could not be read.
        result_ttl_ms: u64,
    },
}

/// What admission changed.
#[derive(Debug)]
pub enum Admission {
    /// The entries are where the verdicts said, but for the duplicates.
    Done {
        /// Redis time, ms: the ready time of the new entries.
        now_ms: u64,
        /// Indices of entries that are no jobs of their own: their id was taken already, another job holds their lock, or
        /// what they belong to was cancelled.
        duplicates: Vec<usize>,
    },
    /// Another daemon was faster; nothing was changed.
    Moved,
}

/// Decides about one entry of `queue`'s inbox. `random` feeds a minted id.
#[must_use]
pub fn judge(raw: &[u8], queue: &str, catalog: &Catalog, now_ms: u64, random: [u8; 10]) -> Verdict {
    let mut envelope = match Envelope::parse(raw) {
        Ok(envelope) => envelope,
        Err(reject) => {
            let id = envelope::id_alone(raw);
            return Verdict::Rejected {
                reject,
                id,
                result_ttl_ms: 0,
            };
        }
    };
    let flow = flow_of(&envelope, catalog);
    let mut ties =
        match within_a_year(&envelope, now_ms).and_then(|()| fits(&mut envelope, queue, catalog)) {
            Ok(ties) => ties,
            Err(reject) => {
                return Verdict::Rejected {
                    reject,
                    result_ttl_ms: envelope.result_ttl_ms.unwrap_or(0),
                    id: envelope.id,
                };
            }
        };
    let given = envelope.id.is_some();
    let said = envelope.priority.is_some();
    let wait_ms = ties.as_ref().map_or(0, |t| t.wait_ms());
    let due_ms = envelope
        .ready_at(now_ms)
        .max(now_ms.saturating_add(wait_ms));
    let id = envelope.id.unwrap_or_else(|| JobId::mint(now_ms, random));
    if due_ms > now_ms {
        if let Some(mark) = unsaid(said, &flow) {
            ties.get_or_insert_default().flow = Some(mark);
        }
        Verdict::Delayed {
            due_ms,
            flow,
            id,
            given,
            ties,
        }
    } else {
        Verdict::Ready {
            flow,
            id,
            given,
            ties,
        }
    }
}

/// The mark of a flow that the envelope alone does not tell: its key, or a class that only its definition says.
fn unsaid(says_class: bool, flow: &Flow) -> Option<String> {
    flow.mark().filter(|_| flow.key.is_some() || !says_class)
}

/// Absolute times may be as far ahead as relative ones.
///
/// # Errors
/// Names the one that is not.
pub fn within_a_year(envelope: &Envelope, now_ms: u64) -> Result<(), Reject> {
    let latest = now_ms.saturating_add(envelope::MAX_AHEAD_MS);
    let times = [
        ("run_at", envelope.run_at),
        ("expires_at", envelope.expires_at),
    ];
    for (field, at) in times {
        if at.is_some_and(|at| at > latest) {
            let message = format!("{field}: more than a year ahead");
            return Err(Reject::new(RejectCode::Malformed, message));
        }
    }
    Ok(())
}

/// Checks an envelope against its inbox and its definition, and those that follow it too; returns what it is to be tied
/// to.
fn fits(
    envelope: &mut Envelope,
    queue: &str,
    catalog: &Catalog,
) -> Result<Option<Box<Ties>>, Reject> {
    if let Some(named) = envelope.queue.as_deref().filter(|named| *named != queue) {
        let message = format!("queue: the envelope says {named:?}, but it came in by {queue:?}");
        return Err(Reject::new(RejectCode::WrongQueue, message));
    }
    let Some(spec) = catalog.get(&envelope.kind) else {
        let message = format!("kind: {:?} is not defined here", envelope.kind);
        return Err(Reject::new(RejectCode::UnknownKind, message));
    };
    let bad = |e| Reject::new(RejectCode::BadArgs, e);
    if envelope.concurrency_key.is_some() && spec.partition.is_none() {
        let message = format!(
            "concurrency_key: jobs of {} are not told apart; its definition has no [concurrency] key, [rate] key or fairness",
            spec.kind
        );
        return Err(bad(message));
    }
    key_of(envelope, spec).map_err(bad)?;
    let mut given = envelope.take_args();
    spec.bind(&mut given).map_err(bad)?;
    for (field, next) in envelope.following() {
        let mut next = Envelope::parse(next.get().as_bytes())?;
        fits(&mut next, queue, catalog)
            .map_err(|reject| Reject::new(reject.code, format!("{field}: {}", reject.message)))?;
    }
    Ties::of(envelope, spec, &given)
}

/// What a job is told apart by; none if the jobs of its kind are not.
fn key_of(envelope: &Envelope, spec: &JobSpec) -> Result<Option<Arc<str>>, String> {
    let Some(expr) = &spec.partition else {
        return Ok(None);
    };
    if let Some(given) = &envelope.concurrency_key {
        return Ok(Some(safe_key(given)));
    }
    let declared = spec.args.get(expr.argument());
    let default = declared.and_then(|arg| arg.default.as_ref());
    expr.key(envelope.args(), default).map(Some)
}

/// The flow an envelope belongs to. A kind that is not defined here keeps its own priority, or the default one; what is
/// no key counts as none, as it can't be admitted.
#[must_use]
pub fn flow_of(envelope: &Envelope, catalog: &Catalog) -> Flow {
    let spec = catalog.get(&envelope.kind);
    Flow {
        priority: envelope
            .priority
            .or(spec.map(|s| s.priority))
            .unwrap_or_default(),
        kind: spec.map_or_else(|| envelope.kind.as_str().into(), |s| s.kind.clone()),
        key: spec.and_then(|s| key_of(envelope, s).unwrap_or_else(|_| Some("".into()))),
    }
}

impl Queue {
    /// Looks at the head of the inbox.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn peek(&self) -> Result<Peeked, QueueError> {
        let cmd = self.peek_cmd();
        read_peek(PEEK.send(self, &cmd).await?)
    }

    pub(super) fn peek_cmd(&self) -> redis::Cmd {
        let k = &self.keys;
        let mut cmd = PEEK.call([&k.inbox, &k.taken, &k.quarantine, &k.stats].into_iter());
        cmd.arg(PEEK_ENTRIES)
            .arg(PEEK_BYTES)
            .arg(envelope::MAX_ENTRY_BYTES)
            .arg(OVERSIZE_KEPT)
            .arg(self.bounds.quarantine_max)
            .arg(self.bounds.quarantine_bytes);
        cmd
    }

    /// Moves peeked entries to where the verdicts say. Safe to repeat: who comes second is told so.
    ///
    /// # Errors
    /// The lease is lost, Redis failed, or a key has the wrong type.
    pub async fn admit(
        &self,
        incarnation: &str,
        peeked: &Peeked,
        verdicts: &[Verdict],
    ) -> Result<Admission, QueueError> {
        let flows = distinct_flows(verdicts);
        let cmd = self.admit_cmd(incarnation, peeked, verdicts, &flows);
        let mut reply = Reply::new(ADMIT.send(self, &cmd).await?)?;
        if reply.text()? == "moved" {
            return Ok(Admission::Moved);
        }
        let now_ms = reply.count()?;
        let count = reply.count()?;
        let mut duplicates = Vec::new();
        for _ in 0..count {
            // Lua counts from 1.
            duplicates.push(usize::try_from(reply.int()? - 1).unwrap_or(usize::MAX));
        }
        Ok(Admission::Done { now_ms, duplicates })
    }

    fn admit_cmd(
        &self,
        incarnation: &str,
        peeked: &Peeked,
        verdicts: &[Verdict],
        flows: &[&Flow],
    ) -> redis::Cmd {
        let k = &self.keys;
        let flow_keys: Vec<String> = flows.iter().map(|f| k.flow(f)).collect();
        let results: Vec<String> = verdicts
            .iter()
            .filter_map(|v| v.result_of().map(|(id, _)| k.result(id.as_str())))
            .collect();
        let own = [
            &k.taken,
            &k.workers,
            &k.jobs,
            &k.ids,
            &k.delayed,
            &k.quarantine,
            &k.stats,
            &k.tomb,
            &k.running,
            &k.meta,
            &k.stops,
            &k.dead,
        ];
        let keys: Vec<&String> = k
            .of_ties()
            .into_iter()
            .chain(own)
            .chain(&k.ready)
            .chain(&flow_keys)
            .chain(&results)
            .collect();
        let mut cmd = ADMIT.call(keys.into_iter());
        let bytes: usize = peeked.entries.iter().map(Vec::len).sum();
        cmd.arg(incarnation)
            .arg(peeked.taken)
            .arg(peeked.entries.len())
            .arg(bytes)
            .arg(peeked.entries.first().map_or(&[][..], Vec::as_slice))
            .arg(peeked.entries.last().map_or(&[][..], Vec::as_slice))
            .arg(self.bounds.quarantine_max)
            .arg(self.bounds.quarantine_bytes)
            .arg(millis(self.bounds.dedupe_window))
            .arg(verdicts.iter().filter(|v| v.is_tied()).count())
            .arg(results.len());
        for flow in flows {
            cmd.arg(&*flow.member()).arg(flow.priority.index() + 1);
        }
        let mut verb = String::with_capacity(8);
        let mut results = 0;
        for verdict in verdicts {
            verb.clear();
            verdict.write_verb(&mut verb, flows);
            cmd.arg(&verb);
            match verdict {
                Verdict::Ready { id, .. } => cmd.arg(id.as_str()),
                Verdict::Delayed { due_ms, id, .. } => cmd.arg(id.as_str()).arg(*due_ms),
                Verdict::Rejected { reject, id, .. } => cmd
                    .arg(id.as_ref().map_or("", JobId::as_str))
                    .arg(reject.code.as_str())
                    .arg(history::cut(&reject.message, REASON_BYTES)),
            };
            if let Some(ties) = verdict.ties() {
                cmd.arg(ties.stored())
                    .arg(ties.lock_rule())
                    .arg(ties.group_rule());
            }
            if verdict.is_tied() {
                let asked = verdict.result_of();
                results += usize::from(asked.is_some());
                cmd.arg(asked.map_or(0, |(_, ttl_ms)| ttl_ms))
                    .arg(if asked.is_some() { results } else { 0 });
            }
        }
        cmd
    }
}

impl Verdict {
    /// The verb of the script, as its header lists them.
    fn write_verb(&self, verb: &mut String, flows: &[&Flow]) {
        let given = |given: &bool| if *given { "g" } else { "" };
        let tied = if self.is_tied() { "t" } else { "" };
        // Writing to a String can't fail.
        let _ = match self {
            Self::Ready { flow, given: g, .. } => {
                let number = flows.iter().position(|f| *f == flow).map_or(0, |n| n + 1);
                write!(verb, "{number}{}{tied}", given(g))
            }
            Self::Delayed { given: g, .. } => write!(verb, "d{}{tied}", given(g)),
            Self::Rejected { .. } => write!(verb, "q{tied}"),
        };
    }

    fn ties(&self) -> Option<&Ties> {
        match self {
            Self::Ready { ties, .. } | Self::Delayed { ties, .. } => ties.as_deref(),
            Self::Rejected { .. } => None,
        }
    }

    /// Who wants to know how it ends: its id, and for how many ms that is kept.
    fn result_of(&self) -> Option<(&JobId, u64)> {
        match self {
            Self::Ready { id, ties, .. } | Self::Delayed { id, ties, .. } => {
                Some((id, ties.as_ref()?.result_ttl_ms?))
            }
            Self::Rejected {
                id, result_ttl_ms, ..
            } => id
                .as_ref()
                .map(|id| (id, *result_ttl_ms))
                .filter(|(_, ms)| *ms > 0),
        }
    }

    fn is_tied(&self) -> bool {
        self.ties().is_some() || self.result_of().is_some()
    }
}

fn distinct_flows(verdicts: &[Verdict]) -> Vec<&Flow> {
    let mut flows: Vec<&Flow> = Vec::new();
    for verdict in verdicts {
        if let Verdict::Ready { flow, .. } = verdict
            && !flows.contains(&flow)
        {
            flows.push(flow);
        }
    }
    flows
}

pub(super) fn read_peek(value: redis::Value) -> Result<Peeked, QueueError> {
    let mut reply = Reply::new(value)?;
    let taken = reply.count()?;
    let now_ms = reply.count()?;
    let mut entries = Vec::new();
    while !reply.is_empty() {
        entries.push(reply.bytes()?);
    }
    Ok(Peeked {
        taken,
        now_ms,
        entries,
    })
}
