//! From the inbox into the queue: look at entries, and move them to where the verdicts say in one script.
//!
//! Owns the calls; what becomes of an entry is decided in [`super::verdict`].

use super::reply::Reply;
use super::script::{ADMIT, PEEK};
use super::ties::Member;
use super::{Flow, Queue, QueueError, millis};
use crate::job::{JobId, envelope, history};

pub use super::verdict::{Verdict, flow_of, judge, within_a_year};

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
        /// Those among them that were set aside: what they ask for can't be had.
        set_aside: Vec<usize>,
    },
    /// Another daemon was faster; nothing was changed.
    Moved,
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
        let (mut duplicates, mut set_aside) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let number = reply.int()?;
            // Lua counts from 1.
            let index = usize::try_from(number.abs() - 1).unwrap_or(usize::MAX);
            duplicates.push(index);
            set_aside.extend((number < 0).then_some(index));
        }
        Ok(Admission::Done {
            now_ms,
            duplicates,
            set_aside,
        })
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
                cmd.arg(ties.written())
                    .arg(ties.lock_rule())
                    .arg(ties.group_rule());
            }
            if let Verdict::Rejected { group, .. } = verdict
                && verdict.is_tied()
            {
                let member = group.as_deref();
                cmd.arg(member.map_or("", |member| member.id.as_str()))
                    .arg(member.map_or_else(String::new, Member::rule));
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
