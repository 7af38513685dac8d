//! From outcomes to settlements, in batches: what handlers said goes back into the queue, and then into the log.

use super::context::QueueContext;
use super::ending::{ending_of, notice_of};
use super::report;
use crate::clock;
use crate::job::Outcome;
use crate::queue::settle::{Ending, SETTLE_MAX};
use crate::queue::{Delivery, QueueError, Settled, Settlement};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Waits between tries of a settlement while Redis is in trouble.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// A delivery whose run began.
pub struct Begun {
    /// The delivery.
    pub delivery: Arc<Delivery>,
    started: Instant,
}

/// A delivery that is to be settled.
pub enum Ended {
    /// Its handler ran, or was stopped.
    Ran {
        /// The delivery.
        delivery: Arc<Delivery>,
        /// What came of it.
        outcome: Outcome,
        /// How long it took.
        took: Duration,
    },
    /// It was claimed but never started.
    Unrun {
        /// What is to become of it.
        settlement: Settlement,
        /// Its kind.
        kind: Arc<str>,
    },
}

impl Begun {
    /// The run begins now.
    #[must_use]
    pub fn now(delivery: &Arc<Delivery>) -> Self {
        Self {
            delivery: Arc::clone(delivery),
            started: clock::monotonic(),
        }
    }

    /// How long it has run by now.
    #[must_use]
    pub fn ran_for(&self) -> Duration {
        clock::since(self.started)
    }

    /// The run ended with this outcome, now.
    #[must_use]
    pub fn ended(self, outcome: Outcome) -> Ended {
        Ended::Ran {
            took: clock::since(self.started),
            delivery: self.delivery,
            outcome,
        }
    }
}

/// Where ended deliveries are handed in. Never blocks: what is handed in is bounded by what is in flight.
#[derive(Clone, Default)]
pub struct SettlerHandle(Arc<Inbox>);

#[derive(Default)]
struct Inbox {
    items: Mutex<Vec<Ended>>,
    signal: Notify,
    closed: AtomicBool,
}

impl SettlerHandle {
    /// Hands in one end.
    pub fn send(&self, ended: Ended) {
        self.0.items.lock().push(ended);
        self.0.signal.notify_one();
    }

    /// No more will come: the settler ends when it has settled what it holds.
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
        self.0.signal.notify_one();
    }

    /// Waits for ends, at most [`SETTLE_MAX`]; none when it is closed and empty.
    async fn next(&self) -> Option<Vec<Ended>> {
        loop {
            {
                let mut items = self.0.items.lock();
                if !items.is_empty() {
                    let count = items.len().min(SETTLE_MAX);
                    return Some(items.drain(..count).collect());
                }
            }
            if self.0.closed.load(Ordering::Acquire) {
                return None;
            }
            self.0.signal.notified().await;
        }
    }
}

/// Settles what is handed in until the handle is closed.
pub async fn run(context: Arc<QueueContext>, handle: SettlerHandle) {
    let mut batch = 0;
    while let Some(ended) = handle.next().await {
        batch += 1;
        settle_batch(&context, batch, ended).await;
    }
}

async fn settle_batch(context: &QueueContext, batch: u64, ended: Vec<Ended>) {
    let now_ms = clock::unix_ms();
    let mut settlements = Vec::with_capacity(ended.len());
    let mut reports = Vec::with_capacity(ended.len());
    for end in ended {
        let (settlement, report) = match end {
            Ended::Ran {
                delivery,
                outcome,
                took,
            } => {
                let ending = ending_of(&delivery, &outcome, took, now_ms, rand::random());
                let notice = notice_of(&delivery, &outcome, &ending, now_ms);
                let settlement = Settlement {
                    id: delivery.job.id.shared(),
                    token: Arc::clone(&delivery.job.token),
                    ending,
                    notice,
                    slots: Arc::clone(&delivery.slots),
                    told: context
                        .told
                        .forget(delivery.job.id.as_str(), &delivery.job.token),
                };
                (settlement, report::Subject::Ran(delivery, outcome, took))
            }
            Ended::Unrun { settlement, kind } => (settlement, report::Subject::Unrun(kind)),
        };
        settlements.push(settlement);
        reports.push(report);
    }
    let stale = match settle(context, batch, &settlements).await {
        Some(settled) => {
            hint_due(context, settled.now_ms, &settlements);
            if settled.woke {
                context.nudge();
            }
            settled.stale
        }
        None => (0..settlements.len()).collect(),
    };
    let held = settlements.iter().map(|s| (&*s.id, &*s.token));
    context.inflight.let_go(held);
    context.wake();
    report::settled(context, now_ms, &settlements, &reports, &stale);
}

/// Calls the script until it answers. None if the lease is gone: then everything in the batch is stale.
async fn settle(context: &QueueContext, batch: u64, settlements: &[Settlement]) -> Option<Settled> {
    let mut wait = RETRY_MIN;
    loop {
        let incarnation = context.lease.current()?;
        // What was claimed under an earlier incarnation is not ours any more; the script sees that by the token.
        match context.queue.settle(&incarnation, batch, settlements).await {
            Ok(settled) => return Some(settled),
            Err(QueueError::LeaseLost) => {
                context.lease.lose(&incarnation, &context.inflight);
                return None;
            }
            Err(QueueError::WrongType(_)) => report::heal(context).await,
            Err(e) => {
                tracing::warn!(queue = &*context.queue.name, error = %e, "settlement not confirmed; trying again");
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
}

/// The feeder wakes for retries and snoozes of our own; others it learns of when it looks.
fn hint_due(context: &QueueContext, now_ms: u64, settlements: &[Settlement]) {
    let delays = settlements.iter().filter_map(|s| match &s.ending {
        Ending::Later { delay, .. } => Some(*delay),
        _ => None,
    });
    if let Some(soonest) = delays.min() {
        let delay_ms = u64::try_from(soonest.as_millis()).unwrap_or(u64::MAX);
        context.due_at(now_ms.saturating_add(delay_ms));
    }
    if settlements
        .iter()
        .any(|s| matches!(s.ending, Ending::HandedBack { .. }))
    {
        context.nudge();
    }
}
