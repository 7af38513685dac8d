//! The limiter of one operation as its breaker leaves it: what failures seem to say of latency is forgotten when the
//! breaker opens.
//!
//! Owns the limiter and what it knew while all was well. Must not know slots, nor where settings and what was kept come
//! from. All times are milliseconds of one monotonic clock.

use crate::config::{GateMode, LimiterConfig as Settings};
use crate::policy::breaker::{self, State};
use crate::policy::limiter::{Change, Ended, Limiter, LimiterConfig, Reason, Saved, Snapshot};
use std::time::Duration;

/// With more than one failed or slow call of this many, what a limiter concludes is not what it knew while all was well.
const WELL: u32 = 10;

/// A limiter at work.
pub(super) struct Limiting {
    settings: Settings,
    constants: LimiterConfig,
    limiter: Limiter,
    /// What it knew when the dependency was last well.
    well: Saved,
    /// Whether what earlier daemons kept was asked for.
    pub(super) asked: bool,
}

/// What became of something that was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resumed {
    /// The limiter goes on from there.
    Used,
    /// It has learnt something itself by now.
    TooLate,
    /// It can't be used.
    Nonsense,
}

impl Limiting {
    /// A limiter that knows nothing yet; none if there are to be none.
    pub(super) fn new(settings: &Settings, slots: usize, now_ms: u64) -> Option<Self> {
        if settings.mode == GateMode::Off {
            return None;
        }
        let constants = constants(settings, slots);
        let limiter = Limiter::new(constants, now_ms);
        Some(Self {
            settings: settings.clone(),
            constants,
            well: limiter.saved(),
            limiter,
            asked: false,
        })
    }

    /// Goes by other settings from now on, with what it knows and the calls that run.
    pub(super) fn configure(
        &mut self,
        settings: &Settings,
        slots: usize,
        now_ms: u64,
        running: usize,
    ) {
        self.settings = settings.clone();
        self.constants = constants(settings, slots);
        self.go_on(self.limiter.saved(), now_ms, running);
    }

    /// Goes on from what an earlier daemon kept, unless it has learnt something itself.
    pub(super) fn resume(&mut self, saved: Saved, now_ms: u64, running: usize) -> Resumed {
        if self.has_learnt() {
            return Resumed::TooLate;
        }
        self.go_on(saved, now_ms, running);
        self.well = self.limiter.saved();
        match self.has_learnt() {
            true => Resumed::Used,
            false => Resumed::Nonsense,
        }
    }

    fn go_on(&mut self, from: Saved, now_ms: u64, running: usize) {
        self.limiter = Limiter::restored(self.constants, now_ms, from);
        for _ in 0..running {
            self.limiter.started(now_ms);
        }
    }

    /// Whether it acts, and does not only say what it would do.
    pub(super) fn acts(&self) -> bool {
        self.settings.mode == GateMode::On
    }

    /// Calls that may run at once, as far as it goes.
    pub(super) fn limit(&self) -> usize {
        self.limiter.limit()
    }

    /// The same when the dependency was last well.
    pub(super) fn limit_when_well(&self) -> usize {
        self.well.limit
    }

    /// Whether there is anything worth keeping.
    pub(super) fn has_learnt(&self) -> bool {
        self.limiter.snapshot(0).anchor_ms.is_some()
    }

    /// What is worth keeping: what it knew while all was well.
    pub(super) fn learnt(&self) -> Option<Saved> {
        self.has_learnt().then(|| self.well.clone())
    }

    pub(super) fn snapshot(&self, now_ms: u64) -> Snapshot {
        self.limiter.snapshot(now_ms)
    }

    /// A call was let through.
    pub(super) fn started(&mut self, now_ms: u64) {
        self.limiter.started(now_ms);
    }

    /// A call is over. What is below `shortest` is our own time, not the dependency's.
    pub(super) fn finished(&mut self, now_ms: u64, took: Duration, ended: Ended) {
        let took = took.max(self.settings.shortest);
        self.limiter.finished(now_ms, took, ended);
    }

    /// The limit kept calls back.
    pub(super) fn pressed(&mut self) {
        self.limiter.pressed();
    }

    /// The breaker opened: goes back to what it knew when all was well. Timeouts and the calls that still hang say
    /// nothing about how many jobs the dependency serves once it is back.
    pub(super) fn opened(&mut self, now_ms: u64, running: usize) {
        self.go_on(self.well.clone(), now_ms, running);
    }

    /// The daemon has so many slots by now: where they are the greatest limit, it is another one.
    pub(super) fn follow_slots(&mut self, slots: usize, now_ms: u64, running: usize) {
        if constants(&self.settings, slots).max != self.constants.max {
            self.configure(&self.settings.clone(), slots, now_ms, running);
        }
    }

    /// Judges what was reported, unless the breaker keeps calls back.
    pub(super) fn tick(
        &mut self,
        now_ms: u64,
        breaker: &breaker::Snapshot,
        may_grow: bool,
        jitter: f64,
    ) -> Option<Change> {
        if matches!(breaker.state, State::Open | State::HalfOpen) {
            return None;
        }
        let may_grow = may_grow && breaker.state == State::Closed;
        let change = self.limiter.tick(now_ms, may_grow, jitter);
        let failed = breaker.failures.saturating_add(breaker.slow);
        let silent = self.limiter.snapshot(now_ms).reason == Some(Reason::Silence);
        if breaker.state == State::Closed && failed.saturating_mul(WELL) <= breaker.calls && !silent
        {
            self.well = self.limiter.saved();
        }
        change
    }
}

/// The constants as settings.
fn constants(settings: &Settings, slots: usize) -> LimiterConfig {
    LimiterConfig {
        min: settings.min,
        max: match settings.max {
            0 => slots,
            max => max,
        },
        initial: settings.initial,
        bucket: settings.bucket,
        anchor_jobs: settings.anchor_jobs,
        few_jobs: settings.few_jobs,
        patience: settings.patience,
        anchor_every: settings.anchor_every,
        drain_divisor: settings.drain_divisor,
        max_raise: settings.max_raise,
        raise_every: settings.raise_every,
        sure: settings.sure,
        headroom: settings.headroom,
        tolerance: settings.tolerance,
        used: settings.used,
        max_cut: settings.max_cut,
        slow: settings.slow,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::config::{self, Sources};
    use crate::policy::breaker::{Breaker, BreakerConfig, CallResult};

    const SLOTS: usize = 32;
    const STEP_MS: u64 = 10;

    fn settings() -> Settings {
        config::load(&Sources::default()).unwrap().limiter
    }

    fn breaker(state: State, calls: u32, failures: u32) -> breaker::Snapshot {
        let mut shown = Breaker::new(BreakerConfig::default()).snapshot(0);
        (shown.state, shown.calls, shown.failures) = (state, calls, failures);
        shown
    }

    /// Uses all of the limit for so many steps, with calls that all end like this; the time then.
    fn run(
        limiting: &mut Limiting,
        mut now: u64,
        steps: u64,
        end: Ended,
        shown: &breaker::Snapshot,
    ) -> u64 {
        for step in 0..steps {
            let calls = limiting.limit();
            (0..calls).for_each(|_| limiting.started(now));
            now += STEP_MS;
            let took = Duration::from_millis(match end {
                Ended::Done => STEP_MS,
                _ => 5_000,
            });
            (0..calls).for_each(|_| limiting.finished(now, took, end));
            if step % 25 == 0 {
                limiting.tick(now, shown, true, 0.5);
            }
        }
        now
    }

    #[test]
    fn the_defaults_are_those_the_policy_was_tried_with() {
        assert_eq!(constants(&settings(), 200), LimiterConfig::default());
        let mut own = settings();
        own.max = 7;
        assert_eq!(constants(&own, 200).max, 7);
    }

    #[test]
    fn what_failures_seem_to_say_is_forgotten_when_the_breaker_opens() {
        let mut limiting = Limiting::new(&settings(), SLOTS, 0).unwrap();
        let well = breaker(State::Closed, 100, 1);
        let now = run(&mut limiting, 0, 2_000, Ended::Done, &well);
        assert_eq!(limiting.limit(), SLOTS, "nothing waits for anything");
        let ill = breaker(State::Closed, 100, 60);
        let now = run(&mut limiting, now, 600, Ended::Failed, &ill);
        let cut = limiting.limit();
        assert!(cut < SLOTS / 2, "timeouts look like a queue: {cut}");
        assert_eq!(limiting.limit_when_well(), SLOTS);
        limiting.opened(now, 5);
        assert_eq!(
            (limiting.limit(), limiting.snapshot(now).inflight),
            (SLOTS, 5)
        );
        let open = breaker(State::Open, 0, 0);
        assert_eq!(limiting.tick(now + 60_000, &open, true, 0.5), None);
        assert_eq!(limiting.limit(), SLOTS, "what hangs on is no silence");
    }

    #[test]
    fn what_was_kept_is_gone_on_with_unless_it_is_nonsense_or_too_late() {
        let well = breaker(State::Closed, 0, 0);
        let mut limiting = Limiting::new(&settings(), SLOTS, 0).unwrap();
        assert_eq!(limiting.learnt(), None);
        let now = run(&mut limiting, 0, 2_000, Ended::Done, &well);
        let kept = serde_json::to_string(&limiting.learnt().unwrap()).unwrap();
        let mut next = Limiting::new(&settings(), SLOTS, 0).unwrap();
        let nonsense = kept.replace("\"mean\":", "\"mean\":-");
        let read = |text: &str| serde_json::from_str::<Saved>(text).unwrap();
        assert_eq!(next.resume(read(&nonsense), 0, 0), Resumed::Nonsense);
        assert_eq!(next.resume(read(&kept), 0, 3), Resumed::Used);
        assert_eq!((next.limit(), next.snapshot(0).inflight), (SLOTS, 3));
        assert_eq!(next.learnt(), limiting.learnt());
        assert_eq!(limiting.resume(read(&kept), now, 0), Resumed::TooLate);
    }

    #[test]
    fn other_settings_hold_at_once_and_nothing_is_forgotten() {
        let well = breaker(State::Closed, 0, 0);
        let mut limiting = Limiting::new(&settings(), SLOTS, 0).unwrap();
        let now = run(&mut limiting, 0, 2_000, Ended::Done, &well);
        let mut shadow = settings();
        (shadow.mode, shadow.max) = (GateMode::Shadow, 12);
        assert!(limiting.acts());
        limiting.configure(&shadow, SLOTS, now, 0);
        assert!(!limiting.acts() && limiting.has_learnt());
        assert_eq!(limiting.limit(), 12);
        limiting.follow_slots(100, now, 0);
        assert_eq!(limiting.constants.max, 12, "a limit of its own");
        limiting.configure(&settings(), SLOTS, now, 0);
        limiting.follow_slots(100, now, 0);
        assert_eq!(limiting.constants.max, 100, "all slots, more by now");
    }

    #[test]
    fn what_no_dependency_takes_is_our_own_time() {
        let mut limiting = Limiting::new(&settings(), SLOTS, 0).unwrap();
        for n in 0..200 {
            limiting.started(n * STEP_MS);
            let took = Duration::from_micros(n);
            limiting.finished(n * STEP_MS, took, Ended::Done);
        }
        limiting.tick(2_000, &breaker(State::Closed, 0, 0), true, 0.5);
        assert_eq!(limiting.snapshot(2_000).anchor_ms, Some(1.0));
    }

    #[test]
    fn a_result_of_the_breaker_counts_as_such() {
        // What the tests above make up is what a breaker shows.
        let mut breaker = Breaker::new(BreakerConfig::default());
        let (verdict, _) = breaker.admit(0);
        assert!(matches!(verdict, breaker::Verdict::Allow { .. }));
        if let breaker::Verdict::Allow { epoch, .. } = verdict {
            breaker.record(
                0,
                epoch,
                CallResult::DependencyFailure { connect: false },
                0.5,
            );
        }
        let shown = breaker.snapshot(0);
        assert_eq!(
            (shown.state, shown.calls, shown.failures),
            (State::Closed, 1, 1)
        );
    }
}
