//! What reaches a daemon by the bell, while its own looks are far apart.

use super::process::{Process, Site};
use crate::support::{DEADLINE, wait_until};
use std::time::{Duration, Instant};
use tidegate::job::Priority;
use tidegate::queue::Queue;
use tidegate::queue::operate::Cancelled;
use tidegate::queue::settle::Record;
use tidegate::stack::{PrivateRedis, RedisOptions};

const NAP: &str =
    "kind = \"app.nap\"\nhandler = \"exec\"\n[exec]\ncommand = [\"/bin/sleep\", \"60\"]";

async fn running(queue: &Queue, jobs: u64) {
    wait_until("they run", DEADLINE, || async {
        queue.counts().await.unwrap().running == jobs
    })
    .await;
}

async fn cancel(queue: &Queue, id: &str) {
    let record = Record {
        id,
        kind: "app.nap",
        priority: Priority::Normal,
        state: "cancelled",
        attempts: 0,
        at_ms: 1,
        duration_ms: 0,
    };
    let answer = queue.cancel(&record, true).await.unwrap();
    assert_eq!(answer, Cancelled::Asked);
}

async fn listeners(site: &Site, queue: &Queue) -> u64 {
    let (_, listening): (String, u64) = redis::cmd("PUBSUB")
        .arg("NUMSUB")
        .arg(&queue.keys().bell)
        .query_async(&mut site.redis().await)
        .await
        .unwrap();
    listening
}

/// Two daemons that look every ten seconds, and hear the bell.
async fn two_that_listen(site: &Site) -> (Queue, [Process; 2]) {
    let daemons = [site.start("a"), site.start("b")];
    let queue = site.queue("default").await;
    wait_until("both listen", DEADLINE, || async {
        listeners(site, &queue).await == 2
    })
    .await;
    (queue, daemons)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_reaches_a_running_job_on_any_daemon_within_a_second() {
    let site = Site::new("[daemon]\npoll = \"10s\"\n", &[NAP]);
    let (queue, daemons) = two_that_listen(&site).await;
    let jobs: Vec<String> = (0..8)
        .map(|n| format!(r#"{{"kind":"app.nap","id":"nap-{n}"}}"#))
        .collect();
    site.push(&jobs).await;
    running(&queue, 8).await;
    let asked = Instant::now();
    for n in 0..8 {
        cancel(&queue, &format!("nap-{n}")).await;
    }
    site.wait_for_stat("cancelled", 8, DEADLINE).await;
    assert!(
        asked.elapsed() < Duration::from_secs(1),
        "{:?}",
        asked.elapsed()
    );
    drop(daemons);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_loses_the_connection_listens_again() {
    let dir = tempfile::tempdir().unwrap();
    let redis = PrivateRedis::start(RedisOptions::new(dir.path().join("redis"))).unwrap();
    let site = Site::on(&redis.url(), "[daemon]\npoll = \"10s\"\n", &[NAP]);
    let (queue, daemons) = two_that_listen(&site).await;
    site.push(&[r#"{"kind":"app.nap","id":"nap"}"#.to_owned()])
        .await;
    running(&queue, 1).await;
    let killed: u64 = redis::cmd("CLIENT")
        .arg(&["KILL", "TYPE", "pubsub"])
        .query_async(&mut site.redis().await)
        .await
        .unwrap();
    assert_eq!(killed, 2, "one connection for each daemon");
    wait_until("both listen again", DEADLINE, || async {
        listeners(&site, &queue).await == 2
    })
    .await;
    let asked = Instant::now();
    cancel(&queue, "nap").await;
    site.wait_for_stat("cancelled", 1, DEADLINE).await;
    assert!(asked.elapsed() < Duration::from_secs(1));
    drop(daemons);
}
