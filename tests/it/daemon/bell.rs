//! What reaches a daemon by the bell, while its own looks are far apart.

use super::process::{Process, Site};
use crate::cli::json_at;
use crate::support::{DEADLINE, is_running, wait_until};
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
    let answer = queue.cancel(&record, true, None, "ann").await.unwrap();
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

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_family_that_ignores_sigterm_is_dead_before_its_job_is_over() {
    let site = Site::new("[daemon]\npoll = \"10s\"\n", &[]);
    let pids = site.path("pids");
    let own = r#"trap "" TERM; echo $$ >> "$1"; while :; do sleep 1000; done"#;
    site.write_job(
        "a.toml",
        &format!(
            "kind = \"app.nap\"\nhandler = \"exec\"\n[exec]\ncommand = [\"/bin/sh\", \"-c\", '''sh -c '{own}' sh \"$1\" & {own}''', \"sh\", '{}']\n",
            pids.display()
        ),
    );
    let (queue, daemons) = two_that_listen(&site).await;
    site.push(&[r#"{"kind":"app.nap","id":"deaf"}"#.to_owned()])
        .await;
    running(&queue, 1).await;
    let family = || std::fs::read_to_string(&pids).unwrap_or_default();
    wait_until("both live", DEADLINE, || {
        std::future::ready(family().lines().count() == 2)
    })
    .await;
    let ended = json_at(&site, &["job", "cancel", "deaf", "--wait"]).ok();
    assert_eq!(ended["state"], "cancelled");
    for pid in family().lines() {
        wait_until("it is gone", DEADLINE, || {
            std::future::ready(!is_running(pid.parse().unwrap()))
        })
        .await;
    }
    let late = json_at(&site, &["job", "cancel", "deaf", "--wait"]);
    assert_eq!(
        (late.code, &late.json()["error"]),
        (1, &"not_cancellable".into())
    );
    drop(daemons);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_an_end_that_does_not_come_is_told_so() {
    let site = Site::new("[daemon]\npoll = \"10s\"\n", &[NAP]);
    let daemon = site.start("a");
    let queue = site.queue("default").await;
    site.push(&[r#"{"kind":"app.nap","id":"nap"}"#.to_owned()])
        .await;
    running(&queue, 1).await;
    // Who runs it can't hear of it.
    daemon.signal(rustix::process::Signal::STOP);
    let args = ["job", "cancel", "nap", "--wait", "--wait-timeout", "200ms"];
    let waited = json_at(&site, &args);
    assert_eq!(
        (waited.code, &waited.json()["error"]),
        (1, &"timeout".into())
    );
    daemon.signal(rustix::process::Signal::CONT);
    site.wait_for_stat("cancelled", 1, DEADLINE).await;
}
