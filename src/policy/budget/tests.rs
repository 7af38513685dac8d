use proptest::prelude::*;
use std::collections::BinaryHeap;

use super::*;

const CONFIG: BudgetConfig = BudgetConfig {
    share: 0.2,
    floor: 10.0,
    window: Duration::from_secs(10),
    line: Duration::from_secs(5),
    crowd: 100.0,
    longest: Duration::from_secs(60),
};

/// Retries that wait, and what came of them: when each went, by its number.
struct Plant {
    budget: RetryBudget,
    /// When, negated, and which.
    waiting: BinaryHeap<(i64, i64)>,
    went: Vec<(u64, i64)>,
    started: u64,
    /// Times one had to wait.
    asked: u64,
}

impl Plant {
    fn new(retries: i64) -> Self {
        Self {
            budget: RetryBudget::new(0, CONFIG),
            waiting: (0..retries).map(|n| (0, -n)).collect(),
            went: Vec::new(),
            started: 0,
            asked: 0,
        }
    }

    /// Runs until `end_ms`, with `fresh` new jobs each second, looking every 50 ms.
    fn run(&mut self, from_ms: u64, end_ms: u64, fresh: u64) {
        for now in (from_ms..end_ms).step_by(50) {
            for _ in 0..(now + 50) * fresh / 1_000 - now * fresh / 1_000 {
                self.budget.fresh(now);
                self.started += 1;
            }
            while let Some((at, n)) = self.waiting.peek().copied() {
                if -at > now as i64 {
                    break;
                }
                self.waiting.pop();
                if self.budget.has_room(now) {
                    self.budget.spend(now);
                    self.went.push((now, -n));
                } else {
                    let wait = self.budget.hold(now).as_millis() as i64;
                    self.asked += 1;
                    self.waiting.push((-(now as i64 + wait), n));
                }
            }
        }
    }
}

#[test]
fn a_storm_of_retries_keeps_to_its_share_beside_new_work() {
    let mut plant = Plant::new(1_000);
    plant.run(0, 60_000, 40);
    let allowed = 0.25 * plant.started as f64 + CONFIG.floor * 7.0;
    let went = plant.went.len() as f64;
    assert!(went <= allowed + 1.0, "{went} of {allowed}");
    // And it is used: what fades between two looks is little.
    assert!(went >= 0.8 * allowed, "{went} of {allowed}");
    // All this at some hundred questions a second.
    assert!(plant.asked < 60 * 130, "{}", plant.asked);
}

#[test]
fn without_new_work_the_floor_lets_all_of_them_through_in_about_their_order() {
    let mut plant = Plant::new(200);
    plant.run(0, 400_000, 0);
    assert_eq!(plant.went.len(), 200);
    let (last, _) = plant.went[199];
    assert!((190_000..320_000).contains(&last), "{last}");
    let sum = |went: &[(u64, i64)]| went.iter().map(|(_, n)| *n).sum::<i64>();
    assert!(sum(&plant.went[..100]) < sum(&plant.went[100..]));
}

#[test]
fn a_few_retries_are_free() {
    let mut budget = RetryBudget::new(0, CONFIG);
    for second in 0..600 {
        assert!(budget.has_room(second * 1_000));
        if second % 2 == 0 {
            budget.spend(second * 1_000);
        }
        assert_eq!(budget.judge(second * 1_000), None);
    }
}

#[test]
fn what_is_not_used_fades() {
    let mut budget = RetryBudget::new(0, CONFIG);
    (0..1_000).for_each(|_| budget.fresh(0));
    let mut let_through = |now| {
        let mut n = 0;
        while budget.has_room(now) {
            budget.spend(now);
            n += 1;
        }
        n
    };
    // An hour later there is the floor and no more.
    assert_eq!(let_through(3_600_000), 10);
    assert_eq!(let_through(3_600_000), 0);
    assert!(let_through(3_602_000) <= 2);
}

#[test]
fn it_says_once_that_it_holds_and_once_that_it_is_free() {
    let mut plant = Plant::new(30);
    assert_eq!(plant.budget.judge(0), None);
    let mut told = Vec::new();
    for now in (0..120_000).step_by(1_000) {
        plant.run(now, now + 1_000, 0);
        told.extend(plant.budget.judge(now + 1_000).map(|state| (now, state)));
    }
    let states: Vec<BudgetState> = told.iter().map(|(_, state)| *state).collect();
    assert_eq!(
        states,
        [BudgetState::Holding, BudgetState::Free],
        "{told:?}"
    );
    let (last, _) = *plant.went.last().unwrap_or(&(0, 0));
    assert!(
        told[1].0 + 1_000 >= last,
        "{told:?}, the last went at {last}"
    );
}

proptest! {
    #[test]
    fn never_more_than_the_share_and_the_floor(
        steps in prop::collection::vec((0_u64..3_000, 0_u32..20, 0_u32..40), 1..80)
    ) {
        let mut budget = RetryBudget::new(0, CONFIG);
        let (mut now, mut fresh, mut retries) = (0, 0.0, 0.0);
        for (passed, new, wish) in steps {
            now += passed;
            for _ in 0..new {
                budget.fresh(now);
                fresh += 1.0;
            }
            for _ in 0..wish {
                if budget.has_room(now) {
                    budget.spend(now);
                    retries += 1.0;
                } else {
                    let wait = budget.hold(now);
                    prop_assert!(wait >= Duration::from_millis(100));
                    prop_assert!(wait <= Duration::from_secs(60));
                }
            }
            let windows = now as f64 / 10_000.0;
            prop_assert!(retries <= 0.25 * fresh + 10.0 * (windows + 1.0) + 1e-6);
        }
    }
}

#[test]
fn a_hundred_thousand_that_wait_ask_at_a_bearable_pace() {
    let mut plant = Plant::new(100_000);
    plant.run(0, 1_000, 0);
    let at_once = plant.asked;
    plant.run(1_000, 121_000, 0);
    let pace = (plant.asked - at_once) as f64 / 120.0;
    assert!(pace < 3_500.0, "{pace} a second");
}

#[test]
fn who_waits_comes_by_at_the_pace_that_was_set_and_within_the_longest_time() {
    let config = BudgetConfig {
        line: Duration::from_secs(1),
        crowd: 10.0,
        longest: Duration::from_secs(3),
        ..CONFIG
    };
    let mut budget = RetryBudget::new(0, config);
    let waits: Vec<u64> = (0..200)
        .map(|_| budget.hold(0).as_millis() as u64)
        .collect();
    assert!(
        waits.iter().all(|ms| (100..=3_000).contains(ms)),
        "{waits:?}"
    );
    // One a second is in line; of the others ten come in each second of the two behind it.
    let within = |from, to| {
        waits
            .iter()
            .take(19)
            .filter(|ms| (from..to).contains(*ms))
            .count()
    };
    assert_eq!(within(0, 1_001), 1);
    assert!((9..=11).contains(&within(1_001, 2_001)), "{waits:?}");
}

#[test]
fn a_floor_of_one_lets_retries_through_too() {
    let config = BudgetConfig {
        floor: 1.0,
        ..CONFIG
    };
    let mut budget = RetryBudget::new(0, config);
    let mut went = 0;
    for now_ms in (0..600_000).step_by(100) {
        if budget.has_room(now_ms) {
            budget.spend(now_ms);
            went += 1;
        }
    }
    assert!((50..=62).contains(&went), "{went} in sixty windows");
}
