//! What the integration tests share: private servers started on first use, names of their own for each test, and
//! waiting on a state.
//!
//! Statics are never dropped, so the servers and their folder go with the process: see `tidegate::stack`.

use std::{
    fs,
    future::Future,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tidegate::stack::{PostgresOptions, PrivatePostgres, PrivateRedis, RedisOptions, Scratch};

/// How long a test waits for a state before it fails: generous, since a state that comes is not waited for further.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The URL of the Redis that all tests share. Use it under [`fresh_prefix`] only.
pub fn redis_url() -> String {
    static REDIS: OnceLock<PrivateRedis> = OnceLock::new();
    let start = || PrivateRedis::start(RedisOptions::new(scratch().path().join("redis"))).unwrap();
    REDIS.get_or_init(start).url()
}

/// A key prefix that no other test uses.
pub fn fresh_prefix() -> String {
    format!("test{}", fresh_number())
}

/// The URL of a new, empty database on the Postgres that all tests share.
pub fn fresh_database() -> String {
    static POSTGRES: OnceLock<PrivatePostgres> = OnceLock::new();
    let postgres = POSTGRES.get_or_init(|| {
        let mut options = PostgresOptions::new(scratch().path().join("postgres"));
        options.max_connections = 200;
        PrivatePostgres::start(options).unwrap()
    });
    let name = format!("test{}", fresh_number());
    postgres.create_database(&name).unwrap();
    postgres.url(&name)
}

/// Waits until `condition` holds; fails the test, naming `what`, when it does not within the deadline.
pub async fn wait_until<F, C>(what: &str, deadline: Duration, mut condition: F)
where
    F: FnMut() -> C,
    C: Future<Output = bool>,
{
    let reached = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let reached = tokio::time::timeout(deadline, reached).await;
    assert!(reached.is_ok(), "not within {deadline:?}: {what}");
}

/// The state letter and the parent of a process as in `/proc/<pid>/stat`; `None` once it is gone.
pub fn process_state(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Whether a process still runs; one that has ended but was not waited for does not.
pub fn is_running(pid: u32) -> bool {
    process_state(pid).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

fn scratch() -> &'static Scratch {
    static SCRATCH: OnceLock<Scratch> = OnceLock::new();
    SCRATCH.get_or_init(|| Scratch::new().unwrap())
}

fn fresh_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
