//! What a Redis tells of itself.

use std::sync::Arc;

use tidegate::config::GateConfig;
use tidegate::health::{
    HealthView, Monitor, Probe, QUEUE_REDIS, REDIS_SECTIONS, SignalView, redis_info,
};
use tidegate::policy::gate::GateState;
use tidegate::queue::board;
use tidegate::queue::connection::{self, Connection};
use tidegate::stack::{PrivateRedis, RedisOptions, Scratch};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::config;
use crate::support::{DEADLINE, wait_until};

/// What Redis tells of itself, sampled until dropped.
struct Told {
    conn: Connection,
    view: watch::Receiver<Arc<HealthView>>,
    stop: CancellationToken,
}

impl Told {
    async fn by(server: &PrivateRedis) -> Self {
        let config = config(&server.url());
        let conn = connection::connect(&config.redis).await.unwrap();
        let asked = conn.clone();
        let probe = redis_info(QUEUE_REDIS, &config.gate.limits, move || {
            let asked = asked.clone();
            async move {
                let info = board::info(&asked, &REDIS_SECTIONS).await;
                info.map_err(|e| e.to_string())
            }
        });
        Self::with(conn, &config.gate, probe)
    }

    fn with(conn: Connection, gate: &GateConfig, probe: Probe) -> Self {
        let (monitor, view) = Monitor::new(gate, vec![probe], |_, _| {});
        let stop = CancellationToken::new();
        tokio::spawn(monitor.run(stop.clone()));
        Self { conn, view, stop }
    }

    async fn until(&mut self, signal: &str, reached: impl Fn(&SignalView) -> bool) {
        let found = |view: &HealthView| {
            let mut signals = view.resources[QUEUE_REDIS].signals.iter();
            signals.any(|s| s.name == signal && s.value.is_some() && reached(s))
        };
        let seen = self.view.wait_for(|view| found(view));
        let seen = tokio::time::timeout(DEADLINE, seen).await.is_ok();
        assert!(seen, "{signal}: {}", self.view.borrow().to_json());
    }

    fn state(&self) -> GateState {
        self.view.borrow().resources[QUEUE_REDIS].state
    }

    async fn run(&self, command: &[&str]) -> ::redis::RedisResult<()> {
        let (name, args) = command.split_first().unwrap();
        let mut conn = self.conn.clone();
        ::redis::cmd(name).arg(args).query_async(&mut conn).await
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn redis(scratch: &Scratch, name: &str, change: impl FnOnce(&mut RedisOptions)) -> PrivateRedis {
    let mut options = RedisOptions::new(scratch.path().join(name));
    change(&mut options);
    PrivateRedis::start(options).unwrap()
}

#[tokio::test]
async fn redis_tells_of_full_memory_of_its_policy_and_of_evictions() {
    let scratch = Scratch::new().unwrap();
    let server = redis(&scratch, "redis", |o| o.max_memory = Some(8 << 20));
    let mut told = Told::by(&server).await;
    told.until("redis_memory_used_percent", |s| s.value.unwrap() < 60.0)
        .await;
    let block = "x".repeat(64 << 10);
    let mut n = 0;
    while told.run(&["SET", &format!("k{n}"), &block]).await.is_ok() {
        n += 1;
        assert!(n < 200, "the server has a limit");
    }
    told.until("redis_memory_used_percent", |s| s.badness > 0.6)
        .await;
    told.until("redis_memory_evicting_percent", |s| s.value == Some(0.0))
        .await;
    // Full memory alone slows, and never stops what would free it.
    assert_eq!(told.state(), GateState::Elevated);

    told.run(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"])
        .await
        .unwrap();
    told.until("redis_memory_evicting_percent", |s| {
        s.value.unwrap() > 60.0 && s.badness > 0.9
    })
    .await;
    for n in 0..200 {
        told.run(&["SET", &format!("more{n}"), &block])
            .await
            .unwrap();
    }
    told.until("redis_evictions_percent", |s| s.badness > 0.4)
        .await;
}

#[tokio::test]
async fn redis_tells_of_a_replica_that_confirms_nothing() {
    let scratch = Scratch::new().unwrap();
    let primary = redis(&scratch, "primary", |_| {});
    let port = primary.port().to_string();
    let mut replica = redis(&scratch, "replica", |o| {
        let args = ["--replicaof", "127.0.0.1", &port];
        o.extra_args = args.map(str::to_owned).to_vec();
    });
    let mut told = Told::by(&primary).await;
    told.until("redis_replica_lag_ms", |s| s.value == Some(0.0))
        .await;
    let conn = told.conn.clone();
    wait_until("the replica is online", DEADLINE, || async {
        let info = board::info(&conn, &REDIS_SECTIONS).await.unwrap();
        info.contains("state=online")
    })
    .await;
    replica.pause().unwrap();
    told.until("redis_replica_lag_ms", |s| s.value.unwrap() >= 3_000.0)
        .await;
    replica.resume().unwrap();
    told.until("redis_replica_lag_ms", |s| s.value.unwrap() <= 1_000.0)
        .await;
}

#[tokio::test]
async fn redis_tells_that_its_append_only_file_can_not_be_written() {
    let scratch = Scratch::new().unwrap();
    let server = redis(&scratch, "redis", |o| {
        o.append_only = true;
        o.disk = Some(1 << 20);
    });
    let mut told = Told::by(&server).await;
    told.until("redis_aof_write_failed", |s| s.value == Some(0.0))
        .await;
    let block = "x".repeat(128 << 10);
    let mut n = 0;
    while told.run(&["SET", &format!("k{n}"), &block]).await.is_ok() {
        n += 1;
        assert!(n < 100, "the disk has an end");
    }
    told.until("redis_aof_write_failed", |s| s.badness > 0.95)
        .await;
    assert_eq!(told.state(), GateState::Critical);
}
