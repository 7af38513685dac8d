//! Slots between claims and settlements: who holds them, who is parked on them, and putting right what only somebody else
//! can have made wrong, or a raised limit.

use super::reply::Reply;
use super::script::UNPARK;
use super::{Queue, QueueError};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Entries read per step of a sweep.
const SCAN_COUNT: usize = 256;
/// Slots looked at in one call.
const UNPARK_STEP: usize = 100;

/// What a check of slots put right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unparked {
    /// Slots taken back from jobs that do not run.
    pub removed: u64,
    /// Names of slots whose flows were put in line again.
    pub woken: u64,
}

impl Queue {
    /// The slots that are worth a check: those that somebody is parked on, and those held by jobs that do not run.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn doubtful_slots(&self) -> Result<BTreeSet<String>, QueueError> {
        let k = &self.keys;
        let mut names: BTreeSet<String> = BTreeSet::new();
        let mut cursor = Some(0);
        while let Some(from) = cursor {
            let (next, page) = self.page(&k.parked, from).await?;
            names.extend(page.into_iter().map(|(name, _)| name));
            cursor = next;
        }
        let mut conn = self.conn.clone();
        cursor = Some(0);
        while let Some(from) = cursor {
            let (next, page) = self.page(&k.holds, from).await?;
            cursor = next;
            if page.is_empty() {
                continue;
            }
            let ids: Vec<&str> = page.iter().map(|(id, _)| id.as_str()).collect();
            let tokens: Vec<Option<Vec<u8>>> = redis::cmd("HMGET")
                .arg(&k.running)
                .arg(ids)
                .query_async(&mut conn)
                .await?;
            for ((_, held), token) in page.iter().zip(tokens) {
                if token.is_none() {
                    names.extend(held.split('\n').map(str::to_owned));
                }
            }
        }
        Ok(names)
    }

    /// Flows that wait until their rate lets them start again are due now; returns how many there were.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn end_rate_waits(&self) -> Result<u64, QueueError> {
        let resume = &self.keys.resume;
        let (_, now_ms) = self.stored_count().await?;
        let mut conn = self.conn.clone();
        let waiting: u64 = redis::cmd("ZCARD")
            .arg(resume)
            .query_async(&mut conn)
            .await?;
        let mut ended = 0;
        // Those that a claim sends back meanwhile are not met over and over.
        for _ in 0..=waiting / SCAN_COUNT as u64 {
            let flows: Vec<Vec<u8>> = redis::cmd("ZRANGE")
                .arg(resume)
                .arg(format!("({now_ms}"))
                .arg(&["+inf", "BYSCORE", "LIMIT", "0"])
                .arg(SCAN_COUNT)
                .query_async(&mut conn)
                .await?;
            if flows.is_empty() {
                break;
            }
            let mut earlier = redis::cmd("ZADD");
            earlier.arg(resume).arg(&["XX", "LT"]);
            for flow in &flows {
                earlier.arg(now_ms).arg(flow);
            }
            earlier.query_async::<()>(&mut conn).await?;
            ended += flows.len() as u64;
        }
        Ok(ended)
    }

    /// One bounded step through a hash; where the next one begins, if there is one.
    pub(super) async fn page(
        &self,
        key: &str,
        cursor: u64,
    ) -> Result<(Option<u64>, Vec<(String, String)>), QueueError> {
        let mut conn = self.conn.clone();
        type Page = Vec<(Vec<u8>, Vec<u8>)>;
        let (next, page): (u64, Page) = redis::cmd("HSCAN")
            .arg(key)
            .arg(cursor)
            .arg("COUNT")
            .arg(SCAN_COUNT)
            .query_async(&mut conn)
            .await?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let page = page.into_iter().map(|(f, v)| (text(f), text(v)));
        Ok(((next != 0).then_some(next), page.collect()))
    }

    /// Takes slots back from jobs that do not run, and puts flows in line again that are parked where there is room. With
    /// each name goes how many slots there are; none if there is no such limit any more.
    ///
    /// # Errors
    /// The lease is lost, Redis failed, or a key has the wrong type.
    pub async fn unpark(
        &self,
        incarnation: &str,
        slots: &[(String, Option<usize>)],
    ) -> Result<Unparked, QueueError> {
        let k = &self.keys;
        let mut all = Unparked::default();
        for step in slots.chunks(UNPARK_STEP) {
            let slot_keys: Vec<String> = step.iter().map(|(name, _)| k.slots(name)).collect();
            let fixed = [&k.workers, &k.running, &k.holds, &k.parked, &k.bell];
            let keys: Vec<&String> = fixed
                .into_iter()
                .chain(&k.ready)
                .chain(&slot_keys)
                .collect();
            let mut cmd = UNPARK.call(keys.into_iter());
            cmd.arg(incarnation);
            for (name, limit) in step {
                let limit = limit.map_or(-1, |n| i64::try_from(n).unwrap_or(i64::MAX));
                cmd.arg(name).arg(limit);
            }
            let mut reply = Reply::new(UNPARK.send(self, &cmd).await?)?;
            all.removed += reply.count()?;
            all.woken += reply.count()?;
        }
        Ok(all)
    }

    /// The slots that jobs hold, by name, each job's in its place; empty for those that hold none.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn held_by(&self, ids: &[&str]) -> Result<Vec<Arc<[Arc<str>]>>, QueueError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut conn = self.conn.clone();
        let held: Vec<Option<Vec<u8>>> = redis::cmd("HMGET")
            .arg(&self.keys.holds)
            .arg(ids)
            .query_async(&mut conn)
            .await?;
        let names = |lines: Option<Vec<u8>>| {
            let lines = lines.unwrap_or_default();
            let text = String::from_utf8_lossy(&lines);
            let names = text.split('\n').filter(|name| !name.is_empty());
            names.map(Arc::from).collect()
        };
        Ok(held.into_iter().map(names).collect())
    }

    /// Redis time, and when a rate allows the next start, both ms: in the past if one may start at once.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn rate_allows(
        &self,
        name: &str,
        every_ms: f64,
        burst: usize,
    ) -> Result<(u64, u64), QueueError> {
        let mut conn = self.conn.clone();
        let (time, used): ((u64, u64), Option<f64>) = redis::pipe()
            .cmd("TIME")
            .cmd("ZSCORE")
            .arg(&self.keys.rates)
            .arg(name)
            .query_async(&mut conn)
            .await?;
        let now = time.0 * 1_000 + time.1 / 1_000;
        // As the claim script reckons it.
        let used = used
            .unwrap_or(0.0)
            .min(now as f64 + every_ms * burst as f64);
        let next = used - burst.saturating_sub(1) as f64 * every_ms;
        Ok((now, next.ceil().max(0.0) as u64))
    }

    /// How many hold the slots of a name.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn holders(&self, name: &str) -> Result<u64, QueueError> {
        let mut conn = self.conn.clone();
        Ok(redis::cmd("SCARD")
            .arg(self.keys.slots(name))
            .query_async(&mut conn)
            .await?)
    }
}
