//! The history of the fleet's load in Redis, which the forecast learns from.
//!
//! One string for each day (UTC), all daemons together: of each slot of five minutes eleven numbers of eight bytes, 25 KiB a
//! day and under 1 MiB in all. Each daemon adds what it did once a minute, as numbered batches, so that one whose answer
//! was lost is repeated without counting twice. What is not there reads as zero, and no daemon was there either: that is
//! how "nobody looked" differs from "no work".
//!
//! The keys belong to no queue; `{fleet}` puts them into one slot of a cluster.

use super::connection::Connection;
use super::reply::Reply;
use super::script::{LOAD, PEAK};
use super::{QueueError, millis};
use crate::policy::forecast::{ClassLoad, DAY, SlotLoad};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

/// The most slots in one batch.
pub const BATCH_SLOTS: usize = 32;
/// Days that are kept: five weeks and the one that runs.
pub const DAYS: u64 = 36;
/// How long a day is kept after the last that was added to it.
const KEPT: Duration = Duration::from_secs(DAYS * 86_400);
/// A daemon that has added nothing for this long is not counted.
const SILENT: Duration = Duration::from_secs(180);
/// Peaks whose beginnings are no further apart than these slots are the same one: an hour.
const SAME_PEAK: u64 = 12;
/// How long the beginning of a peak is remembered.
const PEAK_KEPT: Duration = Duration::from_secs(86_400);
/// Numbers of a slot, and their size.
const NUMBERS: usize = 11;
const BITS: u64 = 64;
const BYTES: usize = 8;

/// Who writes the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fleet {
    /// Redis time, ms.
    pub now_ms: u64,
    /// Daemons that live, this one among them.
    pub daemons: u64,
    /// Their slots in all, without any that a forecast raised.
    pub slots: u64,
}

/// The history on one server.
#[derive(Debug, Clone)]
pub struct LoadHistory {
    conn: Connection,
    base: String,
}

impl LoadHistory {
    /// The history under a prefix.
    #[must_use]
    pub fn new(conn: Connection, prefix: &str) -> Self {
        Self {
            conn,
            base: format!("{prefix}:load:{{fleet}}:"),
        }
    }

    fn day_key(&self, day: u64) -> String {
        format!("{}{day}", self.base)
    }

    fn writers_key(&self) -> String {
        format!("{}writers", self.base)
    }

    /// Adds what `daemon` did in up to [`BATCH_SLOTS`] slots. Repeating a batch under its number changes nothing; numbers
    /// rise from 1. `slots` are those of the daemon.
    ///
    /// # Errors
    /// Redis failed or refused the write (out of memory), or a key has the wrong type.
    pub async fn add(
        &self,
        daemon: &str,
        slots: usize,
        batch: u64,
        load: &BTreeMap<u64, SlotLoad>,
    ) -> Result<Fleet, QueueError> {
        debug_assert!(load.len() <= BATCH_SLOTS);
        let mut days: Vec<u64> = load.keys().map(|slot| slot / DAY).collect();
        days.dedup();
        let keys = [self.writers_key()];
        let keys: Vec<String> = keys
            .into_iter()
            .chain(days.iter().map(|day| self.day_key(*day)))
            .collect();
        let mut cmd = LOAD.call(keys.iter());
        cmd.arg(daemon)
            .arg(batch)
            .arg(slots)
            .arg(millis(SILENT))
            .arg(millis(KEPT));
        for (slot, load) in load {
            let day = days.partition_point(|day| *day < slot / DAY) + 1;
            let first = slot % DAY * NUMBERS as u64;
            for (number, add) in (first..).zip(numbers(load)) {
                if add != 0 {
                    cmd.arg(day).arg(number * BITS).arg(add);
                }
            }
        }
        let mut reply = Reply::new(LOAD.ask(&self.conn, &cmd).await?)?;
        Ok(Fleet {
            now_ms: reply.count()?,
            daemons: reply.count()?.max(1),
            slots: reply.count()?,
        })
    }

    /// Takes a daemon that ends off the list, so that the others know at once.
    ///
    /// # Errors
    /// Redis failed.
    pub async fn leave(&self, daemon: &str) -> Result<(), QueueError> {
        let mut conn = self.conn.clone();
        redis::cmd("HDEL")
            .arg(self.writers_key())
            .arg(daemon)
            .query_async::<()>(&mut conn)
            .await?;
        Ok(())
    }

    /// What is known of some days, numbered from the epoch; at most [`DAYS`] of them. Slots of which nothing is known are
    /// left out.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn read(
        &self,
        days: RangeInclusive<u64>,
    ) -> Result<Vec<(u64, SlotLoad)>, QueueError> {
        let first = days
            .start()
            .max(&days.end().saturating_sub(DAYS - 1))
            .to_owned();
        let days: Vec<u64> = (first..=*days.end()).collect();
        if days.is_empty() {
            return Ok(Vec::new());
        }
        let mut conn = self.conn.clone();
        // Not MGET, which takes a key of another type for none.
        let mut pipe = redis::pipe();
        for day in &days {
            pipe.get(self.day_key(*day));
        }
        let stored: Vec<Option<Vec<u8>>> = pipe.query_async(&mut conn).await?;
        let mut found = Vec::new();
        for (day, stored) in days.iter().zip(stored) {
            let stored = stored.unwrap_or_default();
            let slots = stored.chunks(NUMBERS * BYTES).take(DAY as usize);
            for (slot, bytes) in (day * DAY..).zip(slots) {
                let load = parse(bytes);
                if !load.is_empty() {
                    found.push((slot, load));
                }
            }
        }
        Ok(found)
    }

    /// The time of Redis, ms.
    ///
    /// # Errors
    /// Redis failed.
    pub async fn now_ms(&self) -> Result<u64, QueueError> {
        let mut conn = self.conn.clone();
        let (secs, micros): (u64, u64) = redis::cmd("TIME").query_async(&mut conn).await?;
        Ok(secs * 1_000 + micros / 1_000)
    }

    /// The slot in which the fleet takes a peak to begin that this daemon finds to begin at `start`.
    ///
    /// # Errors
    /// Redis failed or refused the write (out of memory), or a key has the wrong type.
    pub async fn agree_on_peak(&self, start: u64) -> Result<u64, QueueError> {
        let mut cmd = PEAK.call([format!("{}peak", self.base)].into_iter());
        cmd.arg(start).arg(SAME_PEAK).arg(millis(PEAK_KEPT));
        match PEAK.ask(&self.conn, &cmd).await? {
            redis::Value::Int(slot) => Ok(u64::try_from(slot).unwrap_or(start)),
            other => Err(QueueError::Reply(format!("{other:?} for a slot"))),
        }
    }
}

/// The numbers of a slot as they are stored.
fn numbers(load: &SlotLoad) -> impl Iterator<Item = i64> {
    let classes = load.classes.into_iter();
    std::iter::once(load.up_ms).chain(classes.flat_map(|c| [c.jobs, c.busy_ms]))
}

/// The reverse; what is cut off at the end is zero.
fn parse(bytes: &[u8]) -> SlotLoad {
    let number = |at: usize| {
        let mut whole = [0; BYTES];
        let stored = bytes.get(at * BYTES..).unwrap_or_default();
        let stored = &stored[..stored.len().min(BYTES)];
        whole[..stored.len()].copy_from_slice(stored);
        i64::from_be_bytes(whole)
    };
    let mut load = SlotLoad {
        up_ms: number(0),
        ..SlotLoad::default()
    };
    for (class, load) in load.classes.iter_mut().enumerate() {
        *load = ClassLoad {
            jobs: number(1 + 2 * class),
            busy_ms: number(2 + 2 * class),
        };
    }
    load
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_read_as_it_was_stored_however_short_the_string() {
        let mut load = SlotLoad {
            up_ms: 300_000,
            ..SlotLoad::default()
        };
        for (n, class) in load.classes.iter_mut().enumerate() {
            *class = ClassLoad {
                jobs: n as i64,
                busy_ms: -(n as i64) * 1_000,
            };
        }
        let bytes: Vec<u8> = numbers(&load).flat_map(i64::to_be_bytes).collect();
        assert_eq!(bytes.len(), NUMBERS * BYTES);
        assert_eq!(parse(&bytes), load);
        assert_eq!(parse(&bytes[..8]).up_ms, 300_000);
        assert!(parse(&[]).is_empty());
    }
}
