//! From start to stop.

use super::process::{Process, Site, append_to};
use crate::support::{DEADLINE, wait_until};
use rustix::process::Signal;
use std::fs;
use std::time::Duration;
use tidegate::queue::Queue;

/// A daemon that runs one job which sleeps for so many seconds.
async fn napping(settings: &str, seconds: u32) -> (Site, Process, Queue) {
    let job = format!(
        "kind = \"app.nap\"\nhandler = \"exec\"\n[exec]\ncommand = [\"/bin/sleep\", \"{seconds}\"]"
    );
    let site = Site::new(settings, &[&job]);
    let daemon = site.start("a");
    site.push(&[r#"{"kind":"app.nap","id":"nap"}"#.to_owned()])
        .await;
    let queue = site.queue("default").await;
    wait_until("it runs", DEADLINE, || async {
        queue.counts().await.unwrap().running == 1
    })
    .await;
    (site, daemon, queue)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_pushed_by_a_plain_rpush_is_run() {
    let out = tempfile::NamedTempFile::new().unwrap();
    let site = Site::new("", &[&append_to(out.path(), "")]);
    let daemon = site.start("a");
    site.push(&[r#"{"kind":"app.append","id":"job-1","args":{"n":1}}"#.to_owned()])
        .await;
    site.wait_for_stat("completed", 1, DEADLINE).await;
    assert_eq!(fs::read_to_string(out.path()).unwrap(), "job-1 1\n");
    let found = site.queue("default").await.find("job-1").await.unwrap();
    assert_eq!(found.unwrap().state, "done");
    daemon.wait_for_event("job_done").await;
    let done = &daemon.events("job_done")[0];
    assert_eq!(done["job_id"], "job-1");
    assert_eq!(done["outcome"], "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_drains_and_exits_0_leaving_no_lease() {
    let (_site, mut daemon, queue) = napping("", 1).await;
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().await.success());
    let counts = queue.counts().await.unwrap();
    assert_eq!((counts.running, counts.stats["completed"]), (0, 1));
    let beat = queue.heartbeat("test", true).await.unwrap();
    assert_eq!(beat.workers.len(), 1, "only the test itself is registered");
}

#[tokio::test(flavor = "multi_thread")]
async fn past_the_drain_deadline_jobs_are_handed_back_without_burning_an_attempt() {
    let (_site, mut daemon, queue) = napping("[daemon]\ndrain_timeout = \"100ms\"\n", 60).await;
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().await.success());
    let found = queue.find("nap").await.unwrap().unwrap();
    assert_eq!(
        (found.state.as_str(), found.history.attempts),
        ("pending", 0)
    );
    assert_eq!(found.history.crashes, 0);
    assert_eq!(daemon.events("job_handed_back").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_hands_back_now() {
    let (_site, mut daemon, queue) = napping("[daemon]\ndrain_timeout = \"60s\"\n", 60).await;
    daemon.signal(Signal::TERM);
    daemon.wait_for_event("stopping").await;
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().await.success());
    assert_eq!(queue.find("nap").await.unwrap().unwrap().state, "pending");
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_retried_by_policy_and_end_in_the_dead_set() {
    let job = "kind = \"app.fail\"\nhandler = \"exec\"\n[retry]\nmax_attempts = 3\nstrategy = \"fixed\"\nbase = \"50ms\"\njitter = \"none\"\n[exec]\ncommand = [\"/bin/sh\", \"-c\", \"echo no luck >&2; exit 1\"]";
    let site = Site::new("", &[job]);
    let daemon = site.start("a");
    site.push(&[r#"{"kind":"app.fail","id":"f"}"#.to_owned()])
        .await;
    site.wait_for_stat("dead", 1, DEADLINE).await;
    let found = site
        .queue("default")
        .await
        .find("f")
        .await
        .unwrap()
        .unwrap();
    assert_eq!((found.state.as_str(), found.history.attempts), ("dead", 3));
    assert_eq!(found.history.errors.len(), 3);
    assert!(found.history.errors[2].error.contains("no luck"));
    daemon.wait_for_event("job_dead").await;
    assert_eq!(daemon.events("job_failed").len(), 2);
    assert_eq!(daemon.events("job_dead")[0]["alert"], "job_dead");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snooze_burns_no_attempt_and_a_fatal_exit_ends_it() {
    let out = tempfile::NamedTempFile::new().unwrap();
    let script = format!(
        "echo x >> {0}; n=$(wc -l < {0}); [ $n -lt 3 ] && exit 75; exit 9",
        out.path().display()
    );
    let job = format!(
        "kind = \"app.snooze\"\nhandler = \"exec\"\n[exec]\nsnooze = \"20ms\"\nfatal_exit = [9]\ncommand = [\"/bin/sh\", \"-c\", '''{script}''']"
    );
    let site = Site::new("", &[&job]);
    let _daemon = site.start("a");
    site.push(&[r#"{"kind":"app.snooze","id":"s"}"#.to_owned()])
        .await;
    site.wait_for_stat("dead", 1, DEADLINE).await;
    let found = site
        .queue("default")
        .await
        .find("s")
        .await
        .unwrap()
        .unwrap();
    assert_eq!((found.history.attempts, found.history.snoozes), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_is_a_failed_attempt_and_kills_the_child() {
    let job = "kind = \"app.hang\"\nhandler = \"exec\"\ntimeout = \"200ms\"\n[retry]\nmax_attempts = 1\n[exec]\ncommand = [\"/bin/sleep\", \"61\"]";
    let site = Site::new("", &[job]);
    let _daemon = site.start("a");
    site.push(&[r#"{"kind":"app.hang","id":"h"}"#.to_owned()])
        .await;
    site.wait_for_stat("dead", 1, DEADLINE).await;
    let found = site
        .queue("default")
        .await
        .find("h")
        .await
        .unwrap()
        .unwrap();
    assert!(
        found.history.errors[0].error.contains("timed out"),
        "{found:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_a_kind_and_of_the_daemon_hold() {
    let out = tempfile::NamedTempFile::new().unwrap();
    // Each run notes how many run at that moment, itself included.
    let script = format!(
        "d=$(mktemp -d {0}.XXXXXX); ls -d {0}.* | wc -l >> {0}; sleep 0.05; rmdir $d",
        out.path().display()
    );
    let job = format!(
        "kind = \"app.few\"\nhandler = \"exec\"\n[concurrency]\nlimit = 3\n[exec]\ncommand = [\"/bin/sh\", \"-c\", '''{script}''']"
    );
    let site = Site::new("[daemon]\nconcurrency = 20\n", &[&job]);
    let _daemon = site.start("a");
    let jobs: Vec<String> = (0..30)
        .map(|_| r#"{"kind":"app.few"}"#.to_owned())
        .collect();
    site.push(&jobs).await;
    site.wait_for_stat("completed", 30, DEADLINE).await;
    let noted = fs::read_to_string(out.path()).unwrap();
    let most = noted
        .lines()
        .map(|n| n.trim().parse::<u32>().unwrap())
        .max();
    assert_eq!(most, Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_reload_keeps_the_old_definitions_and_a_good_one_releases_the_quarantine() {
    let out = tempfile::NamedTempFile::new().unwrap();
    let site = Site::new("", &[&append_to(out.path(), "")]);
    let daemon = site.start("a");
    daemon.wait_for_event("started").await;
    // An absolute time must not keep it from coming back.
    let now = tidegate::clock::unix_ms();
    site.push(&[format!(r#"{{"kind":"app.new","id":"n","run_at":{now}}}"#)])
        .await;
    site.wait_for_stat("quarantined", 1, DEADLINE).await;
    site.write_job("new.toml", "kind = \"app.new\"\nhandler = \"nonsense\"");
    daemon.signal(Signal::HUP);
    daemon.wait_for_event("reload_failed").await;
    site.push(&[r#"{"kind":"app.append","id":"old"}"#.to_owned()])
        .await;
    site.wait_for_stat("completed", 1, DEADLINE).await;
    site.write_job(
        "new.toml",
        "kind = \"app.new\"\nhandler = \"exec\"\n[exec]\ncommand = [\"/bin/true\"]",
    );
    daemon.signal(Signal::HUP);
    daemon.wait_for_event("reloaded").await;
    site.wait_for_stat("completed", 2, DEADLINE).await;
    let found = site
        .queue("default")
        .await
        .find("n")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found.state, "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_due_job_starts_within_50_ms() {
    let site = Site::new(
        "level = \"debug\"\n",
        &["kind = \"app.true\"\nhandler = \"exec\"\n[exec]\ncommand = [\"/bin/true\"]"],
    );
    let daemon = site.start("a");
    daemon.wait_for_event("started").await;
    let now = tidegate::clock::unix_ms();
    let due = |n: u64| now + 300 + n * 53;
    let jobs: Vec<String> = (0..20)
        .map(|n| format!(r#"{{"kind":"app.true","id":"{0}","run_at":{0}}}"#, due(n)))
        .collect();
    site.push(&jobs).await;
    site.wait_for_stat("completed", 20, DEADLINE).await;
    for event in daemon.events("job_started") {
        let due: i64 = event["job_id"].as_str().unwrap().parse().unwrap();
        let started = event["timestamp"].as_str().unwrap();
        let started = chrono::DateTime::parse_from_rfc3339(started).unwrap();
        let late = started.timestamp_millis() - due;
        assert!((0..50).contains(&late), "{late} ms late");
    }
    assert_eq!(daemon.events("job_started").len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_survives_a_restart_of_redis() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = tidegate::stack::RedisOptions::new(dir.path().join("redis"));
    options.append_only = true;
    let mut redis = tidegate::stack::PrivateRedis::start(options).unwrap();
    let out = tempfile::NamedTempFile::new().unwrap();
    let site = Site::on(&redis.url(), "", &[&append_to(out.path(), "")]);
    let daemon = site.start("a");
    site.push(&[r#"{"kind":"app.append","id":"before"}"#.to_owned()])
        .await;
    site.wait_for_stat("completed", 1, DEADLINE).await;
    redis.kill9().unwrap();
    daemon.wait_for_event("redis_lost").await;
    redis.restart().unwrap();
    site.push(&[r#"{"kind":"app.append","id":"after"}"#.to_owned()])
        .await;
    site.wait_for_stat("completed", 2, Duration::from_secs(20))
        .await;
    daemon.wait_for_event("redis_back").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_the_wrong_type_is_set_aside_and_the_queue_goes_on() {
    let out = tempfile::NamedTempFile::new().unwrap();
    let site = Site::new("", &[&append_to(out.path(), "")]);
    let daemon = site.start("a");
    daemon.wait_for_event("started").await;
    let queue = site.queue("default").await;
    let mut redis = site.redis().await;
    for key in [
        &queue.keys().inbox,
        &queue.keys().jobs,
        &queue.keys().running,
    ] {
        redis::cmd("SET")
            .arg(key)
            .arg("graffiti")
            .query_async::<()>(&mut redis)
            .await
            .unwrap();
    }
    wait_until("they are set aside", DEADLINE, || async {
        queue
            .quarantined("", 10)
            .await
            .is_ok_and(|entries| entries.len() == 3)
    })
    .await;
    site.push(&[r#"{"kind":"app.append","id":"after"}"#.to_owned()])
        .await;
    site.wait_for_stat("completed", 1, DEADLINE).await;
    assert!(!daemon.events("audit_repair").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_a_job_is_quarantined_logged_once_and_escaped() {
    let out = tempfile::NamedTempFile::new().unwrap();
    let site = Site::new("", &[&append_to(out.path(), "")]);
    let daemon = site.start("a");
    let fake_line = "{\"kind\":\"x\\n{\\\"event\\\":\\\"job_done\\\"}\"}";
    let hostile = [
        "{",
        "[]",
        r#"{"kind":"app.append","args":{"n":"one"}}"#,
        r#"{"kind":"no.such"}"#,
        fake_line,
    ];
    site.push(&hostile.map(str::to_owned)).await;
    site.push(&[r#"{"kind":"app.append","id":"good"}"#.to_owned()])
        .await;
    site.wait_for_stat("completed", 1, DEADLINE).await;
    site.wait_for_stat("quarantined", 5, DEADLINE).await;
    wait_until("each is logged", DEADLINE, || {
        std::future::ready(daemon.events("job_quarantined").len() == 5)
    })
    .await;
    assert_eq!(daemon.events("job_done").len(), 1, "only the real one");
    let reasons: Vec<String> = daemon
        .events("job_quarantined")
        .iter()
        .map(|e| e["reason"].as_str().unwrap().to_owned())
        .collect();
    assert!(
        reasons[2].contains("args.n") && reasons[3].contains("no.such"),
        "{reasons:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_daemon_admits_but_claims_nothing_until_it_is_woken() {
    let out = tempfile::NamedTempFile::new().unwrap();
    let site = Site::new("", &[&append_to(out.path(), "")]);
    let daemon = site.start("a");
    daemon.wait_for_event("started").await;
    daemon.signal(Signal::TSTP);
    daemon.wait_for_event("quiet").await;
    site.push(&[r#"{"kind":"app.append","id":"later"}"#.to_owned()])
        .await;
    site.wait_for_stat("admitted", 1, DEADLINE).await;
    let queue = site.queue("default").await;
    assert_eq!(queue.find("later").await.unwrap().unwrap().state, "pending");
    daemon.signal(Signal::TSTP);
    site.wait_for_stat("completed", 1, DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_job_does_not_wait_for_a_poll_whatever_the_server_forgot() {
    // A Redis of its own: no other test has taught it the scripts.
    let dir = tempfile::tempdir().unwrap();
    let options = tidegate::stack::RedisOptions::new(dir.path().join("redis"));
    let redis = tidegate::stack::PrivateRedis::start(options).unwrap();
    let out = tempfile::NamedTempFile::new().unwrap();
    let site = Site::on(
        &redis.url(),
        "[daemon]\npoll = \"10s\"\n",
        &[&append_to(out.path(), "")],
    );
    let daemon = site.start("a");
    daemon.wait_for_event("started").await;
    for n in 1..=3 {
        redis::cmd("SCRIPT")
            .arg("FLUSH")
            .query_async::<()>(&mut site.redis().await)
            .await
            .unwrap();
        site.push(&[format!(r#"{{"kind":"app.append","id":"j{n}"}}"#)])
            .await;
        site.wait_for_stat("completed", n, Duration::from_secs(5))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_a_daemon_that_waits_for_its_redis() {
    let dir = tempfile::tempdir().unwrap();
    let options = tidegate::stack::RedisOptions::new(dir.path().join("redis"));
    let mut redis = tidegate::stack::PrivateRedis::start(options).unwrap();
    let site = Site::on(&redis.url(), "", &[]);
    // Long enough that the test can tell the signal from the timeout.
    std::fs::write(
        site.path("tidegate.toml"),
        format!(
            "[redis]\nurl = \"{}\"\nconnect_timeout = \"60s\"\n[log]\nformat = \"json\"\nlevel = \"debug\"\n",
            redis.url()
        ),
    )
    .unwrap();
    redis.pause().unwrap();
    let mut daemon = site.start("a");
    daemon.wait_for_event("starting").await;
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().await.success());
    redis.resume().unwrap();
}
