#![allow(clippy::unwrap_used)]
use chrono::NaiveDate;
use proptest::prelude::*;

use super::*;

fn ms(text: &str) -> u64 {
    DateTime::parse_from_rfc3339(text)
        .unwrap()
        .timestamp_millis()
        .cast_unsigned()
}

fn schedule(expression: &str, zone: &str) -> Schedule {
    Schedule::parse(expression, zone).unwrap()
}

/// The ticks after `from`, in local time with the offset.
fn ticks(expression: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
    let schedule = schedule(expression, zone);
    let mut now = ms(from);
    let mut next = || {
        now = schedule.next_after(now).unwrap();
        let tick = DateTime::from_timestamp_millis(now.cast_signed()).unwrap();
        tick.with_timezone(&schedule.zone).to_rfc3339()
    };
    (0..count).map(|_| next()).collect()
}

#[test]
fn both_lengths_and_the_shorthands_mean_the_same() {
    let from = "2026-03-10T12:34:56.700Z";
    let same = [
        [
            "30 1 * * *",
            "0 30 1 * * *",
            "0 30 1 * * * *",
            "0 30 1 ? * ?",
        ],
        ["0 0 * * *", "@daily", "@midnight", "0 0 0 * * *"],
        ["0 * * * *", "@hourly", "0 0 */1 * * *", "0 0-23 * * *"],
        ["0 0 * * 0", "@weekly", "0 0 0 * * 7", "0 0 * * SUN"],
        ["0 0 1 1 *", "@yearly", "@annually", "0 0 0 1 JAN *"],
        ["0 0 1 * *", "@monthly", "0 0 0 1 * *", "0 0 0 1 */1 ?"],
    ];
    for group in same {
        let expected = ticks(group[0], "UTC", from, 4);
        for expression in group {
            assert_eq!(ticks(expression, "UTC", from, 4), expected, "{expression}");
        }
    }
    assert_eq!(
        ticks("0 15 1 * * *", "UTC", from, 1),
        ["2026-03-11T01:15:00+00:00"]
    );
    assert_eq!(
        ticks("*/20 * * * * *", "UTC", from, 1),
        ["2026-03-10T12:35:00+00:00"]
    );
}

#[test]
fn a_tick_is_strictly_later_than_the_time_asked() {
    let hourly = schedule("@hourly", "UTC");
    let tick = ms("2026-01-01T00:00:00Z");
    assert_eq!(hourly.next_after(tick - 1), Some(tick));
    assert_eq!(hourly.next_after(tick), Some(tick + 3_600_000));
}

#[test]
fn weekdays_are_numbered_as_in_cron_5_in_every_length() {
    // 2026-03-09 is a Monday.
    let from = "2026-03-08T12:00:00Z";
    let days = |field: &str, length: &str| -> Vec<u32> {
        let list = ticks(&format!("{length}0 0 * * {field}"), "UTC", from, 7);
        let this_week = list.iter().filter(|tick| tick.as_str() < "2026-03-16");
        this_week.map(|tick| tick[8..10].parse().unwrap()).collect()
    };
    let expected: [(&str, &[u32]); 9] = [
        ("1", &[9]),
        ("0", &[15]),
        ("7", &[15]),
        ("1-5", &[9, 10, 11, 12, 13]),
        ("MON-FRI", &[9, 10, 11, 12, 13]),
        ("fri-sun", &[13, 14, 15]),
        ("5-7", &[13, 14, 15]),
        ("*/2", &[10, 12, 14, 15]),
        ("Tuesday,4", &[10, 12]),
    ];
    for (field, wanted) in expected {
        assert_eq!(days(field, ""), wanted, "{field}");
        assert_eq!(days(field, "0 "), wanted, "{field} with seconds");
    }
}

#[test]
fn day_and_weekday_together_match_either() {
    let expected =
        ["2026-03-13", "2026-03-16", "2026-03-23"].map(|day| format!("{day}T00:00:00+00:00"));
    assert_eq!(
        ticks("0 0 13 * MON", "UTC", "2026-03-10T00:00:00Z", 3),
        expected
    );
    // A star with a step does not count as a restriction: both must match.
    let odd_mondays = ticks("0 0 */2 * MON", "UTC", "2026-03-01T00:00:00Z", 2);
    assert_eq!(
        odd_mondays,
        ["2026-03-09T00:00:00+00:00", "2026-03-23T00:00:00+00:00"]
    );
}

#[test]
fn what_is_wrong_is_refused() {
    let bad = [
        "",
        "* * * *",
        "* * * * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * 32 * *",
        "* * * 13 *",
        "* * * * 8",
        "*5 * * * *",
        "0 *5 * * * *",
        "0 0 0 * **",
        "*/0 * * * *",
        "*/99999999999 * * * *",
        "5-1 * * * *",
        "1--2 * * * *",
        ", * * * *",
        "1,,2 * * * *",
        "* * * * MONX",
        "* * * * xyz",
        "* * * * 1/0",
        "* * * * 1/8",
        "@every 5m",
        "@reboot",
        "@",
        "a b c d e",
        "0 0 1MON * *",
        "* * * * fri-tue",
        "0 0 0 1 1 * 1969",
        "0 0 0 1 1 * 2101",
        "\u{661} * * * *",
        "-1 * * * *",
        "1/2/3 * * * *",
        "0 0 L * *",
        "0 0 * * 5#2",
        "+1 * * * *",
    ];
    for expression in bad {
        let error = Schedule::parse(expression, "UTC").unwrap_err();
        assert!(
            error.contains(&format!("{expression:?}")) && !error.contains('\n'),
            "{error}"
        );
    }
    let long = "0,".repeat(200) + "0 * * * *";
    assert!(
        Schedule::parse(&long, "UTC")
            .unwrap_err()
            .contains("longer")
    );
    assert!(
        Schedule::parse("@daily", "Europe/Atlantis")
            .unwrap_err()
            .contains("Atlantis")
    );
}

#[test]
fn what_never_fires_is_refused_and_what_seldom_does_is_not() {
    for expression in [
        "0 0 30 2 *",
        "0 0 0 30 FEB ?",
        "0 0 31 4,6,9,11 *",
        "0 0 0 29 2 * 2025",
    ] {
        let error = Schedule::parse(expression, "Europe/Amsterdam").unwrap_err();
        assert!(error.contains("no date ever matches"), "{error}");
    }
    let leap = ticks("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", 2);
    assert_eq!(
        leap,
        ["2028-02-29T00:00:00+00:00", "2032-02-29T00:00:00+00:00"]
    );
    let once = schedule("0 0 0 1 1 * 2027", "UTC");
    assert_eq!(
        once.next_after(ms("2026-06-01T00:00:00Z")),
        Some(ms("2027-01-01T00:00:00Z"))
    );
    assert_eq!(once.next_after(ms("2027-01-01T00:00:00Z")), None);
    assert_eq!(once.next_after(u64::MAX), None);
}

// Amsterdam 2026: on 29 March 02:00 becomes 03:00 CEST, on 25 October 03:00 becomes 02:00 CET.

#[test]
fn a_skipped_time_fires_once_after_the_gap() {
    let from = "2026-03-28T12:00:00Z";
    let expected = [
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
        "2026-03-31T02:30:00+02:00",
    ];
    assert_eq!(ticks("30 2 * * *", "Europe/Amsterdam", from, 3), expected);
    // Several skipped times, and a regular one at the end of the gap, are one tick.
    let expected = ["2026-03-29T03:00:00+02:00", "2026-03-29T03:30:00+02:00"];
    assert_eq!(
        ticks("0,30 2,3 * * *", "Europe/Amsterdam", from, 2),
        expected
    );
}

#[test]
fn a_repeated_time_fires_once() {
    let from = "2026-10-24T12:00:00Z";
    let expected = ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"];
    assert_eq!(ticks("30 2 * * *", "Europe/Amsterdam", from, 2), expected);
    // Asked during the second round it does not fire again.
    let second_round = "2026-10-25T02:10:00+01:00";
    assert_eq!(
        ticks("30 2 * * *", "Europe/Amsterdam", second_round, 1),
        expected[1..]
    );
}

#[test]
fn an_hourly_schedule_follows_elapsed_time() {
    let elapsed = |expression: &str, zone: &str, from: &str, hours: u64, step_s: u64| {
        let (schedule, from) = (schedule(expression, zone), ms(from));
        let mut now = from;
        while now < from + hours * 3_600_000 {
            let next = schedule.next_after(now).unwrap();
            assert_eq!(
                next - now,
                step_s * 1_000,
                "{expression} {zone} after {now}"
            );
            now = next;
        }
    };
    for day in ["2026-03-28T22:00:00Z", "2026-10-24T22:00:00Z"] {
        elapsed("*/15 * * * *", "Europe/Amsterdam", day, 8, 900);
        elapsed("@hourly", "Europe/Amsterdam", day, 8, 3_600);
        elapsed("*/30 * * * * *", "Europe/Amsterdam", day, 8, 30);
    }
    // Lord Howe moves its clocks by half an hour: 5 April 2026 and 4 October 2026.
    elapsed(
        "*/10 * * * *",
        "Australia/Lord_Howe",
        "2026-04-04T12:00:00Z",
        8,
        600,
    );
    elapsed(
        "*/10 * * * *",
        "Australia/Lord_Howe",
        "2026-10-03T12:00:00Z",
        8,
        600,
    );
}

#[test]
fn a_year_has_one_daily_tick_a_day_in_any_zone() {
    for zone in [
        "Europe/Amsterdam",
        "America/New_York",
        "Australia/Lord_Howe",
        "Asia/Kathmandu",
    ] {
        for hour in 0..24 {
            let list = ticks(
                &format!("30 {hour} * * *"),
                zone,
                "2025-12-31T00:00:00Z",
                365,
            );
            let days: std::collections::BTreeSet<_> = list.iter().map(|t| &t[..10]).collect();
            assert_eq!(days.len(), 365, "{zone} {hour}:30");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Against a walk over every minute: in UTC a tick is a minute whose parts are all chosen.
    #[test]
    fn next_is_the_first_minute_that_matches(
        minute in 0..60_u32, hour in 0..24_u32, day in 1..32_u32, weekday in 0..7_u32,
        form in 0..4_usize, start in 0_u64..3_000_000,
    ) {
        let expression = [
            format!("{minute} * * * *"),
            format!("{minute} {hour} * * *"),
            format!("{minute} {hour} * * {weekday}"),
            format!("{minute} {hour} {day} * {weekday}"),
        ][form].clone();
        use chrono::{Datelike, Timelike};
        let matches = |at: DateTime<Utc>| {
            let weekday_fits = at.weekday().num_days_from_sunday() == weekday;
            at.minute() == minute
                && (form == 0 || at.hour() == hour)
                && (form != 2 || weekday_fits)
                && (form != 3 || weekday_fits || at.day() == day)
        };
        let origin = NaiveDate::from_ymd_opt(2026, 1, 1).unwrap().and_hms_opt(0, 0, 0).unwrap();
        let from = origin.and_utc() + TimeDelta::minutes(start.cast_signed());
        let walked = (1..=15 * 1_440).map(|m| from + TimeDelta::minutes(m)).find(|at| matches(*at));
        let next = schedule(&expression, "UTC").next_after(from.timestamp_millis().cast_unsigned());
        prop_assert_eq!(next, walked.map(|at| at.timestamp_millis().cast_unsigned()));
    }

    #[test]
    fn no_text_panics(text in "[-0-9*/,?@a-zA-Z# ]{0,40}") {
        if let Ok(schedule) = Schedule::parse(&text, "Europe/Amsterdam") {
            prop_assert!(schedule.next_after(0).is_some());
        }
    }
}
