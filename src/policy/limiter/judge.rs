//! When the limit moves, and what a move has to bring. A move is a trial: what it was to bring is
//! held against what it brought, so that a mistake is found out by the move itself.

use std::time::Duration;

use super::anchor::{Anchor, float};
use super::evidence::Reading;
use super::window::{BUCKETS, Tally};
use super::{Change, DOUBT_EVERY_MS, Limiter, Reason, whole, whole_ms};

/// After a change the next this many mean latencies say more of the old limit than of the new.
pub(super) const SETTLE: f64 = 1.0;
/// The same after a cut: a queue has to drain first.
const SETTLE_AFTER_CUT: f64 = 1.5;
/// The queue that a cut leaves, in jobs.
const REST: f64 = 1.0;
/// Headroom is never less than this, in jobs, and tolerance never less than that.
const BAND: (f64, f64) = (0.5, 1.75);
/// A step up multiplies the limit by this while it is not known where the end is, and by that
/// from a limit that was found …
const STEP: (f64, f64) = (1.5, 1.3);
/// … and adds no fewer jobs than these: what they bring has to be seen.
const LEAST_STEP: usize = 4;
/// Surely fewer jobs than this wait: what is served at once is no less than the load.
const NONE_WAITS: f64 = 0.7;
/// So long after a step up was undone, the next takes no more proof of room.
const FORGOTTEN: Duration = Duration::from_secs(300);
/// Jobs that are clearly faster than the anchor by this much, as a logarithm, show that it no
/// longer holds.
const FASTER: f64 = 0.1;

/// A move of the limit that has yet to show what it brings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Trial {
    /// A step up: what was seen before it, and the limit to go back to.
    Up { back_to: usize, before: Tally },
    /// A cut, or several, from a limit. If they do not help, jobs may be slower by themselves.
    Cut { from: usize },
}

/// What a look says of a step up.
enum Step {
    Room,
    NoRoom,
    Unclear,
}

impl Limiter {
    /// Moves the limit if some look at the recent past says so clearly: the newest first.
    pub(super) fn judge(&mut self, now_ms: u64, may_grow: bool) -> Option<Change> {
        let looks: Vec<(usize, Tally)> = self
            .window
            .looks()
            .filter(|(_, tally)| tally.jobs >= self.config.few_jobs)
            .collect();
        let proof = self.proof(now_ms);
        let mut room = None;
        for (buckets, tally) in looks {
            let anchor = self.anchor.as_ref()?;
            let by_wait = Reading::by_wait(anchor, &tally, self.config.sure);
            let by_mean = Reading::by_mean(anchor, &tally, self.config.sure);
            let worse = if by_mean.low > by_wait.low {
                by_mean
            } else {
                by_wait
            };
            self.wait_ms = Some(by_wait.wait_ms.max(0.0));
            let root = tally.load().max(1.0).sqrt();
            let tolerated = (self.config.tolerance * root).max(BAND.1);
            let (mean_ln, error) = tally.mean_ln();
            let used = self.is_used(&tally);
            let faster = anchor.shift(mean_ln) + self.config.sure * error < -FASTER;
            if let Some(Trial::Up { before, .. }) = &self.trial {
                match self.weigh_step(anchor, before, &tally, buckets == BUCKETS) {
                    Step::Room if may_grow && used && !faster => return self.accept(now_ms, tally),
                    Step::NoRoom => return self.cut(now_ms, worse),
                    _ if !faster => continue,
                    _ => {}
                }
            }
            if worse.low > tolerated {
                return self.cut(now_ms, worse);
            }
            if faster {
                // Held against such an anchor, any queue would pass.
                let again = now_ms >= self.measured_ms.saturating_add(DOUBT_EVERY_MS);
                return again.then(|| self.measure(now_ms)).flatten();
            }
            if let Some(before) = self.silenced.take() {
                let slower = anchor.shift(mean_ln) - self.config.sure * error > FASTER;
                if slower && self.limit == self.config.min {
                    // One at a time waits for nobody: that is how long they take now.
                    self.anchor = Anchor::of(&self.gathered);
                    self.begin(now_ms, now_ms);
                }
                return self.change(now_ms, before, Reason::Room);
            }
            if buckets == BUCKETS {
                self.trial = None;
            }
            let headroom = (self.config.headroom * root).max(BAND.0);
            let high = by_wait.queue + proof * (by_wait.high - by_wait.queue);
            if used && may_grow && (high < headroom || !self.met_congestion) {
                room = Some((tally, by_wait.high < NONE_WAITS));
            }
        }
        let (tally, none_waits) = room?;
        let times = if self.met_congestion { STEP.1 } else { STEP.0 };
        let back_to = self.limit + usize::from(none_waits);
        self.grow(now_ms, times, back_to, tally)
    }

    /// How much proof of room a step up takes, 1 to -1: the less, the longer none was undone.
    fn proof(&self, now_ms: u64) -> f64 {
        let since = Duration::from_millis(now_ms.saturating_sub(self.undone_ms));
        (1.0 - since.as_secs_f64() / FORGOTTEN.as_secs_f64()).max(-1.0)
    }

    /// Whether fewer than half of the jobs that a step added wait. Two witnesses: the anchor, and
    /// what was seen before the step, which does not err where the anchor does. One of them must
    /// be clear. Against the step the other has to lean to the same side. At `last` it is enough
    /// that the second leans.
    fn weigh_step(&self, anchor: &Anchor, before: &Tally, now: &Tally, last: bool) -> Step {
        let sure = self.config.sure;
        let by_wait = Reading::by_wait(anchor, now, sure);
        let by_mean = Reading::by_mean(anchor, now, sure);
        let worse = if by_mean.low > by_wait.low {
            by_mean
        } else {
            by_wait
        };
        let added = Reading::added(anchor, before, now, sure);
        let half = (now.load() - before.load()).max(1.0) / 2.0;
        if by_wait.high < half || added.high < 0.5 || (last && added.queue < 0.5) {
            return Step::Room;
        }
        let tolerated = (self.config.tolerance * now.load().sqrt()).max(BAND.1);
        let clear = (added.low > 0.5 && worse.queue > half)
            || (worse.low > tolerated.max(half) && added.queue > 0.5);
        match clear || last {
            true => Step::NoRoom,
            false => Step::Unclear,
        }
    }

    /// Down to what the dependency serves, and one job more.
    fn cut(&mut self, now_ms: u64, reading: Reading) -> Option<Change> {
        let from = self.limit;
        let first = !std::mem::replace(&mut self.met_congestion, true);
        // Of what is surely too much and what most likely is, the middle.
        let queue = f64::midpoint(reading.low, reading.queue).max(0.0);
        let lowest = float(from) / self.config.max_cut;
        let mut to = whole((reading.load - queue + REST).max(lowest));
        let (mut series, mut reason) = (None, Reason::Congestion);
        match self.trial.take() {
            Some(Trial::Up { back_to, .. }) => {
                // Where it came from, unless what it shows is clearly more.
                let more = reading.load - reading.high > float(back_to);
                to = if more { to.max(back_to) } else { back_to };
                self.undone_ms = now_ms;
                if !first {
                    reason = Reason::NoRoom;
                }
            }
            Some(Trial::Cut { from: before }) => {
                series = Some(before);
                self.trial = Some(Trial::Cut { from: before });
            }
            None => self.trial = Some(Trial::Cut { from }),
        }
        self.is_clean = false;
        let change = self.change(now_ms, to.min(from - 1), reason)?;
        let seen_ms = reading.wait_ms + self.anchor.as_ref().map_or(1.0, Anchor::mean_ms);
        let settled_ms = now_ms.saturating_add(whole_ms(SETTLE_AFTER_CUT * seen_ms));
        self.begin(now_ms, settled_ms);
        let low = match series {
            Some(before) => self.measure_in_doubt(now_ms, before, reading.load, seen_ms),
            // What was measured up to here may have waited as well.
            None if first => self.measure(now_ms),
            None => None,
        };
        Some(low.map_or(change, |low| Change { from, ..low }))
    }

    /// A step up; `back_to` is where to go if there was no room.
    fn grow(&mut self, now_ms: u64, times: f64, back_to: usize, before: Tally) -> Option<Change> {
        if self.limit == self.config.max {
            return None;
        }
        let to = whole(float(self.limit) * times).max(self.limit + LEAST_STEP);
        self.clean.clear();
        if self.is_clean {
            std::mem::swap(&mut self.clean, &mut self.gathered);
        }
        let change = self.change(now_ms, to, Reason::Room)?;
        self.trial = Some(Trial::Up { back_to, before });
        self.is_clean = true;
        let settle = SETTLE * self.anchor.as_ref().map_or(0.0, Anchor::mean_ms);
        self.begin(now_ms, now_ms.saturating_add(whole_ms(settle)));
        Some(change)
    }

    /// A step up has shown room: what ran before it was undisturbed, and the next step follows.
    fn accept(&mut self, now_ms: u64, now: Tally) -> Option<Change> {
        self.trial = None;
        if let (Some(anchor), Some(more)) = (&mut self.anchor, Anchor::of(&self.clean)) {
            anchor.pool(&more);
        }
        self.grow(now_ms, STEP.0, self.limit + 1, now)
    }
}
