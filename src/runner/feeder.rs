//! The claim loop of one queue: admit what came, claim what may run, hand it to the worker; else wait to be woken.

use super::context::QueueContext;
use super::heads::Heads;
use super::pipeline::Run;
use super::report;
use super::settler::{Ended, SettlerHandle};
use super::slots::Ask;
use super::stop::Stop;
use crate::clock;
use crate::config::RedisConfig;
use crate::job::JobId;
use crate::queue::admit::{PEEK_ENTRIES, judge};
use crate::queue::claim::{RawDelivery, Unfit};
use crate::queue::settle::{Ending, Record};
use crate::queue::wake::Waker;
use crate::queue::{
    Admission, Claimed, Flow, FlowAllowance, Peeked, QueueError, Settlement, Verdict,
};
use crate::telemetry::events;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, watch};

/// The most jobs of one claim.
const CLAIM_MAX: usize = 256;
/// The most flows of one claim.
const CLAIM_FLOWS: usize = 32;
/// How long a suspect waits while another one runs.
const SUSPECT_WAIT: Duration = Duration::from_secs(1);
/// How long a job waits whose kind went away between the plan and the claim.
const UNKNOWN_WAIT: Duration = Duration::from_secs(5);
/// Crashes that make a job a suspect.
const SUSPECT_CRASHES: u32 = 2;
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

type Waiting = BoxFuture<'static, (Option<Waker>, Result<Peeked, QueueError>)>;

/// The claim loop of one queue.
pub struct Feeder {
    context: Arc<QueueContext>,
    redis: RedisConfig,
    worker: mpsc::Sender<Vec<Run>>,
    settler: SettlerHandle,
    phase: watch::Receiver<Phase>,
    slots_freed: Arc<Notify>,
    heads: Heads,
    inbox: Option<Peeked>,
    waiting: Option<Waiting>,
    claim_number: u64,
    next_due_ms: Option<u64>,
    redis_clock: RedisClock,
    next_look: Instant,
}

/// Redis time, carried on by our own monotonic clock between answers.
struct RedisClock {
    at_ms: u64,
    read: Instant,
}

impl RedisClock {
    fn now_ms(&self) -> u64 {
        let since = u64::try_from(self.read.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.at_ms.saturating_add(since)
    }

    fn set(&mut self, at_ms: u64) {
        *self = Self {
            at_ms,
            read: clock::monotonic(),
        };
    }
}

/// How the loop goes on after a step.
enum Next {
    /// At once: there may be more.
    Again,
    /// Wait for something to happen.
    Wait,
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
            inbox: None,
            waiting: None,
            claim_number: 0,
            next_due_ms: None,
            redis_clock: RedisClock {
                at_ms: clock::unix_ms(),
                read: now,
            },
            next_look: now,
        }
    }

    /// Runs until the phase is [`Phase::Stopping`]. Dropping the sender to the worker then ends the worker too.
    pub async fn run(mut self) {
        let mut backoff = BACKOFF_MIN;
        while self.phase() != Phase::Stopping {
            self.context.progress.turn(clock::monotonic());
            let Some(incarnation) = self.incarnation().await else {
                continue;
            };
            match self.step(&incarnation).await {
                Ok(Next::Again) => backoff = BACKOFF_MIN,
                Ok(Next::Wait) => {
                    backoff = BACKOFF_MIN;
                    self.wait().await;
                }
                Err(QueueError::LeaseLost) => {
                    self.context
                        .lease
                        .lose(&incarnation, &self.context.inflight);
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

    /// One round: everything that can be done without waiting for anything but Redis' answer.
    async fn step(&mut self, incarnation: &Arc<str>) -> Result<Next, QueueError> {
        self.poll_waiting()?;
        if let Some(due) = self.context.take_due() {
            self.next_due_ms = Some(self.next_due_ms.map_or(due, |known| known.min(due)));
        }
        if self.context.take_nudge() || self.look_is_due() {
            self.look(incarnation).await?;
        }
        if let Some(peeked) = self.inbox.take() {
            return self.admit_and_claim(incarnation, peeked).await;
        }
        let claimed = self.claim(incarnation).await?;
        Ok(if claimed { Next::Again } else { Next::Wait })
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
        self.redis_clock.set(look.now_ms);
        self.next_look = now + self.context.poll;
        self.next_due_ms = look.next_due_ms;
        for id in &look.cancels {
            self.context
                .inflight
                .stop_one(id, super::stop::StopReason::Cancelled);
        }
        self.heads.replace(look.heads);
        if !look.due.is_empty() {
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
        let oldest = self.heads.oldest();
        let age = oldest.map_or(0, |ready| look.now_ms.saturating_sub(ready));
        self.context
            .progress
            .look(now, Some(Duration::from_millis(age)));
        if look.inbox > 0 && self.inbox.is_none() {
            self.inbox = Some(self.context.queue.peek().await?);
        }
        Ok(())
    }

    /// Admits what was peeked, claims, and peeks again, all in one round trip.
    async fn admit_and_claim(
        &mut self,
        incarnation: &Arc<str>,
        peeked: Peeked,
    ) -> Result<Next, QueueError> {
        if peeked.entries.is_empty() {
            return Ok(Next::Again);
        }
        self.redis_clock.set(peeked.now_ms);
        let registry = self.context.shared.registry.load_full();
        let verdicts: Vec<Verdict> = peeked
            .entries
            .iter()
            .map(|raw| {
                judge(
                    raw,
                    &self.context.queue.name,
                    &registry.catalog,
                    peeked.now_ms,
                    rand::random(),
                )
            })
            .collect();
        self.learn(&verdicts, peeked.now_ms);
        let context = Arc::clone(&self.context);
        let more = peeked.entries.len() >= PEEK_ENTRIES;
        let (admitted, claimed, next) = tokio::join!(
            context.queue.admit(incarnation, &peeked, &verdicts),
            self.claim(incarnation),
            async {
                if more {
                    context.queue.peek().await.map(Some)
                } else {
                    Ok(None)
                }
            }
        );
        match admitted? {
            Admission::Done { duplicates, .. } => {
                report_admission(&self.context, &verdicts, &duplicates)
            }
            Admission::Moved => self.next_look = clock::monotonic(),
        }
        claimed?;
        self.inbox = next?;
        Ok(Next::Again)
    }

    /// What the verdicts say about flows and due times, before Redis confirms it: a claim that finds less does no harm.
    fn learn(&mut self, verdicts: &[Verdict], now_ms: u64) {
        for verdict in verdicts {
            match verdict {
                Verdict::Ready { flow, .. } => self.heads.arrived(flow, now_ms),
                Verdict::Delayed { due_ms, .. } => {
                    self.next_due_ms = Some(self.next_due_ms.map_or(*due_ms, |d| d.min(*due_ms)));
                }
                Verdict::Rejected { .. } => {}
            }
        }
    }

    /// Claims what may run now; true if something came.
    async fn claim(&mut self, incarnation: &Arc<str>) -> Result<bool, QueueError> {
        if self.phase() != Phase::Running || self.heads.is_empty() {
            return Ok(false);
        }
        let (flows, asks) = self.plan();
        let context = Arc::clone(&self.context);
        // Settlements that Redis has not confirmed yet count against new claims, so that they stay bounded.
        let unsettled = context.inflight.len();
        let most = CLAIM_MAX.min((context.limit * 2 + CLAIM_MAX).saturating_sub(unsettled));
        let slots = &context.shared.slots;
        let reserved = slots.reserve(&context.queue.name, context.limit, most, &asks);
        if reserved.limit == 0 {
            return Ok(false);
        }
        let allowed: Vec<FlowAllowance> = flows
            .into_iter()
            .zip(&reserved.allowances)
            .map(|(flow, allowance)| FlowAllowance {
                flow,
                allowance: *allowance,
            })
            .collect();
        self.claim_number += 1;
        let number = self.claim_number;
        let answer = context
            .queue
            .claim(incarnation, number, reserved.limit, &allowed)
            .await;
        let mut taken = vec![0; allowed.len()];
        if let Ok(claimed) = &answer {
            for job in &claimed.jobs {
                if let Some(count) = taken.get_mut(job.flow) {
                    *count += 1;
                }
            }
        }
        slots.settle_claim(&context.queue.name, &reserved, &asks, &taken);
        let came = match answer {
            Ok(claimed) => Ok(self.took(&allowed, claimed).await),
            Err(e) => Err(e),
        };
        context.resolved_claim.store(number, Ordering::Release);
        came
    }

    /// The flows that may be claimed from, in order, with what each may take.
    fn plan(&self) -> (Vec<Flow>, Vec<Ask>) {
        let context = &self.context;
        let registry = context.shared.registry.load();
        let slots = context.shared.slots.total();
        let mut asks = std::collections::HashMap::new();
        let flows = self.heads.first(
            CLAIM_FLOWS,
            self.redis_clock.now_ms(),
            context.queue.aging_after(),
            |flow| {
                let Some(kind) = registry.get(&flow.kind) else {
                    return false;
                };
                let ask = Ask {
                    kind: Arc::clone(&flow.kind),
                    class: flow.priority,
                    kind_limit: kind.spec.concurrency.limit.unwrap_or(usize::MAX),
                    class_limit: (context.shared.gate)(&kind.spec, flow.priority, slots),
                    flow_limit: context.shared.breakers.outlook(&kind.breakers, slots),
                };
                let open = ask.class_limit > 0 && ask.flow_limit > 0;
                if open {
                    asks.insert(flow.clone(), ask);
                }
                open
            },
        );
        let asks = flows.iter().filter_map(|flow| asks.remove(flow)).collect();
        (flows, asks)
    }

    /// Takes in what a claim brought; true if there was anything.
    async fn took(&mut self, allowed: &[FlowAllowance], claimed: Claimed) -> bool {
        self.redis_clock.set(claimed.now_ms);
        self.next_due_ms = claimed.next_due_ms;
        for (f, head) in allowed.iter().zip(&claimed.heads) {
            self.heads.seen(&f.flow, *head);
        }
        self.context.progress.look(clock::monotonic(), None);
        let came = !claimed.jobs.is_empty();
        let mut runs = Vec::with_capacity(claimed.jobs.len());
        for raw in claimed.jobs {
            let Some(flow) = allowed.get(raw.flow).map(|f| &f.flow) else {
                continue;
            };
            match self.open(&raw, flow, claimed.now_ms) {
                Ok(run) => runs.push(run),
                Err(settlement) => {
                    let slots = &self.context.shared.slots;
                    slots.release(&self.context.queue.name, &flow.kind, flow.priority);
                    self.settler.send(Ended::Unrun {
                        settlement,
                        kind: Arc::clone(&flow.kind),
                    });
                }
            }
        }
        if !runs.is_empty() {
            // The worker ends only after this sender does.
            let _ = self.worker.send(runs).await;
        }
        came
    }

    /// Makes a claimed job ready to run, or says what is to become of it instead.
    fn open(&self, raw: &RawDelivery, flow: &Flow, now_ms: u64) -> Result<Run, Settlement> {
        let context = &self.context;
        let id: Arc<str> = raw.id.as_str().into();
        let token: Arc<str> = raw.token.as_str().into();
        let stop = Stop::default();
        context
            .inflight
            .hold(id, Arc::clone(&token), stop.clone(), false);
        let instead = |ending| Settlement {
            id: JobId::parse(&raw.id).unwrap_or_else(|_| JobId::mint(0, [0; 10])),
            token: Arc::clone(&token),
            ending,
        };
        let registry = context.shared.registry.load();
        let delivery = raw
            .open(&context.queue, &registry.catalog, now_ms)
            .map_err(|unfit| instead(unfit_ending(unfit, raw, flow, now_ms)))?;
        let later = |delay| {
            instead(Ending::Later {
                delay,
                history: delivery.history.clone().unwrap_or_default(),
                counter: "put_off",
            })
        };
        let Some(kind) = registry.get(&flow.kind) else {
            return Err(later(UNKNOWN_WAIT));
        };
        let suspect = delivery
            .history
            .as_ref()
            .is_some_and(|h| h.crashes >= SUSPECT_CRASHES);
        if suspect && context.inflight.has_suspect() {
            return Err(later(SUSPECT_WAIT));
        }
        let passage = match kind.breakers.is_empty() {
            true => None,
            false => Some(
                context
                    .shared
                    .breakers
                    .pass(&kind.breakers)
                    .ok_or_else(|| {
                        instead(Ending::HandedBack {
                            flow: flow.clone(),
                            history: None,
                            counter: "put_off",
                        })
                    })?,
            ),
        };
        if suspect {
            let id: Arc<str> = raw.id.as_str().into();
            context.inflight.hold(id, token, stop.clone(), true);
        }
        let metrics = context.telemetry(&flow.kind).metrics;
        metrics.started(1);
        metrics.observe_wait(Duration::from_millis(now_ms.saturating_sub(raw.ready_ms)));
        Ok(Run {
            delivery: Arc::new(delivery),
            kind: Arc::clone(kind),
            stop,
            passage,
        })
    }

    /// Takes in what the wait for the inbox brought, if it ended.
    fn poll_waiting(&mut self) -> Result<(), QueueError> {
        let ended = self.waiting.as_mut().and_then(|w| w.now_or_never());
        match ended {
            Some(ended) => self.woken(ended),
            None => Ok(()),
        }
    }

    fn woken(
        &mut self,
        (waker, peeked): (Option<Waker>, Result<Peeked, QueueError>),
    ) -> Result<(), QueueError> {
        self.waiting = None;
        let peeked = peeked?;
        if peeked.entries.is_empty() {
            // Nothing came: wait on, over the same connection.
            self.waiting = waker.map(wait_with);
        } else {
            self.waiting = waker.map(|w| Box::pin(async move { wait_with(w).await }) as Waiting);
            self.inbox = Some(peeked);
        }
        Ok(())
    }

    /// Waits until something happens: an entry in the inbox, a free slot, a due job, a nudge, a change of phase.
    async fn wait(&mut self) {
        if self.waiting.is_none() {
            self.waiting = Some(connect_and_wait(
                self.context.queue.clone(),
                self.redis.clone(),
            ));
        }
        let now = clock::monotonic();
        let due = self.next_due_ms.map(|due| {
            let in_ms = due.saturating_sub(self.redis_clock.now_ms());
            now + Duration::from_millis(in_ms)
        });
        let wake_at = due.map_or(self.next_look, |due| due.min(self.next_look));
        let Some(waiting) = self.waiting.as_mut() else {
            return;
        };
        let woken = tokio::select! {
            ended = waiting => Some(ended),
            () = self.slots_freed.notified(), if !self.heads.is_empty() => None,
            () = self.context.nudged() => None,
            () = tokio::time::sleep_until(wake_at.into()) => None,
            _ = self.phase.changed() => None,
        };
        if let Some(ended) = woken
            && let Err(e) = self.woken(ended)
        {
            self.trouble(&e, BACKOFF_MIN).await;
        }
    }
}

fn connect_and_wait(queue: crate::queue::Queue, redis: RedisConfig) -> Waiting {
    Box::pin(async move {
        match Waker::connect(queue, &redis).await {
            Ok(waker) => wait_with(waker).await,
            Err(e) => (None, Err(e)),
        }
    })
}

fn wait_with(mut waker: Waker) -> Waiting {
    Box::pin(async move {
        let peeked = waker.wait().await;
        // A connection that failed is not used again.
        let waker = peeked.is_ok().then_some(waker);
        (waker, peeked)
    })
}

/// What becomes of a claimed entry that can't run.
fn unfit_ending(unfit: Unfit, raw: &RawDelivery, flow: &Flow, now_ms: u64) -> Ending {
    match unfit {
        Unfit::Rejected(reject) => Ending::Quarantined(reject),
        Unfit::Expired => {
            let record = Record {
                id: &raw.id,
                kind: &flow.kind,
                priority: flow.priority,
                state: "expired",
                attempts: 0,
                at_ms: now_ms,
                duration_ms: 0,
            };
            Ending::Finished {
                record: record.encode(None),
                counter: "expired",
                given: true,
                history: !raw.history.is_empty(),
            }
        }
    }
}

fn report_admission(context: &QueueContext, verdicts: &[Verdict], duplicates: &[usize]) {
    // What can't be a job has no kind of the catalogue to be counted under.
    let unknown = context.telemetry(&"unknown".into());
    for (index, verdict) in verdicts.iter().enumerate() {
        match verdict {
            Verdict::Rejected { reject, id } => {
                let id = id.as_ref().map_or("", JobId::as_str);
                events::job_quarantined(&context.queue.name, id, &reject.to_string());
                unknown.metrics.quarantined(1);
            }
            Verdict::Ready { id, .. } | Verdict::Delayed { id, .. } => {
                if duplicates.contains(&index) {
                    tracing::debug!(queue = &*context.queue.name, job_id = %id, "duplicate id, not admitted");
                }
            }
        }
    }
}
