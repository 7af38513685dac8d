//! The limiter against a dependency that serves so many jobs at once and lets the others wait.
//! `tests/sim` has the plants with chance in them.

use proptest::prelude::*;

use super::*;

const TICK_MS: u64 = 100;

/// A dependency that serves `capacity` jobs at once, each for `service_ms`.
struct Plant {
    limiter: Limiter,
    now_ms: u64,
    capacity: usize,
    service_ms: usize,
    running: usize,
    owed: usize,
    changes: Vec<Change>,
}

impl Plant {
    fn new(capacity: usize) -> Self {
        Self::with(Limiter::new(LimiterConfig::default(), 0), capacity)
    }

    fn with(limiter: Limiter, capacity: usize) -> Self {
        Self {
            limiter,
            now_ms: 0,
            capacity,
            service_ms: 100,
            running: 0,
            owed: 0,
            changes: Vec::new(),
        }
    }

    /// Keeps the limit in use, up to `backlog` jobs; the changes of that time.
    fn run(&mut self, seconds: u64, backlog: usize) -> Vec<Change> {
        self.changes.clear();
        let end = self.now_ms + seconds * 1_000;
        while self.now_ms < end {
            self.now_ms += TICK_MS;
            // Milliseconds of service done since the last tick, by jobs side by side.
            self.owed += self.running.min(self.capacity) * 100;
            let waited = self.running.max(self.capacity) * self.service_ms / self.capacity;
            let took = Duration::from_millis(u64::try_from(waited).expect("small"));
            while self.owed >= self.service_ms && self.running > 0 {
                self.owed -= self.service_ms;
                self.running -= 1;
                self.limiter.finished(self.now_ms, took, Ended::Done);
            }
            while self.running < self.limiter.limit().min(backlog) {
                self.running += 1;
                self.limiter.started(self.now_ms);
            }
            self.changes
                .extend(self.limiter.tick(self.now_ms, true, 0.5));
        }
        self.changes.clone()
    }

    fn limit(&self) -> usize {
        self.limiter.limit()
    }
}

#[test]
fn finds_what_is_served_at_once_and_rests_there() {
    let mut plant = Plant::new(16);
    plant.run(30, usize::MAX);
    assert!((16..=19).contains(&plant.limit()), "{}", plant.limit());
    let later = plant.run(240, usize::MAX);
    assert_eq!(later, [], "nothing is new");
}

#[test]
fn a_step_up_that_is_undone_is_no_new_congestion() {
    let mut plant = Plant::new(16);
    let found = plant.run(60, usize::MAX);
    assert!(found.iter().any(|c| c.reason == Reason::Congestion));
    plant.capacity = 32;
    let later = plant.run(60, usize::MAX);
    let undone = later.iter().max_by_key(|change| change.from);
    assert_eq!(
        undone.map(|change| change.reason),
        Some(Reason::NoRoom),
        "{later:?}"
    );
}

#[test]
fn one_cut_finds_a_smaller_capacity_and_thirty_seconds_a_larger() {
    let mut plant = Plant::new(16);
    plant.run(60, usize::MAX);
    plant.capacity = 4;
    plant.run(10, usize::MAX);
    assert!((4..=6).contains(&plant.limit()), "{}", plant.limit());
    plant.capacity = 16;
    plant.run(30, usize::MAX);
    assert!((15..=19).contains(&plant.limit()), "{}", plant.limit());
}

#[test]
fn an_operation_that_became_slower_by_itself_gets_its_limit_back() {
    let mut plant = Plant::new(16);
    plant.run(60, usize::MAX);
    plant.service_ms = 200;
    let changes = plant.run(240, usize::MAX);
    assert!((15..=19).contains(&plant.limit()), "{changes:?}");
    assert!(changes.iter().any(|c| c.reason == Reason::Slower));
    plant.service_ms = 50;
    let changes = plant.run(60, usize::MAX);
    assert!((15..=19).contains(&plant.limit()), "{changes:?}");
}

#[test]
fn a_limit_that_is_not_used_stays() {
    let mut plant = Plant::new(16);
    assert_eq!(plant.run(120, 3), []);
    assert_eq!(plant.limit(), 8);
}

#[test]
fn a_step_up_that_is_not_used_shows_no_room() {
    let mut plant = Plant::new(16);
    plant.run(60, usize::MAX);
    let limit = plant.limit();
    // Steps up until one is on trial; then the backlog is gone.
    while plant.limit() <= limit {
        plant.capacity += 8;
        plant.run(5, usize::MAX);
    }
    let on_trial = plant.limit();
    plant.run(60, 2);
    assert!(plant.limit() <= on_trial, "{}", plant.limit());
}

#[test]
fn a_limit_that_keeps_back_jobs_which_end_at_once_grows() {
    let grown = |pressed: bool| {
        let mut limiter = Limiter::new(LimiterConfig::default(), 0);
        for tick in 1..200_u64 {
            let now_ms = tick * TICK_MS;
            for _ in 0..limiter.limit() {
                limiter.started(now_ms);
                limiter.finished(now_ms, Duration::from_millis(1), Ended::Done);
            }
            if pressed {
                limiter.pressed();
            }
            limiter.tick(now_ms, true, 0.5);
        }
        limiter.limit()
    };
    assert_eq!(
        (grown(false), grown(true)),
        (8, LimiterConfig::default().max)
    );
}

#[test]
fn nothing_grows_while_a_signal_is_missing() {
    let mut limiter = Limiter::new(LimiterConfig::default(), 0);
    (0..8).for_each(|_| limiter.started(0));
    for tick in 1..600_u64 {
        let now_ms = tick * TICK_MS;
        for _ in 0..8 {
            limiter.finished(now_ms, Duration::from_millis(100), Ended::Done);
            limiter.started(now_ms);
        }
        assert_eq!(limiter.tick(now_ms, false, 0.5), None);
    }
    let change = limiter.tick(61_000, true, 0.5).expect("now it may");
    assert_eq!((change.from, change.reason), (8, Reason::Room));
}

#[test]
fn silence_halves_down_to_one_and_never_to_none() {
    let mut plant = Plant::new(16);
    plant.run(60, usize::MAX);
    let (mut now_ms, before) = (plant.now_ms, plant.limit());
    let mut changes = Vec::new();
    for _ in 0..300 {
        now_ms += TICK_MS;
        changes.extend(plant.limiter.tick(now_ms, true, 0.5));
    }
    assert_eq!(changes[0].to, before / 2);
    assert!(changes.iter().all(|c| c.reason == Reason::Silence));
    assert_eq!(plant.limit(), 1);
}

/// Nothing ends for so long, while jobs run.
fn hang(plant: &mut Plant, seconds: u64) {
    for _ in 0..seconds * 1_000 / TICK_MS {
        plant.now_ms += TICK_MS;
        plant.limiter.tick(plant.now_ms, true, 0.5);
    }
}

#[test]
fn slow_jobs_get_their_limit_back_after_silence_however_few_run_at_once() {
    let mut plant = Plant::new(8);
    plant.service_ms = 3_000;
    plant.run(600, usize::MAX);
    let before = plant.limit();
    assert!(before >= 8, "{before}");
    hang(&mut plant, 45);
    assert_eq!(plant.limit(), 1);
    plant.run(120, usize::MAX);
    assert!(plant.limit() >= 8, "{}", plant.limit());
}

#[test]
fn jobs_that_became_far_slower_are_no_silence_for_ever() {
    let mut plant = Plant::new(16);
    plant.run(60, usize::MAX);
    plant.service_ms = 20_000;
    plant.run(900, usize::MAX);
    assert!(plant.limit() >= 12, "{}", plant.limit());
}

#[test]
fn jobs_that_were_too_slow_to_be_limited_are_when_they_are_faster() {
    let mut plant = Plant::new(16);
    plant.service_ms = 40_000;
    plant.run(1_200, usize::MAX);
    assert_eq!(plant.limit(), LimiterConfig::default().max);
    plant.service_ms = 100;
    plant.run(1_200, usize::MAX);
    assert!((16..=24).contains(&plant.limit()), "{}", plant.limit());
}

#[test]
fn what_fails_at_once_says_nothing_and_what_fails_late_counts() {
    let mut plant = Plant::new(16);
    plant.run(60, usize::MAX);
    let rest = |ms: u64| {
        let (mut limiter, mut now_ms) = (plant.limiter.clone(), plant.now_ms);
        for _ in 0..300 {
            now_ms += TICK_MS;
            for _ in 0..10 {
                limiter.finished(now_ms, Duration::from_millis(ms), Ended::Failed);
                limiter.started(now_ms);
            }
            limiter.tick(now_ms, true, 0.5);
        }
        limiter.limit()
    };
    assert_eq!(rest(1), plant.limit());
    assert!(rest(5_000) < plant.limit() / 2);
}

#[test]
fn what_was_known_outlives_a_restart() {
    let mut plant = Plant::new(16);
    plant.run(60, usize::MAX);
    let json = serde_json::to_string(&plant.limiter.saved()).expect("plain data");
    let saved: Saved = serde_json::from_str(&json).expect("the same");
    let limiter = Limiter::restored(LimiterConfig::default(), 0, saved.clone());
    assert_eq!(limiter.limit(), plant.limit());
    let mut after = Plant::with(limiter, 16);
    assert_eq!(after.run(120, usize::MAX), [], "nothing to find out");

    let tight = LimiterConfig {
        max: 5,
        ..LimiterConfig::default()
    };
    assert_eq!(Limiter::restored(tight, 0, saved).limit(), 5);
    let bad = json.replace("\"mean\":", "\"mean\":-");
    let bad: Saved = serde_json::from_str(&bad).expect("still numbers");
    let cold = Limiter::restored(LimiterConfig::default(), 0, bad);
    assert_eq!(cold.limit(), 8, "what is not sound is left out");
}

#[test]
fn jobs_of_minutes_are_not_limited_by_latency() {
    let mut limiter = Limiter::new(LimiterConfig::default(), 0);
    (0..8).for_each(|_| limiter.started(0));
    let change = (0..60_u64).find_map(|s| limiter.tick(s * 1_000, true, 0.5));
    assert_eq!(
        change.map(|c| (c.to, c.reason)),
        Some((200, Reason::TooSlow))
    );
}

#[test]
fn nonsense_in_the_configuration_is_brought_into_range() {
    let config = LimiterConfig {
        min: 0,
        max: 0,
        initial: 99,
        bucket: Duration::ZERO,
        anchor_jobs: 0,
        few_jobs: 0,
        drain_divisor: 0,
        max_cut: f64::NAN,
        sure: f64::INFINITY,
        ..LimiterConfig::default()
    };
    let checked = config.checked();
    assert_eq!((checked.min, checked.max, checked.initial), (1, 1, 1));
    assert!(checked.sure.is_finite() && checked.max_cut.is_finite());
    assert_eq!(Limiter::new(config, 0).limit(), 1);
}

proptest! {
    /// Whatever is reported, in whatever order: the limit keeps its bounds, a change tells the
    /// truth, and nothing panics.
    #[test]
    fn keeps_its_bounds(
        steps in prop::collection::vec((0_u64..40_000, 0_u8..6, 0_u64..100_000), 0..600),
        min in 1_usize..5, max in 5_usize..300,
    ) {
        let config = LimiterConfig { min, max, ..LimiterConfig::default() };
        let mut limiter = Limiter::new(config, 0);
        let mut now_ms = 0;
        for (wait, action, took) in steps {
            let before = limiter.limit();
            match action {
                0 | 1 => limiter.started(now_ms),
                2 => limiter.finished(now_ms, Duration::from_micros(took), Ended::Done),
                3 => limiter.finished(now_ms, Duration::from_millis(took), Ended::Failed),
                4 => limiter.finished(now_ms, Duration::from_millis(took), Ended::Void),
                _ => {
                    now_ms += wait;
                    if let Some(change) = limiter.tick(now_ms, wait % 3 != 0, 0.1) {
                        prop_assert_eq!(change.to, limiter.limit());
                        prop_assert!(change.from == before && change.to != change.from);
                    }
                }
            }
            prop_assert!((min..=max).contains(&limiter.limit()));
        }
    }
}
