//! When the history is written and read.
//!
//! Both keep to the minutes and slots of Redis' time, but what is waited for passes by our own clock: that of Redis may be
//! put back, or another server may take over, and nothing must wait for an hour to come a second time.

use crate::policy::forecast::slot_at;

/// How often what was done is written. Who has not written for three times this counts as gone, so all must keep to it.
const WRITE_EVERY_MS: u64 = 60_000;
/// Each daemon writes at a moment of its own in this time after the full minute, …
pub(super) const SPREAD_MS: u64 = 10_000;
/// … so that the last slot is complete when it is read, this long after its end.
const SETTLED_MS: u64 = 15_000;
/// How long it waits after an error of Redis.
const RETRY_MS: u64 = 5_000;

/// The rounds of one daemon. `mono_ms` is our own clock, `redis_ms` the time of Redis.
#[derive(Debug)]
pub(super) struct Rounds {
    spread_ms: u64,
    write_at: u64,
    read_at: u64,
}

impl Rounds {
    /// Both are due at once, and writing afterwards at `spread_ms` after each full minute.
    pub(super) const fn new(spread_ms: u64) -> Self {
        Self {
            spread_ms,
            write_at: 0,
            read_at: 0,
        }
    }

    pub(super) const fn is_write_due(&self, mono_ms: u64) -> bool {
        mono_ms >= self.write_at
    }

    /// It was written, or failed to be.
    pub(super) const fn wrote(&mut self, mono_ms: u64, redis_ms: u64, well: bool) {
        let into = redis_ms % WRITE_EVERY_MS;
        let left = match into < self.spread_ms {
            true => self.spread_ms - into,
            false => WRITE_EVERY_MS - into + self.spread_ms,
        };
        self.write_at = mono_ms + if well { left } else { RETRY_MS };
    }

    /// Whether there is more to know than a forecast that was made in the slot `made`: the last one before `redis_ms` is
    /// complete, or time went back.
    pub(super) fn is_read_due(&self, mono_ms: u64, redis_ms: u64, made: Option<u64>) -> bool {
        let settled = slot_at(redis_ms.saturating_sub(SETTLED_MS));
        let known = made.is_some_and(|made| (settled..=slot_at(redis_ms)).contains(&made));
        !known && mono_ms >= self.read_at
    }

    /// Reading failed.
    pub(super) const fn read_failed(&mut self, mono_ms: u64) {
        self.read_at = mono_ms + RETRY_MS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::forecast::SLOT_MS;

    const HOUR: u64 = 3_600_000;
    /// Some full minute.
    const MINUTE: u64 = 500_000 * 60_000;

    /// How long after a write the next one is due.
    fn next(rounds: &mut Rounds, redis_ms: u64) -> u64 {
        rounds.wrote(1_000_000, redis_ms, true);
        (0..=120_000)
            .find(|ms| rounds.is_write_due(1_000_000 + ms))
            .unwrap_or(u64::MAX)
    }

    #[test]
    fn it_writes_at_its_own_moment_of_each_minute() {
        let mut rounds = Rounds::new(4_000);
        assert!(rounds.is_write_due(0), "at once");
        assert_eq!(next(&mut rounds, MINUTE + 1_000), 3_000);
        assert_eq!(next(&mut rounds, MINUTE + 4_000), 60_000);
        assert_eq!(next(&mut rounds, MINUTE + 30_000), 34_000);
        rounds.wrote(0, MINUTE, false);
        assert!(!rounds.is_write_due(RETRY_MS - 1) && rounds.is_write_due(RETRY_MS));
    }

    #[test]
    fn a_clock_that_goes_back_puts_nothing_off() {
        let mut rounds = Rounds::new(4_000);
        assert_eq!(next(&mut rounds, MINUTE + 4_000), 60_000);
        // The answer to that write tells of a time long ago.
        assert_eq!(next(&mut rounds, MINUTE + 4_000 - HOUR), 60_000);
        let now = 1_000 * SLOT_MS + 20_000;
        assert!(!rounds.is_read_due(0, now, Some(1_000)));
        assert!(
            rounds.is_read_due(0, now - HOUR, Some(1_000)),
            "of another time"
        );
        assert!(!rounds.is_read_due(0, now - HOUR, Some(988)));
        assert!(rounds.is_read_due(0, now + HOUR, Some(988)));
    }

    #[test]
    fn a_slot_is_read_when_it_is_complete() {
        let mut rounds = Rounds::new(0);
        let begin = 1_000 * SLOT_MS;
        assert!(rounds.is_read_due(0, begin, None), "at the start");
        assert!(!rounds.is_read_due(0, begin + SETTLED_MS - 1, Some(999)));
        assert!(rounds.is_read_due(0, begin + SETTLED_MS, Some(999)));
        assert!(
            !rounds.is_read_due(0, begin + 1, Some(1_000)),
            "it was read early"
        );
        rounds.read_failed(7);
        assert!(!rounds.is_read_due(7, begin, None));
        assert!(rounds.is_read_due(7 + RETRY_MS, begin, None));
    }
}
