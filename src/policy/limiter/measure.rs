//! How a limiter measures its anchor: the first one of the first jobs there are, later ones while
//! the limit is low for a moment.

use std::cmp::Ordering;
use std::time::Duration;

use super::anchor::{Anchor, float};
use super::judge::SETTLE;
use super::{Change, GATHERED, Limiter, Reason, millis, whole_ms};

/// The time between measurements is at least this many times what one takes.
const MEASURE_SHARE: u64 = 20;
/// A measurement after the first takes no longer than this many jobs after each other, if it has a
/// few by then.
const MEASURE_LONGEST: f64 = 8.0;
/// Times between measurements vary by ± this fraction, so that daemons do not measure in step.
const JITTER: f64 = 0.15;
/// Cuts were in vain if this share of what was to go away stays.
const IN_VAIN: f64 = 0.6;
/// Standard errors that decide between two explanations.
const SURE_OF_TWO: f64 = 2.0;

/// A measurement of the anchor that is going on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Measuring {
    pub(super) back_to: usize,
    pub(super) began_ms: u64,
    /// When the jobs of the old limit had left.
    pub(super) drained_ms: Option<u64>,
    /// What it has to decide, if cuts did not help.
    doubt: Option<Doubt>,
}

/// Cuts did not help: either there was a queue, and latencies fall with the load, or jobs have
/// become slower by themselves, and latencies stay.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Doubt {
    /// The limit before the cuts.
    before: usize,
    /// The mean latency that lies between, milliseconds.
    between_ms: f64,
}

impl Doubt {
    /// Whether jobs are slower by themselves; none if that is not clear yet and need not be.
    fn slower(self, measured: &Anchor, late: bool) -> Option<bool> {
        let spread = SURE_OF_TWO * measured.mean_error_ms();
        let off = measured.mean_ms() - self.between_ms;
        let full = measured.jobs() >= float(GATHERED);
        (off.abs() > spread || full || late).then_some(off > 0.0)
    }
}

impl Limiter {
    /// The first anchor, of the first jobs there are.
    pub(super) fn first_anchor(&mut self, now_ms: u64) -> Option<Change> {
        let waited = now_ms.saturating_sub(self.counts_from_ms);
        let slow = self.inflight > 0
            && now_ms.saturating_sub(self.silent_since_ms) > millis(self.config.slow);
        if slow && self.gathered.len() < self.few() {
            return self.change(now_ms, self.config.max, Reason::TooSlow);
        }
        if self.has_enough(waited) {
            self.anchor = Anchor::of(&self.gathered);
            self.begin(now_ms, now_ms);
        }
        None
    }

    /// Whether what was gathered in `waited_ms` makes an anchor.
    fn has_enough(&self, waited_ms: u64) -> bool {
        let many = usize::try_from(self.config.anchor_jobs).unwrap_or(usize::MAX);
        let gathered = self.gathered.len();
        let long = self
            .anchor
            .as_ref()
            .map_or(u64::MAX, |a| whole_ms(MEASURE_LONGEST * a.mean_ms()));
        (gathered >= many.min(GATHERED) && waited_ms >= millis(self.config.bucket))
            || (gathered >= self.few() && waited_ms >= millis(self.config.patience).min(long))
    }

    /// Lowers the limit for a moment.
    pub(super) fn measure(&mut self, now_ms: u64) -> Option<Change> {
        let low = self.limit.div_ceil(self.config.drain_divisor);
        self.lower(now_ms, low, None)
    }

    /// The same to find out why cuts did not help: latencies were `seen_ms` under `load`.
    pub(super) fn measure_in_doubt(
        &mut self,
        now_ms: u64,
        before: usize,
        load: f64,
        seen_ms: f64,
    ) -> Option<Change> {
        let low = self.limit.div_ceil(2);
        let anchor_ms = self.anchor.as_ref().map_or(0.0, Anchor::mean_ms);
        let hoped = (seen_ms * float(low) / load.max(1.0)).max(anchor_ms);
        let doubt = Doubt {
            before,
            between_ms: hoped + IN_VAIN * (seen_ms - hoped),
        };
        self.lower(now_ms, low, Some(doubt))
    }

    fn lower(&mut self, now_ms: u64, low: usize, doubt: Option<Doubt>) -> Option<Change> {
        self.measuring = Some(Measuring {
            back_to: self.limit,
            began_ms: now_ms,
            drained_ms: None,
            doubt,
        });
        self.trial = None;
        self.begin(now_ms, u64::MAX);
        self.change(now_ms, low, Reason::Measuring)
    }

    pub(super) fn go_on_measuring(
        &mut self,
        now_ms: u64,
        measuring: Measuring,
        jitter: f64,
    ) -> Option<Change> {
        let Some(drained_ms) = measuring.drained_ms else {
            return self.drain(now_ms, measuring, jitter);
        };
        // As long as jobs end it goes on until there are a few: slow ones take their time.
        let ends = self.inflight > 0 && self.gathered.len() < self.few();
        let late = self.is_late(now_ms, measuring) && !ends;
        let enough = self.has_enough(now_ms.saturating_sub(drained_ms));
        let Some(doubt) = measuring.doubt else {
            if enough && let Some(measured) = Anchor::of(&self.gathered) {
                self.take_anchor(now_ms, measured);
            }
            let end = || self.end_measuring(now_ms, measuring, measuring.back_to, jitter);
            return (enough || late).then(end).flatten();
        };
        let measured = Anchor::of(&self.gathered).filter(|_| enough || late);
        let verdict = measured.and_then(|m| Some((doubt.slower(&m, late)?, m)));
        match verdict {
            Some((true, measured)) => {
                self.anchor = Some(measured);
                self.end_measuring(now_ms, measuring, doubt.before, jitter)
            }
            Some((false, measured)) => {
                self.take_anchor(now_ms, measured);
                self.end_measuring(now_ms, measuring, measuring.back_to, jitter)
            }
            None if late => self.end_measuring(now_ms, measuring, measuring.back_to, jitter),
            None => None,
        }
    }

    /// Waits until the jobs of the old limit have left.
    fn drain(&mut self, now_ms: u64, measuring: Measuring, jitter: f64) -> Option<Change> {
        if self.inflight <= self.limit {
            self.measuring = Some(Measuring {
                drained_ms: Some(now_ms),
                ..measuring
            });
            let anchor_ms = self.anchor.as_ref().map_or(0.0, Anchor::mean_ms);
            self.begin(now_ms, now_ms.saturating_add(whole_ms(anchor_ms * SETTLE)));
        } else if self.is_late(now_ms, measuring) {
            return self.end_measuring(now_ms, measuring, measuring.back_to, jitter);
        }
        None
    }

    fn is_late(&self, now_ms: u64, measuring: Measuring) -> bool {
        now_ms.saturating_sub(measuring.began_ms) >= 2 * millis(self.config.patience)
    }

    /// To the limit that goes with what was found, and sets the time of the next measurement.
    fn end_measuring(
        &mut self,
        now_ms: u64,
        measuring: Measuring,
        to: usize,
        jitter: f64,
    ) -> Option<Change> {
        self.measuring = None;
        self.measured_ms = now_ms;
        let took = now_ms.saturating_sub(measuring.began_ms);
        let every = millis(self.config.anchor_every).max(took.saturating_mul(MEASURE_SHARE));
        let spread = 1.0 + JITTER * (2.0 * jitter.clamp(0.0, 1.0) - 1.0);
        let every = whole_ms(Duration::from_millis(every).as_secs_f64() * 1_000.0 * spread);
        self.measure_at_ms = now_ms.saturating_add(every);
        let reason = match to == measuring.back_to {
            true => Reason::Measured,
            false => Reason::Slower,
        };
        let change = self.change(now_ms, to, reason);
        let anchor_ms = self.anchor.as_ref().map_or(0.0, Anchor::mean_ms);
        self.begin(now_ms, now_ms.saturating_add(whole_ms(anchor_ms * SETTLE)));
        change
    }

    /// Takes in a measurement: as more of the same if it does not differ beyond chance, else in
    /// the anchor's place; upwards by a bounded factor, and not again at once.
    fn take_anchor(&mut self, now_ms: u64, measured: Anchor) {
        let may_rise = self
            .raised_ms
            .is_none_or(|at| now_ms >= at.saturating_add(millis(self.config.raise_every)));
        let Some(anchor) = &mut self.anchor else {
            self.anchor = Some(measured);
            return;
        };
        match anchor.compare(&measured, self.config.sure) {
            Ordering::Equal => anchor.pool(&measured),
            Ordering::Less => *anchor = measured,
            Ordering::Greater if may_rise => {
                anchor.rise(&measured, self.config.max_raise);
                self.raised_ms = Some(now_ms);
            }
            Ordering::Greater => {}
        }
    }
}
