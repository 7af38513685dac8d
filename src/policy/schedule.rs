//! When a scheduled job is due: cron expressions in a time zone.
//!
//! Owns what an expression means, daylight saving time included. It must not know jobs, nor which
//! ticks were already served: it answers "which tick comes after this time".
//!
//! One language, in two lengths. Five fields `minute hour day month weekday`; six with `second`
//! first; seven with `year` last; and `@yearly @annually @monthly @weekly @daily @midnight
//! @hourly`. In all of them, as in cron(5): weekdays are 0 to 7 with Sunday both 0 and 7, or names;
//! and if day *and* weekday are restricted, either of them matching is enough.
//!
//! Daylight saving, as in Vixie cron: a schedule that runs every hour follows elapsed time (nothing
//! in the skipped hour, twice through the repeated one). Any other fires exactly once: at the first
//! instant after the gap if its time is skipped, the first time round if its time comes twice.

use std::fmt;

use chrono::{DateTime, MappedLocalTime, NaiveDateTime, TimeDelta, TimeZone, Utc};
use chrono_tz::{GapInfo, Tz};
use cron::TimeUnitSpec;
use serde::{Deserialize, Serialize};

use crate::policy::{cron_fields, cron_words};

/// What becomes of ticks nobody could serve, because no daemon ran or the queue was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Misfire {
    /// They are dropped.
    Skip,
    /// However many were missed, one run makes up for them.
    #[default]
    Once,
    /// Each is run, oldest first.
    All,
}

/// The last year an expression can name, and the last in which a tick is looked for.
const LAST_YEAR_MS: i64 = 4_133_980_800_000; // 2101-01-01T00:00:00Z

/// Local times looked at before the search gives up. Those passed over lie in one repeated or
/// skipped stretch (an hour as a rule, a day at most in history), one per second at worst.
const MAX_PASSED_OVER: usize = 2 * 86_400;

/// A parsed cron expression in its time zone.
#[derive(Debug, Clone)]
pub struct Schedule {
    expression: String,
    zone: Tz,
    /// One, or two if day and weekday are both restricted: a tick of either is a tick.
    rules: Vec<cron::Schedule>,
    /// Whether every hour of the day is in it: such a schedule follows elapsed time.
    every_hour: bool,
}

impl Schedule {
    /// Reads an expression; `zone` is an IANA name such as `Europe/Amsterdam` or `UTC`.
    ///
    /// # Errors
    /// If the zone is unknown, the expression is not valid, or no date ever matches it (30 February).
    pub fn parse(expression: &str, zone: &str) -> Result<Self, String> {
        let zone = Self::parse_zone(zone)?;
        let rules = cron_fields::rules(expression)
            .map_err(|error| format!("cron expression {expression:?}: {error}"))?;
        let every_hour = rules.iter().all(|rule| rule.hours().count() == 24);
        let schedule = Self {
            expression: expression.to_owned(),
            zone,
            rules,
            every_hour,
        };
        // From the epoch, because the crate's calendar (1970 to 2100) begins there.
        match schedule.next_after(0) {
            Some(_) => Ok(schedule),
            None => Err(format!(
                "cron expression {expression:?}: no date ever matches it"
            )),
        }
    }

    fn parse_zone(zone: &str) -> Result<Tz, String> {
        zone.parse()
            .map_err(|_| format!("unknown time zone {zone:?}; want a name like Europe/Amsterdam"))
    }

    /// Checks the name of a time zone alone.
    ///
    /// # Errors
    /// If it is unknown.
    pub fn check_zone(zone: &str) -> Result<(), String> {
        Self::parse_zone(zone).map(|_| ())
    }

    /// The first tick later than `unix_ms`, in unix milliseconds; none after the year 2100 or
    /// after the last of its years.
    pub fn next_after(&self, unix_ms: u64) -> Option<u64> {
        let from = i64::try_from(unix_ms)
            .ok()
            .filter(|ms| *ms < LAST_YEAR_MS)?;
        let now = DateTime::from_timestamp_millis(from)?.with_timezone(&self.zone);
        let onward = self.first_tick(now.naive_local(), now);
        let again = self
            .repeat_of(now)
            .and_then(|from| self.first_tick(from, now));
        let tick = onward.into_iter().chain(again).min()?;
        u64::try_from(tick.timestamp_millis()).ok()
    }

    /// The first instant after `now` that a local time later than `local` stands for.
    fn first_tick(&self, local: NaiveDateTime, now: DateTime<Tz>) -> Option<DateTime<Tz>> {
        let mut local = local;
        for _ in 0..MAX_PASSED_OVER {
            local = self.next_local(local)?;
            let tick = match self.zone.from_local_datetime(&local) {
                MappedLocalTime::Single(only) => Some(only),
                MappedLocalTime::Ambiguous(first, _) if first > now => Some(first),
                MappedLocalTime::Ambiguous(_, second) => Some(second).filter(|_| self.every_hour),
                MappedLocalTime::None if self.every_hour => None,
                MappedLocalTime::None => GapInfo::new(&local, &self.zone).and_then(|gap| gap.end),
            };
            if let Some(tick) = tick.filter(|tick| *tick > now) {
                return Some(tick);
            }
        }
        None
    }

    /// The next local time that matches, time zones aside.
    fn next_local(&self, after: NaiveDateTime) -> Option<NaiveDateTime> {
        // Handed to the crate as if it were UTC: the crate's own handling of a change of the clocks
        // would lose ticks.
        let next = |rule: &cron::Schedule| rule.after(&after.and_utc()).next();
        self.rules
            .iter()
            .filter_map(next)
            .min()
            .map(|tick| tick.naive_utc())
    }

    /// If the clocks go back soon and the local time of `now` comes again, the local time from which
    /// they repeat: the ticks there are earlier than those that follow in local order.
    fn repeat_of(&self, now: DateTime<Tz>) -> Option<NaiveDateTime> {
        if !self.every_hour {
            return None;
        }
        let MappedLocalTime::Ambiguous(first, second) =
            self.zone.from_local_datetime(&now.naive_local())
        else {
            return None;
        };
        if now != first {
            return None;
        }
        // Halve the time between the two until the second in which the clocks change is found.
        let (mut before, mut after) = (first.timestamp(), second.timestamp());
        while after - before > 1 {
            let middle = before + (after - before) / 2;
            match self.local(middle)? - self.utc(middle)?
                == self.local(before)? - self.utc(before)?
            {
                true => before = middle,
                false => after = middle,
            }
        }
        // Ticks are later than the time given, and the first repeated second may be one.
        self.local(after)?.checked_sub_signed(TimeDelta::seconds(1))
    }

    fn utc(&self, unix_seconds: i64) -> Option<NaiveDateTime> {
        DateTime::<Utc>::from_timestamp(unix_seconds, 0).map(|utc| utc.naive_utc())
    }

    fn local(&self, unix_seconds: i64) -> Option<NaiveDateTime> {
        self.utc(unix_seconds)
            .map(|utc| self.zone.from_utc_datetime(&utc).naive_local())
    }

    /// Its times in plain words, without the time zone: `every day at 01:15`.
    #[must_use]
    pub fn describe(&self) -> String {
        cron_words::describe(&self.rules)
    }

    /// A time as people in its zone say it at another time, both unix ms: `tomorrow 01:15`.
    #[must_use]
    pub fn say(&self, at_ms: u64, now_ms: u64) -> String {
        cron_words::when(at_ms, now_ms, self.zone).unwrap_or_else(|| at_ms.to_string())
    }

    /// The IANA name of its time zone.
    pub fn zone(&self) -> &'static str {
        self.zone.name()
    }
}

impl fmt::Display for Schedule {
    /// The expression as it was written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.expression)
    }
}

#[cfg(test)]
mod tests;
