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
//! 4. Every move is a trial ([`judge`]): a step up that brings a queue is undone, and cuts that do
//!    not help were a mistake, since the operation has become slower by itself.
//! 5. The limit rests with about one job waiting: if that one waits no longer, there is room. The
//!    longer no step up was undone, the less proof of room the next one takes.
//!
//! All times are monotonic milliseconds since any fixed origin. [`LimiterConfig`] has the
//! constants and their sources.

mod anchor;
mod evidence;
mod judge;
mod measure;
mod report;
mod settings;
mod window;

use std::time::Duration;

use anchor::{Anchor, float};
use judge::Trial;
use measure::Measuring;
pub use report::{Change, Reason, Saved, Snapshot};
pub use settings::LimiterConfig;
use window::{Tally, Window};

/// Latencies kept to make an anchor of.
const GATHERED: usize = 512;
/// Nothing ended for this many times what few jobs exceed: the dependency hangs.
const SILENCE: f64 = 3.0;
/// … but never sooner than this, milliseconds.
const SHORTEST_SILENCE_MS: u64 = 2_000;
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
    /// The last move, while what it brought is compared with what it was to bring.
    trial: Option<Trial>,
    /// Latencies under the limit before the last step up, if it was free of congestion.
    clean: Vec<f64>,
    /// Whether the present limit was reached upwards, and no congestion was met under it.
    is_clean: bool,
    /// Whether congestion was ever met.
    met_congestion: bool,
    /// When a step up was last undone.
    undone_ms: u64,
    /// Whether the limit kept jobs back since the last decision.
    pressed: bool,
    measuring: Option<Measuring>,
    measured_ms: u64,
    measure_at_ms: u64,
    raised_ms: Option<u64>,
    /// The limit before nothing ended any more.
    silenced: Option<usize>,
    /// When it was last halved for that.
    silenced_ms: u64,
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
            trial: None,
            clean: Vec::new(),
            is_clean: true,
            met_congestion: false,
            undone_ms: now_ms,
            pressed: false,
            measuring: None,
            measured_ms: now_ms,
            measure_at_ms: now_ms.saturating_add(millis(config.anchor_every)),
            raised_ms: None,
            silenced: None,
            silenced_ms: now_ms,
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
            limiter.is_clean = false;
            limiter.met_congestion = true;
            limiter.anchor = Some(anchor);
            limiter.begin(now_ms, now_ms);
        }
        limiter
    }

    /// What is worth keeping over a restart.
    pub fn saved(&self) -> Saved {
        Saved {
            limit: match (self.measuring, self.trial) {
                (Some(measuring), _) => measuring.back_to,
                (None, Some(Trial::Up { back_to, .. })) => back_to,
                (None, _) => self.silenced.unwrap_or(self.limit),
            },
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
        // What hung says nothing of how long jobs take.
        let hung =
            self.silenced.is_some() && now_ms.saturating_sub(whole_ms(ms)) < self.silenced_ms;
        if counts && !hung && now_ms >= self.counts_from_ms {
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
        let closed = self.window.close(now_ms, self.few());
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
            self.renew_slow_anchor(now_ms);
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

    /// Jobs that were too slow to be limited may have become others.
    fn renew_slow_anchor(&mut self, now_ms: u64) {
        let many = usize::try_from(self.config.anchor_jobs).unwrap_or(usize::MAX);
        if now_ms >= self.measure_at_ms && self.gathered.len() >= many.min(GATHERED) {
            self.anchor = Anchor::of(&self.gathered);
            self.measure_at_ms = now_ms.saturating_add(millis(self.config.anchor_every));
            self.begin(now_ms, now_ms);
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
        if self.silenced.is_some() && full == self.config.min {
            // What is counted goes on: by it the silence ends.
            return None;
        }
        self.silenced.get_or_insert(full);
        self.silenced_ms = now_ms;
        self.trial = None;
        self.is_clean = false;
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
        let by_wait = matches!(reason, Reason::Room | Reason::NoRoom | Reason::Congestion);
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
