//! A claimed job: what is stored of it, and what it takes to run it.

use super::settle::Ending;
use super::ties::{Notice, id_was_given, notice_unrun};
use super::{Flow, Queue, millis};
use crate::catalog::{Catalog, JobSpec};
use crate::job::{Envelope, History, Job, JobId, Reject, RejectCode, merge};
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;

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

impl Delivery {
    /// How long it was due before it was claimed.
    #[must_use]
    pub const fn waited(&self) -> Duration {
        Duration::from_millis(self.claimed_ms.saturating_sub(self.ready_ms))
    }
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
        let started = history.as_ref().is_some_and(History::has_run);
        let ttl = catalog.get(&envelope.kind).and_then(|spec| spec.ttl);
        let hurried = history.as_ref().is_some_and(History::was_hurried);
        let expires = expiry(&envelope, self.ready_ms, hurried, ttl);
        if !started && expires.is_some_and(|at| at < now_ms) {
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
            tied: super::ties::binds(&self.ties),
            keeps_result: super::ties::keeps_result(&self.ties),
            then: match envelope.then {
                Some(then) => Some(then.get().into()),
                None => spec.then.as_ref().map(|then| (&*then.text).into()),
            },
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
/// or its delay earlier; where an operator made it run before that was over, from when he did, because nobody knows by then
/// when it came. That of its definition counts from when it became ready.
fn expiry(envelope: &Envelope, ready_ms: u64, hurried: bool, ttl: Option<Duration>) -> Option<u64> {
    let delay_ms = envelope.delay_ms.filter(|_| !hurried).unwrap_or(0);
    let admitted = ready_ms.saturating_sub(delay_ms);
    let own = envelope.ttl_ms.map(|ttl| admitted.saturating_add(ttl));
    let of_kind = || ttl.map(|ttl| ready_ms.saturating_add(millis(ttl)));
    envelope.expires_at.or(own).or_else(of_kind)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_relative_time_to_live_counts_from_admission_or_from_when_an_operator_made_it_run() {
        let parse = |text: &str| Envelope::parse(text.as_bytes()).unwrap();
        let both = parse(r#"{"kind":"a.b","delay_ms":60000,"ttl_ms":70000}"#);
        assert_eq!(expiry(&both, 100_000, false, None), Some(110_000));
        assert_eq!(expiry(&both, 100_000, true, None), Some(170_000));
        let fixed = parse(r#"{"kind":"a.b","delay_ms":60000,"expires_at":1790000000000}"#);
        assert_eq!(expiry(&fixed, 100_000, true, None), Some(1_790_000_000_000));
        let none = parse(r#"{"kind":"a.b","delay_ms":60000}"#);
        let minute = Some(Duration::from_secs(60));
        assert_eq!(expiry(&none, 100_000, false, minute), Some(160_000));
        assert_eq!(expiry(&none, 100_000, false, None), None);
    }
}
