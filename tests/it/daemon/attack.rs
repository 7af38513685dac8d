//! What others do to a daemon's storage and server: it goes on, and says what is true.

use super::process::{Process, Site, append_to};
use crate::support::{DEADLINE, wait_until};
use rustix::process::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tidegate::queue::Queue;
use tidegate::stack::{PrivateRedis, RedisOptions};

/// Less than any wait a daemon could be excused by.
const SOON: Duration = Duration::from_secs(6);

/// A site whose one kind appends to a file.
fn appending(settings: &str) -> (Site, PathBuf) {
    let site = Site::new(settings, &[]);
    let out = site.path("out");
    site.write_job("append.toml", &append_to(&out, ""));
    (site, out)
}

fn lines(out: &Path) -> Vec<String> {
    let text = fs::read_to_string(out).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

async fn run_one(site: &Site, out: &Path, id: &str, what: &str) {
    site.push(&[format!(r#"{{"kind":"app.append","id":"{id}"}}"#)])
        .await;
    let line = format!("{id} 1");
    wait_until(what, SOON, || {
        std::future::ready(lines(out).contains(&line))
    })
    .await;
}

async fn write(site: &Site, command: &str, key: &str, args: &[&[u8]]) {
    let key = format!("{}:{{default}}:{key}", site.config.redis.prefix);
    redis::cmd(command)
        .arg(key)
        .arg(args)
        .query_async::<()>(&mut site.redis().await)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_in_private_storage_does_not_stop_the_queue() {
    let (site, out) = appending("[gate]\nmode = \"off\"\n");
    let _daemon = site.start("a");
    run_one(&site, &out, "first", "a job before any garbage").await;
    let garbage: [(&str, &str, &[&[u8]]); 8] = [
        ("SET", "taken", &[b"abc"]),
        ("SET", "taken", &[b"99999999999999999999999"]),
        ("ZADD", "ready:normal", &[b"5", b"\xff\xfe"]),
        ("HSET", "tomb", &[b"job-3", b"bogus"]),
        ("HSET", "cancels", &[b"\xff", b"1"]),
        ("ZADD", "workers", &[b"5", b"\xff"]),
        ("HSET", "running", &[b"\xff", b"\xfe"]),
        ("ZADD", "delayed", &[b"inf", b"\xff"]),
    ];
    for (n, (command, key, args)) in garbage.into_iter().enumerate() {
        write(&site, command, key, args).await;
        run_one(
            &site,
            &out,
            &format!("job-{n}"),
            &format!("{command} {key}"),
        )
        .await;
    }
}

/// A daemon of an older release that does not know the kind, and one that does: what the first sets aside comes back, and
/// what is released is not passed to and fro without end.
#[tokio::test(flavor = "multi_thread")]
async fn one_look_releases_no_more_than_was_quarantined() {
    let (site, out) = appending("[retention]\nquarantine_max = 100000\n");
    let old = site.start("old");
    run_one(&site, &out, "first", "the old daemon works").await;
    let entries: Vec<String> = (0..400)
        .map(|n| format!(r#"{{"kind":"app.new","id":"new-{n}"}}"#))
        .collect();
    site.push(&entries).await;
    site.wait_for_stat("quarantined", 400, DEADLINE).await;
    let job = append_to(&out, "").replace("app.append", "app.new");
    site.write_job("new.toml", &job);
    let new = site.start("new");
    let queue = site.queue("default").await;
    let judged = || async {
        let counts = queue.counts().await.unwrap();
        counts.quarantine + counts.stats["completed"] == 401
    };
    let released = || {
        let events = new.events("released");
        events
            .iter()
            .map(|e| e["entries"].as_u64().unwrap())
            .sum::<u64>()
    };
    wait_until("all are released", DEADLINE, || {
        std::future::ready(released() >= 400)
    })
    .await;
    wait_until("every entry is judged again", DEADLINE, judged).await;
    old.signal(Signal::HUP);
    wait_until("all ran", DEADLINE, || {
        std::future::ready(lines(&out).len() == 401)
    })
    .await;
    assert_eq!(released(), 400, "each was released once");
}

/// Two daemons under load while their Redis stands still for three leases.
async fn frozen_redis(site: &Site, redis: &mut PrivateRedis) -> (Process, Process, Queue) {
    let (a, b) = (site.start("a"), site.start("b"));
    for daemon in [&a, &b] {
        daemon.wait_for_event("started").await;
    }
    let entries: Vec<String> = (0..60)
        .map(|n| format!(r#"{{"kind":"app.nap","id":"nap-{n}"}}"#))
        .collect();
    site.push(&entries).await;
    site.wait_for_stat("completed", 4, DEADLINE).await;
    redis.pause().unwrap();
    // The fault itself, not a wait for something: Redis is silent for this long.
    tokio::time::sleep(Duration::from_secs(3)).await;
    redis.resume().unwrap();
    let queue = site.queue("default").await;
    (a, b, queue)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_redis_kills_nobody_and_nobody_is_said_to_be_dead() {
    let dir = tempfile::tempdir().unwrap();
    let mut redis = PrivateRedis::start(RedisOptions::new(dir.path().join("redis"))).unwrap();
    let job = "kind = \"app.nap\"\nhandler = \"exec\"\n[exec]\ncommand = [\"/bin/sleep\", \"0.2\"]";
    let settings = "[daemon]\nlease = \"1s\"\nconcurrency = 4\n[gate]\nmode = \"off\"\n";
    let site = Site::on(&redis.url(), settings, &[job]);
    let (a, b, queue) = frozen_redis(&site, &mut redis).await;
    site.wait_for_stat("completed", 60, DEADLINE).await;
    for daemon in [&a, &b] {
        assert_eq!(daemon.events("redis_lost").len(), 1, "the fault was felt");
        for event in ["lease_lost", "recovered", "stale_settlement"] {
            assert!(daemon.events(event).is_empty(), "{event}");
        }
    }
    let counts = queue.counts().await.unwrap();
    assert_eq!((counts.running, counts.stats["completed"]), (0, 60));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_out_of_memory_is_drained_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let redis = PrivateRedis::start(RedisOptions::new(dir.path().join("redis"))).unwrap();
    let site = Site::on(&redis.url(), "[gate]\nmode = \"off\"\n", &[]);
    let out = site.path("out");
    site.write_job("append.toml", &append_to(&out, ""));
    let entries: Vec<String> = (0..100)
        .map(|n| format!(r#"{{"kind":"app.append","id":"job-{n}"}}"#))
        .collect();
    site.push(&entries).await;
    redis::cmd("CONFIG")
        .arg(&["SET", "maxmemory", "1"])
        .query_async::<()>(&mut site.redis().await)
        .await
        .unwrap();
    let refused = redis::cmd("SET")
        .arg(&["x", "y"])
        .query_async::<()>(&mut site.redis().await)
        .await;
    assert!(refused.is_err(), "the fault is there");
    let _daemon = site.start("a");
    wait_until("all ran", SOON, || {
        std::future::ready(lines(&out).len() == 100)
    })
    .await;
    site.wait_for_stat("completed", 100, SOON).await;
}
