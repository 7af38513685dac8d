//! Who lives, and whose jobs are orphans.

use super::reply::Reply;
use super::script::{FENCE, HEARTBEAT};
use super::{Flow, Queue, QueueError};
use redis::Value;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The most incarnations a heartbeat lists, the longest silent first.
pub(crate) const WORKERS_MAX: usize = 512;
/// Running entries read per step of a sweep.
const SWEEP_COUNT: usize = 256;

/// What a heartbeat answers.
#[derive(Debug)]
pub struct Heartbeat {
    /// Redis time, ms.
    pub now_ms: u64,
    /// Incarnations and their last heartbeats, ms; the longest silent first.
    pub workers: Vec<(String, u64)>,
}

/// A job that runs, as the queue has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningEntry {
    /// Its id.
    pub id: String,
    /// The token of the delivery.
    pub token: String,
}

impl RunningEntry {
    /// Whose delivery it is, and the number of the claim. None if the token is not one of ours.
    #[must_use]
    pub fn owner(&self) -> Option<(&str, u64)> {
        let mut parts = self.token.split(':');
        let incarnation = parts.next()?;
        let claim = parts.next()?.parse().ok()?;
        Some((incarnation, claim))
    }

    /// The flow it was taken from, of which its kind is known. None if the token does not say more than that.
    #[must_use]
    pub fn home(&self, kind: &str) -> Option<Flow> {
        let mark = self.token.splitn(3, ':').nth(2)?.rsplit_once(':')?.0;
        Flow::marked(kind, mark)
    }

    /// When the job became ready, ms. None if the token is not one of ours.
    #[must_use]
    pub fn ready_ms(&self) -> Option<u64> {
        self.token.rsplit(':').next()?.parse().ok()
    }
}

impl Queue {
    /// Shows that an incarnation lives; with `register`, makes it known in the first place.
    ///
    /// # Errors
    /// The lease is lost, Redis failed, or a key has the wrong type.
    pub async fn heartbeat(
        &self,
        incarnation: &str,
        register: bool,
    ) -> Result<Heartbeat, QueueError> {
        let mut cmd = HEARTBEAT.call([&self.keys.workers].into_iter());
        cmd.arg(incarnation)
            .arg(u8::from(register))
            .arg(WORKERS_MAX);
        let mut reply = Reply::new(HEARTBEAT.send(self, &cmd).await?)?;
        let now_ms = reply.count()?;
        let mut workers = Vec::new();
        while !reply.is_empty() {
            workers.push((reply.lossy()?, reply.count()?));
        }
        #[cfg(feature = "broken")]
        if super::broken::has(super::broken::Flaw::OwnClock) {
            let now_ms = crate::clock::unix_ms();
            let mut conn = self.conn.clone();
            let mut beat = redis::cmd("ZADD");
            beat.arg(&self.keys.workers)
                .arg("XX")
                .arg(now_ms)
                .arg(incarnation);
            beat.query_async::<()>(&mut conn).await?;
            return Ok(Heartbeat { now_ms, workers });
        }
        Ok(Heartbeat { now_ms, workers })
    }

    /// Who is registered, and when each gave its last sign of life. Changes nothing.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn workers(&self) -> Result<Heartbeat, QueueError> {
        let mut conn = self.conn.clone();
        let (time, workers): ((u64, u64), Vec<(String, f64)>) = redis::pipe()
            .cmd("TIME")
            .cmd("ZREVRANGE")
            .arg(&self.keys.workers)
            .arg(0)
            .arg(WORKERS_MAX - 1)
            .arg("WITHSCORES")
            .query_async(&mut conn)
            .await?;
        let beats = workers.into_iter().map(|(worker, at)| (worker, at as u64));
        Ok(Heartbeat {
            now_ms: time.0 * 1_000 + time.1 / 1_000,
            workers: beats.collect(),
        })
    }

    /// Declares an incarnation dead if its heartbeat is still `seen_ms`; true if this call did it.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn fence(&self, incarnation: &str, seen_ms: u64) -> Result<bool, QueueError> {
        self.remove_worker(incarnation, &seen_ms.to_string()).await
    }

    /// Takes leave: an incarnation that holds nothing any more.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn deregister(&self, incarnation: &str) -> Result<(), QueueError> {
        self.remove_worker(incarnation, "").await.map(|_| ())
    }

    async fn remove_worker(&self, incarnation: &str, seen: &str) -> Result<bool, QueueError> {
        let mut cmd = FENCE.call([&self.keys.workers, &self.keys.settled].into_iter());
        cmd.arg(incarnation).arg(seen);
        Ok(FENCE.send(self, &cmd).await? == Value::Int(1))
    }

    /// One bounded step through everything that runs; `cursor` is 0 at first, and 0 again when the sweep is through.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn sweep_running(&self, cursor: u64) -> Result<(u64, Vec<RunningEntry>), QueueError> {
        let mut conn = self.conn.clone();
        type Pairs = Vec<(Vec<u8>, Vec<u8>)>;
        let (next, pairs): (u64, Pairs) = redis::cmd("HSCAN")
            .arg(&self.keys.running)
            .arg(cursor)
            .arg("COUNT")
            .arg(SWEEP_COUNT)
            .query_async(&mut conn)
            .await?;
        let entries = pairs
            .into_iter()
            .map(|(id, token)| RunningEntry {
                id: lossy(id),
                token: lossy(token),
            })
            .collect();
        Ok((next, entries))
    }

    /// The stored envelope and history of jobs, each empty where there is none.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn stored(&self, ids: &[&str]) -> Result<Vec<(Vec<u8>, Vec<u8>)>, QueueError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut conn = self.conn.clone();
        let mut pipe = redis::pipe();
        for key in [&self.keys.jobs, &self.keys.meta] {
            pipe.cmd("HMGET").arg(key).arg(ids);
        }
        type Values = Vec<Option<Vec<u8>>>;
        let (jobs, metas): (Values, Values) = pipe.query_async(&mut conn).await?;
        let each = jobs.into_iter().zip(metas);
        Ok(each
            .map(|(job, meta)| (job.unwrap_or_default(), meta.unwrap_or_default()))
            .collect())
    }
}

impl Queue {
    /// What jobs are tied to besides their flows, as it is stored; empty where there is nothing.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn ties_of(&self, ids: &[&str]) -> Result<Vec<String>, QueueError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut conn = self.conn.clone();
        let found: Vec<Option<Vec<u8>>> = redis::cmd("HMGET")
            .arg(&self.keys.ties)
            .arg(ids)
            .query_async(&mut conn)
            .await?;
        let text = |bytes: Option<Vec<u8>>| bytes.map_or_else(String::new, lossy);
        Ok(found.into_iter().map(text).collect())
    }
}

/// What we wrote is ASCII; what others wrote to private storage must not stop a sweep.
fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Tells which incarnations are dead. A heartbeat must have stood still for a lease by Redis time *and* for a lease on
/// this machine's monotonic clock while Redis was answering: a frozen Redis, or a jump of its clock, kills nobody.
#[derive(Debug)]
pub struct Watch {
    lease: Duration,
    seen: HashMap<String, Sighting>,
    last_answer: Option<Instant>,
}

#[derive(Debug)]
struct Sighting {
    beat_ms: u64,
    still_for: Duration,
}

impl Watch {
    /// A watch that knows nobody yet.
    #[must_use]
    pub fn new(lease: Duration) -> Self {
        Self {
            lease,
            seen: HashMap::new(),
            last_answer: None,
        }
    }

    /// Takes in a heartbeat's answer, got at `now`; returns who is dead, with the heartbeat to fence by.
    pub fn observe(&mut self, now: Instant, own: &str, beat: &Heartbeat) -> Vec<(String, u64)> {
        // Time in which Redis gave no answer proves nothing about anybody: at most one lease's half counts per answer.
        let passed = self
            .last_answer
            .map_or(Duration::ZERO, |last| now.saturating_duration_since(last))
            .min(self.lease / 2);
        self.last_answer = Some(now);
        let mut dead = Vec::new();
        let mut seen = HashMap::with_capacity(beat.workers.len());
        for (worker, beat_ms) in &beat.workers {
            if worker == own {
                continue;
            }
            let still_for = match self.seen.remove(worker) {
                Some(before) if before.beat_ms == *beat_ms => before.still_for + passed,
                _ => Duration::ZERO,
            };
            let silent = Duration::from_millis(beat.now_ms.saturating_sub(*beat_ms));
            #[cfg(feature = "broken")]
            let still_for = if super::broken::has(super::broken::Flaw::OwnClock) {
                silent
            } else {
                still_for
            };
            if still_for >= self.lease && silent >= self.lease {
                dead.push((worker.clone(), *beat_ms));
            }
            let sighting = Sighting {
                beat_ms: *beat_ms,
                still_for,
            };
            seen.insert(worker.clone(), sighting);
        }
        self.seen = seen;
        dead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(now_ms: u64, workers: &[(&str, u64)]) -> Heartbeat {
        Heartbeat {
            now_ms,
            workers: workers
                .iter()
                .map(|(w, at)| ((*w).to_owned(), *at))
                .collect(),
        }
    }

    /// Feeds one answer a second for `seconds`; returns the second at which `b` was found dead.
    fn found_dead_at(seconds: u64, beat_of_b: impl Fn(u64) -> u64) -> Option<u64> {
        let mut watch = Watch::new(Duration::from_secs(10));
        let start = crate::clock::monotonic();
        (0..seconds).find(|s| {
            let answer = beat(s * 1_000, &[("a", s * 1_000), ("b", beat_of_b(*s))]);
            let now = start + Duration::from_secs(*s);
            let dead = watch.observe(now, "a", &answer);
            dead.iter().any(|(worker, _)| worker == "b")
        })
    }

    #[test]
    fn a_silent_worker_is_dead_after_a_lease() {
        assert_eq!(found_dead_at(60, |s| s.min(5) * 1_000), Some(15));
        assert_eq!(found_dead_at(60, |s| s * 1_000), None);
        assert_eq!(found_dead_at(60, |s| (s - s % 9) * 1_000), None);
    }

    #[test]
    fn a_worker_that_was_silent_long_before_we_looked_is_still_given_a_lease() {
        assert_eq!(found_dead_at(60, |_| 0), Some(10));
    }

    #[test]
    fn while_redis_is_frozen_nobody_dies() {
        let mut watch = Watch::new(Duration::from_secs(10));
        let start = crate::clock::monotonic();
        assert!(watch.observe(start, "a", &beat(0, &[("b", 0)])).is_empty());
        // A minute without an answer, then Redis is back with its clock a minute on, before b could beat.
        let thawed = start + Duration::from_secs(60);
        assert!(
            watch
                .observe(thawed, "a", &beat(60_000, &[("b", 0)]))
                .is_empty()
        );
        let later = thawed + Duration::from_secs(1);
        assert!(
            watch
                .observe(later, "a", &beat(61_000, &[("b", 61_000)]))
                .is_empty()
        );
    }
}
