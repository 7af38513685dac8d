//! What is due goes to its flow; retries may be told to wait longer.

use super::admit::flow_of;
use super::home::home_of;
use super::reply::Reply;
use super::script::PROMOTE;
use super::{Flow, Queue, QueueError, millis};
use crate::catalog::Catalog;
use crate::job::{Envelope, History};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// Times end here, ms: they have thirteen digits in entries of flows, until the year 2286.
const TIMES_END_MS: u64 = 10_000_000_000_000;

/// A delayed job that is due.
#[derive(Debug)]
pub struct Due {
    pub(super) id: Vec<u8>,
    /// As Redis wrote it: what is promoted must still have it.
    pub(super) score: String,
    pub(super) raw: Vec<u8>,
}

impl Due {
    /// When it is due, ms; none if nobody of us wrote that.
    fn due_ms(&self) -> Option<u64> {
        self.score.parse().ok().filter(|ms| *ms < TIMES_END_MS)
    }
}

/// Who may tell due retries to wait.
pub trait Holds: Send + Sync {
    /// Whether retries of this kind may have to wait. Only then is it looked up which jobs are retries.
    fn watches(&self, kind: &str) -> bool;
    /// How long a due retry has to wait; none if it may go, which uses something up.
    fn wait(&mut self, flow: &Flow) -> Option<Duration>;
    /// A retry that was let go had gone already: nothing was used up.
    fn had_gone(&mut self, flow: &Flow);
}

/// Nobody has to wait.
impl Holds for () {
    fn watches(&self, _: &str) -> bool {
        false
    }

    fn wait(&mut self, _: &Flow) -> Option<Duration> {
        None
    }

    fn had_gone(&mut self, _: &Flow) {}
}

/// Where due jobs go.
#[derive(Default)]
struct Plan {
    /// Of each due job.
    to: Vec<To>,
    /// The flows they go to, with the ready time of the first.
    flows: Vec<(Flow, u64)>,
}

/// Where one due job goes.
enum To {
    /// It is no job, or has no time.
    Quarantine,
    /// To a flow, by its place in the plan; perhaps as a retry that was let go.
    Flow { number: usize, counted: bool },
    /// Nowhere: it is due again then, ms.
    Later(u64),
}

impl Plan {
    fn add(&mut self, flow: Flow, due_ms: u64, counted: bool) {
        let at = self.flows.iter().position(|(f, _)| *f == flow);
        let number = at.unwrap_or(self.flows.len());
        if at.is_none() {
            self.flows.push((flow, due_ms));
        }
        self.to.push(To::Flow { number, counted });
    }
}

impl Queue {
    /// Moves due jobs to their flows, and lets flows go on whose rate made them wait; returns the flows they went to with
    /// their ready times.
    ///
    /// # Errors
    /// The lease is lost, Redis failed, or a key has the wrong type.
    pub async fn promote(
        &self,
        incarnation: &str,
        due: &[Due],
        catalog: &Catalog,
    ) -> Result<Vec<(Flow, u64)>, QueueError> {
        self.promote_but(incarnation, due, catalog, 0, &mut ())
            .await
    }

    /// The same, but for retries that `holds` tells to wait: these are due later, and stay what they are. `now_ms` is
    /// Redis time.
    ///
    /// # Errors
    /// As [`Queue::promote`].
    pub async fn promote_but(
        &self,
        incarnation: &str,
        due: &[Due],
        catalog: &Catalog,
        now_ms: u64,
        holds: &mut dyn Holds,
    ) -> Result<Vec<(Flow, u64)>, QueueError> {
        let envelopes: Vec<_> = due
            .iter()
            .map(|job| Envelope::parse(&job.raw).ok())
            .collect();
        let mut strange = self.flows_of_strangers(due, &envelopes, catalog).await?;
        let retries = self.retries_among(due, &envelopes, holds).await?;
        let mut plan = Plan::default();
        for (job, envelope) in due.iter().zip(envelopes) {
            let (Some(envelope), Some(due_ms)) = (envelope, job.due_ms()) else {
                plan.to.push(To::Quarantine);
                continue;
            };
            let known = strange.remove(&*job.id);
            let flow = known.unwrap_or_else(|| flow_of(&envelope, catalog));
            let counted = retries.contains(&*job.id);
            match counted.then(|| holds.wait(&flow)).flatten() {
                Some(wait) => plan.to.push(To::Later(now_ms.saturating_add(millis(wait)))),
                None => plan.add(flow, due_ms, counted),
            }
        }
        let cmd = self.promote_cmd(incarnation, due, &plan);
        let mut reply = Reply::new(PROMOTE.send(self, &cmd).await?)?;
        while !reply.is_empty() {
            // Lua counts from 1.
            let at = usize::try_from(reply.int()? - 1).unwrap_or(usize::MAX);
            if let Some(To::Flow {
                number,
                counted: true,
            }) = plan.to.get(at)
            {
                holds.had_gone(&plan.flows[*number].0);
            }
        }
        Ok(plan.flows)
    }

    fn promote_cmd(&self, incarnation: &str, due: &[Due], plan: &Plan) -> redis::Cmd {
        let flows = &plan.flows;
        let k = &self.keys;
        let flow_keys: Vec<String> = flows.iter().map(|(f, _)| k.flow(f)).collect();
        let set_aside = due
            .iter()
            .zip(&plan.to)
            .filter(|(_, to)| matches!(to, To::Quarantine));
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
        for (job, to) in due.iter().zip(&plan.to) {
            cmd.arg(&job.id).arg(&job.score);
            match to {
                To::Quarantine => cmd.arg(0).arg(0),
                To::Later(due_ms) => cmd.arg(-1).arg(*due_ms),
                To::Flow { number, .. } => cmd
                    .arg(number + 1)
                    .arg(flows[*number].0.priority.index() + 1),
            };
        }
        for (flow, _) in flows {
            cmd.arg(&*flow.member());
        }
        cmd
    }

    /// Which of the due jobs are tried again, of the kinds that are watched. One look at their histories, and none if no
    /// kind is.
    async fn retries_among<'a>(
        &self,
        due: &'a [Due],
        envelopes: &[Option<Envelope>],
        holds: &dyn Holds,
    ) -> Result<HashSet<&'a [u8]>, QueueError> {
        let watched = due.iter().zip(envelopes).filter_map(|(job, envelope)| {
            let kind = &envelope.as_ref()?.kind;
            holds.watches(kind).then_some(&*job.id)
        });
        let ids: Vec<&[u8]> = watched.collect();
        if ids.is_empty() {
            return Ok(HashSet::new());
        }
        let histories: Vec<Option<Vec<u8>>> = redis::cmd("HMGET")
            .arg(&self.keys.meta)
            .arg(&ids)
            .query_async(&mut self.conn.clone())
            .await?;
        let failed =
            |history: &Vec<u8>| History::parse(history).is_some_and(|history| history.is_retry());
        let known = ids.into_iter().zip(histories);
        let retries = known.filter(|(_, history)| history.as_ref().is_some_and(failed));
        Ok(retries.map(|(id, _)| id).collect())
    }

    /// The flows of due jobs whose kinds are not defined here, by id: what is stored with them says their class and key.
    async fn flows_of_strangers<'a>(
        &self,
        due: &'a [Due],
        envelopes: &[Option<Envelope>],
        catalog: &Catalog,
    ) -> Result<HashMap<&'a [u8], Flow>, QueueError> {
        let strangers: Vec<(&[u8], &Envelope)> = due
            .iter()
            .zip(envelopes)
            .filter_map(|(job, envelope)| Some((&*job.id, envelope.as_ref()?)))
            .filter(|(_, envelope)| catalog.get(&envelope.kind).is_none())
            .collect();
        if strangers.is_empty() {
            return Ok(HashMap::new());
        }
        let ids: Vec<&[u8]> = strangers.iter().map(|(id, _)| *id).collect();
        type Stored = Vec<Option<Vec<u8>>>;
        let (ties, histories): (Stored, Stored) = redis::pipe()
            .cmd("HMGET")
            .arg(&self.keys.ties)
            .arg(&ids)
            .cmd("HMGET")
            .arg(&self.keys.meta)
            .arg(&ids)
            .query_async(&mut self.conn.clone())
            .await?;
        let stored = ties.into_iter().zip(histories);
        let flow = |((id, envelope), (ties, history)): ((&'a [u8], &Envelope), _)| {
            let (ties, history): (Option<Vec<u8>>, Option<Vec<u8>>) = (ties, history);
            let ties = ties.unwrap_or_default();
            let history = history.as_deref().and_then(History::parse);
            let ties = String::from_utf8_lossy(&ties);
            (id, home_of(envelope, catalog, &ties, history.as_ref()))
        };
        Ok(strangers.into_iter().zip(stored).map(flow).collect())
    }
}
