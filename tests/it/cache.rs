//! Cache regions on a real Redis: the log and its rule, the handlers, and many writers at once.

mod handlers;
mod limits;
mod log;
mod stress;

use crate::support::{fresh_prefix, redis_url};
use redis::FromRedisValue;
use std::time::Duration;
use tidegate::cache::{Cache, CacheError, Fill, Found, Key, Miss, Region, RegionName, Tag};
use tidegate::config::{self, CacheConfig, RedisConfig, Secret, Sources};
use tidegate::queue::connection::{self, Connection};

const HOUR: Duration = Duration::from_secs(3_600);

/// A cache of its own on some Redis, and a way to look behind it.
struct Rig {
    cache: Cache,
    raw: Connection,
    /// Kept for more caches on the same keys.
    redis: RedisConfig,
    config: CacheConfig,
}

impl Rig {
    /// On the Redis that all tests share.
    async fn shared() -> Self {
        Self::on(redis_url(), |_| ()).await
    }

    async fn on(url: String, change: impl FnOnce(&mut CacheConfig)) -> Self {
        let defaults = config::load(&Sources::default()).unwrap();
        let mut redis = defaults.redis;
        redis.url = Secret::new(url);
        redis.prefix = fresh_prefix();
        let mut config = defaults.cache;
        config.prefix = format!("{}-c", redis.prefix);
        change(&mut config);
        let raw = connection::connect(&redis).await.unwrap();
        Self {
            cache: Cache::new(raw.clone(), &config, &redis.prefix),
            raw,
            redis,
            config,
        }
    }

    /// The same regions as another process sees them: over its own connection, with no memory of its own.
    async fn other_process(&self) -> Cache {
        let raw = connection::connect(&self.redis).await.unwrap();
        Cache::new(raw, &self.config, &self.redis.prefix)
    }

    fn region(&self, name: &str) -> Region {
        self.cache.region(&RegionName::parse(name).unwrap())
    }

    fn log_key(&self, part: &str, region: &str) -> String {
        format!("{}:{part}:{{{region}}}", self.redis.prefix)
    }

    fn entry_key(&self, region: &str, key: &str) -> String {
        format!("{}:{region}:{key}", self.config.prefix)
    }

    /// One raw command.
    async fn raw<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query_async(&mut self.raw.clone()).await.unwrap()
    }
}

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

fn tag(text: &str) -> Tag {
    Tag::parse(text).unwrap()
}

fn tags(texts: &[&str]) -> Vec<Tag> {
    texts.iter().map(|t| tag(t)).collect()
}

fn fill(at: &str, with: &[&str], payload: &str) -> Fill {
    Fill {
        key: key(at),
        tags: tags(with),
        payload: payload.as_bytes().to_vec(),
    }
}

/// Rebuilds an entry as it should be done: stamp, source, put.
async fn rebuild(region: &Region, at: &str, with: &[&str], payload: &str) {
    let stamp = region.begin().await.unwrap();
    region
        .put(&fill(at, with, payload), HOUR, &stamp)
        .await
        .unwrap();
}

async fn get(region: &Region, at: &str) -> Found {
    region.get(&key(at)).await.unwrap()
}

fn hit(payload: &str) -> Found {
    Found::Hit {
        payload: payload.as_bytes().to_vec(),
    }
}

const fn miss(why: Miss) -> Found {
    Found::Miss(why)
}

/// The error was told as the fault of a key, and not laid at the server's door.
fn assert_foreign<T: std::fmt::Debug>(result: Result<T, CacheError>, what: &str) {
    match result {
        Err(CacheError::Foreign { .. }) => {}
        other => panic!("{what}: {other:?}"),
    }
}
