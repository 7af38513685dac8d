//! How many jobs of one operation may run at once on one resource: as many as it serves without
//! letting them wait.
//!
//! Owns the limit, the evidence and the anchor. It must not know what the operation is, nor start
//! or hold anything: the caller asks [`Limiter::limit`], reports with [`Limiter::started`] and
//! [`Limiter::finished`], calls [`Limiter::tick`] a few times a second, and logs the [`Change`]s.
//!
//! A job runner is a closed loop: its backlog never empties, so every limit that is offered is
//! used, and limiters made for servers, which take a long average of the latency for healthy,
//! drift upwards with the queue they make themselves. Hence:
//!
//! 1. Latency is held against an *anchor*, the distribution of undisturbed latencies, which is
//!    measured while the limit is low for a moment ([`anchor`]).
//! 2. From both follows the wait `w` each job had within the dependency, and by Little's law the
//!    queue there: `load × w / (w + anchor)` jobs. The rest of the load is what the dependency
//!    really serves at once, so one cut finds the new capacity.
//! 3. The limit is moved only by evidence that is clear beyond chance, as with the breaker: a big
//!    change shows in the newest second, a small difference in all of the last sixteen.
//! 4. The limit rests with about one job waiting: if that one waits no longer, there is room.
//! 5. A cut that did not help was a mistake, or the operation has become slower by itself. Then
//!    the anchor is measured anew.
//!
//! All times are monotonic milliseconds since any fixed origin. [`LimiterConfig`] has the
//! constants and their sources.

mod anchor;
mod evidence;
mod measure;
mod report;
mod settings;
mod window;

use std::time::Duration;

use anchor::{Anchor, float};
use evidence::Reading;
use measure::Measuring;
pub use report::{Change, Reason, Saved, Snapshot};
pub use settings::LimiterConfig;
use window::{Tally, Window};

/// Latencies kept to make an anchor of.
const GATHERED: usize = 512;
/// After a change the next this many mean latencies say more of the old limit than of the new.
const SETTLE: f64 = 1.0;
/// The same after a cut: a queue has to drain first.
const SETTLE_AFTER_CUT: f64 = 1.5;
/// Nothing ended for this many times what few jobs exceed: the dependency hangs.
const SILENCE: f64 = 3.0;
/// … but never sooner than this, milliseconds.
const SHORTEST_SILENCE_MS: u64 = 2_000;
/// An anchor of fewer jobs goes on learning while nothing speaks of a wait.
const YOUNG: f64 = 400.0;
/// The queue that a cut leaves, in jobs.
const REST: f64 = 1.0;
/// Headroom is never less than this, in jobs, and tolerance never less than that: more than one
/// job apart, so that between them there is a whole number to rest at, wherever the anchor lies.
const BAND: (f64, f64) = (0.5, 1.75);
/// Room seen in the newest two buckets is plain; or in so few jobs that it took longer for want of
/// them, and not because it was small.
const FEW_FOR_PLAIN: u32 = 150;
/// After a cut it does not creep up again for this long, milliseconds.
const REST_AFTER_CUT_MS: u64 = 40_000;
/// Jobs that are clearly faster than the anchor by this share show that it no longer holds.
const FASTER: f64 = 0.1;
/// A cut helped if it took away at least this share of the disturbance, as a logarithm.
const HELPED: f64 = 0.4;
/// A measurement out of turn comes at least this long after the last, milliseconds.
const DOUBT_EVERY_MS: u64 = 30_000;

/// How a job ended, as far as its latency is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It did its work: its latency counts.
    Done,
    /// It failed. Failing fast says nothing about the speed of a dependency; failing late does.
    Failed,
    /// It was stopped, or never touched the dependency: it does not count.
    Void,
}

/// The limiter of one operation on one resource.
#[derive(Debug, Clone)]
pub struct Limiter {
    config: LimiterConfig,
    limit: usize,
    inflight: usize,
    anchor: Option<Anchor>,
    window: Window,
    /// Latencies under the present limit, to make an anchor of.
    gathered: Vec<f64>,
    /// Jobs that end before this say more of the limit before.
    counts_from_ms: u64,
    /// The next step up; it doubles while room is plain.
    step: usize,
    /// The disturbance, as a logarithm, that the last cut answered to.
    last_cut: Option<f64>,
    /// Until then only plain room makes it grow again.
    rests_until_ms: u64,
    /// Whether congestion was ever met: before it, an anchor may learn from whatever runs.
    met_congestion: bool,
    /// Whether the limit kept jobs back since the last decision.
    pressed: bool,
    measuring: Option<Measuring>,
    /// Whether the next measurement has to settle a doubt.
    doubted: bool,
    /// A measurement that was slower than the anchor.
    suspected: Option<Anchor>,
    measured_ms: u64,
    measure_at_ms: u64,
    raised_ms: Option<u64>,
    /// Since when nothing has ended, while jobs run.
    silent_since_ms: u64,
    changed_ms: u64,
    reason: Option<Reason>,
    wait_ms: Option<f64>,
}

impl Limiter {
    /// A limiter that knows nothing yet.
    pub fn new(config: LimiterConfig, now_ms: u64) -> Self {
        let config = config.checked();
        let bucket = millis(config.bucket);
        Self {
            config,
            limit: config.initial,
            inflight: 0,
            anchor: None,
            window: Window::new(now_ms, bucket),
            gathered: Vec::new(),
            counts_from_ms: now_ms,
            step: (config.initial / 2).max(1),
            last_cut: None,
            rests_until_ms: now_ms,
            met_congestion: false,
            pressed: false,
            measuring: None,
            doubted: false,
            suspected: None,
            measured_ms: now_ms,
            measure_at_ms: now_ms.saturating_add(millis(config.anchor_every)),
            raised_ms: None,
            silent_since_ms: now_ms,
            changed_ms: now_ms,
            reason: None,
            wait_ms: None,
        }
    }

    /// A limiter that goes on with what another knew. What is not sound is left out.
    pub fn restored(config: LimiterConfig, now_ms: u64, saved: Saved) -> Self {
        let mut limiter = Self::new(config, now_ms);
        if let Some(anchor) = saved.anchor.filter(Anchor::is_sound) {
            limiter.limit = saved.limit.clamp(limiter.config.min, limiter.config.max);
            limiter.step = 1;
            limiter.met_congestion = true;
            limiter.anchor = Some(anchor);
            limiter.begin(now_ms, now_ms);
        }
        limiter
    }

    /// What is worth keeping over a restart.
    pub fn saved(&self) -> Saved {
        Saved {
            limit: self.measuring.map_or(self.limit, |m| m.back_to),
            anchor: self.anchor.clone(),
        }
    }

    /// Jobs that may run at once, at least one.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// As many jobs were taken at once as the limit let, and there may be more. Where jobs end sooner than the next ones are
    /// fetched, few run on average although the limit is what keeps them back.
    pub fn pressed(&mut self) {
        self.pressed = true;
    }

    /// A job starts.
    pub fn started(&mut self, now_ms: u64) {
        self.window.run(now_ms, self.inflight);
        if self.inflight == 0 {
            self.silent_since_ms = now_ms;
        }
        self.inflight += 1;
    }

    /// A job that was reported as started has ended after `took`.
    pub fn finished(&mut self, now_ms: u64, took: Duration, ended: Ended) {
        self.window.run(now_ms, self.inflight);
        self.inflight = self.inflight.saturating_sub(1);
        self.silent_since_ms = now_ms;
        let ms = took.as_secs_f64() * 1_000.0;
        let counts = match ended {
            Ended::Done => true,
            Ended::Failed => self.anchor.as_ref().is_some_and(|a| ms > a.mean_ms()),
            Ended::Void => false,
        };
        if counts && now_ms >= self.counts_from_ms {
            self.window.add(now_ms, ms);
            if self.gathered.len() < GATHERED {
                self.gathered.push(ms);
            }
        }
    }

    /// Judges what was reported. `may_grow` is false while a signal of the resource is missing or
    /// something else holds jobs back; `jitter` is random in `[0, 1)`.
    pub fn tick(&mut self, now_ms: u64, may_grow: bool, jitter: f64) -> Option<Change> {
        self.window.run(now_ms, self.inflight);
        let closed = self.window.close(now_ms);
        if let Some(change) = self.notice_silence(now_ms) {
            return Some(change);
        }
        if let Some(measuring) = self.measuring {
            return self.go_on_measuring(now_ms, measuring, jitter);
        }
        let Some(anchor) = &self.anchor else {
            return self.first_anchor(now_ms);
        };
        if anchor.median_ms() > self.config.slow.as_secs_f64() * 1_000.0 {
            return self.change(now_ms, self.config.max, Reason::TooSlow);
        }
        if !closed {
            return None;
        }
        if now_ms >= self.measure_at_ms && self.gathered.len() >= self.few() {
            return self.measure(now_ms);
        }
        let change = self.judge(now_ms, may_grow);
        self.pressed = false;
        change
    }

    /// All there is to see, for `/health` and `explain`.
    pub fn snapshot(&self, now_ms: u64) -> Snapshot {
        Snapshot {
            limit: self.limit,
            inflight: self.inflight,
            anchor_ms: self.anchor.as_ref().map(Anchor::mean_ms),
            wait_ms: self.wait_ms,
            measuring: self.measuring.is_some(),
            reason: self.reason,
            since_ms: now_ms.saturating_sub(self.changed_ms),
        }
    }

    /// Moves the limit if some look at the recent past says so clearly: the newest first.
    fn judge(&mut self, now_ms: u64, may_grow: bool) -> Option<Change> {
        let looks: Vec<(usize, Tally)> = self
            .window
            .looks()
            .filter(|(_, tally)| tally.jobs >= self.config.few_jobs)
            .collect();
        for (buckets, tally) in looks {
            let anchor = self.anchor.as_ref()?;
            let sure = self.config.sure;
            let by_wait = Reading::by_wait(anchor, &tally, sure);
            // While the anchor is in doubt, what its successor would explain is no congestion.
            let slower = self.suspected.as_ref().unwrap_or(anchor);
            let witnesses = [
                Reading::by_wait(slower, &tally, sure),
                Reading::by_mean(slower, &tally, sure),
            ];
            self.wait_ms = Some(by_wait.wait_ms.max(0.0));
            let root = tally.load().max(1.0).sqrt();
            let tolerated = (self.config.tolerance * root).max(BAND.1);
            if let Some(reading) = witnesses.into_iter().find(|r| r.low > tolerated) {
                return self.cut(now_ms, reading);
            }
            if by_wait.high < -FASTER * tally.load() {
                // Held against such an anchor, any queue would pass.
                let again = now_ms >= self.measured_ms.saturating_add(DOUBT_EVERY_MS);
                return again.then(|| self.measure(now_ms)).flatten();
            }
            let used = self.is_used(&tally);
            let room = (self.config.headroom * root).max(BAND.0);
            // Room that is not refuted for longer needs less proof: a step too far is soon undone.
            let doubt = match buckets {
                ..4 => 1.0,
                4..8 => 0.5,
                _ => 1.0 / 3.0,
            };
            let high = by_wait.queue + doubt * (by_wait.high - by_wait.queue);
            let plain = buckets <= 2 || tally.jobs < FEW_FOR_PLAIN;
            let rests = now_ms < self.rests_until_ms && !plain;
            if used && may_grow && high < room && !rests {
                return self.grow(now_ms, plain);
            }
        }
        self.learn();
        None
    }

    /// Down to what the dependency serves, and one job more.
    fn cut(&mut self, now_ms: u64, reading: Reading) -> Option<Change> {
        let anchor_ms = self.anchor.as_ref().map_or(1.0, Anchor::mean_ms);
        let disturbance = (1.0 + reading.wait_ms / anchor_ms).ln();
        let helped = self
            .last_cut
            .is_none_or(|before| disturbance <= before * (1.0 - HELPED));
        if !helped && self.suspected.is_some() {
            // The anchor is in doubt: to cut again and again would answer a question just asked.
            return None;
        }
        self.last_cut = Some(disturbance);
        self.rests_until_ms = now_ms.saturating_add(REST_AFTER_CUT_MS);
        self.met_congestion = true;
        self.step = 1;
        let doubt = now_ms >= self.measured_ms.saturating_add(DOUBT_EVERY_MS);
        // Of what is surely too much and what most likely is, the middle.
        let queue = f64::midpoint(reading.low, reading.queue);
        let served = (reading.load - queue).max(0.0);
        let lowest = float(self.limit) / self.config.max_cut;
        let to = whole((served + REST).max(lowest)).min(self.limit.saturating_sub(1));
        let change = self.change(now_ms, to, Reason::Congestion);
        let settle = SETTLE_AFTER_CUT * (anchor_ms + reading.wait_ms);
        self.begin(now_ms, now_ms.saturating_add(whole_ms(settle)));
        if helped || !doubt {
            return change;
        }
        self.doubted = true;
        let low = self.measure(now_ms);
        match (change, low) {
            (Some(cut), Some(low)) => Some(Change {
                from: cut.from,
                ..low
            }),
            (change, low) => low.or(change),
        }
    }

    /// One step up; the next is twice as long if the room was plain to see.
    fn grow(&mut self, now_ms: u64, plain: bool) -> Option<Change> {
        self.last_cut = None;
        self.learn();
        if !plain {
            self.step = (self.step / 4).max(1);
        }
        let to = self.limit + self.step.min(self.limit.div_ceil(2));
        self.step = self.step.saturating_mul(2);
        let change = self.change(now_ms, to, Reason::Room)?;
        let settle = SETTLE * self.anchor.as_ref().map_or(0.0, Anchor::mean_ms);
        self.begin(now_ms, now_ms.saturating_add(whole_ms(settle)));
        Some(change)
    }

    /// Until congestion is met, a young anchor takes in jobs that did not clearly wait: else one that came out low by
    /// chance would keep the limit where it is.
    fn learn(&mut self) {
        if let Some(anchor) = &mut self.anchor
            && !self.met_congestion
            && anchor.jobs() < YOUNG
            && let Some(more) = Anchor::of(&self.gathered)
        {
            anchor.pool(&more);
            self.gathered.clear();
        }
    }

    /// Halves the limit if nothing ends although jobs run.
    fn notice_silence(&mut self, now_ms: u64) -> Option<Change> {
        let anchor = self.anchor.as_ref()?;
        let longest = whole_ms(SILENCE * anchor.long_ms()).max(SHORTEST_SILENCE_MS);
        let silent_ms = now_ms.saturating_sub(self.silent_since_ms);
        let too_slow = anchor.median_ms() > self.config.slow.as_secs_f64() * 1_000.0;
        if self.inflight == 0 || silent_ms < longest || too_slow {
            return None;
        }
        let full = self.measuring.take().map_or(self.limit, |m| m.back_to);
        self.silent_since_ms = now_ms;
        self.step = 1;
        self.begin(now_ms, now_ms);
        self.change(now_ms, full / 2, Reason::Silence)
    }

    /// Begins to count afresh, from a time on.
    fn begin(&mut self, now_ms: u64, from_ms: u64) {
        let anchor_ms = self.anchor.as_ref().map_or(0.0, Anchor::mean_ms);
        let bucket = Duration::from_millis(whole_ms(anchor_ms / 2.0)).clamp(
            self.config.bucket,
            Duration::from_secs(15).max(self.config.bucket),
        );
        self.counts_from_ms = from_ms;
        self.gathered.clear();
        let from_ms = if from_ms == u64::MAX { now_ms } else { from_ms };
        self.window.restart(from_ms, millis(bucket));
    }

    /// Sets the limit, within its bounds; none if it stays the same.
    fn change(&mut self, now_ms: u64, to: usize, reason: Reason) -> Option<Change> {
        let to = to.clamp(self.config.min, self.config.max);
        let from = std::mem::replace(&mut self.limit, to);
        if from == to {
            return None;
        }
        self.changed_ms = now_ms;
        self.reason = Some(reason);
        let by_wait = matches!(reason, Reason::Room | Reason::Congestion);
        Some(Change {
            from,
            to,
            reason,
            wait_ms: self.wait_ms.filter(|_| by_wait),
        })
    }

    /// Whether jobs use the limit, so that a higher one would be used too.
    fn is_used(&self, tally: &Tally) -> bool {
        self.pressed || tally.load() >= self.config.used * float(self.limit)
    }

    fn few(&self) -> usize {
        usize::try_from(self.config.few_jobs).unwrap_or(usize::MAX)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// To the next whole number; casts of floats saturate.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(x: f64) -> usize {
    x.round() as usize
}

/// Up to the next whole millisecond.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole_ms(ms: f64) -> u64 {
    ms.ceil() as u64
}

#[cfg(test)]
mod tests;
