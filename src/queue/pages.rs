//! Each daemon's own page, and the one round trip a second in which a daemon publishes and hears what was ordered.
//!
//! `<prefix>:gate:page:<instance>` is a page, JSON, and expires; `<prefix>:gate:pages` is a zset of the instances by the
//! Redis time of their last publishing. The first of those that live, in order of name, also reads the others' pages and
//! publishes what they come to together. Must not know what stands on a page.

use super::QueueError;
use super::board;
use super::connection::Connection;
use super::orders::{self, time_ms};
use crate::clock::Epoch;
use crate::policy::gate::Orders;
use std::time::Duration;

/// Pages that are read at most.
pub const PAGES_MAX: usize = 200;
/// The index outlives the last daemon by this.
const INDEX_TTL_MS: u64 = 60_000;

/// The key of a daemon's page.
#[must_use]
pub fn page_key(prefix: &str, instance: &str) -> String {
    format!("{prefix}:gate:page:{instance}")
}

/// The key of the index of pages.
#[must_use]
pub fn index_key(prefix: &str) -> String {
    format!("{prefix}:gate:pages")
}

/// What one daemon publishes, and what it hears then.
#[derive(Debug)]
pub struct Desk {
    conn: Connection,
    prefix: String,
    instance: String,
    /// How long a page is kept after it was published.
    ttl: Duration,
    /// A daemon whose page is older than this does not publish for all any more.
    silence: Duration,
    epoch: Epoch,
    /// Redis time less our own; none before it was asked.
    ahead_ms: Option<i64>,
    /// The other daemons that live, if it is on us to publish for all.
    others: Option<Vec<String>>,
}

/// What a daemon heard.
#[derive(Debug)]
pub struct Heard {
    /// Redis time, ms.
    pub now_ms: u64,
    /// The orders that hold.
    pub orders: Orders,
    /// Whether some have ended that are still in the hash.
    pub ended: bool,
    /// The pages of the others, if it was on us to publish for all.
    pub others: Vec<String>,
}

/// Instances by the Redis time of their last publishing, the fields of the orders, Redis time.
type Answer = (Vec<(String, f64)>, Vec<(String, String)>, (u64, u64));

impl Desk {
    /// A desk for the daemon `instance`, which publishes every `interval`.
    #[must_use]
    pub fn new(
        conn: &Connection,
        prefix: &str,
        instance: &str,
        interval: Duration,
        ttl: Duration,
    ) -> Self {
        Self {
            conn: conn.clone(),
            prefix: prefix.to_owned(),
            instance: instance.to_owned(),
            ttl,
            silence: (interval * 3).max(Duration::from_secs(3)),
            epoch: Epoch::start(),
            ahead_ms: None,
            others: None,
        }
    }

    /// Redis time by our own clock since it was last heard, ms; none before.
    #[must_use]
    pub fn now_ms(&self) -> Option<u64> {
        let own = i64::try_from(self.epoch.now_ms()).unwrap_or(i64::MAX);
        u64::try_from(own.saturating_add(self.ahead_ms?)).ok()
    }

    /// Whether it is on us to publish for all.
    #[must_use]
    pub const fn leads(&self) -> bool {
        self.others.is_some()
    }

    /// Publishes the page, and `health` for all if that is on us, in one round trip.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn publish(&mut self, page: &str, health: Option<&str>) -> Result<Heard, QueueError> {
        let now_ms = match self.now_ms() {
            Some(now_ms) => now_ms,
            None => self.ask_time().await?,
        };
        let mut pipe = self.pipe(page, now_ms);
        let mut conn = self.conn.clone();
        let ttl = super::millis(self.ttl);
        let (answer, others): (Answer, Vec<Option<String>>) = match (health, &self.others) {
            (Some(health), Some(others)) => {
                let key = board::health_key(&self.prefix);
                pipe.cmd("SET").arg(key).arg(health);
                pipe.arg("PX").arg(ttl).ignore();
                // MGET of nothing is an error.
                let keys = others.iter().chain([&self.instance]);
                let keys: Vec<String> = keys.map(|i| page_key(&self.prefix, i)).collect();
                pipe.cmd("MGET").arg(keys);
                let (index, orders, time, mut pages): (_, _, _, Vec<Option<String>>) =
                    pipe.query_async(&mut conn).await?;
                pages.pop();
                ((index, orders, time), pages)
            }
            _ => (pipe.query_async(&mut conn).await?, Vec::new()),
        };
        let (index, fields, time) = answer;
        let now_ms = self.set_time(time);
        self.elect(&index, now_ms);
        let all = orders::read(&fields);
        let orders = all.in_force(now_ms);
        Ok(Heard {
            now_ms,
            ended: orders != all,
            orders,
            others: others.into_iter().flatten().collect(),
        })
    }

    fn pipe(&self, page: &str, now_ms: u64) -> redis::Pipeline {
        let index = index_key(&self.prefix);
        let ttl = super::millis(self.ttl);
        let mut pipe = redis::pipe();
        pipe.cmd("SET").arg(page_key(&self.prefix, &self.instance));
        pipe.arg(page).arg("PX").arg(ttl).ignore();
        pipe.cmd("ZADD").arg(&index).arg(now_ms);
        pipe.arg(&self.instance).ignore();
        // What is far ahead is of a clock that went back since: it would be the newest for ever.
        for (from, to) in [
            ("-inf".to_owned(), now_ms.saturating_sub(ttl).to_string()),
            (now_ms.saturating_add(ttl).to_string(), "+inf".to_owned()),
        ] {
            pipe.cmd("ZREMRANGEBYSCORE").arg(&index);
            pipe.arg(from).arg(to).ignore();
        }
        pipe.cmd("PEXPIRE").arg(&index).arg(INDEX_TTL_MS.max(ttl));
        pipe.ignore();
        pipe.cmd("ZRANGE").arg(&index).arg(0).arg(PAGES_MAX - 1);
        pipe.arg("WITHSCORES");
        pipe.cmd("HGETALL").arg(orders::orders_key(&self.prefix));
        pipe.cmd("TIME");
        pipe
    }

    async fn ask_time(&mut self) -> Result<u64, QueueError> {
        let mut conn = self.conn.clone();
        let time = redis::cmd("TIME").query_async(&mut conn).await?;
        Ok(self.set_time(time))
    }

    fn set_time(&mut self, time: (u64, u64)) -> u64 {
        let now_ms = time_ms(time);
        let own = i64::try_from(self.epoch.now_ms()).unwrap_or(i64::MAX);
        let redis = i64::try_from(now_ms).unwrap_or(i64::MAX);
        self.ahead_ms = Some(redis.saturating_sub(own));
        now_ms
    }

    /// Who comes first in order of name, of those that live, publishes for all. A time that is still to come says no more
    /// than one that is long past.
    fn elect(&mut self, index: &[(String, f64)], now_ms: u64) {
        let silence = super::millis(self.silence);
        let lives = |at: f64| now_ms.abs_diff(at as u64) <= silence;
        let alive = index
            .iter()
            .filter(|(_, at)| lives(*at))
            .map(|(name, _)| name);
        let others: Vec<String> = alive.filter(|i| **i != self.instance).cloned().collect();
        let first = others.iter().all(|other| *other > self.instance);
        self.others = first.then_some(others);
    }

    /// Takes the page away: this daemon ends.
    ///
    /// # Errors
    /// Redis failed.
    pub async fn leave(&self) -> Result<(), QueueError> {
        let mut conn = self.conn.clone();
        redis::pipe()
            .cmd("DEL")
            .arg(page_key(&self.prefix, &self.instance))
            .ignore()
            .cmd("ZREM")
            .arg(index_key(&self.prefix))
            .arg(&self.instance)
            .ignore()
            .query_async::<()>(&mut conn)
            .await?;
        Ok(())
    }
}

/// A daemon's page, as it was published.
#[derive(Debug)]
pub struct Published {
    /// The page, JSON.
    pub page: String,
    /// When, Redis time in ms.
    pub at_ms: u64,
}

/// Every daemon's page, in order of instance; of more than [`PAGES_MAX`], the first.
///
/// # Errors
/// Redis failed, or a key has the wrong type.
pub async fn read(conn: &Connection, prefix: &str) -> Result<Vec<Published>, QueueError> {
    let mut conn = conn.clone();
    let mut instances: Vec<(String, f64)> = redis::cmd("ZRANGE")
        .arg(index_key(prefix))
        .arg(0)
        .arg(PAGES_MAX - 1)
        .arg("WITHSCORES")
        .query_async(&mut conn)
        .await?;
    instances.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    if instances.is_empty() {
        return Ok(Vec::new());
    }
    let keys = instances.iter().map(|(i, _)| page_key(prefix, i));
    let keys: Vec<String> = keys.collect();
    let pages: Vec<Option<String>> = redis::cmd("MGET").arg(keys).query_async(&mut conn).await?;
    let published = |(page, (_, at)): (Option<String>, (String, f64))| {
        let at_ms = at as u64;
        page.map(|page| Published { page, at_ms })
    };
    let all = pages.into_iter().zip(instances);
    Ok(all.filter_map(published).collect())
}
