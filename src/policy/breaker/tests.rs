use super::trial::MOST_TRIALS;
use super::*;

pub(super) const OK: CallResult = CallResult::Success { slow: false };
pub(super) const SLOW: CallResult = CallResult::Success { slow: true };
pub(super) const FAILED: CallResult = CallResult::DependencyFailure { connect: false };
pub(super) const REFUSED: CallResult = CallResult::DependencyFailure { connect: true };
/// No jitter: the middle of its range.
pub(super) const MIDDLE: f64 = 0.5;

pub(super) fn breaker() -> Breaker {
    Breaker::new(BreakerConfig::default())
}

/// One call that is let through and ends at once.
pub(super) fn call(breaker: &mut Breaker, now_ms: u64, result: CallResult) -> Option<Transition> {
    let epoch = match breaker.admit(now_ms).0 {
        Verdict::Allow { epoch, .. } => epoch,
        Verdict::Trial(permit) => permit.epoch,
        Verdict::Refuse { .. } => return None,
    };
    breaker.record(now_ms, epoch, result, MIDDLE)
}

/// A breaker opened by five connect errors at `now_ms`.
pub(super) fn opened(now_ms: u64) -> Breaker {
    let mut breaker = breaker();
    for _ in 0..5 {
        call(&mut breaker, now_ms, REFUSED);
    }
    assert_eq!(breaker.state(now_ms), State::Open);
    breaker
}

pub(super) fn trial(breaker: &mut Breaker, now_ms: u64) -> Option<Permit> {
    match breaker.admit(now_ms).0 {
        Verdict::Trial(permit) => Some(permit),
        Verdict::Allow { .. } | Verdict::Refuse { .. } => None,
    }
}

#[test]
fn opens_when_failures_are_surely_the_majority() {
    let mut breaker = breaker();
    for _ in 0..12 {
        assert_eq!(call(&mut breaker, 0, FAILED), None);
    }
    // Thirteen of thirteen: P = 1 - 1/2^14.
    let transition = call(&mut breaker, 0, FAILED);
    let reason = Reason::Failures {
        failures: 13,
        calls: 13,
    };
    let expected = Transition {
        from: State::Closed,
        to: State::Open,
        reason,
        at_ms: 0,
    };
    assert_eq!(transition, Some(expected));
    assert_eq!(reason.to_string(), "13 of 13 calls failed");
    assert_eq!(
        breaker.admit(4_999).0,
        Verdict::Refuse { retry_at_ms: 5_000 }
    );
}

#[test]
fn half_bad_is_never_enough_and_four_of_five_is() {
    let mut half = breaker();
    for _ in 0..500 {
        assert_eq!(call(&mut half, 0, OK), None);
        assert_eq!(call(&mut half, 0, FAILED), None);
    }
    let mut most = breaker();
    let opened = (0..200).find_map(|n| {
        let result = if n % 5 == 0 { OK } else { FAILED };
        call(&mut most, 0, result)
    });
    let reason = opened.map(|t| t.reason);
    assert!(
        matches!(reason, Some(Reason::Failures { calls, .. }) if calls < 60),
        "{reason:?}"
    );
}

#[test]
fn a_good_past_does_not_hide_a_sudden_death() {
    let mut breaker = breaker();
    for second in 0..30 {
        for _ in 0..100 {
            call(&mut breaker, second * 1_000, OK);
        }
    }
    let calls = (1..).find(|_| call(&mut breaker, 31_000, FAILED).is_some());
    assert_eq!(calls, Some(13), "of 3,000 good ones before");
}

#[test]
fn fewer_calls_than_the_least_say_nothing() {
    let config = BreakerConfig {
        least_calls: 40,
        ..BreakerConfig::default()
    };
    let mut breaker = Breaker::new(config);
    let calls = (1..).find(|_| call(&mut breaker, 0, FAILED).is_some());
    assert_eq!(calls, Some(40));
}

#[test]
fn slow_calls_open_it_too() {
    let mut breaker = breaker();
    let reasons: Vec<_> = (0..13)
        .filter_map(|_| call(&mut breaker, 0, SLOW))
        .map(|t| t.reason)
        .collect();
    let reason = Reason::SlowCalls {
        slow: 13,
        calls: 13,
    };
    assert_eq!(reasons, [reason]);
}

#[test]
fn failed_and_slow_calls_are_bad_ones_together() {
    let mut breaker = breaker();
    let reasons: Vec<_> = (0..13)
        .filter_map(|n| call(&mut breaker, 0, if n % 2 == 0 { SLOW } else { FAILED }))
        .map(|t| t.reason)
        .collect();
    let reason = Reason::BadCalls {
        failures: 6,
        slow: 7,
        calls: 13,
    };
    assert_eq!(reasons, [reason]);
}

#[test]
fn five_connect_errors_in_a_row_open_it_despite_a_good_past() {
    let mut breaker = breaker();
    for _ in 0..1_000 {
        call(&mut breaker, 0, OK);
    }
    for _ in 0..4 {
        call(&mut breaker, 0, REFUSED);
    }
    assert_eq!(call(&mut breaker, 0, OK), None, "the row is broken");
    let reasons: Vec<_> = (0..5)
        .filter_map(|_| call(&mut breaker, 0, REFUSED))
        .map(|t| t.reason)
        .collect();
    assert_eq!(reasons, [Reason::ConnectErrors { count: 5 }]);
}

#[test]
fn where_connect_errors_are_usual_five_in_a_row_are_chance() {
    let mut breaker = breaker();
    for n in 0..3_000 {
        // One of three servers behind a name is gone.
        let result = if n % 3 == 0 { REFUSED } else { OK };
        assert_eq!(call(&mut breaker, n * 100, result), None);
    }
    for _ in 0..5 {
        assert_eq!(call(&mut breaker, 300_000, REFUSED), None);
    }
    let opened = (0..20).find_map(|_| call(&mut breaker, 300_000, REFUSED));
    assert!(opened.is_some(), "it is found by the share of failures");
}

#[test]
fn poison_payloads_never_count() {
    let mut breaker = breaker();
    for _ in 0..1_000 {
        assert_eq!(call(&mut breaker, 0, CallResult::NotDependency), None);
    }
    assert_eq!(breaker.snapshot(0).calls, 0);
}

#[test]
fn old_failures_leave_the_window() {
    let mut breaker = breaker();
    for minute in 0..100 {
        // One failure a minute: never ten within five minutes.
        assert_eq!(call(&mut breaker, minute * 60_000, FAILED), None);
    }
    assert_eq!(breaker.snapshot(5_940_000).failures, 5);
}

#[test]
fn one_trial_at_a_time() {
    let mut breaker = opened(0);
    assert_eq!(breaker.peek(4_999), Outlook::Refuse { retry_at_ms: 5_000 });
    assert_eq!(breaker.peek(5_000), Outlook::Trial);
    assert_eq!(breaker.peek(5_000), Outlook::Trial, "a look takes nothing");

    let (verdict, transition) = breaker.admit(5_000);
    assert!(matches!(
        verdict,
        Verdict::Trial(Permit {
            deadline_ms: 65_000,
            ..
        })
    ));
    assert_eq!(
        transition.map(|t| (t.from, t.to)),
        Some((State::Open, State::HalfOpen))
    );
    assert_eq!(
        breaker.admit(5_001),
        (
            Verdict::Refuse {
                retry_at_ms: 65_000
            },
            None
        )
    );
}

#[test]
fn a_cancelled_trial_makes_room_and_cannot_report() {
    let mut breaker = opened(0);
    let first = trial(&mut breaker, 5_000).expect("the first trial");
    breaker.release(first);
    assert_eq!(breaker.record(5_001, first.epoch, FAILED, MIDDLE), None);
    let second = trial(&mut breaker, 5_001).expect("room for a second");
    breaker.release(first);
    assert_eq!(
        trial(&mut breaker, 5_002),
        None,
        "an old permit frees nothing"
    );
    // A result that says nothing about the dependency also makes room.
    assert_eq!(
        breaker.record(5_003, second.epoch, CallResult::NotDependency, MIDDLE),
        None
    );
    assert!(trial(&mut breaker, 5_003).is_some());
}

#[test]
fn a_trial_that_never_returns_does_not_hold_it_half_open() {
    let mut breaker = opened(0);
    let lost = trial(&mut breaker, 5_000).expect("the first trial");
    assert_eq!(trial(&mut breaker, 64_999), None, "it has the field");
    let next = trial(&mut breaker, 65_000).expect("another after the deadline");
    assert_eq!(
        breaker.record(65_001, lost.epoch, FAILED, MIDDLE),
        None,
        "too late to decide"
    );
    let transition = breaker.record(65_002, next.epoch, OK, MIDDLE);
    assert_eq!(transition.map(|t| t.to), Some(State::Ramping));
    for late in [lost, next] {
        assert_eq!(breaker.record(65_003, late.epoch, FAILED, MIDDLE), None);
    }
}

#[test]
fn a_long_job_that_succeeds_after_its_deadline_ends_the_outage() {
    let mut breaker = opened(0);
    let long = trial(&mut breaker, 5_000).expect("the first trial");
    let second = trial(&mut breaker, 65_000).expect("beside it");
    assert_eq!(trial(&mut breaker, 184_999), None, "twice as long");
    let third = trial(&mut breaker, 185_000).expect("a third");
    let transition = breaker.record(200_000, long.epoch, OK, MIDDLE);
    assert_eq!(transition.map(|t| t.to), Some(State::Ramping));
    for late in [second, third] {
        assert_eq!(breaker.record(200_001, late.epoch, FAILED, MIDDLE), None);
        breaker.release(late);
    }
    assert_eq!(breaker.state(200_001), State::Ramping);
}

#[test]
fn trials_that_hang_do_not_pile_up() {
    let mut breaker = opened(0);
    let begun = (5..86_400)
        .filter(|second| trial(&mut breaker, second * 1_000).is_some())
        .count();
    assert!(begun <= 300, "{begun} in a day");
    assert!(breaker.trials.len() <= MOST_TRIALS);
}

#[test]
fn calls_from_before_the_opening_say_nothing_afterwards() {
    let mut breaker = breaker();
    let Verdict::Allow { epoch: before, .. } = breaker.admit(0).0 else {
        unreachable!()
    };
    for _ in 0..5 {
        call(&mut breaker, 0, REFUSED);
    }
    assert_eq!(breaker.record(1, before, OK, MIDDLE), None);
    assert!(trial(&mut breaker, 5_000).is_some());
    assert_eq!(breaker.record(5_001, before, OK, MIDDLE), None);
    assert_eq!(breaker.state(5_001), State::HalfOpen);
}

#[test]
fn the_cool_down_doubles_up_to_twenty_seconds() {
    let mut breaker = opened(0);
    let mut now = 0;
    let mut cool_downs = Vec::new();
    for round in 0..8 {
        let Outlook::Refuse { retry_at_ms } = breaker.peek(now) else {
            unreachable!()
        };
        cool_downs.push((retry_at_ms - now) / 1_000);
        now = retry_at_ms;
        // A slow trial is as bad as a failed one.
        let transition = call(
            &mut breaker,
            now,
            if round % 2 == 0 { FAILED } else { SLOW },
        );
        assert_eq!(transition.map(|t| t.reason), Some(Reason::TrialFailed));
    }
    assert_eq!(cool_downs, [5, 10, 20, 20, 20, 20, 20, 20]);
}

#[test]
fn the_cool_down_varies_by_a_fifth() {
    let until = |jitter: f64| {
        let mut breaker = breaker();
        for _ in 0..5 {
            breaker.record(0, 1, REFUSED, jitter);
        }
        breaker.peek(0)
    };
    assert_eq!(until(0.0), Outlook::Refuse { retry_at_ms: 4_000 });
    assert_eq!(until(0.999_999_999), Outlook::Refuse { retry_at_ms: 5_999 });
}

#[test]
fn recovery_climbs_step_by_step() {
    let mut breaker = opened(0);
    call(&mut breaker, 5_000, OK);
    let mut shares = Vec::new();
    let mut now = 5_000;
    let closed = loop {
        now += 100;
        shares.extend(breaker.snapshot(now).limit);
        if let Some(transition) = call(&mut breaker, now, OK) {
            break transition;
        }
        assert!(shares.len() < 1_000, "never closed");
    };
    assert!((6_000..=10_000).contains(&(now - 5_000)), "{now}");
    shares.dedup();
    assert_eq!(shares, [0.01, 0.02, 0.04, 0.08, 0.25, 0.5, 1.0]);
    assert_eq!((closed.from, closed.to), (State::Ramping, State::Closed));
    assert_eq!(
        breaker.snapshot(now).openings,
        0,
        "the next cool-down is short again"
    );
}

/// Calls until the step changes; the share it came to and the seconds that took.
fn until_another_step(breaker: &mut Breaker, now: &mut u64, result: CallResult) -> (f64, u64) {
    let (before, begun) = (breaker.snapshot(*now).limit, *now);
    for _ in 0..10_000 {
        *now += 100;
        assert_eq!(call(breaker, *now, result), None);
        let limit = breaker.snapshot(*now).limit;
        if limit != before {
            return (limit.unwrap_or(1.0), (*now - begun) / 1_000);
        }
    }
    unreachable!("still at {before:?}")
}

#[test]
fn a_step_that_is_too_much_is_taken_back_and_the_next_try_takes_longer() {
    let mut breaker = opened(0);
    call(&mut breaker, 5_000, OK);
    let mut now = 5_000;
    let mut waits = Vec::new();
    for _ in 0..7 {
        let (up, took) = until_another_step(&mut breaker, &mut now, OK);
        assert!((up - 0.02).abs() < 1e-9);
        waits.push(took);
        let (down, at_once) = until_another_step(&mut breaker, &mut now, FAILED);
        assert!((down - 0.01).abs() < 1e-9 && at_once == 0);
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 32]);
}

#[test]
fn a_ramp_is_given_up_if_most_calls_fail() {
    let mut breaker = opened(0);
    call(&mut breaker, 5_000, OK);
    for result in [OK, OK, FAILED, OK, OK] {
        assert_eq!(call(&mut breaker, 6_000, result), None);
    }
    assert_eq!(
        breaker.snapshot(6_000).limit,
        Some(0.02),
        "four of five: on"
    );
    let late = breaker.admit(6_000).0;
    let reopened = (0..40).find_map(|_| call(&mut breaker, 6_000, FAILED));
    let Verdict::Allow { epoch, .. } = late else {
        unreachable!("it lets calls through")
    };
    assert_eq!(breaker.record(6_000, epoch, FAILED, MIDDLE), None);
    assert_eq!(
        reopened.map(|t| (t.from, t.to)),
        Some((State::Ramping, State::Open))
    );
    assert_eq!(
        breaker.peek(6_000),
        Outlook::Refuse {
            retry_at_ms: 16_000
        }
    );
}

#[test]
fn forced_open_ends_by_itself_in_a_trial() {
    let mut breaker = breaker();
    let transition = breaker.force_open(0, Duration::from_secs(60));
    assert_eq!(
        (transition.to, transition.reason),
        (State::Open, Reason::Forced)
    );
    assert_eq!(
        breaker.peek(59_999),
        Outlook::Refuse {
            retry_at_ms: 60_000
        }
    );
    assert!(trial(&mut breaker, 60_000).is_some());
    breaker.force_open(0, Duration::MAX);
    assert_eq!(
        breaker.peek(0),
        Outlook::Refuse {
            retry_at_ms: 86_400_000
        }
    );
    let reset = breaker.set_mode(1, Mode::On);
    assert_eq!(
        reset.map(|t| (t.to, t.reason)),
        Some((State::Closed, Reason::Reset))
    );
}

#[test]
fn disabled_lets_all_through_and_counts_nothing() {
    let mut breaker = opened(0);
    breaker.set_mode(0, Mode::Disabled);
    for _ in 0..100 {
        assert_eq!(call(&mut breaker, 0, REFUSED), None);
    }
    assert_eq!(breaker.peek(0), Outlook::Allow { limit: None });
    assert_eq!(breaker.snapshot(0).calls, 0);
}

#[test]
fn metrics_only_judges_but_never_refuses() {
    let mut breaker = breaker();
    assert_eq!(breaker.set_mode(0, Mode::MetricsOnly), None);
    let opened: Vec<_> = (0..5)
        .filter_map(|_| call(&mut breaker, 0, REFUSED))
        .collect();
    assert_eq!(opened.len(), 1);
    assert_eq!(breaker.peek(0), Outlook::Allow { limit: None });
    let snapshot = breaker.snapshot(0);
    assert_eq!(
        (snapshot.mode, snapshot.state, snapshot.would),
        (Mode::MetricsOnly, State::Open, Would::Refuse)
    );
    // What it would have refused runs, but does not count: only the trial does.
    assert_eq!(call(&mut breaker, 1, OK), None);
    assert_eq!(breaker.snapshot(1).calls, 0);
    assert_eq!(
        call(&mut breaker, 5_000, OK).map(|t| t.to),
        Some(State::Ramping)
    );
    assert_eq!(breaker.snapshot(5_000).would, Would::Limit);
    assert_eq!(breaker.peek(5_000), Outlook::Allow { limit: None });
}

#[test]
fn the_snapshot_is_plain_json() {
    let json = serde_json::to_value(opened(0).snapshot(1_000)).expect("plain data");
    assert_eq!(json["state"], "open");
    assert_eq!(json["mode"], "on");
    assert_eq!(json["would"], "refuse");
    assert_eq!(json["retry_in_ms"], 4_000);
    assert_eq!(json["forced_ms"], serde_json::Value::Null);
    let mut forced = breaker();
    forced.force_open(0, Duration::from_secs(60));
    let json = serde_json::to_value(forced.snapshot(1_000)).expect("plain data");
    assert_eq!(json["forced_ms"], 59_000);
    assert_eq!(forced.snapshot(60_000).forced_ms, None, "it has ended");
}
