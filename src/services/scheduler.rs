//! Makes jobs of the ticks of schedules: those of definitions, and those that operators added.
//!
//! Runs in every daemon, for each of its queues. All of them plan, and one script lets one of them serve a tick. What
//! was served stands in Redis with the jobs, so a daemon that dies at any point leaves either both or neither.

use crate::catalog::schedules::{Scheduled, of_queue};
use crate::policy::ticks::{self, Due};
use crate::queue::QueueError;
use crate::queue::schedules::{
    Glance, Stored, TICK_BYTES, TICK_ENTRIES, TICK_SCHEDULES, Tick, Ticked, any_last_tick,
    envelope, is_ahead, last_tick, record, tick_id,
};
use crate::runner::{QueueContext, Registry, heal};
use crate::telemetry::events;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// However short `daemon.poll` is, a look for changes needs no more haste than this.
const LOOK_MIN: Duration = Duration::from_millis(100);
/// Rounds of serving in one turn, so that it ends; what is left is done in the next.
const ROUNDS: usize = 100;
/// The record of a schedule that this daemon does not know is kept this long after its last tick: another daemon, or
/// a definition that comes back, may need it.
const KEEP_UNKNOWN_MS: u64 = 30 * 24 * 3_600_000;

/// Serves ticks until it is stopped.
pub async fn run(context: Arc<QueueContext>, stop: CancellationToken) {
    let mut desk = Desk::new(context);
    loop {
        let wait = match desk.turn().await {
            Ok(wait) => wait,
            Err(e) => {
                let queue = &*desk.context.queue.name;
                tracing::debug!(queue, error = %e, "schedules not served; trying again");
                if matches!(e, QueueError::WrongType(_)) {
                    heal(&desk.context).await;
                }
                desk.revision = None;
                desk.look_interval()
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// The schedules of one queue, as this daemon knows them.
struct Desk {
    context: Arc<QueueContext>,
    registry: Arc<Registry>,
    /// The revision that the entries are of; none if they must be read anew.
    revision: Option<String>,
    entries: Vec<Entry>,
    /// Added schedules that can't be served here, already told of.
    told: HashSet<String>,
}

/// One schedule at work.
struct Entry {
    scheduled: Scheduled,
    /// The record in Redis as it was seen last; empty for none.
    record: String,
    /// Ticks up to this time are not for us, as far as we know by ourselves: served, or from before we knew it.
    since_ms: u64,
    paused: bool,
    /// More of what is due is served in the next call; it was told of already.
    catching_up: bool,
}

impl Entry {
    /// Ticks after this time are to be served. A record of another expression says nothing: after a change of the
    /// definition, what the new expression would have meant in the past does not count. Nor does what was served while
    /// the clock of Redis was ahead: those ticks have their jobs, and their ids are known.
    fn last_ms(&self, now_ms: u64) -> u64 {
        let since_ms = if is_ahead(self.since_ms, now_ms) {
            now_ms
        } else {
            self.since_ms
        };
        last_tick(&self.record, &self.scheduled, now_ms).unwrap_or(since_ms)
    }

    fn next_ms(&self, now_ms: u64) -> Option<u64> {
        let schedule = &self.scheduled.spec.schedule;
        let last = self.last_ms(now_ms);
        schedule.next_after(last).filter(|_| !self.paused)
    }

    /// Whether its first sight is yet to be put on record, so that what is missed from now on is made up for.
    fn is_unrecorded(&self, now_ms: u64) -> bool {
        !self.paused && last_tick(&self.record, &self.scheduled, now_ms).is_none()
    }

    fn due(&self, now_ms: u64) -> Option<Due> {
        if self.paused {
            return None;
        }
        let spec = &self.scheduled.spec;
        let last = self.last_ms(now_ms);
        ticks::due(&spec.schedule, spec.misfire, spec.catch_up, last, now_ms)
    }
}

/// What is to be done for one entry, and why.
struct Planned {
    entry: usize,
    tick: Tick,
    due: Option<Due>,
    /// The last tick once it is done.
    last_ms: u64,
}

impl Desk {
    fn new(context: Arc<QueueContext>) -> Self {
        Self {
            registry: context.shared.registry.load_full(),
            context,
            revision: None,
            entries: Vec::new(),
            told: HashSet::new(),
        }
    }

    fn look_interval(&self) -> Duration {
        self.context.poll.max(LOOK_MIN)
    }

    /// Looks for changes, serves what is due, and says how long there is nothing to do.
    async fn turn(&mut self) -> Result<Duration, QueueError> {
        let mut glance = self.context.queue.glance_at_schedules().await?;
        for _ in 0..ROUNDS {
            if self.is_outdated(&glance) {
                glance = self.read().await?;
            }
            let plan = self.plan(glance.now_ms);
            if plan.is_empty() {
                return Ok(self.until_next(glance.now_ms));
            }
            match self.serve(&glance.revision, plan).await? {
                Some(now_ms) => glance.now_ms = now_ms,
                None => glance = self.read().await?,
            }
        }
        Ok(Duration::from_millis(1))
    }

    fn until_next(&self, now_ms: u64) -> Duration {
        let next = self
            .entries
            .iter()
            .filter_map(|entry| entry.next_ms(now_ms))
            .min();
        let wait = next.map_or(u64::MAX, |at| at.saturating_sub(now_ms).max(1));
        Duration::from_millis(wait).min(self.look_interval())
    }

    fn is_outdated(&self, glance: &Glance) -> bool {
        let reloaded = !Arc::ptr_eq(&self.registry, &self.context.shared.registry.load());
        reloaded || self.revision.as_ref() != Some(&glance.revision)
    }

    /// Reads all schedules anew.
    async fn read(&mut self) -> Result<Glance, QueueError> {
        let stored = self.context.queue.stored_schedules().await?;
        self.registry = self.context.shared.registry.load_full();
        let queue = Arc::clone(&self.context.queue.name);
        let (schedules, unserved) = of_queue(&self.registry.catalog, &queue, &stored.added);
        for schedule in unserved {
            if self
                .told
                .insert(format!("{} {}", schedule.name, schedule.reason))
            {
                let (schedule, reason) = (schedule.name, schedule.reason);
                tracing::warn!(
                    event = "schedule_unserved",
                    queue = &*queue,
                    schedule,
                    reason,
                    "an added schedule can't be served here"
                );
            }
        }
        let now_ms = stored.glance.now_ms;
        let mut before: HashMap<Arc<str>, Entry> = std::mem::take(&mut self.entries)
            .into_iter()
            .map(|entry| (Arc::clone(&entry.scheduled.name), entry))
            .collect();
        let enter = |scheduled: Scheduled| Entry {
            since_ms: before
                .remove(&scheduled.name)
                .filter(|old| !old.paused && same_times(&old.scheduled, &scheduled))
                .map_or(now_ms, |old| old.last_ms(now_ms)),
            record: stored
                .records
                .get(&*scheduled.name)
                .cloned()
                .unwrap_or_default(),
            paused: stored.paused.contains_key(&*scheduled.name),
            catching_up: false,
            scheduled,
        };
        self.entries = schedules.into_iter().map(enter).collect();
        self.forget(&stored).await?;
        self.revision = Some(stored.glance.revision.clone());
        Ok(stored.glance)
    }

    /// Removes records of schedules that are gone for long.
    async fn forget(&self, stored: &Stored) -> Result<(), QueueError> {
        let before = stored.glance.now_ms.saturating_sub(KEEP_UNKNOWN_MS);
        let known: HashSet<&str> = self.entries.iter().map(|e| &*e.scheduled.name).collect();
        let is_gone = |name: &str, record: &str| {
            !known.contains(name)
                && !stored.added.iter().any(|(added, _)| added == name)
                && any_last_tick(record)
                    .is_none_or(|last| last < before || is_ahead(last, stored.glance.now_ms))
        };
        let gone = stored
            .records
            .iter()
            .filter(|(name, record)| is_gone(name, record));
        let gone: Vec<String> = gone
            .map(|(name, _)| name.clone())
            .take(TICK_SCHEDULES)
            .collect();
        if gone.is_empty() {
            return Ok(());
        }
        self.context.queue.forget_ticks(&gone).await
    }

    /// What is to be done now, as much as one call may hold.
    fn plan(&self, now_ms: u64) -> Vec<Planned> {
        let (mut plan, mut bytes, mut jobs) = (Vec::new(), 0, 0);
        for (index, entry) in self.entries.iter().enumerate() {
            if plan.len() >= TICK_SCHEDULES || bytes >= TICK_BYTES || jobs >= TICK_ENTRIES {
                break;
            }
            let planned = match entry.due(now_ms) {
                Some(due) => serve_due(index, entry, due, now_ms, TICK_BYTES - bytes),
                None if entry.is_unrecorded(now_ms) => first_sight(index, entry, now_ms),
                None => continue,
            };
            bytes += planned.tick.entries.iter().map(Vec::len).sum::<usize>();
            jobs += planned.tick.entries.len();
            plan.push(planned);
        }
        plan
    }

    /// Does it; answers with Redis time, or with none if the schedules were changed meanwhile.
    async fn serve(
        &mut self,
        revision: &str,
        plan: Vec<Planned>,
    ) -> Result<Option<u64>, QueueError> {
        let (ticks, plan): (Vec<Tick>, Vec<_>) = plan
            .into_iter()
            .map(|p| (p.tick, (p.entry, p.due, p.last_ms)))
            .unzip();
        let Some((now_ms, answers)) = self.context.queue.tick(revision, &ticks).await? else {
            return Ok(None);
        };
        for ((tick, (index, due, last_ms)), answer) in ticks.into_iter().zip(plan).zip(answers) {
            let entry = &mut self.entries[index];
            match answer {
                Ticked::Served => {
                    entry.record = tick.new;
                    entry.since_ms = last_ms;
                    if let Some(due) = due {
                        report(&self.context, entry, &due, last_ms, now_ms);
                        entry.catching_up = last_ms < due.latest_ms;
                    }
                }
                Ticked::Moved(record) => {
                    // If the new record is of another expression, we go on from what we knew.
                    entry.since_ms = entry.last_ms(now_ms);
                    entry.record = record;
                }
                // The clock of Redis went back between two calls; by its new time nothing is due.
                Ticked::Early => {}
            }
        }
        Ok(Some(now_ms))
    }
}

/// Whether the ticks of two schedules are at the same times.
fn same_times(a: &Scheduled, b: &Scheduled) -> bool {
    record(0, a) == record(0, b)
}

/// As many of the due ticks as fit into one call: at least one.
fn serve_due(index: usize, entry: &Entry, due: Due, now_ms: u64, room: usize) -> Planned {
    let scheduled = &entry.scheduled;
    let (mut entries, mut bytes, mut last_ms) = (Vec::new(), 0, due.latest_ms);
    for (n, tick) in due.serve.iter().enumerate() {
        if n == TICK_ENTRIES || bytes >= room {
            last_ms = due.serve[n - 1];
            break;
        }
        let made = envelope(
            scheduled,
            &tick_id(&scheduled.name, *tick),
            Some(*tick),
            now_ms,
        );
        bytes += made.len();
        entries.push(made);
    }
    Planned {
        entry: index,
        tick: Tick {
            name: scheduled.name.to_string(),
            record: entry.record.clone(),
            new: record(last_ms, scheduled),
            latest_ms: last_ms,
            passed_over: due.passed_over,
            entries,
        },
        due: Some(due),
        last_ms,
    }
}

/// Puts on record that a schedule is known from now on.
fn first_sight(index: usize, entry: &Entry, now_ms: u64) -> Planned {
    let last_ms = entry.last_ms(now_ms);
    Planned {
        entry: index,
        tick: Tick {
            name: entry.scheduled.name.to_string(),
            record: entry.record.clone(),
            new: record(last_ms, &entry.scheduled),
            latest_ms: 0,
            passed_over: 0,
            entries: Vec::new(),
        },
        due: None,
        last_ms,
    }
}

/// Tells of ticks that were served, or given up.
fn report(context: &QueueContext, entry: &Entry, due: &Due, last_ms: u64, now_ms: u64) {
    let late = Duration::from_millis(now_ms.saturating_sub(last_ms));
    if !due.serve.is_empty() {
        context.shared.metrics.schedule_lag(late);
    }
    let (queue, schedule) = (&*context.queue.name, &*entry.scheduled.name);
    let late_ms = late.as_millis() as u64;
    tracing::debug!(
        event = "schedule_served",
        queue,
        schedule,
        late_ms,
        "ticks served"
    );
    let Some(late) = due.missed_by(now_ms).filter(|_| !entry.catching_up) else {
        return;
    };
    let missed = events::MissedTicks {
        queue,
        schedule,
        oldest_ms: due.oldest_ms,
        late,
        served: due.serve.len() as u64,
        passed_over: due.passed_over,
    };
    context.shared.alerts.raise(events::schedule_missed(missed));
}
