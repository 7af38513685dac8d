//! What operators and clients do to a queue.

use super::reply::Reply;
use super::scan::State;
use super::script::{BURY, CANCEL, DISCARD, ENQUEUE, FORGET, RELEASE, REQUEUE};
use super::settle::Record;
use super::{Flow, Queue, QueueError, millis};
use crate::clock;
use crate::job::{Event, History, What};
use redis::Value;

/// The most jobs in one call of the enqueue script.
pub const ENQUEUE_MAX: usize = 1_000;
/// The most dead jobs removed in one call.
pub const BURY_MAX: usize = 500;
/// The most quarantined entries released or removed in one call.
pub const RELEASE_MAX: usize = 100;
/// The most histories forgotten in one call.
pub const FORGET_MAX: usize = 500;

/// The state of a job that went to another queue.
pub const MOVED: &str = "moved";

/// A job for the enqueue script.
#[derive(Debug, Clone, Copy)]
pub struct NewJob<'a> {
    /// Its id; empty to have one minted.
    pub id: &'a str,
    /// `<kind>:<key>` for an envelope with that `unique.key` whose `on_conflict` is `skip`: then a second one is answered
    /// with the first. Needs an id. Empty for none.
    pub lock: &'a str,
    /// Its envelope, which holds the same id.
    pub envelope: &'a [u8],
}

/// What the enqueue script says about one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enqueued {
    /// Accepted into the inbox.
    Created,
    /// There is, or was, one of that id; its state.
    Duplicate(String),
    /// Another one holds its lock.
    Held {
        /// Its state.
        state: String,
        /// Its id.
        id: String,
    },
}

impl Enqueued {
    fn read(reply: &mut Reply, own_id: &str) -> Result<Self, QueueError> {
        let Some(mut first) = reply.maybe_array()? else {
            return Ok(Self::Created);
        };
        let (state, id) = (first.text()?, first.lossy()?);
        Ok(if id == own_id {
            Self::Duplicate(state)
        } else {
            Self::Held { state, id }
        })
    }
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
        let plain = jobs.iter().map(|(id, envelope)| NewJob {
            id,
            lock: "",
            envelope,
        });
        self.enqueue_all(&plain.collect::<Vec<_>>()).await
    }

    /// Hands jobs to the public enqueue script, some of them with the lock they must hold.
    ///
    /// # Errors
    /// Redis failed or refused the write (out of memory), or a key has the wrong type.
    pub async fn enqueue_all(&self, jobs: &[NewJob<'_>]) -> Result<Vec<Enqueued>, QueueError> {
        let k = &self.keys;
        let keys = [
            &k.inbox, &k.jobs, &k.ids, &k.running, &k.delayed, &k.dead, &k.locks,
        ];
        let mut answers = Vec::with_capacity(jobs.len());
        for chunk in jobs.chunks(ENQUEUE_MAX) {
            let mut cmd = ENQUEUE.call(keys.into_iter());
            cmd.arg("v2");
            for job in chunk {
                cmd.arg(job.id).arg(job.lock).arg(job.envelope);
            }
            let mut reply = Reply::new(ENQUEUE.send(self, &cmd).await?)?;
            for at in 0..reply.len() {
                answers.push(Enqueued::read(
                    &mut reply,
                    chunk.get(at).map_or("", |job| job.id),
                )?);
            }
        }
        Ok(answers)
    }

    /// Cancels a job that waits; asks for the end of one that runs. `given`: its envelope gives its id. `by` is who does
    /// it, like `user@host`.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn cancel(
        &self,
        record: &Record<'_>,
        given: bool,
        enqueued_ms: Option<u64>,
        by: &str,
    ) -> Result<Cancelled, QueueError> {
        self.cancel_in(None, record, given, enqueued_ms, by).await
    }

    /// Cancels a job that is still pending or delayed, as `state` says; false if it is not.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn cancel_if(
        &self,
        state: State,
        record: &Record<'_>,
        given: bool,
        enqueued_ms: Option<u64>,
        by: &str,
    ) -> Result<bool, QueueError> {
        let state = Some(state.as_str());
        let answer = self.cancel_in(state, record, given, enqueued_ms, by);
        Ok(answer.await? == Cancelled::Done)
    }

    async fn cancel_in(
        &self,
        state: Option<&str>,
        record: &Record<'_>,
        given: bool,
        enqueued_ms: Option<u64>,
        by: &str,
    ) -> Result<Cancelled, QueueError> {
        let k = &self.keys;
        let result = k.result(record.id);
        let own = [
            &k.jobs,
            &k.running,
            &k.delayed,
            &k.dead,
            &k.tomb,
            &k.cancels,
            &k.ids,
            &k.meta,
            &k.recent,
            &k.stats,
            &k.bell,
            &k.archive,
            &k.archived,
            &result,
        ];
        let keys: Vec<&String> = k.of_ties().into_iter().chain(own).collect();
        let mut fresh = History::of(&record.kind.into(), record.priority);
        fresh.events.extend(enqueued(enqueued_ms));
        let event = |what| Event::new(clock::unix_ms(), what).by(by).encode();
        let mut cmd = CANCEL.call(keys.into_iter());
        cmd.arg(record.id)
            .arg(record.encode())
            .arg(u8::from(given))
            .arg(millis(self.bounds.dedupe_window))
            .arg(self.bounds.recent_max)
            .arg(fresh.encode())
            .arg(event(What::Cancelled))
            .arg(event(What::CancelAsked))
            .arg(self.bounds.history_max)
            .arg(self.bounds.history_bytes)
            .arg(state);
        Ok(match text(CANCEL.send(self, &cmd).await?)?.as_str() {
            "cancelled" => Cancelled::Done,
            "asked" => Cancelled::Asked,
            "dead" => Cancelled::Dead,
            _ => Cancelled::Unknown,
        })
    }

    /// Puts a dead or delayed job back into its flow, to run now; false if it is in neither state. A dead one starts
    /// afresh, a delayed one keeps its attempts. `by` is who does it, like `user@host`.
    ///
    /// # Errors
    /// Redis failed or refused the write, or a key has the wrong type.
    pub async fn requeue(
        &self,
        id: &str,
        flow: &Flow,
        enqueued_ms: Option<u64>,
        by: &str,
    ) -> Result<bool, QueueError> {
        self.requeue_in("", id, flow, enqueued_ms, by).await
    }

    /// The same, if it is still dead or delayed, as `state` says.
    ///
    /// # Errors
    /// Redis failed or refused the write, or a key has the wrong type.
    pub async fn requeue_if(
        &self,
        state: State,
        id: &str,
        flow: &Flow,
        enqueued_ms: Option<u64>,
        by: &str,
    ) -> Result<bool, QueueError> {
        let state = state.as_str();
        self.requeue_in(state, id, flow, enqueued_ms, by).await
    }

    async fn requeue_in(
        &self,
        state: &str,
        id: &str,
        flow: &Flow,
        enqueued_ms: Option<u64>,
        by: &str,
    ) -> Result<bool, QueueError> {
        let k = &self.keys;
        let flow_key = k.flow(flow);
        let ready = &k.ready[flow.priority.index()];
        let keys = [
            &k.jobs, &k.dead, &k.delayed, &k.meta, &k.stats, &k.tomb, ready, &flow_key, &k.ties,
            &k.locks, &k.ids,
        ];
        let mut fresh = History::of(&flow.kind, flow.priority);
        fresh.events.extend(enqueued(enqueued_ms));
        let event = |what| Event::new(clock::unix_ms(), what).by(by).encode();
        let mut cmd = REQUEUE.call(keys.into_iter());
        cmd.arg(id)
            .arg(&*flow.member())
            .arg(fresh.encode())
            .arg(event(What::Retried))
            .arg(event(What::Hurried))
            .arg(state);
        Ok(text(REQUEUE.send(self, &cmd).await?)? != "no")
    }

    /// Removes dead jobs for good; returns how many there were. At most [`BURY_MAX`] a call. `by` is who does it, like
    /// `user@host`; nobody does where they were kept long enough.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn bury(&self, ids: &[String], by: Option<&str>) -> Result<u64, QueueError> {
        let now_ms = clock::unix_ms();
        let (state, event) = match by {
            Some(by) => ("deleted", Event::new(now_ms, What::Deleted).by(by)),
            None => (
                "dropped",
                Event::new(now_ms, What::Dropped).note("kept long enough"),
            ),
        };
        self.bury_as(state, &event, ids).await
    }

    /// Removes dead jobs that went to another queue; returns how many there were. At most [`BURY_MAX`] a call.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn bury_moved(&self, ids: &[String], to: &str, by: &str) -> Result<u64, QueueError> {
        let event = Event::new(clock::unix_ms(), What::Moved).by(by).note(to);
        self.bury_as(MOVED, &event, ids).await
    }

    async fn bury_as(&self, state: &str, event: &Event, ids: &[String]) -> Result<u64, QueueError> {
        let k = &self.keys;
        let own = [&k.dead, &k.jobs, &k.meta, &k.stats, &k.archive, &k.archived];
        let keys: Vec<&String> = k.of_ties().into_iter().chain(own).collect();
        let mut cmd = BURY.call(keys.into_iter());
        cmd.arg(state)
            .arg(event.encode())
            .arg(self.bounds.history_max)
            .arg(self.bounds.history_bytes)
            .arg(ids);
        count(BURY.send(self, &cmd).await?)
    }

    /// Puts quarantined entries back into the inbox; returns how many. At most [`RELEASE_MAX`] a call.
    ///
    /// # Errors
    /// Redis failed or refused the write, or a key has the wrong type.
    pub async fn release(&self, ids: &[String]) -> Result<u64, QueueError> {
        let k = &self.keys;
        let own = [&k.quarantine, &k.stats, &k.ids];
        let keys: Vec<&String> = k.of_ties().into_iter().chain(own).collect();
        let mut cmd = RELEASE.call(keys.into_iter());
        cmd.arg(ids);
        count(RELEASE.send(self, &cmd).await?)
    }

    /// Removes quarantined entries for good; returns how many there were. At most [`RELEASE_MAX`] a call.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn discard(&self, ids: &[String]) -> Result<u64, QueueError> {
        Ok(self.discard_step(0, 0, ids).await?.0)
    }

    /// Removes quarantined entries that came before a time, at most [`RELEASE_MAX`]; returns how many.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn discard_before(&self, before_ms: u64) -> Result<u64, QueueError> {
        Ok(self.discard_step(before_ms, RELEASE_MAX, &[]).await?.1)
    }

    async fn discard_step(
        &self,
        before_ms: u64,
        most: usize,
        ids: &[String],
    ) -> Result<(u64, u64), QueueError> {
        let k = &self.keys;
        let mut cmd = DISCARD.call([&k.quarantine, &k.stats].into_iter());
        cmd.arg(before_ms).arg(most).arg(ids);
        let mut reply = Reply::new(DISCARD.send(self, &cmd).await?)?;
        Ok((reply.count()?, reply.count()?))
    }

    /// Removes histories of jobs that ended before a time, those over the caps, and ids whose time of being remembered is
    /// over: at most [`FORGET_MAX`] of each; returns how many histories and ids.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn forget_before(&self, before_ms: u64) -> Result<(u64, u64), QueueError> {
        let k = &self.keys;
        let mut cmd = FORGET.call([&k.archive, &k.archived, &k.stats, &k.ids, &k.dead].into_iter());
        cmd.arg(before_ms)
            .arg(self.bounds.history_max)
            .arg(self.bounds.history_bytes)
            .arg(FORGET_MAX);
        let mut reply = Reply::new(FORGET.send(self, &cmd).await?)?;
        Ok((reply.count()?, reply.count()?))
    }
}

fn enqueued(at_ms: Option<u64>) -> Option<Event> {
    at_ms.map(|at| Event::new(at, What::Enqueued))
}

fn text(value: Value) -> Result<String, QueueError> {
    Reply::new(Value::Array(vec![value]))?.text()
}

fn count(value: Value) -> Result<u64, QueueError> {
    Reply::new(Value::Array(vec![value]))?.count()
}
