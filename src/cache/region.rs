//! One region on Redis: reading, filling, invalidating, and forgetting old invalidations.

use super::connection::Cache;
use super::entry::{self, Fill, Header, MAX_TAGS, Stamp};
use super::error::CacheError;
use super::name::{Key, RegionName, SENTINEL, Tag, WHOLE_REGION};
use super::scripts::MEMBERS_PER_CALL;
use super::validity::{self, LogView, Miss};
use crate::clock;
use redis::{FromRedisValue, RedisError, Script};
use std::time::Duration;
use uuid::Uuid;

/// Most entries sent in one pipeline.
const PIPELINE_ENTRIES: usize = 500;
/// A pipeline is sent once it holds this many bytes.
const PIPELINE_BYTES: usize = 1 << 20;
/// Most tags and keys of one invalidation.
const MAX_NAMES: usize = 100_000;

/// A region: entries that share one invalidation log, and that no other region's invalidations touch.
#[derive(Debug, Clone)]
pub struct Region {
    cache: Cache,
    name: RegionName,
    log: LogKeys,
}

/// The keys of a region's log. The braces put them into one slot of a Redis Cluster.
#[derive(Debug, Clone)]
struct LogKeys {
    seq: String,
    inv: String,
    floor: String,
    epoch: String,
    marks: String,
}

/// What a read came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The value, valid when the log was read.
    Hit {
        /// As it was put.
        payload: Vec<u8>,
    },
    /// Nothing that may be served.
    Miss(Miss),
}

/// What became of a bulk fill.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    /// Entries written.
    pub written: u64,
    /// Entries refused for a limit.
    pub refused: u64,
    /// Why the first of those was refused.
    pub reason: Option<String>,
}

/// What one step of garbage collection did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Collected {
    /// Log members removed.
    pub removed: u64,
    /// Log members that the next steps may remove.
    pub left: u64,
}

impl Region {
    pub(super) fn new(cache: Cache, name: RegionName, prefix: &str) -> Self {
        let key = |part: &str| format!("{prefix}:{part}:{{{name}}}");
        let log = LogKeys {
            seq: key("seq"),
            inv: key("inv"),
            floor: key("floor"),
            epoch: key("epoch"),
            marks: key("marks"),
        };
        Self { cache, name, log }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &RegionName {
        &self.name
    }

    /// Where the region's counter stands. To be asked **before** the source of a value is read; opens a new epoch if
    /// the log was lost.
    ///
    /// # Errors
    /// Redis, or a key of the log holds something else.
    pub async fn begin(&self) -> Result<Stamp, CacheError> {
        let taken_ms = clock::unix_ms();
        let (seq, epoch): (u64, String) = self.run(&self.cache.scripts().begin, &[]).await?;
        self.cache.note(&self.name, &epoch, seq);
        Ok(Stamp {
            seq,
            epoch,
            taken_ms,
        })
    }

    /// Stores one value, computed from what was read after `stamp` was taken.
    ///
    /// # Errors
    /// Redis, or [`CacheError::Limit`]: more than 64 tags, an entry larger than `cache.max_entry`, a time to live
    /// beyond `cache.max_ttl`.
    pub async fn put(&self, fill: &Fill, ttl: Duration, stamp: &Stamp) -> Result<(), CacheError> {
        self.check_ttl(ttl)?;
        let entry = self.entry(fill, ttl, stamp).map_err(CacheError::Limit)?;
        self.set(&fill.key, &entry, ttl)
            .query_async(&mut self.cache.connection())
            .await
            .map_err(|e| self.failed(e))
    }

    /// Stores many values under one stamp, in pipelines of bounded size. An entry over a limit is refused and counted.
    ///
    /// # Errors
    /// Redis, in which case some may be stored: that is harmless, and repeating it too. Or `ttl` is over the limit.
    pub async fn put_many(
        &self,
        fills: &[Fill],
        ttl: Duration,
        stamp: &Stamp,
    ) -> Result<Stored, CacheError> {
        self.check_ttl(ttl)?;
        let mut stored = Stored::default();
        let mut pipeline = redis::pipe();
        let mut bytes = 0;
        for fill in fills {
            let entry = match self.entry(fill, ttl, stamp) {
                Ok(entry) => entry,
                Err(reason) => {
                    stored.refused += 1;
                    stored.reason.get_or_insert(reason);
                    continue;
                }
            };
            bytes += entry.len();
            pipeline
                .add_command(self.set(&fill.key, &entry, ttl))
                .ignore();
            if pipeline.len() >= PIPELINE_ENTRIES || bytes >= PIPELINE_BYTES {
                stored.written += self.send(&mut pipeline).await?;
                bytes = 0;
            }
        }
        stored.written += self.send(&mut pipeline).await?;
        Ok(stored)
    }

    /// Reads an entry and serves it if the rule allows. Never deletes and never writes.
    ///
    /// # Errors
    /// Redis, or a key holds something else.
    pub async fn get(&self, key: &Key) -> Result<Found, CacheError> {
        let found = self.read(key).await?;
        match &found {
            Found::Hit { .. } => self.cache.counters().hit(),
            Found::Miss(why) => self.cache.counters().miss(*why),
        }
        Ok(found)
    }

    /// Makes every entry under the given tags and keys, or the whole region, miss from now on. To be called **after**
    /// the change they show is committed. Costs the same however many entries there are: one script per 900 names.
    /// Gives the region's counter.
    ///
    /// # Errors
    /// Redis, in which case some names may be invalidated: repeat it. Or no name, or more than 100,000.
    pub async fn invalidate(
        &self,
        tags: &[Tag],
        keys: &[Key],
        whole_region: bool,
    ) -> Result<u64, CacheError> {
        let members = if whole_region {
            vec![WHOLE_REGION.to_owned()]
        } else {
            let tags = tags.iter().map(|t| t.as_str().to_owned());
            tags.chain(keys.iter().map(Key::member)).collect()
        };
        if members.is_empty() || members.len() > MAX_NAMES {
            return Err(CacheError::Limit(format!(
                "an invalidation names 1 to {MAX_NAMES} tags and keys, not {}",
                members.len()
            )));
        }
        let channel = format!("{}:changed", self.log.inv);
        let mut last = 0;
        for chunk in members.chunks(MEMBERS_PER_CALL) {
            let mut args = vec![channel.as_str()];
            args.extend(chunk.iter().map(String::as_str));
            let (seq, epoch): (u64, String) =
                self.run(&self.cache.scripts().invalidate, &args).await?;
            self.cache.note(&self.name, &epoch, seq);
            last = seq;
        }
        Ok(last)
    }

    /// Forgets up to `step` invalidations that no living entry can need, or that are over `cache.log_max`. The log grows
    /// by invalidations alone, so one step after each keeps it bounded.
    ///
    /// # Errors
    /// Redis, or a key of the log holds something else.
    pub async fn collect_garbage(&self, step: usize) -> Result<Collected, CacheError> {
        let config = self.cache.config();
        let args = [
            entry::millis(config.max_ttl).to_string(),
            config.log_max.to_string(),
            step.to_string(),
        ];
        let args = args.each_ref().map(String::as_str);
        let (_, _, removed, left): (u64, String, u64, u64) =
            self.run(&self.cache.scripts().collect, &args).await?;
        Ok(Collected { removed, left })
    }

    async fn read(&self, key: &Key) -> Result<Found, CacheError> {
        let max = self.cache.config().max_entry;
        let mut bytes: Vec<u8> = redis::cmd("GETRANGE")
            .arg(self.entry_key(key))
            .arg(0)
            .arg(max)
            .query_async(&mut self.cache.connection())
            .await
            .map_err(|e| self.failed(e))?;
        if bytes.is_empty() {
            return Ok(Found::Miss(Miss::Absent));
        }
        if bytes.len() > max {
            return Ok(Found::Miss(Miss::Unreadable));
        }
        let Some((header, payload_at)) = entry::decode(&bytes) else {
            return Ok(Found::Miss(Miss::Unreadable));
        };
        let seen = self.cache.seen(&self.name);
        let log = self.view(key, &header).await?;
        if let Err(why) = log
            .check_tail(&seen.epoch, seen.seq)
            .and_then(|()| validity::judge(&header, &log))
        {
            return Ok(Found::Miss(why));
        }
        let payload = bytes.split_off(payload_at);
        Ok(Found::Hit { payload })
    }

    /// What the log says about an entry, in one transaction: were the epoch or the floor read earlier than the tags, a
    /// log lost in between would look like one that never heard of them.
    async fn view(&self, key: &Key, header: &Header<'_>) -> Result<LogView, CacheError> {
        let (mut scores, seq, epoch, floor): (Vec<Option<f64>>, _, _, _) = redis::pipe()
            .atomic()
            .cmd("ZMSCORE")
            .arg(&self.log.inv)
            .arg(header.tags.iter().map(AsRef::as_ref).collect::<Vec<&str>>())
            .arg(WHOLE_REGION)
            .arg(key.member())
            .arg(SENTINEL)
            .get(&self.log.seq)
            .get(&self.log.epoch)
            .get(&self.log.floor)
            .query_async(&mut self.cache.connection())
            .await
            .map_err(|e| self.failed(e))?;
        let sentinel = scores.pop().flatten().is_some();
        // Scores are whole numbers far below 2^53.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let last = scores.into_iter().flatten().map(|n| n as u64).max();
        Ok(LogView {
            seq,
            epoch,
            floor,
            sentinel,
            last,
        })
    }

    fn check_ttl(&self, ttl: Duration) -> Result<(), CacheError> {
        let max = self.cache.config().max_ttl;
        if ttl < Duration::from_millis(1) || ttl > max {
            return Err(CacheError::Limit(format!(
                "ttl {ttl:?} is not within 1ms to cache.max_ttl, {max:?}"
            )));
        }
        Ok(())
    }

    fn entry(&self, fill: &Fill, ttl: Duration, stamp: &Stamp) -> Result<Vec<u8>, String> {
        let key = fill.key.as_str();
        if fill.tags.len() > MAX_TAGS {
            let given = fill.tags.len();
            return Err(format!("{key:?} has {given} tags; at most {MAX_TAGS}"));
        }
        let entry = entry::encode(fill, stamp, ttl, clock::unix_ms());
        let max = self.cache.config().max_entry;
        if entry.len() > max {
            let given = entry.len();
            return Err(format!("{key:?} is {given} bytes; at most {max}"));
        }
        Ok(entry)
    }

    fn set(&self, key: &Key, entry: &[u8], ttl: Duration) -> redis::Cmd {
        let ttl = entry::spread(ttl, rand::random(), self.cache.config().max_ttl);
        let mut set = redis::cmd("SET");
        set.arg(self.entry_key(key)).arg(entry);
        set.arg("PX").arg(entry::millis(ttl));
        set
    }

    /// Sends what a pipeline holds, and empties it.
    async fn send(&self, pipeline: &mut redis::Pipeline) -> Result<u64, CacheError> {
        if pipeline.is_empty() {
            return Ok(0);
        }
        let count = pipeline.len() as u64;
        pipeline
            .query_async::<()>(&mut self.cache.connection())
            .await
            .map_err(|e| self.failed(e))?;
        pipeline.clear();
        Ok(count)
    }

    /// Runs a script of the log; the first three arguments of all of them are those of `open.lua`.
    async fn run<T: FromRedisValue>(
        &self,
        script: &Script,
        args: &[&str],
    ) -> Result<T, CacheError> {
        let seen = self.cache.seen(&self.name);
        script
            .key(&self.log.seq)
            .key(&self.log.inv)
            .key(&self.log.floor)
            .key(&self.log.epoch)
            .key(&self.log.marks)
            .arg(Uuid::new_v4().simple().to_string())
            .arg(seen.epoch)
            .arg(seen.seq)
            .arg(args)
            .invoke_async(&mut self.cache.connection())
            .await
            .map_err(|e| self.failed(e))
    }

    fn entry_key(&self, key: &Key) -> String {
        let prefix = &self.cache.config().prefix;
        format!("{prefix}:{}:{}", self.name, key.as_str())
    }

    fn failed(&self, e: RedisError) -> CacheError {
        CacheError::from_redis(&self.name, e)
    }
}
