//! What daemons tell the apps through Redis, apart from queues: the keys of health. And what the server must be like.

use super::QueueError;
use super::connection::Connection;
use std::collections::BTreeMap;
use std::time::Duration;

/// The oldest server the scripts run on.
const OLDEST: u64 = 7;

/// The key the apps read, JSON as at `/health`.
#[must_use]
pub fn health_key(prefix: &str) -> String {
    format!("{prefix}:health")
}

/// The key of the last hour of health, JSON.
#[must_use]
pub fn history_key(prefix: &str) -> String {
    format!("{prefix}:health:history")
}

/// Publishes a text under one of these keys for `ttl`; a key that is gone means that no daemon lives.
///
/// # Errors
/// Redis failed.
pub async fn publish(
    conn: &Connection,
    key: &str,
    json: &str,
    ttl: Duration,
) -> Result<(), QueueError> {
    let mut conn = conn.clone();
    redis::cmd("SET")
        .arg(key)
        .arg(json)
        .arg("PX")
        .arg(super::millis(ttl))
        .query_async::<()>(&mut conn)
        .await?;
    Ok(())
}

/// Reads what was published last under one of these keys, if a daemon lives.
///
/// # Errors
/// Redis failed.
pub async fn read(conn: &Connection, key: &str) -> Result<Option<String>, QueueError> {
    let mut conn = conn.clone();
    Ok(redis::cmd("GET").arg(key).query_async(&mut conn).await?)
}

/// Asks the server for a sign of life.
///
/// # Errors
/// Redis failed.
pub async fn ping(conn: &Connection) -> Result<(), QueueError> {
    let mut conn = conn.clone();
    redis::cmd("PING").query_async::<()>(&mut conn).await?;
    Ok(())
}

/// What the server tells of itself in these sections of `INFO`.
///
/// # Errors
/// Redis failed.
pub async fn info(conn: &Connection, sections: &[&str]) -> Result<String, QueueError> {
    let mut conn = conn.clone();
    Ok(redis::cmd("INFO")
        .arg(sections)
        .query_async(&mut conn)
        .await?)
}

/// What a server is, as far as jobs depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Its version, like `7.0.15`.
    pub version: String,
    /// Why it can't be used at all.
    pub unusable: Option<String>,
    /// Settings by which it may lose jobs: the setting and what is wrong with it.
    pub unsafe_settings: Vec<(&'static str, String)>,
}

/// Looks at the server.
///
/// # Errors
/// Redis failed.
pub async fn inspect_server(conn: &Connection) -> Result<Server, QueueError> {
    let mut conn = conn.clone();
    let info: String = redis::cmd("INFO")
        .arg("everything")
        .query_async(&mut conn)
        .await?;
    let fields: BTreeMap<&str, &str> = info
        .lines()
        .filter_map(|line| line.trim_end().split_once(':'))
        .collect();
    Ok(judge(&fields))
}

fn judge(fields: &BTreeMap<&str, &str>) -> Server {
    let field = |name: &str| fields.get(name).copied().unwrap_or_default();
    // Valkey tells its own version apart from the Redis version it is compatible with.
    let version = field("redis_version").to_owned();
    let major: u64 = version
        .split('.')
        .next()
        .and_then(|m| m.parse().ok())
        .unwrap_or(0);
    let unusable = (major < OLDEST)
        .then(|| format!("redis {version} is too old: {OLDEST}.0 or Valkey 7.2 is needed"));
    let mut unsafe_settings = Vec::new();
    let policy = field("maxmemory_policy");
    let bounded = !matches!(field("maxmemory"), "" | "0");
    if bounded && policy != "noeviction" {
        let problem = format!("is {policy}: jobs are evicted when memory is short; set noeviction");
        unsafe_settings.push(("maxmemory-policy", problem));
    }
    if field("aof_enabled") != "1" {
        let problem = "is off: a crash of Redis loses jobs since the last snapshot, or all of them";
        unsafe_settings.push(("appendonly", problem.to_owned()));
    }
    Server {
        version,
        unusable,
        unsafe_settings,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eviction_and_missing_persistence_are_told() {
        let server =
            |fields: &[(&'static str, &'static str)]| judge(&fields.iter().copied().collect());
        let good = server(&[("redis_version", "7.0.15"), ("aof_enabled", "1")]);
        assert!(good.unusable.is_none() && good.unsafe_settings.is_empty());
        let bad = server(&[
            ("redis_version", "6.2.1"),
            ("aof_enabled", "0"),
            ("maxmemory", "1000"),
            ("maxmemory_policy", "allkeys-lru"),
        ]);
        assert!(bad.unusable.is_some());
        assert_eq!(bad.unsafe_settings.len(), 2);
    }
}
