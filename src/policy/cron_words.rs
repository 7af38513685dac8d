//! A cron expression in plain words, and its next run as people say it.
//!
//! Speaks of what the expression matches, not of how it is written: `0 0 * * 1-5` and `@daily` on named weekdays read
//! the same. What has no short form is listed field by field, so that nothing it says is wrong.

use chrono::{DateTime, Datelike, NaiveDateTime, Timelike};
use chrono_tz::Tz;
use cron::TimeUnitSpec;
use std::ops::Bound::Included;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];
/// The most times of a day that are listed one by one.
const LISTED_TIMES: usize = 4;

/// What one or two rules (of which either is enough) match, without the time zone.
pub(super) fn describe(rules: &[cron::Schedule]) -> String {
    let Some(rule) = rules.first() else {
        return String::new();
    };
    let days = days(rules);
    let (times, are_of_the_day) = times(rule);
    match (days.as_str(), are_of_the_day) {
        ("", true) => format!("every day {times}"),
        ("", false) => times,
        (days, true) => format!("{days} {times}"),
        (days, false) => format!("{times}, {days}"),
    }
}

/// The times of a day; true if they are few and read as a list of times.
fn times(rule: &cron::Schedule) -> (String, bool) {
    let (hours, minutes) = (values(rule.hours()), values(rule.minutes()));
    let seconds = values(rule.seconds());
    if seconds.len() == 1 && hours.len() * minutes.len() <= LISTED_TIMES {
        let second = match seconds[0] {
            0 => String::new(),
            s => format!(":{s:02}"),
        };
        let all: Vec<String> = hours
            .iter()
            .flat_map(|h| minutes.iter().map(move |m| format!("{h:02}:{m:02}")))
            .map(|time| time + &second)
            .collect();
        return (format!("at {}", list(&all)), true);
    }
    let within_hour = within_hour(&minutes, &seconds);
    let text = match (hours.len(), step(&hours, 24), run(&hours)) {
        (24, ..) => within_hour,
        (_, Some(step), _) if minutes == [0] && seconds == [0] => format!("every {step} hours"),
        (_, Some(step), _) => format!("{within_hour}, in every {}", nth(step, "hour")),
        (_, _, Some((first, last))) if minutes == [0] && seconds == [0] => {
            format!("every hour from {first:02}:00 to {last:02}:00")
        }
        (_, _, Some((first, last))) => format!("{within_hour} from {first:02}:00 to {last:02}:59"),
        _ => {
            let hours: Vec<String> = hours.iter().map(|h| format!("{h:02}")).collect();
            format!("{within_hour}, in the hours {}", list(&hours))
        }
    };
    (text, false)
}

/// The times of an hour.
fn within_hour(minutes: &[u32], seconds: &[u32]) -> String {
    let every = |values: &[u32], unit: &str| match (values.len(), step(values, 60)) {
        (60, _) => Some(format!("every {unit}")),
        (_, Some(step)) => Some(format!("every {step} {unit}s")),
        _ => None,
    };
    let seconds_of = |seconds: &[u32]| {
        every(seconds, "second").unwrap_or_else(|| format!("at the seconds {}", numbers(seconds)))
    };
    let minutes_of = |minutes: &[u32]| match minutes {
        [0] => "every hour".to_owned(),
        [minute] => format!("every hour at minute {minute}"),
        _ => every(minutes, "minute")
            .unwrap_or_else(|| format!("every hour at the minutes {}", numbers(minutes))),
    };
    match (seconds, minutes.len()) {
        ([0], _) => minutes_of(minutes),
        ([second], _) => format!("{} and {second} seconds", minutes_of(minutes)),
        (_, 60) => seconds_of(seconds),
        _ => format!("{}, {}", minutes_of(minutes), seconds_of(seconds)),
    }
}

/// The days on which it runs; empty for every day.
fn days(rules: &[cron::Schedule]) -> String {
    let mut parts: Vec<String> = Vec::new();
    for rule in rules {
        let days = values(rule.days_of_month());
        // Sunday is 1 in the crate's numbering.
        let weekdays: Vec<u32> = values(rule.days_of_week()).iter().map(|d| d - 1).collect();
        if days.len() < 31 {
            let days: Vec<String> = days.iter().map(|d| ordinal(*d)).collect();
            parts.push(format!("on the {}", list(&days)));
        }
        if weekdays.len() < 7 {
            parts.push(weekday_words(&weekdays));
        }
    }
    let mut text = parts.join(" and ");
    let Some(rule) = rules.first() else {
        return text;
    };
    let months = values(rule.months());
    let months: Vec<String> = months
        .iter()
        .map(|m| MONTHS[*m as usize - 1].to_owned())
        .collect();
    if months.len() < 12 {
        let of = if text.is_empty() {
            "every day in"
        } else {
            " in"
        };
        text.push_str(&format!("{of} {}", list(&months)));
    } else if !parts.is_empty() && parts[0].starts_with("on the") {
        text = text.replacen("on the", "every month on the", 1);
    }
    if !rule.years().is_all() {
        let years: Vec<String> = values(rule.years()).iter().map(u32::to_string).collect();
        let before = if text.is_empty() { "" } else { " " };
        text.push_str(&format!("{before}in {}", brief_list(&years)));
    }
    text
}

fn weekday_words(weekdays: &[u32]) -> String {
    let names: Vec<String> = weekdays
        .iter()
        .map(|d| WEEKDAYS[*d as usize].to_owned())
        .collect();
    match (run(weekdays), &names[..]) {
        (Some(_), [first, _, _, .., last]) => format!("{first} to {last}"),
        // Saturday and Sunday stand at the two ends of the week.
        (_, [sunday, saturday]) if weekdays == [0, 6] => format!("every {saturday} and {sunday}"),
        _ => format!("every {}", list(&names)),
    }
}

fn values(unit: &impl TimeUnitSpec) -> Vec<u32> {
    unit.range((Included(0), Included(9_999))).collect()
}

/// The step of values that begin at 0 and go evenly round a whole of `of`.
fn step(values: &[u32], of: u32) -> Option<u32> {
    let [0, second, ..] = values else {
        return None;
    };
    let even = values.windows(2).all(|pair| pair[1] - pair[0] == *second);
    (even && of.is_multiple_of(*second) && values.len() as u32 == of / second && *second > 1)
        .then_some(*second)
}

/// First and last of at least three values without a gap.
fn run(values: &[u32]) -> Option<(u32, u32)> {
    let (first, last) = (*values.first()?, *values.last()?);
    (values.len() >= 3 && last - first + 1 == values.len() as u32).then_some((first, last))
}

fn numbers(values: &[u32]) -> String {
    list(&values.iter().map(u32::to_string).collect::<Vec<_>>())
}

/// `a, b and c`
fn list(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// A list, or its ends if it is long.
fn brief_list(words: &[String]) -> String {
    match words {
        [first, _, _, .., last] => format!("{first} to {last}"),
        _ => list(words),
    }
}

fn nth(n: u32, unit: &str) -> String {
    format!("{} {unit}", ordinal(n))
}

fn ordinal(n: u32) -> String {
    let ending = match (n % 10, n % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{n}{ending}")
}

/// A time as people say it at another time, both in the zone: `today 14:00`, `tomorrow 01:15`, `Friday 01:15`,
/// `1 March 01:15`, `29 February 2028 00:00`.
pub(super) fn when(at_ms: u64, now_ms: u64, zone: Tz) -> Option<String> {
    let local = |ms: u64| -> Option<NaiveDateTime> {
        let utc = DateTime::from_timestamp_millis(i64::try_from(ms).ok()?)?;
        Some(utc.with_timezone(&zone).naive_local())
    };
    let (at, now) = (local(at_ms)?, local(now_ms)?);
    let time = match at.second() {
        0 => at.format("%H:%M").to_string(),
        _ => at.format("%H:%M:%S").to_string(),
    };
    let day = match (at.date() - now.date()).num_days() {
        0 => "today".to_owned(),
        1 => "tomorrow".to_owned(),
        2..=6 => WEEKDAYS[at.weekday().num_days_from_sunday() as usize].to_owned(),
        _ if at.year() == now.year() => at.format("%-d %B").to_string(),
        _ => at.format("%-d %B %Y").to_string(),
    };
    Some(format!("{day} {time}"))
}

#[cfg(test)]
mod tests;
