//! What operators and clients do to a queue.

use super::reply::Reply;
use super::script::{BURY, CANCEL, ENQUEUE, RELEASE, REQUEUE};
use super::settle::Record;
use super::{Flow, Queue, QueueError, millis};
use crate::job::History;
use redis::Value;

/// The most jobs in one call of the enqueue script.
pub const ENQUEUE_MAX: usize = 1_000;
/// The most dead jobs removed in one call.
pub const BURY_MAX: usize = 500;
/// The most quarantined entries released in one call.
pub const RELEASE_MAX: usize = 100;

/// What the enqueue script says about one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enqueued {
    /// Accepted into the inbox.
    Created,
    /// There is, or was, one of that id; its state.
    Duplicate(String),
}

/// What became of a request to cancel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cancelled {
    /// It waited, and is gone.
    Done,
    /// It runs; its daemon was told.
    Asked,
    /// It is dead already.
    Dead,
    /// There is no such job.
    Unknown,
}

impl Queue {
    /// Hands jobs to the public enqueue script: pairs of id (empty to have one minted) and envelope.
    ///
    /// # Errors
    /// Redis failed or refused the write (out of memory), or a key has the wrong type.
    pub async fn enqueue(&self, jobs: &[(&str, Vec<u8>)]) -> Result<Vec<Enqueued>, QueueError> {
        let k = &self.keys;
        let keys = [&k.inbox, &k.jobs, &k.ids, &k.running, &k.delayed, &k.dead];
        let mut answers = Vec::with_capacity(jobs.len());
        for chunk in jobs.chunks(ENQUEUE_MAX) {
            let mut cmd = ENQUEUE.call(keys.into_iter());
            for (id, envelope) in chunk {
                cmd.arg(*id).arg(envelope.as_slice());
            }
            let mut reply = Reply::new(ENQUEUE.send(self, &cmd).await?)?;
            while !reply.is_empty() {
                answers.push(match reply.text()? {
                    word if word == "created" => Enqueued::Created,
                    state => Enqueued::Duplicate(state),
                });
            }
        }
        Ok(answers)
    }

    /// Cancels a job that waits; asks for the end of one that runs.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn cancel(&self, record: &Record<'_>, given: bool) -> Result<Cancelled, QueueError> {
        let k = &self.keys;
        let keys = [
            &k.jobs, &k.running, &k.delayed, &k.dead, &k.tomb, &k.cancels, &k.ids, &k.meta,
            &k.recent, &k.stats, &k.bell,
        ];
        let mut cmd = CANCEL.call(keys.into_iter());
        cmd.arg(record.id)
            .arg(record.encode(None))
            .arg(u8::from(given))
            .arg(millis(self.bounds.dedupe_window))
            .arg(self.bounds.recent_max);
        Ok(match text(CANCEL.send(self, &cmd).await?)?.as_str() {
            "cancelled" => Cancelled::Done,
            "asked" => Cancelled::Asked,
            "dead" => Cancelled::Dead,
            _ => Cancelled::Unknown,
        })
    }

    /// Puts a dead or delayed job back into its flow, to run now; false if it is in neither state. A history of
    /// `None` starts it afresh.
    ///
    /// # Errors
    /// Redis failed or refused the write, or a key has the wrong type.
    pub async fn requeue(
        &self,
        id: &str,
        flow: &Flow,
        history: Option<&History>,
    ) -> Result<bool, QueueError> {
        let k = &self.keys;
        let flow_key = k.flow(flow);
        let ready = &k.ready[flow.priority.index()];
        let keys = [
            &k.jobs, &k.dead, &k.delayed, &k.meta, &k.stats, &k.tomb, ready, &flow_key,
        ];
        let mut cmd = REQUEUE.call(keys.into_iter());
        let history = history.map(|h| serde_json::to_string(h).unwrap_or_default());
        cmd.arg(id)
            .arg(&*flow.kind)
            .arg(history.unwrap_or_default());
        Ok(text(REQUEUE.send(self, &cmd).await?)? != "no")
    }

    /// Removes dead jobs for good; returns how many there were. At most [`BURY_MAX`] a call.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn bury(&self, ids: &[String]) -> Result<u64, QueueError> {
        let k = &self.keys;
        let mut cmd = BURY.call([&k.dead, &k.jobs, &k.meta, &k.stats].into_iter());
        cmd.arg(ids);
        count(BURY.send(self, &cmd).await?)
    }

    /// Puts quarantined entries back into the inbox; returns how many. At most [`RELEASE_MAX`] a call.
    ///
    /// # Errors
    /// Redis failed or refused the write, or a key has the wrong type.
    pub async fn release(&self, ids: &[String]) -> Result<u64, QueueError> {
        let mut cmd = RELEASE.call([&self.keys.quarantine, &self.keys.inbox].into_iter());
        cmd.arg(ids);
        count(RELEASE.send(self, &cmd).await?)
    }

    /// Removes quarantined entries for good; returns how many there were.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn discard(&self, ids: &[String]) -> Result<u64, QueueError> {
        let mut conn = self.conn.clone();
        Ok(redis::cmd("XDEL")
            .arg(&self.keys.quarantine)
            .arg(ids)
            .query_async(&mut conn)
            .await?)
    }
}

fn text(value: Value) -> Result<String, QueueError> {
    Reply::new(Value::Array(vec![value]))?.text()
}

fn count(value: Value) -> Result<u64, QueueError> {
    Reply::new(Value::Array(vec![value]))?.count()
}
