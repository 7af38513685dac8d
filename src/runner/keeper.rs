//! Keeps the lease of one queue: heartbeats, tells the dead, returns their jobs, and our own that got lost on the way.

use super::context::QueueContext;
use super::lease::Lease;
use super::report;
use crate::catalog::Catalog;
use crate::clock;
use crate::job::{Envelope, Event, History, What};
use crate::queue::admit::flow_of;
use crate::queue::lease::{Heartbeat, RunningEntry, Watch};
use crate::queue::limits::slot_limit;
use crate::queue::settle::Ending;
use crate::queue::ties::{id_was_given, notice_unrun};
use crate::queue::{QueueError, Settlement};
use crate::telemetry::events::{self, JobRef};
use crate::telemetry::metrics::UNKNOWN_KIND;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Heartbeats per lease.
const BEATS: u32 = 5;
/// Crashes that end a job.
const POISON_CRASHES: u32 = 3;
/// How far suspects of one dead daemon are put apart, so that the next death tells which of them it was.
const APART: Duration = Duration::from_millis(250);
/// Jobs returned in one step.
const RESCUE_STEP: usize = 200;

/// Keeps the lease until `stop`, then takes leave.
pub async fn run(context: Arc<QueueContext>, stop: CancellationToken) {
    let mut keeper = Keeper {
        watch: Watch::new(context.lease_time),
        next_sweep: clock::monotonic(),
        terms: context.terms(),
        lost_since: None,
        context,
    };
    let beat = keeper.context.lease_time / BEATS;
    loop {
        keeper.beat().await;
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(beat) => {}
            () = keeper.context.sweep_requested() => keeper.next_sweep = clock::monotonic(),
        }
    }
    keeper.leave().await;
}

struct Keeper {
    context: Arc<QueueContext>,
    watch: Watch,
    next_sweep: Instant,
    /// The limits under which everybody waits who waits for a rate.
    terms: u64,
    /// Since when Redis has not answered.
    lost_since: Option<Instant>,
}

impl Keeper {
    async fn beat(&mut self) {
        match self.try_beat().await {
            Ok(()) => {
                if let Some(since) = self.lost_since.take() {
                    let alert = events::redis_back(clock::since(since));
                    self.context.shared.alerts.raise(alert);
                }
            }
            Err(QueueError::LeaseLost) => {}
            Err(QueueError::WrongType(_)) => report::heal(&self.context).await,
            Err(e) => {
                if self.lost_since.is_none() {
                    self.lost_since = Some(clock::monotonic());
                    self.context
                        .shared
                        .alerts
                        .raise(events::redis_lost(&e.to_string()));
                }
            }
        }
    }

    async fn try_beat(&mut self) -> Result<(), QueueError> {
        let incarnation = match self.context.lease.current() {
            Some(current) => current,
            None => self.register().await?,
        };
        let answer = self.context.queue.heartbeat(&incarnation, false).await;
        if matches!(answer, Err(QueueError::LeaseLost)) {
            self.context
                .lease
                .lose(&incarnation, &self.context.inflight);
        }
        let beat = answer?;
        #[cfg(feature = "broken")]
        if crate::queue::broken::has(crate::queue::broken::Flaw::NoRescue) {
            return Ok(());
        }
        let dead = self.watch.observe(clock::monotonic(), &incarnation, &beat);
        let mut fenced = false;
        for (worker, seen_ms) in dead {
            fenced |= self.context.queue.fence(&worker, seen_ms).await?;
        }
        if fenced || clock::monotonic() >= self.next_sweep {
            self.next_sweep = clock::monotonic() + self.context.lease_time / 2;
            self.sweep(&incarnation).await?;
            self.end_rate_waits().await?;
        }
        Ok(())
    }

    /// After a change of limits nobody waits for what an old rate said: the claim says anew.
    async fn end_rate_waits(&mut self) -> Result<(), QueueError> {
        let terms = self.context.terms();
        if terms != self.terms && self.context.queue.end_rate_waits().await? > 0 {
            self.context.nudge();
        }
        self.terms = terms;
        Ok(())
    }

    async fn register(&mut self) -> Result<Arc<str>, QueueError> {
        let incarnation = Lease::mint();
        self.context.queue.heartbeat(&incarnation, true).await?;
        self.context.lease.register(Arc::clone(&incarnation));
        self.context.inflight.forget_others(&incarnation);
        Ok(incarnation)
    }

    /// Looks through everything that runs for jobs that nobody executes.
    async fn sweep(&self, incarnation: &str) -> Result<(), QueueError> {
        let queue = &self.context.queue;
        // In this order: what was claimed or settled after these readings is not mistaken for lost.
        let resolved = self.context.resolved_claim.load(Ordering::Acquire);
        let mut cursor = 0;
        let mut orphans = Vec::new();
        loop {
            let (next, entries) = queue.sweep_running(cursor).await?;
            orphans.extend(entries);
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        let alive = self.alive(queue.heartbeat(incarnation, false).await?);
        let (lost, orphaned): (Vec<_>, Vec<_>) = orphans
            .into_iter()
            .filter(|entry| match entry.owner() {
                Some((owner, claim)) if owner == incarnation => {
                    claim <= resolved && !self.context.inflight.holds(&entry.id, &entry.token)
                }
                Some((owner, _)) => alive.as_ref().is_some_and(|alive| !alive.contains(owner)),
                None => true,
            })
            .partition(|entry| entry.owner().is_some_and(|(owner, _)| owner == incarnation));
        for step in lost.chunks(RESCUE_STEP) {
            self.give_back(incarnation, step, false).await?;
        }
        for step in orphaned.chunks(RESCUE_STEP) {
            self.give_back(incarnation, step, true).await?;
        }
        self.look_through_slots(incarnation).await
    }

    /// Slots that nobody holds any more come free, and flows that are parked where there is room by now go on. Releases
    /// do that by themselves: this is for limits that were raised, and for what others did to private storage.
    async fn look_through_slots(&self, incarnation: &str) -> Result<(), QueueError> {
        let queue = &self.context.queue;
        let registry = self.context.shared.registry.load_full();
        let control = self.context.control.load_full();
        let limit_of = |name: &str| {
            let kind = name.split('@').next().unwrap_or_default();
            match registry.catalog.get(kind) {
                Some(spec) => slot_limit(name, spec, &control),
                // Its limits are for those to know who run it.
                None => Some(0),
            }
        };
        let doubtful = queue.doubtful_slots().await?;
        let slots: Vec<_> = doubtful
            .into_iter()
            .map(|name| (limit_of(&name), name))
            .map(|(limit, name)| (name, limit))
            .collect();
        let put_right = queue.unpark(incarnation, &slots).await?;
        if put_right.removed > 0 {
            let what = "slots were held by jobs that do not run";
            let alert = events::audit_repair(&queue.name, what, put_right.removed);
            self.context.shared.alerts.raise(alert);
            let metrics = &self.context.shared.metrics;
            metrics.audit_repairs(&queue.name, put_right.removed);
        }
        if put_right.woken > 0 {
            self.context.nudge();
        }
        Ok(())
    }

    /// Who lives. None if there are more than a heartbeat lists: then nobody is taken for dead.
    fn alive(&self, beat: Heartbeat) -> Option<HashSet<String>> {
        let complete = beat.workers.len() < crate::queue::lease::WORKERS_MAX;
        complete.then(|| beat.workers.into_iter().map(|(worker, _)| worker).collect())
    }

    /// Returns jobs to their flows; `crashed` counts it as a crash of the daemon that held them.
    async fn give_back(
        &self,
        incarnation: &str,
        entries: &[RunningEntry],
        crashed: bool,
    ) -> Result<(), QueueError> {
        let ids: Vec<&str> = entries.iter().map(|e| e.id.as_str()).collect();
        let stored = self.context.queue.stored(&ids).await?;
        let held = self.context.queue.held_by(&ids).await?;
        let ties = self.context.queue.ties_of(&ids).await?;
        let registry = self.context.shared.registry.load_full();
        let now_ms = clock::unix_ms();
        let doubtful = doubtful(entries, &stored);
        let (kinds, settlements): (Vec<Arc<str>>, Vec<Settlement>) = entries
            .iter()
            .enumerate()
            .zip(stored)
            .zip(held)
            .zip(ties)
            .map(|((((index, entry), (raw, meta)), slots), ties)| {
                let apart = doubtful.get(&index).copied();
                let crash = crashed.then_some(Crash {
                    entry,
                    now_ms,
                    apart,
                });
                let (kind, ending) = rescued(&registry.catalog, entry, (&raw, &meta, &ties), crash);
                let settlement = Settlement {
                    id: entry.id.as_str().into(),
                    token: entry.token.as_str().into(),
                    notice: notice_unrun(&entry.id, &kind, &ties, &ending, now_ms),
                    ending,
                    slots,
                    // Nobody knows what it told before its daemon died.
                    told: true,
                };
                (kind, settlement)
            })
            .unzip();
        let queue = &self.context.queue;
        let settled = queue.settle(incarnation, 0, &settlements).await?;
        self.context.nudge();
        let returned = settlements.len() - settled.stale.len();
        if returned > 0 && crashed {
            let owner = entries[0].owner().map_or("", |(owner, _)| owner);
            events::recovered(&queue.name, owner, returned);
        } else if returned > 0 {
            tracing::info!(
                queue = &*queue.name,
                jobs = returned,
                "claims whose answer was lost were handed back"
            );
        }
        for (index, (kind, settlement)) in kinds.iter().zip(&settlements).enumerate() {
            if !settled.stale.contains(&index) {
                self.report(kind, settlement, crashed);
            }
        }
        Ok(())
    }

    fn report(&self, kind: &Arc<str>, settlement: &Settlement, crashed: bool) {
        let telemetry = self.context.telemetry(kind);
        let metrics = &telemetry.metrics;
        match &settlement.ending {
            Ending::HandedBack { .. } | Ending::Later { .. } if crashed => metrics.recovered(1),
            Ending::Dead { history, .. } => {
                metrics.poisoned(1);
                metrics.dead(1);
                let job = JobRef::bare(&settlement.id, kind, &self.context.queue.name);
                let alert = events::job_poison(job, history.crashes);
                self.context.shared.alerts.raise(alert);
            }
            Ending::Quarantined(reject) => {
                metrics.quarantined(1);
                let reason = reject.to_string();
                events::job_quarantined(&self.context.queue.name, &settlement.id, &reason);
            }
            Ending::HandedBack { .. } | Ending::Finished { .. } | Ending::Later { .. } => {}
        }
    }

    /// Hands back what nobody settled, and leaves the list of workers, so that nobody waits for our lease.
    async fn leave(&self) {
        let Some(incarnation) = self.context.lease.current() else {
            return;
        };
        if let Err(e) = self.try_leave(&incarnation).await {
            tracing::warn!(queue = &*self.context.queue.name, error = %e, "could not take leave");
        }
    }

    async fn try_leave(&self, incarnation: &str) -> Result<(), QueueError> {
        // Who claimed and ran is gone. What is still in our name would be taken for a crash once we are off the list.
        self.context.inflight.let_all_go();
        self.context
            .resolved_claim
            .store(u64::MAX, Ordering::Release);
        let swept = self.sweep(incarnation).await;
        self.context.queue.deregister(incarnation).await?;
        swept
    }
}

/// A delivery whose daemon was found dead, and when that was.
#[derive(Clone, Copy)]
struct Crash<'a> {
    entry: &'a RunningEntry,
    now_ms: u64,
    /// It is one of several suspects: after how many of [`APART`] it is tried again.
    apart: Option<u32>,
}

/// Suspects among the jobs of dead daemons that were not their daemon's only one, each with its turn. A daemon runs one at a
/// time, so all but one of them were about to be put off, and nobody knows which one ran: none is blamed.
fn doubtful(entries: &[RunningEntry], stored: &[(Vec<u8>, Vec<u8>)]) -> HashMap<usize, u32> {
    let mut suspects: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, (entry, (_, meta))) in entries.iter().zip(stored).enumerate() {
        let is_suspect = History::parse(meta).is_some_and(|h| h.crashes + 1 >= POISON_CRASHES);
        if let (true, Some((owner, _))) = (is_suspect, entry.owner()) {
            suspects.entry(owner).or_default().push(index);
        }
    }
    let several = suspects.into_values().filter(|of_one| of_one.len() > 1);
    several
        .flat_map(|of_one| of_one.into_iter().zip(1..))
        .collect()
}

/// The kind of a job that nobody executes, and what becomes of it.
fn rescued(
    catalog: &Catalog,
    entry: &RunningEntry,
    (raw, meta, ties): (&[u8], &[u8], &str),
    crash: Option<Crash<'_>>,
) -> (Arc<str>, Ending) {
    let envelope = match Envelope::parse(raw) {
        Ok(envelope) => envelope,
        Err(reject) => return (UNKNOWN_KIND.into(), Ending::Quarantined(reject)),
    };
    // Where it was taken from, its token says: this daemon may not know its kind, or know it otherwise.
    let flow = entry
        .home(&envelope.kind)
        .unwrap_or_else(|| flow_of(&envelope, catalog));
    let kind = Arc::clone(&flow.kind);
    let mut history = History::parse(meta);
    if let Some(Crash {
        now_ms,
        apart: Some(turn),
        ..
    }) = crash
        && let Some(mut history) = history.clone()
    {
        let delay = APART * turn;
        let due_ms = now_ms.saturating_add(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
        let note = "its daemon died while another suspect was there too";
        history.push(Event::new(now_ms, What::PutOff).due(due_ms).note(note));
        let ending = Ending::Later {
            delay,
            history: Box::new(history),
            counter: "recovered",
        };
        return (kind, ending);
    }
    if let Some(Crash { entry, now_ms, .. }) = crash {
        let history = history.get_or_insert_with(|| {
            let ready_ms = entry.ready_ms().unwrap_or(now_ms);
            History::of(&flow.kind, flow.priority).begun(envelope.enqueued_at, ready_ms)
        });
        history.key.clone_from(&flow.key);
        history.crash(now_ms, entry.owner().map_or("", |(daemon, _)| daemon));
        if history.crashes >= POISON_CRASHES {
            history.push(Event::new(now_ms, What::Dead).note("it crashed its daemon too often"));
            let ending = Ending::Dead {
                history: Box::new(history.clone()),
                given: id_was_given(&entry.id, ties, &envelope),
                counter: "poisoned",
            };
            return (kind, ending);
        }
    }
    let ending = Ending::HandedBack {
        flow,
        history: history.map(Box::new),
        counter: match crash {
            Some(_) => "recovered",
            None => "handed_back",
        },
    };
    (kind, ending)
}
