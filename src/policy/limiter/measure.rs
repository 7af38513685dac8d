//! How a limiter measures its anchor: the first one of the first jobs there are, later ones while
//! the limit is low for a moment.

use std::cmp::Ordering;
use std::time::Duration;

use super::anchor::Anchor;
use super::{Change, DOUBT_EVERY_MS, GATHERED, Limiter, Reason, SETTLE, millis, whole_ms};

/// The time between measurements is at least this many times what one takes.
const MEASURE_SHARE: u64 = 20;
/// A measurement after the first takes no longer than this many jobs after each other, if it has a
/// few by then.
const MEASURE_LONGEST: f64 = 8.0;
/// Times between measurements vary by ± this fraction, so that daemons do not measure in step.
const JITTER: f64 = 0.15;

/// A measurement of the anchor that is going on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Measuring {
    pub(super) back_to: usize,
    pub(super) began_ms: u64,
    /// When the jobs of the old limit had left.
    pub(super) drained_ms: Option<u64>,
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
        // A doubt is settled by several times the evidence that made it.
        let (times, longest) = match self.doubted {
            true => (4, 8.0 * MEASURE_LONGEST),
            false => (1, MEASURE_LONGEST),
        };
        let many = usize::try_from(self.config.anchor_jobs).unwrap_or(usize::MAX);
        let many = many.saturating_mul(times);
        let gathered = self.gathered.len();
        let long = self
            .anchor
            .as_ref()
            .map_or(u64::MAX, |a| whole_ms(longest * a.mean_ms()));
        (gathered >= many.min(GATHERED) && waited_ms >= millis(self.config.bucket))
            || (gathered >= self.few() && waited_ms >= millis(self.config.patience).min(long))
    }

    /// Lowers the limit for a moment.
    pub(super) fn measure(&mut self, now_ms: u64) -> Option<Change> {
        let back_to = self.limit;
        self.measuring = Some(Measuring {
            back_to,
            began_ms: now_ms,
            drained_ms: None,
        });
        let low = self.limit.div_ceil(self.config.drain_divisor);
        self.begin(now_ms, u64::MAX);
        self.change(now_ms, low, Reason::Measuring)
    }

    pub(super) fn go_on_measuring(
        &mut self,
        now_ms: u64,
        measuring: Measuring,
        jitter: f64,
    ) -> Option<Change> {
        let anchor_ms = self.anchor.as_ref().map_or(0.0, Anchor::mean_ms);
        let given_up =
            now_ms.saturating_sub(measuring.began_ms) >= 2 * millis(self.config.patience);
        let enough = match measuring.drained_ms {
            Some(drained_ms) => self.has_enough(now_ms.saturating_sub(drained_ms)),
            None if self.inflight <= self.limit => {
                self.measuring = Some(Measuring {
                    drained_ms: Some(now_ms),
                    ..measuring
                });
                self.begin(now_ms, now_ms.saturating_add(whole_ms(anchor_ms * SETTLE)));
                false
            }
            None => false,
        };
        if !enough && !given_up {
            return None;
        }
        self.measuring = None;
        self.doubted = false;
        self.last_cut = None;
        self.measured_ms = now_ms;
        let took = now_ms.saturating_sub(measuring.began_ms);
        let every = millis(self.config.anchor_every).max(took.saturating_mul(MEASURE_SHARE));
        let spread = 1.0 + JITTER * (2.0 * jitter.clamp(0.0, 1.0) - 1.0);
        let every = whole_ms(Duration::from_millis(every).as_secs_f64() * 1_000.0 * spread);
        self.measure_at_ms = now_ms.saturating_add(every);
        if let Some(measured) = Anchor::of(&self.gathered).filter(|_| enough) {
            self.take_anchor(now_ms, measured);
        }
        let change = self.change(now_ms, measuring.back_to, Reason::Measured);
        self.begin(now_ms, now_ms.saturating_add(whole_ms(anchor_ms * SETTLE)));
        change
    }

    /// Takes in a measurement: as more of the same if it does not differ beyond chance, in the
    /// anchor's place if jobs were faster. If they were slower, it is only a suspicion, which the
    /// next measurement has to confirm: the dependency may have stumbled at that very moment.
    fn take_anchor(&mut self, now_ms: u64, measured: Anchor) {
        let may_rise = self
            .raised_ms
            .is_none_or(|at| now_ms >= self.may_rise_at(at));
        let suspected = self.suspected.take();
        let Some(anchor) = &mut self.anchor else {
            self.anchor = Some(measured);
            return;
        };
        match (anchor.compare(&measured, self.config.sure), suspected) {
            (Ordering::Equal, _) => anchor.pool(&measured),
            (Ordering::Less, _) => *anchor = measured,
            (Ordering::Greater, Some(before)) if may_rise => {
                let lower = match before.mean_ms() < measured.mean_ms() {
                    true => before,
                    false => measured,
                };
                anchor.rise(&lower, self.config.max_raise);
                self.raised_ms = Some(now_ms);
                self.suspected = Some(lower);
                self.doubted = true;
                self.measure_at_ms = self.may_rise_at(now_ms);
            }
            (Ordering::Greater, _) => {
                self.suspected = Some(measured);
                self.doubted = true;
                self.measure_at_ms = now_ms.saturating_add(DOUBT_EVERY_MS);
            }
        }
    }

    fn may_rise_at(&self, raised_ms: u64) -> u64 {
        raised_ms.saturating_add(millis(self.config.raise_every))
    }
}
