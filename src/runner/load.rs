//! How much this daemon worked, by class: what the forecast learns from.
//!
//! Costs a few additions per job, under the lock of the slots, and no call to anybody. Must not know of the forecast.

use crate::job::Priority;
use crate::policy::forecast::ClassLoad;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Slots that are free for no longer than this are on their way to the next job: all were in use throughout.
const GAP: Duration = Duration::from_secs(5);
/// A job that waited less than this for a free slot is counted where it ran.
pub const LATE: Duration = Duration::from_secs(60);
/// Work is moved by whole minutes …
const BIN: Duration = Duration::from_secs(60);
/// … over a day at most …
const FARTHEST: Duration = Duration::from_secs(86_400);
/// … and no more bins than this are held for whoever takes them.
const BINS_MAX: usize = 8_192;

/// What was counted since the last time it was taken.
#[derive(Debug, Clone, Default)]
pub struct Taken {
    /// Of each class, in the order of [`Priority::ALL`], since it was taken last.
    pub done: [ClassLoad; 5],
    /// What was late, and belongs to another time.
    pub moved: Vec<Moved>,
}

/// Work that is to be counted for an earlier minute, or no longer for a later one.
#[derive(Debug, Clone, Copy)]
pub struct Moved {
    /// Its class.
    pub class: Priority,
    /// How long ago that minute began.
    pub ago: Duration,
    /// What is added to it; less than nothing where it ran.
    pub load: ClassLoad,
}

/// The counters.
#[derive(Debug)]
pub(super) struct Meter {
    running: [u32; 5],
    /// Nanoseconds of slots until `counted`.
    busy: [u64; 5],
    jobs: [i64; 5],
    counted: Instant,
    /// Since when all slots have been in use, and when that was last seen.
    full: Option<(Instant, Instant)>,
    origin: Instant,
    moved: HashMap<(Priority, u64), ClassLoad>,
}

impl Meter {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            running: [0; 5],
            busy: [0; 5],
            jobs: [0; 5],
            counted: now,
            full: None,
            origin: now,
            moved: HashMap::new(),
        }
    }

    fn count(&mut self, now: Instant) {
        let nanos = now.saturating_duration_since(self.counted).as_nanos();
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        for (busy, running) in self.busy.iter_mut().zip(self.running) {
            *busy = busy.saturating_add(nanos.saturating_mul(running.into()));
        }
        self.counted = now;
    }

    /// So many jobs of a class begin.
    pub(super) fn begin(&mut self, class: Priority, jobs: usize, now: Instant) {
        if jobs == 0 {
            return;
        }
        self.count(now);
        let jobs = u32::try_from(jobs).unwrap_or(u32::MAX);
        let running = &mut self.running[class.index()];
        *running = running.saturating_add(jobs);
        self.jobs[class.index()] += i64::from(jobs);
    }

    /// A job of a class ends.
    pub(super) fn end(&mut self, class: Priority, now: Instant) {
        self.count(now);
        let running = &mut self.running[class.index()];
        *running = running.saturating_sub(1);
    }

    /// All slots are in use.
    pub(super) fn full(&mut self, now: Instant) {
        let since = match self.full {
            Some((since, last)) if now.saturating_duration_since(last) <= GAP => since,
            _ => now,
        };
        self.full = Some((since, now));
    }

    /// A job ends that was due `waited` before it started and ran for `took`. As far as it waited because all slots were
    /// in use, its work belongs to the time when it was due.
    pub(super) fn late(&mut self, class: Priority, waited: Duration, took: Duration, now: Instant) {
        let Some(started) = now.checked_sub(took) else {
            return;
        };
        let Some((since, last)) = self.full else {
            return;
        };
        if started > last + GAP {
            return;
        }
        let late = started.saturating_duration_since(since);
        let late = late.min(waited).min(FARTHEST);
        if late < LATE {
            return;
        }
        let from = started.saturating_duration_since(self.origin);
        self.shift(class, from, took, -1);
        self.shift(class, from.saturating_sub(late), took, 1);
    }

    /// Adds a job, or takes it away, that began `from` after the origin.
    fn shift(&mut self, class: Priority, from: Duration, took: Duration, sign: i64) {
        let minute = |at: Duration| at.as_secs() / BIN.as_secs();
        let to = from + took.min(FARTHEST);
        for bin in minute(from)..=minute(to) {
            let start = BIN * u32::try_from(bin).unwrap_or(u32::MAX);
            let part = to.min(start + BIN).saturating_sub(from.max(start));
            let held = self.moved.len();
            let first = bin == minute(from);
            let load = match self.moved.entry((class, bin)) {
                std::collections::hash_map::Entry::Vacant(_) if held >= BINS_MAX => return,
                entry => entry.or_default(),
            };
            load.busy_ms += sign * i64::try_from(part.as_millis()).unwrap_or(0);
            load.jobs += if first { sign } else { 0 };
        }
    }

    pub(super) fn take(&mut self, now: Instant) -> Taken {
        self.count(now);
        let mut done = [ClassLoad::default(); 5];
        for (class, load) in done.iter_mut().enumerate() {
            // What is less than a millisecond stays for the next time.
            let ms = self.busy[class] / 1_000_000;
            self.busy[class] -= ms * 1_000_000;
            load.busy_ms = i64::try_from(ms).unwrap_or(i64::MAX);
            load.jobs = std::mem::take(&mut self.jobs[class]);
        }
        let since_origin = now.saturating_duration_since(self.origin);
        let moved = self.moved.drain().map(|((class, bin), load)| Moved {
            class,
            ago: since_origin.saturating_sub(BIN * u32::try_from(bin).unwrap_or(u32::MAX)),
            load,
        });
        Taken {
            done,
            moved: moved.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASS: Priority = Priority::Normal;

    fn at(origin: Instant, secs: u64) -> Instant {
        origin + Duration::from_secs(secs)
    }

    #[test]
    fn busy_time_is_counted_while_jobs_still_run() {
        let origin = crate::clock::monotonic();
        let mut meter = Meter::new(origin);
        meter.begin(CLASS, 2, at(origin, 10));
        let first = meter.take(at(origin, 20)).done[CLASS.index()];
        assert_eq!((first.jobs, first.busy_ms), (2, 20_000));
        meter.end(CLASS, at(origin, 25));
        let second = meter.take(at(origin, 30)).done[CLASS.index()];
        assert_eq!((second.jobs, second.busy_ms), (0, 15_000));
        meter.end(CLASS, at(origin, 30));
        meter.end(CLASS, at(origin, 30));
        assert_eq!(meter.take(at(origin, 99)).done[CLASS.index()].busy_ms, 0);
    }

    /// Minutes ago → (jobs, ms), in order.
    fn moved(meter: &mut Meter, now: Instant) -> Vec<(u64, i64, i64)> {
        let taken = meter.take(now).moved;
        let mut moved: Vec<_> = taken
            .iter()
            .filter(|m| m.load != ClassLoad::default())
            .map(|m| (m.ago.as_secs() / 60, m.load.jobs, m.load.busy_ms))
            .collect();
        moved.sort_unstable();
        moved
    }

    #[test]
    fn work_that_waited_for_a_slot_counts_when_it_was_due() {
        let origin = crate::clock::monotonic();
        let mut meter = Meter::new(origin);
        // Full from the first minute on, with a moment between jobs.
        for second in (60..=1_200).step_by(4) {
            meter.full(at(origin, second));
        }
        // Due in minute 5, started in minute 15, ran for 90 seconds.
        let now = at(origin, 990);
        meter.late(
            CLASS,
            Duration::from_secs(600),
            Duration::from_secs(90),
            now,
        );
        let now = at(origin, 20 * 60);
        let expected = [
            (4, 0, -30_000),
            (5, -1, -60_000),
            (14, 0, 30_000),
            (15, 1, 60_000),
        ];
        assert_eq!(moved(&mut meter, now), expected);
        assert!(moved(&mut meter, now).is_empty(), "taken once");
    }

    #[test]
    fn waiting_for_anything_but_slots_moves_nothing() {
        let origin = crate::clock::monotonic();
        let mut meter = Meter::new(origin);
        let (waited, took) = (Duration::from_secs(3_600), Duration::from_secs(10));
        meter.late(CLASS, waited, took, at(origin, 4_000));
        assert!(
            moved(&mut meter, at(origin, 4_000)).is_empty(),
            "slots were free"
        );
        // They became full only a moment before it started.
        meter.full(at(origin, 5_000));
        meter.full(at(origin, 5_004));
        meter.late(CLASS, waited, took, at(origin, 5_014));
        assert!(moved(&mut meter, at(origin, 5_014)).is_empty());
        // They were full, and free again for long.
        for second in (6_000..=6_200).step_by(4) {
            meter.full(at(origin, second));
        }
        meter.late(CLASS, waited, took, at(origin, 7_000));
        assert!(moved(&mut meter, at(origin, 7_000)).is_empty());
    }

    #[test]
    fn what_nobody_takes_stays_bounded() {
        let origin = crate::clock::monotonic();
        let mut meter = Meter::new(origin);
        let day = Duration::from_secs(86_400);
        for hour in 0..400 {
            let now = at(origin, 3_600 * hour);
            meter.full = Some((origin, now));
            meter.late(CLASS, day, Duration::from_secs(3_000), now);
        }
        assert!(meter.moved.len() <= BINS_MAX);
    }
}
