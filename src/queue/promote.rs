//! What is due goes to its flow.

use super::admit::flow_of;
use super::home::home_of;
use super::script::PROMOTE;
use super::{Flow, Queue, QueueError};
use crate::catalog::Catalog;
use crate::job::{Envelope, History};
use std::collections::HashMap;

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
        let mut flows: Vec<(Flow, u64)> = Vec::new();
        let mut numbers = Vec::with_capacity(due.len());
        let envelopes: Vec<_> = due
            .iter()
            .map(|job| Envelope::parse(&job.raw).ok())
            .collect();
        let mut strange = self.flows_of_strangers(due, &envelopes, catalog).await?;
        for (job, envelope) in due.iter().zip(envelopes) {
            // What is no job, or has no time, goes to quarantine: number 0.
            let (Some(envelope), Some(due_ms)) = (envelope, job.due_ms()) else {
                numbers.push(0);
                continue;
            };
            let known = strange.remove(&*job.id);
            let flow = known.unwrap_or_else(|| flow_of(&envelope, catalog));
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
