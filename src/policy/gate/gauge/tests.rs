use proptest::prelude::*;

use super::super::GateMode;
use super::*;
use crate::config::{SmoothingConfig, Sources, StatesConfig, load};
use crate::policy::gate::Thresholds;

const RTT: Signal = Signal::new("redis_rtt_p95_ms", 5.0, 25.0);
const CPU: Signal = Signal::new("psi_cpu_some", 20.0, 60.0).capped(GateState::Elevated);
const DOWN: Signal = Signal::new("redis_ping_failed", 1.0, 1.0);
const MEMORY: Signal = Signal::new("psi_mem_full", 1.0, 10.0);

const HOLD_MS: u64 = 30_000;
const TIMING: Timing = Timing {
    hold_ms: HOLD_MS,
    failure_hold_ms: 5_000,
    overdue_ms: 3_000,
    stale_ms: 15_000,
};

/// That of the default configuration.
fn tuning() -> Tuning {
    let config = load(&Sources::default()).expect("defaults are valid");
    Tuning::from(&config.gate)
}

/// A gauge with a second hand.
struct Rig {
    gauge: ResourceGauge,
    now_ms: u64,
}

impl Rig {
    fn new(signals: &[Signal]) -> Self {
        Self::timed(TIMING, signals)
    }

    fn timed(timing: Timing, signals: &[Signal]) -> Self {
        Self::tuned(Tuning { timing, ..tuning() }, signals)
    }

    fn tuned(tuning: Tuning, signals: &[Signal]) -> Self {
        Self {
            gauge: ResourceGauge::new(0, tuning, signals.iter().copied()),
            now_ms: 0,
        }
    }

    /// A second passes in which every signal is sampled.
    fn second(&mut self, samples: &[(&str, Option<f64>)]) -> Option<Transition> {
        self.now_ms += 1_000;
        for (name, value) in samples {
            assert!(self.gauge.sample(self.now_ms, name, *value));
        }
        self.gauge.tick(self.now_ms)
    }

    /// The states entered over so many seconds of the same samples, each with its second.
    fn run(&mut self, seconds: u64, samples: &[(&str, Option<f64>)]) -> Vec<(u64, GateState)> {
        let entered = |second| {
            self.second(samples)
                .map(|transition| (second, transition.to))
        };
        (1..=seconds).filter_map(entered).collect()
    }
}

const NAME: &str = RTT.name;

#[test]
fn raw_values_become_badness() {
    let badness = [0.0, 5.0, 15.0, 25.0, 1e9].map(|value| RTT.badness(value));
    assert_eq!(badness, [0.0, 0.0, 0.5, 1.0, 1.0]);
    let free = Signal::new("free_slots", 10.0, 0.0);
    assert_eq!(
        [10.0, 5.0, 0.0].map(|value| free.badness(value)),
        [0.0, 0.5, 1.0]
    );
    let down = Signal::new("down", 1.0, 1.0);
    assert_eq!([0.0, 1.0].map(|value| down.badness(value)), [0.0, 1.0]);
}

#[test]
fn worsens_within_seconds() {
    // Smoothed badness 0.5, 0.75, 0.875, 0.9375, 0.96875.
    let entered = Rig::new(&[RTT]).run(6, &[(NAME, Some(100.0))]);
    use GateState::{Critical, Elevated, Overloaded};
    assert_eq!(entered, [(1, Elevated), (3, Overloaded), (5, Critical)]);
}

#[test]
fn states_and_smoothing_are_those_of_the_configuration() {
    assert_eq!(tuning().timing, TIMING);
    let states = StatesConfig {
        elevated: [0.2, 0.1],
        overloaded: [0.4, 0.3],
        critical: [0.9, 0.8],
    };
    let smoothing = SmoothingConfig {
        attack: 1.0,
        failure: 1.0,
        release: 1.0,
    };
    let tuned = Tuning {
        timing: TIMING,
        smoothing,
        states: Thresholds::from(&states),
    };
    use GateState::{Critical, Elevated, Ok, Overloaded};
    let mut rig = Rig::tuned(tuned, &[RTT]);
    // Badness 0.25, 0.5, 1 and 0.
    for (value, state) in [(10.0, Elevated), (15.0, Overloaded), (25.0, Critical)] {
        assert_eq!(rig.run(1, &[(NAME, Some(value))]), [(1, state)]);
    }
    let left = rig.run(100, &[(NAME, Some(5.0))]);
    assert_eq!(left, [(31, Overloaded), (62, Elevated), (93, Ok)]);
    assert_eq!(rig.gauge.badness(rig.now_ms), 0.0);
}

#[test]
fn each_failure_in_a_row_is_a_state_worse() {
    // Smoothed badness 0.65, 0.88, 0.96.
    let entered = Rig::new(&[DOWN]).run(4, &[(DOWN.name, Some(1.0))]);
    use GateState::{Critical, Elevated, Overloaded};
    assert_eq!(entered, [(1, Elevated), (2, Overloaded), (3, Critical)]);
}

#[test]
fn a_spike_of_one_sample_does_not_go_past_elevated() {
    let mut rig = Rig::new(&[RTT]);
    let transition = rig.second(&[(NAME, Some(1e6))]).expect("0.5 is elevated");
    assert_eq!(
        transition.to_string(),
        "ok to elevated: redis_rtt_p95_ms at 1000000, badness 0.50"
    );
    assert!(rig.run(10, &[(NAME, Some(1.0))]).is_empty());
    assert_eq!(rig.gauge.state(), GateState::Elevated);
}

#[test]
fn recovers_one_state_at_a_time_each_held_thirty_seconds() {
    let mut rig = Rig::new(&[RTT]);
    rig.run(20, &[(NAME, Some(100.0))]);
    assert_eq!(rig.gauge.state(), GateState::Critical);
    let left = rig.run(200, &[(NAME, Some(1.0))]);
    use GateState::{Elevated, Ok, Overloaded};
    // 0.95^6 is the first below 0.75; by the time of the next hold the badness is long below 0.6.
    assert_eq!(left, [(36, Overloaded), (67, Elevated), (98, Ok)]);
}

#[test]
fn a_relapse_starts_the_hold_again() {
    let mut rig = Rig::new(&[RTT]);
    rig.second(&[(NAME, Some(100.0))]);
    assert!(rig.run(35, &[(NAME, Some(1.0))]).is_empty());
    // Badness about 0.45: too little to worsen, too much to leave.
    rig.run(1, &[(NAME, Some(22.0))]);
    assert!(rig.run(30, &[(NAME, Some(1.0))]).is_empty());
    assert_eq!(rig.run(60, &[(NAME, Some(1.0))]).len(), 1);
}

/// Ten seconds of failures, then well.
fn outage(rig: &mut Rig) -> Vec<(u64, GateState)> {
    let (bad, well) = ([(DOWN.name, Some(1.0))], [(DOWN.name, Some(0.0))]);
    let well = |rig: &mut Rig| {
        let fast = (NAME, Some(1.0));
        rig.run(120, &[well[0], fast])
    };
    rig.run(10, &bad);
    assert_eq!(rig.gauge.state(), GateState::Critical);
    well(rig)
}

#[test]
fn a_failure_that_ended_is_left_sooner_than_load() {
    use GateState::{Elevated, Ok, Overloaded};
    // Badness is below 0.75 after 6 s, below 0.3 after 24 s.
    let mut rig = Rig::new(&[RTT, DOWN]);
    assert_eq!(
        outage(&mut rig),
        [(11, Overloaded), (17, Elevated), (29, Ok)]
    );
    // If answers were slow besides, the hold is that of load.
    let mut rig = Rig::new(&[RTT, DOWN]);
    let both = [(DOWN.name, Some(1.0)), (NAME, Some(100.0))];
    rig.run(20, &both);
    let well = [(DOWN.name, Some(0.0)), (NAME, Some(1.0))];
    assert_eq!(
        rig.run(200, &well),
        [(36, Overloaded), (67, Elevated), (98, Ok)]
    );
}

#[test]
fn a_failure_that_comes_back_is_held_longer_each_time_and_forgiven_later() {
    let mut rig = Rig::new(&[RTT, DOWN]);
    let first_step = |rig: &mut Rig| outage(rig)[0].0;
    let steps = [0; 5].map(|_| first_step(&mut rig));
    assert_eq!(steps, [11, 16, 26, 36, 36]);
    let well = [(DOWN.name, Some(0.0)), (NAME, Some(1.0))];
    rig.run(10 * HOLD_MS / 1_000, &well);
    assert_eq!(first_step(&mut rig), 11);
}

#[test]
fn a_failure_that_comes_back_is_held_even_if_the_first_one_is_not() {
    let timing = Timing {
        failure_hold_ms: 0,
        ..TIMING
    };
    let mut rig = Rig::timed(timing, &[RTT, DOWN]);
    let steps = [0; 5].map(|_| outage(&mut rig)[0].0);
    assert_eq!(steps, [6, 11, 16, 26, 36]);
    let never = Timing {
        hold_ms: 0,
        ..timing
    };
    let mut rig = Rig::timed(never, &[RTT, DOWN]);
    assert_eq!([0; 3].map(|_| outage(&mut rig)[0].0), [6; 3]);
}

#[test]
fn cpu_alone_never_goes_past_elevated_nor_keeps_it_there() {
    let busy = (CPU.name, Some(100.0));
    let mut rig = Rig::new(&[CPU, MEMORY]);
    assert_eq!(
        rig.run(100, &[busy, (MEMORY.name, Some(0.0))]),
        [(1, GateState::Elevated)]
    );
    rig.run(20, &[busy, (MEMORY.name, Some(50.0))]);
    assert_eq!(rig.gauge.state(), GateState::Critical);
    rig.run(200, &[busy, (MEMORY.name, Some(0.0))]);
    assert_eq!(rig.gauge.state(), GateState::Elevated);
}

#[test]
fn a_signal_that_cannot_have_brought_the_state_about_is_not_blamed_for_it() {
    let mut rig = Rig::new(&[CPU, MEMORY]);
    rig.run(4, &[(CPU.name, Some(100.0)), (MEMORY.name, Some(9.0))]);
    assert_eq!(rig.gauge.state(), GateState::Overloaded);
    let snapshot = rig.gauge.snapshot(rig.now_ms);
    let worst = snapshot.worst_signal().expect("there are signals");
    assert_eq!((worst.name, worst.badness), (MEMORY.name, snapshot.badness));
}

#[test]
fn the_worst_signal_is_named() {
    let mut rig = Rig::new(&[CPU, MEMORY]);
    let transition = rig.second(&[(CPU.name, Some(30.0)), (MEMORY.name, Some(10.0))]);
    assert_eq!(
        transition.map(|t| (t.signal, t.value)),
        Some((MEMORY.name, Some(10.0)))
    );
    assert!(!rig.gauge.sample(2_000, "no_such_signal", Some(1.0)));
    let snapshot = rig.gauge.snapshot(rig.now_ms);
    assert_eq!((snapshot.worst, snapshot.badness), (Some(MEMORY.name), 0.5));
    assert_eq!(
        serde_json::to_value(snapshot).expect("plain data")["state"],
        "elevated"
    );
}

#[test]
fn a_missing_signal_keeps_the_state_from_improving() {
    let mut rig = Rig::new(&[RTT, MEMORY]);
    rig.second(&[(NAME, Some(100.0)), (MEMORY.name, Some(0.0))]);
    let half = [(NAME, Some(1.0)), (MEMORY.name, None)];
    assert!(rig.run(300, &half).is_empty());
    assert!(rig.gauge.growth_frozen(rig.now_ms));
    // Not-a-number is missing too, and so is a probe that no longer reports.
    assert!(
        rig.run(300, &[(NAME, Some(1.0)), (MEMORY.name, Some(f64::NAN))])
            .is_empty()
    );
    assert!(rig.run(300, &[(NAME, Some(1.0))]).is_empty());
    let whole = [(NAME, Some(1.0)), (MEMORY.name, Some(0.0))];
    assert_eq!(rig.run(31, &whole), [(31, GateState::Ok)]);
}

#[test]
fn a_signal_that_comes_and_goes_improves_nothing_but_a_lost_sample_is_forgiven() {
    let improvements = |good_s: u64, missing_s: u64| {
        let mut rig = Rig::new(&[RTT]);
        rig.second(&[(NAME, Some(100.0))]);
        let mut round = || {
            let good = rig.run(good_s, &[(NAME, Some(1.0))]).len();
            good + rig.run(missing_s, &[(NAME, None)]).len()
        };
        (0..10).map(|_| round()).sum::<usize>()
    };
    assert_eq!(improvements(20, 8), 0);
    assert_eq!(improvements(20, 2), 1);
}

#[test]
fn a_signal_lost_for_long_counts_as_elevated() {
    let mut rig = Rig::new(&[RTT]);
    assert!(rig.run(10, &[(NAME, Some(1.0))]).is_empty());
    assert_eq!(rig.run(60, &[(NAME, None)]), [(16, GateState::Elevated)]);
    assert_eq!(rig.run(40, &[(NAME, Some(1.0))]), [(31, GateState::Ok)]);
    // One that was never measured is no different.
    assert_eq!(Rig::new(&[RTT]).run(60, &[]), [(16, GateState::Elevated)]);
}

#[test]
fn a_signal_with_an_interval_of_its_own_is_not_missing_between_its_samples() {
    const RARE: Signal = Signal::new("probe_mails", 5.0, 25.0).sampled_every(60_000);
    let mut rig = Rig::new(&[RTT, RARE]);
    let fast = [(NAME, Some(1.0))];
    rig.second(&[(NAME, Some(1.0)), (RARE.name, Some(1.0))]);
    assert!(rig.run(299, &fast).is_empty());
    assert!(rig.gauge.growth_frozen(rig.now_ms));
    assert_eq!(rig.run(3, &fast), [(2, GateState::Elevated)]);
}

#[test]
fn a_lost_signal_keeps_a_worse_badness() {
    let mut rig = Rig::new(&[RTT]);
    rig.run(20, &[(NAME, Some(100.0))]);
    let before = rig.gauge.badness(rig.now_ms);
    assert!(rig.run(600, &[(NAME, None)]).is_empty());
    assert_eq!(rig.gauge.badness(rig.now_ms), before);
}

#[test]
fn only_mode_on_heeds_the_state() {
    let heeded = [GateMode::On, GateMode::Shadow, GateMode::Off]
        .map(|mode| mode.heeded(GateState::Critical));
    assert_eq!(heeded, [GateState::Critical, GateState::Ok, GateState::Ok]);
    assert_eq!(
        serde_json::from_str::<GateMode>("\"shadow\"").ok(),
        Some(GateMode::Shadow)
    );
}

proptest! {
    /// Whatever is measured: badness is within 0 and 1, a state is left only for the next better
    /// one and no sooner than 30 s after it was entered, and CPU never brings about overload.
    #[test]
    fn holds_its_promises(
        samples in prop::collection::vec(
            (prop::option::of(prop_oneof![0.0..40.0_f64, prop::num::f64::ANY]),
             prop::option::of(0.0..100.0_f64)), 1..400),
        lull in 0_u64..200,
    ) {
        let mut rig = Rig::new(&[RTT, CPU]);
        let mut entered_ms = 0;
        let quiet = std::iter::repeat_n((Some(1.0), Some(1.0)), usize::try_from(lull).unwrap_or(0));
        for (rtt, cpu) in samples.into_iter().chain(quiet) {
            let transition = rig.second(&[(RTT.name, rtt), (CPU.name, cpu)]);
            prop_assert!((0.0..=1.0).contains(&rig.gauge.badness(rig.now_ms)));
            if let Some(Transition { from, to, .. }) = transition {
                prop_assert_ne!(from, to);
                if to < from {
                    prop_assert_eq!(to, from.better());
                    prop_assert!(rig.now_ms - entered_ms >= HOLD_MS);
                }
                entered_ms = rig.now_ms;
            }
        }
        let mut cpu_only = Rig::new(&[CPU]);
        cpu_only.run(lull, &[(CPU.name, Some(1e9))]);
        prop_assert!(cpu_only.gauge.state() <= GateState::Elevated);
    }
}
