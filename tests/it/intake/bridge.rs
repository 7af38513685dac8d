//! What apps push with the real apalis-redis becomes jobs: all of it, once, in order.

use super::killed::{Fuse, child};
use crate::queue::rig::{Rig, number_of};
use crate::support::{self, DEADLINE, wait_until};
use apalis_core::backend::TaskSink;
use apalis_core::task::builder::TaskBuilder;
use apalis_core::task::task_id::TaskId;
use apalis_core::worker::builder::WorkerBuilder;
use apalis_redis::{RedisStorage, queries};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::time::Duration;
use tidegate::config::{self, Secret, Sources};
use tidegate::queue::{Queue, connection};
use tidegate::services::bridge::translate::Rules;
use tidegate::services::bridge::{Bridge, From};
use tidegate::services::intake::push;
use tidegate::telemetry::{Alerts, Metrics};

/// What an app of that crate calls a job.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Letter {
    n: u64,
}

/// A namespace and a queue on the same Redis.
struct Quay {
    rig: Rig,
    namespace: String,
}

impl Quay {
    async fn new() -> Self {
        let rig = Rig::new().await;
        // As long and with the same characters as the name of a type, which is what it is by default.
        let namespace = format!("app{}::mail::Letter", rig.config.redis.prefix);
        Self { rig, namespace }
    }

    fn storage_config(&self) -> apalis_redis::Config {
        apalis_redis::Config::default().queue(&self.namespace)
    }

    /// As an app opens it.
    async fn storage<T>(&self) -> RedisStorage<T> {
        let conn = apalis_redis::connect(support::redis_url()).await.unwrap();
        RedisStorage::new(conn).with_config(self.storage_config())
    }

    fn bridge(&self) -> Bridge {
        bridge(
            &self.rig.queue,
            &self.namespace,
            From::Main(self.rig.conn.clone()),
        )
    }

    /// Bridges until nothing is left that is due.
    async fn bridge_all(&self) {
        let bridge = self.bridge();
        let namespace = bridge.open().await.unwrap();
        while bridge.step(&namespace).await.unwrap() {}
    }

    fn key(&self, name: &str) -> String {
        format!("{}:{name}", self.namespace)
    }

    async fn inbox(&self) -> Vec<serde_json::Value> {
        let key = &self.rig.queue.keys().inbox;
        let entries: Vec<String> = self.rig.redis("LRANGE", &[key, "0", "-1"]).await;
        let parse = |entry: &String| serde_json::from_str(entry).unwrap();
        entries.iter().map(parse).collect()
    }

    async fn numbers(&self) -> Vec<u64> {
        let inbox = self.inbox().await;
        inbox
            .iter()
            .map(|e| e["args"]["n"].as_u64().unwrap())
            .collect()
    }

    /// Keys of the namespace that are left.
    async fn left(&self) -> Vec<String> {
        self.rig.redis("KEYS", &[&self.key("*")]).await
    }
}

fn bridge(queue: &Queue, namespace: &str, from: From) -> Bridge {
    Bridge {
        rules: Rules {
            name: "mail".to_owned(),
            kind: "app.a".to_owned(),
            arg: "n".to_owned(),
        },
        namespace: namespace.to_owned(),
        from,
        queue: queue.clone(),
        batch: 256,
        poll: Duration::from_millis(20),
        metrics: Arc::new(Metrics::new()),
        alerts: Alerts::default(),
    }
}

fn letters(numbers: impl Iterator<Item = u64>) -> Vec<Letter> {
    numbers.map(|n| Letter { n }).collect()
}

#[tokio::test]
async fn a_push_becomes_a_job_and_leaves_nothing_behind() {
    let quay = Quay::new().await;
    let mut storage = quay.storage::<Letter>().await;
    storage.push(Letter { n: 7 }).await.unwrap();
    quay.bridge_all().await;
    let entry = &quay.inbox().await[0];
    assert_eq!(entry["kind"], "app.a");
    let id = entry["id"].as_str().unwrap();
    assert!(id.starts_with("mail-") && id.len() == 5 + 26, "{id}");
    assert_eq!(entry.get("run_at"), None);
    quay.rig.admit().await;
    assert_eq!(quay.rig.take(10).await, [7]);
    assert_eq!(quay.left().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_payload_that_is_no_object_is_one_argument() {
    let quay = Quay::new().await;
    let mut storage = quay.storage::<u64>().await;
    storage.push(42).await.unwrap();
    quay.bridge_all().await;
    quay.rig.admit().await;
    assert_eq!(quay.rig.take(10).await, [42]);
}

#[tokio::test]
async fn what_is_scheduled_is_a_delayed_job() {
    let quay = Quay::new().await;
    let mut storage = quay.storage::<Letter>().await;
    let at = tidegate::clock::unix_ms() / 1_000 + 3_600;
    let later = TaskBuilder::new(Letter { n: 1 })
        .run_at_timestamp(at)
        .build();
    storage.push_task(later).await.unwrap();
    // Further ahead than a job may be put off: it stays where it is until its time comes nearer.
    let far = TaskBuilder::new(Letter { n: 2 }).run_at_timestamp(at + 2 * 365 * 86_400);
    storage.push_task(far.build()).await.unwrap();
    quay.bridge_all().await;
    quay.rig.admit().await;
    let delayed: Vec<(String, u64)> = quay
        .rig
        .redis(
            "ZRANGE",
            &[&quay.rig.queue.keys().delayed, "0", "-1", "WITHSCORES"],
        )
        .await;
    assert_eq!(delayed.len(), 1);
    assert_eq!(delayed[0].1, at * 1_000);
    let still: u64 = quay.rig.redis("ZCARD", &[&quay.key("scheduled")]).await;
    assert_eq!(still, 1);
}

#[tokio::test]
async fn what_a_stock_worker_put_back_comes_first_and_order_is_kept() {
    let quay = Quay::new().await;
    let mut storage = quay.storage::<Letter>().await;
    for n in 1..=600 {
        // The crate's own ids of one millisecond are in no order.
        let id = TaskId::from_string(format!("{n:04}"));
        let task = TaskBuilder::new(Letter { n })
            .task_id(id)
            .run_at_timestamp(1_700_000_000);
        storage.push_task(task.build()).await.unwrap();
    }
    // A stock worker promotes a few of them.
    let moved: Vec<String> = quay
        .rig
        .redis("ZRANGE", &[&quay.key("scheduled"), "0", "9"])
        .await;
    for id in moved {
        let _: u64 = quay.rig.redis("ZREM", &[&quay.key("scheduled"), &id]).await;
        let _: u64 = quay.rig.redis("RPUSH", &[&quay.key("active"), &id]).await;
    }
    quay.bridge_all().await;
    // The crate takes no time before now, so pushes of different seconds sort by them.
    assert_eq!(quay.numbers().await, (1..=600).collect::<Vec<u64>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_of_100_000_on_which_stock_workers_die_is_taken_in() {
    let quay = Quay::new().await;
    let mut storage = quay.storage::<Letter>().await;
    let total = 100_000;
    for from in (0..total).step_by(1_000) {
        storage
            .push_bulk(letters(from..from + 1_000))
            .await
            .unwrap();
    }
    let mut conn = apalis_redis::connect(support::redis_url()).await.unwrap();
    let worker = apalis_core::worker::context::WorkerContext::new("stock");
    let storage_config = quay.storage_config();
    let _: u64 = quay
        .rig
        .redis("ZADD", &[&quay.key("workers"), "1", "stock"])
        .await;
    let error = queries::fetch_next(&mut conn, &worker, &storage_config).await;
    assert!(error.unwrap_err().to_string().contains("too many results"));

    let scheduled = quay.key("scheduled");
    let ids: Vec<String> = quay.rig.redis("ZRANGE", &[&scheduled, "0", "-1"]).await;
    quay.bridge_all().await;
    let inbox = quay.inbox().await;
    let arrived = inbox
        .iter()
        .map(|e| e["id"].as_str().unwrap().replace("mail-", ""));
    assert!(
        arrived.eq(ids),
        "each of them, in the order of the namespace"
    );
    let distinct: BTreeSet<u64> = inbox
        .iter()
        .map(|e| e["args"]["n"].as_u64().unwrap())
        .collect();
    assert_eq!(distinct.len(), total as usize);
    // What a stock worker registers stays; of the tasks nothing does.
    let left = quay.left().await;
    assert!(left.iter().all(|key| key.contains(":workers")), "{left:?}");
}

#[tokio::test]
async fn what_cannot_be_put_into_an_envelope_is_set_aside_with_its_payload() {
    let quay = Quay::new().await;
    let mut storage = quay.storage::<String>().await;
    let large = "x".repeat(500_000);
    storage.push(large.clone()).await.unwrap();
    storage.push("plain".to_owned()).await.unwrap();
    for (id, payload) in [
        ("msgpack", "\u{93}\u{1}"),
        ("smuggler", r#"1},"priority":"critical""#),
    ] {
        let _: u64 = quay
            .rig
            .redis("HSET", &[&quay.key("data"), id, payload])
            .await;
        let _: u64 = quay.rig.redis("RPUSH", &[&quay.key("active"), id]).await;
    }
    // Somebody removed its payload.
    let _: u64 = quay
        .rig
        .redis("RPUSH", &[&quay.key("active"), "orphan"])
        .await;
    let bridge = quay.bridge();
    let namespace = bridge.open().await.unwrap();
    while bridge.step(&namespace).await.unwrap() {}

    let inbox = quay.inbox().await;
    assert_eq!(inbox.len(), 1, "{inbox:?}");
    assert_eq!(inbox[0]["args"]["n"], "plain");
    let dead: BTreeSet<String> = quay.rig.redis("SMEMBERS", &[&quay.key("dead")]).await;
    assert_eq!(dead.len(), 3);
    for id in dead {
        let meta = quay.key(&format!("meta:{id}"));
        let note: Vec<String> = quay.rig.redis("HMGET", &[&meta, "status", "result"]).await;
        assert_eq!(note[0], "Killed");
        let kept: String = quay.rig.redis("HGET", &[&quay.key("data"), &id]).await;
        let (reason, length) = match id.as_str() {
            "msgpack" | "smuggler" => ("not JSON", kept.len()),
            _ => ("too_large", large.len() + 2),
        };
        assert!(note[1].contains(reason), "{id}: {}", note[1]);
        assert_eq!(kept.len(), length);
    }
    let line: u64 = quay.rig.redis("LLEN", &[&quay.key("tidegate")]).await;
    assert_eq!(line, 0);
    let metrics = bridge.metrics.encode().unwrap();
    let counted = r#"tidegate_intake_jobs_total{source="bridge mail",result="rejected"} 3"#;
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test]
async fn what_the_definition_refuses_is_in_quarantine_with_the_reason() {
    let quay = Quay::new().await;
    let mut storage = quay.storage::<String>().await;
    storage.push("not a number".to_owned()).await.unwrap();
    quay.bridge_all().await;
    quay.rig.admit().await;
    assert_eq!(quay.rig.quarantine().await.get("bad_args"), Some(&1));
}

#[tokio::test(flavor = "multi_thread")]
async fn several_daemons_share_a_bridge() {
    let quay = Arc::new(Quay::new().await);
    let mut storage = quay.storage::<Letter>().await;
    for from in (0..5_000).step_by(500) {
        storage.push_bulk(letters(from..from + 500)).await.unwrap();
    }
    let each = (0..4).map(|_| {
        let quay = Arc::clone(&quay);
        tokio::spawn(async move { quay.bridge_all().await })
    });
    for daemon in each.collect::<Vec<_>>() {
        daemon.await.unwrap();
    }
    let numbers = quay.numbers().await;
    assert_eq!(numbers.len(), 5_000);
    assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), 5_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_worker_that_is_still_there_never_gets_the_same_task() {
    let quay = Quay::new().await;
    let mut storage = quay.storage::<Letter>().await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let worker = WorkerBuilder::new("stock")
        .backend(quay.storage::<Letter>().await)
        .build(move |letter: Letter| {
            noted.lock().push(letter.n);
            async move { Ok::<(), std::io::Error>(()) }
        });
    let total = 2_000;
    storage.push_bulk(letters(0..total)).await.unwrap();
    let worker = tokio::spawn(worker.run());
    // It takes ten at a time.
    wait_until("the worker is at work", DEADLINE, || {
        std::future::ready(!seen.lock().is_empty())
    })
    .await;
    quay.bridge_all().await;
    wait_until("each is somewhere", DEADLINE, || async {
        quay.inbox().await.len() + seen.lock().len() >= total as usize
    })
    .await;
    worker.abort();
    let mut all = quay.numbers().await;
    all.extend(seen.lock().iter());
    all.sort_unstable();
    assert_eq!(all, (0..total).collect::<Vec<u64>>());
    assert!(!quay.inbox().await.is_empty(), "the bridge took some");
}

/// What the child works on, and after which step it dies.
const PREFIX: &str = "BRIDGE_CHILD_PREFIX";
const NAMESPACE: &str = "BRIDGE_CHILD_NAMESPACE";
const REDIS: &str = "BRIDGE_CHILD_REDIS";
const STEPS: &str = "BRIDGE_CHILD_STEPS";
/// Line up, push, take out.
const ALL_STEPS: u32 = 3;

#[tokio::test]
#[ignore = "the child of the tests below, which start it"]
async fn bridge_in_a_child() {
    let [prefix, namespace, redis, steps] =
        [PREFIX, NAMESPACE, REDIS, STEPS].map(|name| std::env::var(name).unwrap());
    let mut config = config::load(&Sources::default()).unwrap();
    config.redis.prefix = prefix;
    config.redis.url = Secret::new(redis);
    let conn = connection::connect(&config.redis).await.unwrap();
    let queue = Queue::new("default", conn, &config);
    let bridge = bridge(&queue, &namespace, From::Other(config.redis.clone()));
    let namespace = bridge.open().await.unwrap();
    let mut fuse = Fuse::new(steps.parse().unwrap());
    fuse.step();
    let taken = bridge.take(&namespace).await.unwrap();
    fuse.step();
    let sorted = bridge.sort(taken);
    push(&bridge.queue, &sorted.jobs).await.unwrap();
    fuse.step();
    namespace.done(&sorted.fates).await.unwrap();
    fuse.step();
}

fn die_after(quay: &Quay, steps: u32) {
    let status = child("intake::bridge::bridge_in_a_child")
        .env(PREFIX, &quay.rig.config.redis.prefix)
        .env(NAMESPACE, &quay.namespace)
        .env(REDIS, support::redis_url())
        .env(STEPS, steps.to_string())
        .status()
        .unwrap();
    assert_eq!(status.signal(), Some(9), "killed after step {steps}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_any_two_steps_it_loses_and_doubles_nothing() {
    for steps in 0..=ALL_STEPS {
        let quay = Quay::new().await;
        let mut storage = quay.storage::<Letter>().await;
        storage.push_bulk(letters(0..300)).await.unwrap();
        die_after(&quay, steps);
        quay.bridge_all().await;
        let mut numbers = quay.numbers().await;
        numbers.sort_unstable();
        assert_eq!(
            numbers,
            (0..300).collect::<Vec<u64>>(),
            "after step {steps}"
        );
        assert_eq!(
            quay.left().await,
            Vec::<String>::new(),
            "after step {steps}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_ended_before_the_next_daemon_came_do_not_run_again() {
    let quay = Quay::new().await;
    let mut storage = quay.storage::<Letter>().await;
    storage.push_bulk(letters(0..100)).await.unwrap();
    // Pushed, still in the line.
    die_after(&quay, 2);
    quay.rig.admit().await;
    let jobs = quay.rig.claim(200).await;
    assert_eq!(
        jobs.iter().map(number_of).collect::<BTreeSet<_>>().len(),
        100
    );
    for job in &jobs {
        quay.rig.done(job).await;
    }
    quay.bridge_all().await;
    assert!(quay.inbox().await.is_empty(), "each was known");
    assert_eq!(quay.left().await, Vec::<String>::new());
}
