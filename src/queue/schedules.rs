//! Schedules in Redis: which were added, which are paused, which tick of each was served last; and the one step that
//! serves a tick.

use super::reply::Reply;
use super::script::{RESUME, TICK};
use super::{Queue, QueueError};
use crate::catalog::schedules::{MAX_ADDED, Scheduled};
use crate::clock;
use crate::job::{JobId, Priority};
use redis::Value;
use serde::Serialize;
use serde_json::Map;
use sha2::{Digest, Sha256};
use std::collections::HashMap;

/// The most schedules in one call that serves ticks.
pub const TICK_SCHEDULES: usize = 256;
/// The most jobs for one schedule in one call.
pub const TICK_ENTRIES: usize = 250;
/// The bytes of envelopes after which a call is full.
pub const TICK_BYTES: usize = 1 << 20;
/// Clocks that follow each other, as after a failover, differ by less than this.
const AHEAD_MS: u64 = 60_000;
/// How much of a name an id holds; of a longer one, its beginning and a hash.
const NAME_IN_ID: usize = 100;
const NAME_BEGINNING: usize = 80;

/// A glance at the schedules of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glance {
    /// Redis time, ms.
    pub now_ms: u64,
    /// Changes ever made to them; empty for none.
    pub revision: String,
}

/// The schedules of a queue as they are stored, all at one moment.
#[derive(Debug, Clone)]
pub struct Stored {
    /// When, and at which revision.
    pub glance: Glance,
    /// Those that operators added: name and JSON.
    pub added: Vec<(String, Vec<u8>)>,
    /// The record of the last tick of each.
    pub records: HashMap<String, String>,
    /// Since when they are paused, ms.
    pub paused: HashMap<String, u64>,
}

/// Ticks of one schedule that are to be served.
#[derive(Debug)]
pub struct Tick {
    /// Its name.
    pub name: String,
    /// Its record as it was read; empty for none.
    pub record: String,
    /// Its record from then on.
    pub new: String,
    /// The latest of the ticks, ms; 0 if only the record is written.
    pub latest_ms: u64,
    /// Ticks that are not served.
    pub passed_over: u64,
    /// The envelopes of those that are, at most [`TICK_ENTRIES`].
    pub entries: Vec<Vec<u8>>,
}

/// What became of the ticks of one schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ticked {
    /// They were served, by this call.
    Served,
    /// By Redis time they are not due yet.
    Early,
    /// Somebody else was faster: the record as it is, empty for none. Nothing was done.
    Moved(String),
}

/// The record of a schedule: the last tick, and the expression by which it was one. Of another expression it says
/// nothing.
#[must_use]
pub fn record(last_ms: u64, scheduled: &Scheduled) -> String {
    let schedule = &scheduled.spec.schedule;
    format!("{last_ms} {} {schedule}", schedule.zone())
}

/// The last tick of a record, if it is of this schedule's expression, and not from a time when the clock of Redis was
/// ahead of what it says now.
#[must_use]
pub fn last_tick(record: &str, scheduled: &Scheduled, now_ms: u64) -> Option<u64> {
    let (ms, rest) = record.split_once(' ')?;
    let schedule = &scheduled.spec.schedule;
    let (zone, expression) = rest.split_once(' ')?;
    let same = zone == schedule.zone() && expression == schedule.to_string();
    let last: u64 = ms.parse().ok()?;
    (same && !is_ahead(last, now_ms)).then_some(last)
}

/// Whether a tick can't have been served yet: only a clock that was set back since has seen its time.
#[must_use]
pub const fn is_ahead(tick_ms: u64, now_ms: u64) -> bool {
    tick_ms > now_ms.saturating_add(AHEAD_MS)
}

/// The last tick of a record, whichever expression it is of.
#[must_use]
pub fn any_last_tick(record: &str) -> Option<u64> {
    record.split(' ').next()?.parse().ok()
}

/// The id of the job of a tick: the same for everybody, so that no tick makes two jobs.
#[must_use]
pub fn tick_id(name: &str, tick_ms: u64) -> String {
    timed_id("cron", name, tick_ms)
}

/// The id of the job of a kind that prepares for a known peak: the same for all daemons.
#[must_use]
pub fn peak_id(kind: &str, peak_ms: u64) -> String {
    timed_id("peak", kind, peak_ms)
}

fn timed_id(what: &str, name: &str, at_ms: u64) -> String {
    let dashed = name.replace('.', "-");
    if dashed.len() <= NAME_IN_ID {
        return format!("{what}-{dashed}-{at_ms}");
    }
    let hash = hex::encode(&Sha256::digest(name)[..8]);
    format!("{what}-{}-{hash}-{at_ms}", &dashed[..NAME_BEGINNING])
}

/// The envelope of a job that a schedule asks for: at a tick, or because an operator wants it now.
#[must_use]
pub fn envelope(scheduled: &Scheduled, id: &str, tick_ms: Option<u64>, now_ms: u64) -> Vec<u8> {
    #[derive(Serialize)]
    struct Meta<'a> {
        schedule: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        tick: Option<String>,
    }
    #[derive(Serialize)]
    struct Outgoing<'a> {
        kind: &'a str,
        id: &'a str,
        #[serde(skip_serializing_if = "Map::is_empty")]
        args: &'a Map<String, serde_json::Value>,
        #[serde(skip_serializing_if = "Option::is_none")]
        priority: Option<Priority>,
        enqueued_at: u64,
        meta: Meta<'a>,
    }
    let outgoing = Outgoing {
        kind: &scheduled.kind,
        id,
        args: &scheduled.args,
        priority: scheduled.priority,
        enqueued_at: now_ms,
        meta: Meta {
            schedule: &scheduled.name,
            tick: tick_ms.map(clock::rfc3339),
        },
    };
    // Text, numbers and maps of text always serialize.
    serde_json::to_vec(&outgoing).unwrap_or_default()
}

/// A new id for a job that an operator wants now.
#[must_use]
pub fn run_id(now_ms: u64, random: [u8; 10]) -> String {
    JobId::mint(now_ms, random).to_string()
}

impl Queue {
    /// What time it is, and whether schedules were changed. Two commands, one round trip.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn glance_at_schedules(&self) -> Result<Glance, QueueError> {
        let mut conn = self.conn.clone();
        let (time, revision): ((u64, u64), Option<String>) = redis::pipe()
            .cmd("TIME")
            .cmd("GET")
            .arg(&self.keys.schedules_rev)
            .query_async(&mut conn)
            .await?;
        Ok(glance(time, revision))
    }

    /// Reads all that is stored about schedules.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn stored_schedules(&self) -> Result<Stored, QueueError> {
        let k = &self.keys;
        let mut conn = self.conn.clone();
        type Pairs = Vec<(Vec<u8>, Vec<u8>)>;
        type All = ((u64, u64), Option<String>, Pairs, Pairs, Pairs);
        let (time, revision, added, records, paused): All = redis::pipe()
            .atomic()
            .cmd("TIME")
            .cmd("GET")
            .arg(&k.schedules_rev)
            .cmd("HGETALL")
            .arg(&k.schedules)
            .cmd("HGETALL")
            .arg(&k.ticks)
            .cmd("HGETALL")
            .arg(&k.schedules_paused)
            .query_async(&mut conn)
            .await?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let mut added: Vec<(String, Vec<u8>)> =
            added.into_iter().map(|(n, json)| (text(n), json)).collect();
        added.sort();
        let texts = |pairs: Pairs| pairs.into_iter().map(move |(k, v)| (text(k), text(v)));
        Ok(Stored {
            glance: glance(time, revision),
            added,
            records: texts(records).collect(),
            paused: texts(paused)
                .map(|(name, at)| (name, at.parse().unwrap_or(0)))
                .collect(),
        })
    }

    /// Serves ticks: each record moves on, and the jobs go to the inbox, if nobody else did it. At most
    /// [`TICK_SCHEDULES`]. None, and nothing is done, if schedules were changed since the revision.
    ///
    /// # Errors
    /// Redis failed or refused the write (out of memory), or a key has the wrong type. If the reply was lost, the
    /// records say what happened.
    pub async fn tick(
        &self,
        revision: &str,
        ticks: &[Tick],
    ) -> Result<Option<(u64, Vec<Ticked>)>, QueueError> {
        debug_assert!(ticks.len() <= TICK_SCHEDULES);
        let k = &self.keys;
        let mut cmd = TICK.call([&k.ticks, &k.schedules_rev, &k.inbox, &k.stats].into_iter());
        cmd.arg(revision).arg(ticks.len());
        for tick in ticks {
            debug_assert!(tick.entries.len() <= TICK_ENTRIES);
            cmd.arg(&tick.name)
                .arg(&tick.record)
                .arg(&tick.new)
                .arg(tick.latest_ms)
                .arg(tick.passed_over)
                .arg(tick.entries.len());
            for entry in &tick.entries {
                cmd.arg(entry.as_slice());
            }
        }
        let mut reply = Reply::new(TICK.send(self, &cmd).await?)?;
        if reply.len() == 1 && !ticks.is_empty() {
            return Ok(None);
        }
        let now_ms = reply.count()?;
        let mut answers = Vec::with_capacity(ticks.len());
        while !reply.is_empty() {
            let (word, record) = (reply.text()?, reply.lossy()?);
            answers.push(match word.as_str() {
                "served" => Ticked::Served,
                "early" => Ticked::Early,
                _ => Ticked::Moved(record),
            });
        }
        Ok(Some((now_ms, answers)))
    }

    /// Removes the records of schedules that nobody knows any more.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn forget_ticks(&self, names: &[String]) -> Result<(), QueueError> {
        let mut conn = self.conn.clone();
        Ok(redis::cmd("HDEL")
            .arg(&self.keys.ticks)
            .arg(names)
            .query_async(&mut conn)
            .await?)
    }

    /// Adds a schedule, or replaces the one of that name; false if there are [`MAX_ADDED`] already.
    ///
    /// # Errors
    /// Redis failed or refused the write (out of memory), or a key has the wrong type.
    pub async fn add_schedule(&self, name: &str, json: &str) -> Result<bool, QueueError> {
        let k = &self.keys;
        let mut conn = self.conn.clone();
        let (there, known): (usize, bool) = redis::pipe()
            .cmd("HLEN")
            .arg(&k.schedules)
            .cmd("HEXISTS")
            .arg(&k.schedules)
            .arg(name)
            .query_async(&mut conn)
            .await?;
        if there >= MAX_ADDED && !known {
            return Ok(false);
        }
        redis::pipe()
            .atomic()
            .cmd("HSET")
            .arg(&k.schedules)
            .arg(name)
            .arg(json)
            .cmd("INCR")
            .arg(&k.schedules_rev)
            .query_async::<()>(&mut conn)
            .await?;
        Ok(true)
    }

    /// Removes an added schedule with all that is kept about it; false if there is none.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn remove_schedule(&self, name: &str) -> Result<bool, QueueError> {
        let k = &self.keys;
        let mut conn = self.conn.clone();
        let mut pipe = redis::pipe();
        pipe.atomic();
        for key in [&k.schedules, &k.ticks, &k.schedules_paused] {
            pipe.cmd("HDEL").arg(key).arg(name);
        }
        pipe.cmd("INCR").arg(&k.schedules_rev);
        let (removed, ..): (u64, u64, u64, u64) = pipe.query_async(&mut conn).await?;
        Ok(removed == 1)
    }

    /// Pauses a schedule; false if it was paused.
    ///
    /// # Errors
    /// Redis failed or refused the write (out of memory), or a key has the wrong type.
    pub async fn pause_schedule(&self, name: &str, now_ms: u64) -> Result<bool, QueueError> {
        let k = &self.keys;
        let mut conn = self.conn.clone();
        let (paused, _): (u64, u64) = redis::pipe()
            .atomic()
            .cmd("HSETNX")
            .arg(&k.schedules_paused)
            .arg(name)
            .arg(now_ms)
            .cmd("INCR")
            .arg(&k.schedules_rev)
            .query_async(&mut conn)
            .await?;
        Ok(paused == 1)
    }

    /// Lets a paused schedule go on, with the ticks from now on; false if it was not paused.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn resume_schedule(&self, name: &str) -> Result<bool, QueueError> {
        let k = &self.keys;
        let mut cmd = RESUME.call([&k.schedules_paused, &k.ticks, &k.schedules_rev].into_iter());
        cmd.arg(name);
        Ok(RESUME.send(self, &cmd).await? == Value::Int(1))
    }
}

fn glance((seconds, micros): (u64, u64), revision: Option<String>) -> Glance {
    Glance {
        now_ms: seconds * 1_000 + micros / 1_000,
        revision: revision.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_id_of_a_tick_is_one_that_apps_may_give() {
        let long = "a".repeat(128);
        let (mut ids, names) = (Vec::new(), ["a.b", "a_b", "a.b.c", &long, &long[..127]]);
        for name in names {
            let id = tick_id(name, 1_700_000_000_000);
            JobId::parse(&id).unwrap();
            assert!(!ids.contains(&id), "{id}");
            ids.push(id);
        }
        assert_eq!(ids[0], "cron-a-b-1700000000000");
    }
}
