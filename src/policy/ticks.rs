//! Which ticks of a schedule are to be served now, given the last one that was.
//!
//! Owns what a misfire policy means. Must not know jobs, or how a tick is served. However long nobody looked, an answer
//! takes a bounded number of steps: the ticks of a year of seconds are never listed.

use super::schedule::{Misfire, Schedule};
use std::time::Duration;

/// A tick served within this time of its moment was not missed: a restart of a daemon, a pause of Redis.
pub const ON_TIME: Duration = Duration::from_secs(60);
/// Ticks passed over are counted up to this number.
pub const COUNTED: u64 = 1_000;

/// What is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The ticks to serve, the oldest first, unix ms.
    pub serve: Vec<u64>,
    /// Ticks that are not served: dropped, or made up for by a later one. Counted up to [`COUNTED`].
    pub passed_over: u64,
    /// The oldest tick that was due, unix ms.
    pub oldest_ms: u64,
    /// The latest one: the record moves on to it, unix ms.
    pub latest_ms: u64,
}

impl Due {
    /// How late the oldest of them is, if that is more than [`ON_TIME`].
    #[must_use]
    pub fn missed_by(&self, now_ms: u64) -> Option<Duration> {
        let late = Duration::from_millis(now_ms.saturating_sub(self.oldest_ms));
        (late > ON_TIME).then_some(late)
    }
}

/// The ticks after `last_ms`, up to and including `now_ms`, that are to be served; none if there is no tick. `catch_up`
/// bounds how many [`Misfire::All`] makes up for: the latest ones count.
#[must_use]
pub fn due(
    schedule: &Schedule,
    misfire: Misfire,
    catch_up: usize,
    last_ms: u64,
    now_ms: u64,
) -> Option<Due> {
    let oldest_ms = schedule.next_after(last_ms).filter(|t| *t <= now_ms)?;
    let latest_ms = latest(schedule, oldest_ms, now_ms.saturating_add(1), 1_000);
    let on_time = u64::try_from(ON_TIME.as_millis()).unwrap_or(u64::MAX);
    let serve = match misfire {
        Misfire::Skip if now_ms - latest_ms > on_time => Vec::new(),
        Misfire::Skip | Misfire::Once => vec![latest_ms],
        Misfire::All => last_ones(schedule, oldest_ms, latest_ms, catch_up),
    };
    let first_served = serve.first().copied().unwrap_or(latest_ms + 1);
    Some(Due {
        passed_over: count(schedule, oldest_ms, first_served),
        serve,
        oldest_ms,
        latest_ms,
    })
}

/// The last `most` ticks from `oldest` to `latest`, both of them ticks; the oldest first.
fn last_ones(schedule: &Schedule, oldest: u64, latest_ms: u64, most: usize) -> Vec<u64> {
    let mut ticks = vec![latest_ms];
    let (mut tick, mut gap) = (latest_ms, 1_000);
    while tick > oldest && ticks.len() < most {
        let before = latest(schedule, oldest, tick, gap);
        // Ticks often come at the same distance: the search begins there.
        gap = tick - before;
        tick = before;
        ticks.push(tick);
    }
    ticks.reverse();
    ticks
}

/// The latest tick before `before`; `oldest` is a tick before it. `width` is where it is looked for first.
fn latest(schedule: &Schedule, oldest: u64, before: u64, width: u64) -> u64 {
    let within = |from: u64| schedule.next_after(from).filter(|t| *t < before);
    // A tick is later than the time it is asked for.
    let (mut empty_from, mut width) = (before - 1, width.max(1));
    let mut found = loop {
        let from = (before - 1).saturating_sub(width).max(oldest - 1);
        match within(from) {
            Some(tick) => break tick,
            None if from < oldest => return oldest,
            None => {
                empty_from = from;
                width = width.saturating_mul(2);
            }
        }
    };
    // There is one after `found - 1`, and none after `empty_from`.
    while let Some(tick) = within(found) {
        let middle = tick + (empty_from.saturating_sub(tick)) / 2;
        match within(middle) {
            Some(later) => found = later,
            None => {
                empty_from = middle;
                found = tick;
            }
        }
    }
    found
}

/// How many ticks there are from the tick `first` until before `end`, up to [`COUNTED`].
fn count(schedule: &Schedule, first: u64, end: u64) -> u64 {
    let mut ticks = std::iter::successors(Some(first), |t| schedule.next_after(*t));
    let counted = ticks.by_ref().take_while(|t| *t < end);
    counted.take(COUNTED as usize).count() as u64
}

#[cfg(test)]
mod tests;
