//! Schedules, by real daemons: every tick once, whoever lives, and what becomes of missed ones.

use super::process::{Process, Site, append_to};
use crate::support::{DEADLINE, wait_until};
use redis::AsyncCommands;
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::time::Duration;
use tidegate::queue::Queue;

const HOUR_MS: u64 = 3_600_000;

/// The ticks whose jobs ran, by the ids in the file that they append to.
fn ticks(site: &Site, schedule: &str) -> BTreeSet<u64> {
    let text = std::fs::read_to_string(site.path("out")).unwrap_or_default();
    let prefix = format!("cron-{schedule}-");
    let id = |line: &str| line.split(' ').next()?.strip_prefix(&prefix)?.parse().ok();
    text.lines().filter_map(id).collect()
}

/// A definition of this kind with a schedule; its jobs say that they ran.
fn definition(site: &Site, kind: &str, schedule: &str) -> String {
    append_to(&site.path("out"), "")
        .replace("app.append", kind)
        .replace("[args]", &format!("[schedule]\n{schedule}\n[args]"))
}

async fn redis_ms(queue: &Queue) -> u64 {
    queue.glance_at_schedules().await.unwrap().now_ms
}

/// Waits until so many ticks more than `before` have run.
async fn wait_for_ticks(site: &Site, schedule: &str, before: usize, more: usize) {
    wait_until(
        &format!("{more} more ticks of {schedule}"),
        DEADLINE,
        || async { ticks(site, schedule).len() >= before + more },
    )
    .await;
}

/// Waits until the last tick of a schedule is on record.
async fn wait_for_record(queue: &Queue, schedule: &str) {
    wait_until("its first sight is on record", DEADLINE, || async {
        queue
            .stored_schedules()
            .await
            .unwrap()
            .records
            .contains_key(schedule)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_killed_one_after_another_leave_one_job_per_tick() {
    let site = Site::new("[daemon]\nlease = \"1s\"\n", &[]);
    site.write_job(
        "0.toml",
        &definition(
            &site,
            "app.tick",
            "cron = \"* * * * * *\"\nmisfire = \"all\"",
        ),
    );
    let queue = site.queue("default").await;
    let mut daemons: Vec<Process> = ["a", "b"].map(|name| site.start(name)).into();
    wait_for_ticks(&site, "app-tick", 0, 2).await;
    // One after the other is killed, each followed by another, and at last there is a moment without any.
    for name in ["c", "d", "e"] {
        let before = ticks(&site, "app-tick").len();
        daemons.remove(0).kill9();
        daemons.push(site.start(name));
        wait_for_ticks(&site, "app-tick", before, 2).await;
    }
    daemons.into_iter().for_each(Process::kill9);
    let before = ticks(&site, "app-tick").len();
    let last = site.start("last");
    wait_for_ticks(&site, "app-tick", before, 3).await;
    drop(last);

    let counts = queue.counts().await.unwrap();
    let jobs = counts.stats["ticks"];
    let record = queue.stored_schedules().await.unwrap().records["app.tick"].clone();
    let latest = last_of(&record);
    let ran = ticks(&site, "app-tick");
    let first = *ran.first().unwrap();
    assert_eq!(
        jobs,
        (latest - first) / 1_000 + 1,
        "one job per second from the first to the last"
    );
    assert_eq!(
        counts.stats.get("duplicates"),
        None,
        "no tick was asked for twice"
    );
    // Those that were not killed in the middle of it have run; each of the others waits to be handed back.
    let waiting = counts.inbox + counts.running + counts.lanes.iter().sum::<u64>();
    assert!(
        ran.len() as u64 + waiting >= jobs,
        "{} ran, {waiting} wait, of {jobs}",
        ran.len()
    );
}

/// An hourly expression whose last tick was about half an hour ago.
fn half_an_hour_ago(now_ms: u64) -> (String, u64) {
    let minute = (now_ms / 60_000 + 30) % 60;
    let hours = (now_ms / 60_000 - minute) / 60;
    (
        format!("{minute} * * * *"),
        hours * HOUR_MS + minute * 60_000,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_downtime_each_misfire_policy_makes_up_in_its_way() {
    let site = Site::new("", &[]);
    let queue = site.queue("default").await;
    let (cron, last_tick) = half_an_hour_ago(redis_ms(&queue).await);
    for (n, (kind, policy)) in [
        ("app.skip", "misfire = \"skip\""),
        ("app.once", "misfire = \"once\""),
        ("app.all", "misfire = \"all\"\ncatch_up = 3"),
    ]
    .into_iter()
    .enumerate()
    {
        let schedule = format!("cron = \"{cron}\"\n{policy}");
        site.write_job(&format!("{n}.toml"), &definition(&site, kind, &schedule));
    }
    let daemon = site.start("a");
    for kind in ["app.skip", "app.once", "app.all"] {
        wait_for_record(&queue, kind).await;
    }
    let counts = queue.counts().await.unwrap();
    assert_eq!(
        counts.stats.get("ticks"),
        None,
        "what is seen for the first time has missed nothing"
    );
    daemon.kill9();

    // Instead of ten hours without a daemon.
    let mut redis = site.redis().await;
    for kind in ["app.skip", "app.once", "app.all"] {
        let record = format!("{} UTC {cron}", last_tick - 9 * HOUR_MS - 1);
        redis
            .hset::<_, _, _, ()>(&queue.keys().ticks, kind, record)
            .await
            .unwrap();
    }
    let daemon = site.start("b");
    site.wait_for_stat("completed", 4, DEADLINE).await;
    let back = |hours: u64| last_tick - hours * HOUR_MS;
    assert_eq!(ticks(&site, "app-once"), BTreeSet::from([back(0)]));
    assert_eq!(
        ticks(&site, "app-all"),
        BTreeSet::from([back(2), back(1), back(0)])
    );
    assert_eq!(ticks(&site, "app-skip"), BTreeSet::new());
    let told = daemon.events("schedule_missed");
    let of = |kind: &str| told.iter().find(|e| e["schedule"] == kind).unwrap();
    for (kind, served, passed_over) in [("app.skip", 0, 10), ("app.once", 1, 9), ("app.all", 3, 7)]
    {
        let event = of(kind);
        assert_eq!(
            (&event["served"], &event["passed_over"]),
            (&served.into(), &passed_over.into())
        );
        assert_eq!(event["alert"], "schedule_missed");
    }
    drop(daemon);
    let beat = definition(&site, "app.beat", "cron = \"* * * * * *\"");
    site.write_job("3.toml", &beat);
    let _again = site.start("c");
    wait_for_ticks(&site, "app-beat", 0, 2).await;
    let made_up = ticks(&site, "app-once").len() + ticks(&site, "app-all").len();
    assert_eq!(made_up, 4, "nothing is made up for twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_takes_over_changed_and_removed_schedules() {
    let site = Site::new("", &[]);
    let every_second = "cron = \"* * * * * *\"";
    site.write_job("0.toml", &definition(&site, "app.one", every_second));
    site.write_job(
        "1.toml",
        &definition(&site, "app.two", "cron = \"@yearly\"\nmisfire = \"all\""),
    );
    let queue = site.queue("default").await;
    let daemon = site.start("a");
    wait_for_ticks(&site, "app-one", 0, 1).await;
    wait_for_record(&queue, "app.two").await;

    // The one loses its schedule, the other gets a new expression.
    site.write_job(
        "0.toml",
        &append_to(&site.path("out"), "").replace("app.append", "app.one"),
    );
    site.write_job("1.toml", &definition(&site, "app.two", every_second));
    daemon.signal(Signal::HUP);
    daemon.wait_for_event("reloaded").await;
    let changed_at = redis_ms(&queue).await;
    wait_for_ticks(&site, "app-two", 0, 1).await;
    let ran = ticks(&site, "app-one").len();
    let before = ticks(&site, "app-two").len();
    wait_for_ticks(&site, "app-two", before, 2).await;
    assert_eq!(
        ticks(&site, "app-one").len(),
        ran,
        "a schedule that is gone does not fire"
    );
    let first = *ticks(&site, "app-two").first().unwrap();
    assert!(
        first + 2_000 > changed_at,
        "a new expression has no past: {first}, {changed_at}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_is_added_paused_resumed_and_removed_while_daemons_run() {
    let site = Site::new("[daemon]\npoll = \"100ms\"\n", &[]);
    site.write_job("0.toml", &append_to(&site.path("out"), ""));
    let queue = site.queue("default").await;
    let _daemons = ["a", "b"].map(|name| site.start(name));
    let run = |args: &[&str]| crate::cli::json_at(&site, args).ok();
    run(&[
        "cron",
        "add",
        "often",
        "--cron",
        "* * * * * *",
        "--kind",
        "app.append",
        "--misfire",
        "all",
    ]);
    wait_for_ticks(&site, "often", 0, 2).await;

    run(&["cron", "pause", "often"]);
    let paused = redis_ms(&queue).await;
    wait_until("two ticks have passed", DEADLINE, || async {
        redis_ms(&queue).await > paused + 2_500
    })
    .await;
    run(&["cron", "resume", "often"]);
    let resumed = redis_ms(&queue).await;
    let before = ticks(&site, "often").len();
    wait_for_ticks(&site, "often", before, 2).await;
    let while_paused = |tick: &&u64| **tick > paused && **tick + 1_000 < resumed;
    let ran = ticks(&site, "often");
    assert_eq!(
        ran.iter().filter(while_paused).count(),
        0,
        "{ran:?}, {paused} to {resumed}"
    );

    run(&["cron", "remove", "often"]);
    let removed = redis_ms(&queue).await;
    run(&[
        "cron",
        "add",
        "other",
        "--cron",
        "* * * * * *",
        "--kind",
        "app.append",
    ]);
    wait_for_ticks(&site, "other", 0, 2).await;
    assert!(*ticks(&site, "often").last().unwrap() <= removed);
    let stored = queue.stored_schedules().await.unwrap();
    assert!(!stored.records.contains_key("often"), "{stored:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn how_late_a_tick_was_is_measured() {
    let settings = "[admin]\nlisten = \"127.0.0.1:0\"\n";
    let site = Site::new(settings, &[]);
    site.write_job(
        "0.toml",
        &definition(&site, "app.tick", "cron = \"* * * * * *\""),
    );
    let config = site.config.clone();
    let catalog = crate::cli::catalog_of(&site);
    let daemon = tidegate::daemon::Daemon::start(config, catalog, tidegate::handlers::BUILT_IN)
        .await
        .unwrap();
    let lag = || {
        let text = daemon.metrics().encode().unwrap();
        let line = text
            .lines()
            .find(|l| l.starts_with("tidegate_schedule_lag_seconds"))
            .unwrap();
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    wait_until("a tick was served", DEADLINE, || {
        std::future::ready(lag() > 0.0)
    })
    .await;
    assert!(lag() < 10.0, "{}", lag());
    daemon
        .stop(Duration::ZERO, tokio_util::sync::CancellationToken::new())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_catch_up_goes_in_steps_and_is_told_of_once() {
    let site = Site::new("", &[]);
    let queue = site.queue("default").await;
    let schedule = "cron = \"* * * * *\"\nmisfire = \"all\"\ncatch_up = 600";
    let quick = definition(&site, "app.tick", schedule);
    let command = quick.find("command = ").unwrap();
    let quick = format!("{}command = [\"/bin/true\"]", &quick[..command]);
    site.write_job("0.toml", &quick);
    let minute = redis_ms(&queue).await / 60_000;
    let record = format!("{} UTC * * * * *", (minute - 1_500) * 60_000);
    let mut redis = site.redis().await;
    redis
        .hset::<_, _, _, ()>(&queue.keys().ticks, "app.tick", record)
        .await
        .unwrap();
    let daemon = site.start("a");
    site.wait_for_stat("ticks", 600, DEADLINE).await;
    let counts = queue.counts().await.unwrap();
    // A minute may have begun meanwhile.
    assert!(counts.stats["ticks"] <= 602, "{counts:?}");
    assert!(
        (899..=902).contains(&counts.stats["ticks_passed_over"]),
        "{counts:?}"
    );
    let told = daemon.events("schedule_missed");
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["served"], 600);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_of_redis_that_was_once_ahead_silences_no_schedule() {
    let site = Site::new("", &[]);
    let schedule = "cron = \"* * * * * *\"\nmisfire = \"all\"";
    site.write_job("0.toml", &definition(&site, "app.tick", schedule));
    let queue = site.queue("default").await;
    let mut redis = site.redis().await;
    let ahead = redis_ms(&queue).await / 1_000 * 1_000 + 365 * 24 * HOUR_MS;
    let record = format!("{ahead} UTC * * * * * *");
    let ticks_key = &queue.keys().ticks;
    let set = redis.hset::<_, _, _, ()>(ticks_key, "app.tick", &record);
    set.await.unwrap();
    let _daemon = site.start("a");
    wait_for_ticks(&site, "app-tick", 0, 2).await;
    // The same while it runs, as it is after a failover to a server whose clock is right.
    let set = redis.hset::<_, _, _, ()>(ticks_key, "app.tick", &record);
    set.await.unwrap();
    let before = ticks(&site, "app-tick").len();
    wait_for_ticks(&site, "app-tick", before, 2).await;
    let counts = queue.counts().await.unwrap();
    assert_eq!(counts.stats.get("duplicates"), None, "{counts:?}");
    let record = queue.stored_schedules().await.unwrap().records["app.tick"].clone();
    assert!(last_of(&record) < ahead, "{record}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_somebody_overwrote_are_set_aside_and_schedules_go_on() {
    let site = Site::new("", &[]);
    site.write_job(
        "0.toml",
        &definition(&site, "app.tick", "cron = \"* * * * * *\""),
    );
    let queue = site.queue("default").await;
    let daemon = site.start("a");
    wait_for_ticks(&site, "app-tick", 0, 1).await;
    let keys = queue.keys();
    let mut redis = site.redis().await;
    for key in [
        &keys.ticks,
        &keys.schedules,
        &keys.schedules_paused,
        &keys.schedules_rev,
    ] {
        let overwrite = redis::pipe()
            .atomic()
            .del(key)
            .ignore()
            .zadd(key, "garbage", 1)
            .ignore()
            .query_async::<()>(&mut redis)
            .await;
        overwrite.unwrap();
        let before = ticks(&site, "app-tick").len();
        wait_for_ticks(&site, "app-tick", before, 2).await;
    }
    daemon.wait_for_event("audit_repair").await;
    let stored = queue.stored_schedules().await.unwrap();
    assert!(last_of(&stored.records["app.tick"]) > 0, "{stored:?}");
}

fn last_of(record: &str) -> u64 {
    record.split(' ').next().unwrap().parse().unwrap()
}
