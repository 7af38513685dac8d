//! The claim loop of one queue: admit what came, claim what may run, hand it to the worker; else wait to be woken.

mod admit;
mod claim;
mod open;
mod wait;

use super::context::QueueContext;
use super::heads::Heads;
use super::pipeline::Run;
use super::report;
use super::settler::SettlerHandle;
use super::stop::StopReason;
use crate::clock::{self, ServerClock};
use crate::config::RedisConfig;
use crate::queue::wake::Waker;
use crate::queue::{Control, Flow, Peeked, QueueError};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, watch};
use wait::Waiting;

/// Waits after an error of Redis.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// What the feeders are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Admit and claim.
    Running,
    /// Admit, but claim nothing new.
    Quiet,
    /// End.
    Stopping,
}

/// The claim loop of one queue.
pub struct Feeder {
    context: Arc<QueueContext>,
    redis: RedisConfig,
    worker: mpsc::Sender<Vec<Run>>,
    settler: SettlerHandle,
    phase: watch::Receiver<Phase>,
    slots_freed: Arc<Notify>,
    heads: Heads,
    /// Kinds whose limit across all daemons is reached: until when, or until the next look.
    shut: HashMap<Arc<str>, Option<u64>>,
    /// The limits under which they are.
    terms: u64,
    /// Flows in which the last claim found nothing.
    found_empty: Vec<Flow>,
    inbox: Option<Peeked>,
    waiting: Option<Waiting>,
    waker: Option<Waker>,
    claim_number: u64,
    /// Entries that the inbox had ever lost, as last seen.
    taken: u64,
    next_due_ms: Option<u64>,
    redis_clock: ServerClock,
    next_look: Instant,
    /// When more may be read behind the first flows of a class.
    next_poll: Instant,
}

impl Feeder {
    /// A feeder about to run.
    #[must_use]
    pub fn new(
        context: Arc<QueueContext>,
        redis: RedisConfig,
        worker: mpsc::Sender<Vec<Run>>,
        settler: SettlerHandle,
        phase: watch::Receiver<Phase>,
    ) -> Self {
        let now = clock::monotonic();
        Self {
            slots_freed: context.shared.slots.waiter(),
            context,
            redis,
            worker,
            settler,
            phase,
            heads: Heads::default(),
            shut: HashMap::new(),
            terms: 0,
            found_empty: Vec::new(),
            inbox: None,
            waiting: None,
            waker: None,
            claim_number: 0,
            taken: 0,
            next_due_ms: None,
            redis_clock: ServerClock::at(clock::unix_ms()),
            next_look: now,
            next_poll: now,
        }
    }

    /// Runs until the phase is [`Phase::Stopping`]. Dropping the sender to the worker then ends the worker too. Ends as
    /// well if the worker is gone: then the loop does not turn any more, which the watchdog sees.
    pub async fn run(mut self) {
        let mut backoff = BACKOFF_MIN;
        while self.phase() != Phase::Stopping && !self.worker.is_closed() {
            self.context.progress.turn(clock::monotonic());
            let Some(incarnation) = self.incarnation().await else {
                continue;
            };
            match self.step(&incarnation).await {
                Ok(()) => backoff = BACKOFF_MIN,
                Err(QueueError::LeaseLost) => {
                    let inflight = &self.context.inflight;
                    self.context.lease.lose(&incarnation, inflight);
                    self.inbox = None;
                }
                Err(e) => {
                    self.inbox = None;
                    self.trouble(&e, backoff).await;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
    }

    fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// The incarnation to work under; none if the phase changed, or a second passed, while there was none.
    async fn incarnation(&mut self) -> Option<Arc<str>> {
        if let Some(current) = self.context.lease.current() {
            return Some(current);
        }
        tokio::select! {
            held = self.context.lease.held() => Some(held),
            _ = self.phase.changed() => None,
            () = tokio::time::sleep(Duration::from_secs(1)) => None,
        }
    }

    async fn trouble(&mut self, e: &QueueError, backoff: Duration) {
        if matches!(e, QueueError::WrongType(_)) {
            report::heal(&self.context).await;
        } else {
            tracing::warn!(queue = &*self.context.queue.name, error = %e, "queue not reached");
        }
        self.next_look = clock::monotonic();
        tokio::select! {
            () = tokio::time::sleep(backoff) => {}
            _ = self.phase.changed() => {}
        }
    }

    /// One round: look if it is time, admit what came, claim what may run; wait if there was nothing to do.
    async fn step(&mut self, incarnation: &Arc<str>) -> Result<(), QueueError> {
        self.watch_inbox()?;
        if let Some(due) = self.context.take_due() {
            self.next_due_ms = Some(self.next_due_ms.map_or(due, |known| known.min(due)));
        }
        if self.context.take_nudge() || self.look_is_due() {
            self.look(incarnation).await?;
        }
        if let Some(peeked) = self.inbox.take() {
            return self.admit_and_claim(incarnation, peeked).await;
        }
        if self.claim(incarnation).await? {
            return Ok(());
        }
        self.wait().await
    }

    fn look_is_due(&self) -> bool {
        clock::monotonic() >= self.next_look
            || self
                .next_due_ms
                .is_some_and(|due| due <= self.redis_clock.now_ms())
    }

    /// Learns everything anew, and promotes what is due.
    async fn look(&mut self, incarnation: &str) -> Result<(), QueueError> {
        let look = self.context.queue.look().await?;
        let now = clock::monotonic();
        self.redis_clock = ServerClock::at(look.now_ms);
        self.next_look = now + self.context.poll;
        self.stop_cancelled(&look.cancels, look.many_cancels)
            .await?;
        self.take_over(look.control);
        let terms = self.context.terms();
        let same_terms = std::mem::replace(&mut self.terms, terms) == terms;
        self.shut
            .retain(|_, until| same_terms && until.is_some_and(|until| until > look.now_ms));
        self.next_due_ms = self.with_shut(look.next_due_ms);
        self.heads.replace(look.heads, look.horizon, look.now_ms);
        if now >= self.next_poll {
            self.next_poll = now + self.context.poll;
            self.heads.poll(look.now_ms);
        }
        if !look.due.is_empty() || look.resumes {
            let registry = self.context.shared.registry.load_full();
            let promoted = self
                .context
                .queue
                .promote(incarnation, &look.due, &registry.catalog)
                .await?;
            for (flow, ready_ms) in &promoted {
                self.heads.arrived(flow, *ready_ms);
            }
            // There may be more than one look returns.
            self.next_look = now;
        }
        self.context.progress.look(now);
        Ok(())
    }

    /// Stops what somebody wishes to end; where there are many such wishes, it is asked which of them are for us.
    async fn stop_cancelled(&mut self, wished: &[String], many: bool) -> Result<(), QueueError> {
        let inflight = &self.context.inflight;
        for id in wished {
            inflight.stop_one(id, StopReason::Cancelled);
        }
        if many {
            for id in self.context.queue.cancels_among(&inflight.ids()).await? {
                inflight.stop_one(&id, StopReason::Cancelled);
            }
        }
        Ok(())
    }

    /// The earliest of a due time and the times when shut kinds may start again.
    fn with_shut(&self, due_ms: Option<u64>) -> Option<u64> {
        self.shut.values().copied().flatten().chain(due_ms).min()
    }

    /// What operators changed holds from now on; limits that were raised may leave room for who is parked.
    fn take_over(&self, control: Control) {
        let known = &self.context.control;
        if **known.load() != control {
            known.store(Arc::new(control));
            self.context.limits_changed();
        }
    }
}
