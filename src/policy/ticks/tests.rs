#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
/// 2026-03-10T00:00:00Z
const START: u64 = 1_773_100_800_000;

fn schedule(expression: &str) -> Schedule {
    Schedule::parse(expression, "UTC").unwrap()
}

#[test]
fn a_tick_on_time_is_served_under_every_policy() {
    let hourly = schedule("@hourly");
    for misfire in [Misfire::Skip, Misfire::Once, Misfire::All] {
        let tick = START + HOUR;
        assert_eq!(due(&hourly, misfire, 100, START, tick - 1), None);
        let found = due(&hourly, misfire, 100, START, tick + 30_000).unwrap();
        assert_eq!(
            (found.serve.as_slice(), found.passed_over),
            (&[tick][..], 0)
        );
        assert_eq!(found.missed_by(tick + 30_000), None);
        assert_eq!(
            due(&hourly, misfire, 100, found.latest_ms, tick + 30_000),
            None
        );
    }
}

#[test]
fn each_policy_makes_up_for_missed_ticks_in_its_way() {
    let hourly = schedule("@hourly");
    let now = START + 5 * HOUR + 10 * MINUTE;
    let hours = |from: u64| (from..=5).map(|n| START + n * HOUR).collect::<Vec<_>>();
    for (misfire, catch_up, serve, passed_over) in [
        (Misfire::Skip, 100, vec![], 5),
        (Misfire::Once, 100, hours(5), 4),
        (Misfire::All, 100, hours(1), 0),
        (Misfire::All, 2, hours(4), 3),
    ] {
        let found = due(&hourly, misfire, catch_up, START, now).unwrap();
        assert_eq!(
            (found.serve.clone(), found.passed_over),
            (serve, passed_over),
            "{misfire:?}"
        );
        assert_eq!(found.latest_ms, START + 5 * HOUR);
        assert_eq!(found.missed_by(now).unwrap().as_secs(), 4 * 3600 + 600);
    }
    // The latest one is still on time.
    let found = due(&hourly, Misfire::Skip, 100, START, START + 5 * HOUR + 1).unwrap();
    assert_eq!((found.serve, found.passed_over), (hours(5), 4));
}

#[test]
fn a_year_of_seconds_is_planned_in_bounded_steps() {
    let every_second = schedule("* * * * * *");
    let now = START + 365 * 24 * HOUR;
    let found = due(&every_second, Misfire::All, 10_000, START, now).unwrap();
    assert_eq!((found.serve.len(), found.passed_over), (10_000, COUNTED));
    assert_eq!(found.serve.last(), Some(&now));
    // Seconds of one hour a year: dense, then nothing for long.
    let rare = schedule("* * 1 1 1 *");
    let found = due(&rare, Misfire::Once, 1, START, START + 10 * 365 * 24 * HOUR).unwrap();
    assert_eq!((found.serve.len(), found.passed_over), (1, COUNTED));
    let (last, next) = (found.latest_ms, rare.next_after(found.latest_ms).unwrap());
    assert!(
        last % HOUR == HOUR - 1_000 && next % HOUR == 0,
        "{last} {next}"
    );
}

/// Expressions of many shapes, in zones with and without daylight saving time.
fn any_schedule() -> impl Strategy<Value = Schedule> {
    let expression = prop::sample::select(vec![
        "* * * * *",
        "*/7 * * * *",
        "0 * * * *",
        "30 1 * * *",
        "30 2 * * *",
        "15 */5 * * 1-5",
        "0 0 1,15 * 5",
        "*/20 * * * * *",
        "* * 1 * * *",
        "0 0 29 2 *",
    ]);
    let zone = prop::sample::select(vec![
        "UTC",
        "Europe/Amsterdam",
        "America/New_York",
        "Australia/Lord_Howe",
    ]);
    (expression, zone).prop_map(|(e, z)| Schedule::parse(e, z).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Against the plain listing of all ticks.
    #[test]
    fn the_plan_is_what_listing_every_tick_would_give(
        schedule in any_schedule(),
        last in START..START + 400 * 24 * HOUR,
        passed in 0..12 * HOUR,
        catch_up in 1_usize..50,
    ) {
        let now = last + passed;
        let all: Vec<u64> = std::iter::successors(schedule.next_after(last), |t| schedule.next_after(*t))
            .take_while(|t| *t <= now)
            .collect();
        for misfire in [Misfire::Skip, Misfire::Once, Misfire::All] {
            let found = due(&schedule, misfire, catch_up, last, now);
            let Some(newest) = all.last().copied() else {
                prop_assert_eq!(found, None);
                continue;
            };
            let found = found.unwrap();
            let kept = match misfire {
                Misfire::Skip => usize::from(now - newest <= 60_000),
                Misfire::Once => 1,
                Misfire::All => catch_up.min(all.len()),
            };
            let (passed_over, serve) = all.split_at(all.len() - kept);
            prop_assert_eq!(&found.serve, serve);
            prop_assert_eq!(found.passed_over, (passed_over.len() as u64).min(COUNTED));
            prop_assert_eq!((found.oldest_ms, found.latest_ms), (all[0], newest));
            // What was served is not due again.
            prop_assert_eq!(due(&schedule, misfire, catch_up, found.latest_ms, now), None);
        }
    }

    /// Two who take turns at any moments serve each tick once and in order, as one alone would.
    #[test]
    fn however_often_one_looks_each_tick_is_served_once(
        schedule in any_schedule(),
        looks in prop::collection::vec(1..HOUR, 1..20),
    ) {
        let (mut last, mut now, mut served) = (START, START, Vec::new());
        for step in &looks {
            now += step;
            if let Some(found) = due(&schedule, Misfire::All, 100_000, last, now) {
                served.extend(found.serve);
                last = found.latest_ms;
            }
        }
        let whole = due(&schedule, Misfire::All, 100_000, START, now).map_or_else(Vec::new, |d| d.serve);
        prop_assert_eq!(served, whole);
    }
}
