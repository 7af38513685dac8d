//! A fleet whose jobs are few, slow, or none at all.

use super::*;

/// A fleet that begins its way back.
fn ramping(count: usize) -> Fleet {
    let mut fleet = Fleet::of(count);
    fleet.dead = true;
    fleet.until(State::Open, 20);
    fleet.dead = false;
    fleet.until(State::Ramping, 60);
    fleet
}

fn shares(fleet: &Fleet) -> Vec<Option<f64>> {
    let share = |d: &Daemon| d.breaker.snapshot(fleet.now_ms + d.ahead_ms).limit;
    fleet.daemons.iter().map(share).collect()
}

#[test]
fn a_way_back_that_no_job_needs_ends_for_all_and_each_goes_on_with_it() {
    let mut fleet = ramping(3);
    fleet.rate = 0;
    let took = fleet.until(State::Closed, 400);
    assert!((290..330).contains(&took), "{took}");
    let of_all = |d: &Daemon| d.log.last().map(|t| t.reason.scope()) == Some("fleet");
    assert!(fleet.daemons.iter().all(of_all));
    fleet.seconds(90);
    assert!(fleet.store.record.is_none(), "it is forgotten");
    assert!(shares(&fleet).iter().all(Option::is_some), "with care");
    fleet.rate = 10;
    fleet.second();
    assert_eq!(fleet.states(), [State::Ramping; 3]);
    fleet.until(State::Closed, 60);
    assert_eq!(shares(&fleet), [None; 3]);
}

#[test]
fn an_open_fleet_that_no_job_needs_rests_and_opens_again_if_it_is_still_down() {
    let mut fleet = Fleet::of(3);
    fleet.dead = true;
    fleet.until(State::Open, 20);
    fleet.rate = 0;
    let took = fleet.until(State::Closed, 400);
    assert!((290..330).contains(&took), "{took}");
    fleet.seconds(90);
    let before: u32 = fleet.daemons.iter().map(|d| d.calls).sum();
    fleet.rate = 10;
    fleet.until(State::Open, 5);
    let after: u32 = fleet.daemons.iter().map(|d| d.calls).sum();
    assert!(after - before <= 3, "each tries one alone");
}

#[test]
fn daemons_that_start_anew_do_not_keep_an_old_decision_for_ever() {
    let mut fleet = ramping(2);
    let record = fleet.store.record.clone();
    for rest in [0, 3_600_000] {
        let mut anew = Fleet::of(2);
        anew.store.record.clone_from(&record);
        anew.now_ms = fleet.now_ms + rest;
        anew.rate = 0;
        anew.until(State::Ramping, 3);
        let took = anew.until(State::Closed, 400);
        assert!(took < 330, "{took}");
        anew.seconds(90);
        assert!(anew.store.record.is_none());
    }
    fleet.rate = 0;
    fleet.until(State::Closed, 400);
}

#[test]
fn a_step_may_ask_for_more_results_than_a_window_holds() {
    let mut fleet = ramping(2);
    fleet.config.ramp_calls = 200;
    assert!(fleet.config.ramp_calls > fleet.config.stretch_calls);
    fleet.rate = 1;
    let mut seconds = 0;
    while fleet.states() != [State::Closed; 2] {
        // With a bad call now and then a few good ones will not do.
        fleet.daemons[0].sick = seconds % 10 == 0;
        fleet.second();
        seconds += 1;
        assert!(seconds < 1_000, "{:?}", fleet.store.record);
    }
    assert!(seconds > 600, "a hundred seconds for each step: {seconds}");
}

#[test]
fn jobs_slower_than_any_window_take_all_back_to_the_top() {
    let mut fleet = ramping(2);
    (fleet.rate, fleet.busy) = (0, true);
    let mut results = 0;
    while fleet.states() != [State::Closed; 2] {
        fleet.seconds(900);
        assert_ne!(fleet.states(), [State::Open; 2]);
        // One of the two is done, the first time badly.
        fleet.daemons[0].sick = results == 0;
        fleet.rate = 1;
        fleet.call(0);
        fleet.rate = 0;
        results += 1;
        assert!(results < 20, "{:?}", fleet.store.record);
    }
    assert!(
        results >= 11,
        "five for the step with the bad one: {results}"
    );
}
