//! The forecast in daemons: what it records, and what it does before a peak that four weeks of history know.

use super::process::{Process, Site};
use crate::support::{DEADLINE, fresh_database, wait_until};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use tidegate::job::Priority;
use tidegate::policy::forecast::{ClassLoad, DAY, SLOT_MS, SlotLoad, slot_at};
use tidegate::queue::load_history::{BATCH_SLOTS, LoadHistory};
use tidegate::queue::{connection, pages};

/// This machine may be busy with other tests: only what a test says is to be unwell. A PING that is late all the same, which
/// no limit excuses, ends a raise for a second instead of minutes.
const CALM: &str = "[gate]\nsample = \"100ms\"\nhold = \"100ms\"\nstale_after = \"5m\"\n[gate.limits]\npsi_cpu = [99.8, 100]\n\
    psi_memory_some = [99.8, 100]\npsi_memory_full = [99.8, 100]\npsi_io_full = [99.8, 100]\nmemory = [99.8, 100]\n\
    cpu_throttled = [99.8, 100]\nload = [999, 1000]\nruntime_lag = [\"29s\", \"30s\"]\nredis_rtt = [\"29s\", \"30s\"]\n\
    redis_memory = [99.8, 100]\npostgres_acquire = [\"29s\", \"30s\"]\npostgres_rtt = [\"29s\", \"30s\"]\n\
    postgres_active = [99999, 100000]\npostgres_waiting = [99999, 100000]\npostgres_sessions = [99.8, 100]\n\
    postgres_wal = [99999, 100000]\npostgres_autovacuum = [99.8, 100]\npostgres_slowdown = [999, 1000]\n";

const SLEEP: &str =
    "kind = \"app.sleep\"\nhandler = \"exec\"\n[exec]\ncommand = [\"/bin/sleep\", \"5\"]";

fn settings(mode: &str) -> String {
    format!(
        "{CALM}[daemon]\nconcurrency = 4\n[forecast]\nmode = \"{mode}\"\nmax_concurrency = 10\n\
         [forecast.slots]\nrest = \"1s\"\n"
    )
}

async fn history(site: &Site) -> LoadHistory {
    let conn = connection::connect(&site.config.redis).await.unwrap();
    LoadHistory::new(conn, &site.config.redis.prefix)
}

/// Four weeks in which one job ran at a time, but for an hour a day that begins ten minutes from now, with twelve.
async fn four_weeks(site: &Site) {
    let history = history(site).await;
    let now = slot_at(history.now_ms().await.unwrap());
    let slots: Vec<(u64, SlotLoad)> = (now - 28 * DAY..now)
        .map(|slot| {
            let since_peak = (slot + DAY - (now + 2) % DAY) % DAY;
            let at_once = if since_peak < 12 { 12 } else { 1 };
            let mut load = SlotLoad {
                up_ms: SLOT_MS as i64,
                ..SlotLoad::default()
            };
            load.classes[Priority::Normal.index()] = ClassLoad {
                jobs: at_once,
                busy_ms: at_once * SLOT_MS as i64,
            };
            (slot, load)
        })
        .collect();
    for (number, batch) in (1..).zip(slots.chunks(BATCH_SLOTS)) {
        let batch: BTreeMap<u64, SlotLoad> = batch.iter().copied().collect();
        history.add("past", 1, number, &batch).await.unwrap();
    }
    history.leave("past").await.unwrap();
}

/// A site whose `other:thing` is as bad as the number in the file `trouble` says: well at 0, critical at 5.
fn site_with_probe() -> Site {
    let site = Site::new("", &[SLEEP]);
    let probe = format!(
        "[[probe]]\nname = \"trouble\"\nresource = \"other:thing\"\nevery = \"1s\"\ntimeout = \"1s\"\ncommand = [\"/bin/cat\", \"{}\"]\n\
         lo = 1\nhi = 2\n",
        site.path("trouble").display()
    );
    let text = fs::read_to_string(site.path("tidegate.toml")).unwrap();
    let text = format!("{text}{}{probe}", settings("on"));
    fs::write(site.path("tidegate.toml"), text).unwrap();
    site
}

async fn health(site: &Site) -> Value {
    let text: Option<String> = redis::cmd("GET")
        .arg(format!("{}:health", site.config.redis.prefix))
        .query_async(&mut site.redis().await)
        .await
        .unwrap();
    text.map_or(Value::Null, |text| serde_json::from_str(&text).unwrap())
}

async fn wait_for_slots(site: &Site, slots: u64) {
    wait_until(&format!("{slots} slots"), DEADLINE, || async {
        health(site).await["forecast"]["slots"]["now"] == slots
    })
    .await;
}

async fn running(site: &Site) -> u64 {
    site.queue("default").await.counts().await.unwrap().running
}

fn sleepers(n: usize) -> Vec<String> {
    (0..n)
        .map(|n| format!(r#"{{"kind":"app.sleep","id":"s{n}"}}"#))
        .collect()
}

fn only(daemon: &Process, event: &str) -> Value {
    let events = daemon.events(event);
    assert_eq!(events.len(), 1, "{event}: {events:?}");
    events[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_and_connections_are_there_before_the_peak() {
    let database = format!(
        "[database]\nurl = \"{}\"\nmax_connections = 8\n",
        fresh_database()
    );
    let site = Site::new(&format!("{}{database}", settings("on")), &[SLEEP]);
    four_weeks(&site).await;
    let daemon = site.start("a");
    wait_for_slots(&site, 10).await;
    let raised = only(&daemon, "forecast_raised");
    assert_eq!((&raised["from"], &raised["to"]), (&4.into(), &10.into()));
    assert_eq!(raised["shadow"], false);
    site.push(&sleepers(10)).await;
    wait_until("ten jobs run at once", DEADLINE, || async {
        running(&site).await == 10
    })
    .await;
    daemon.wait_for_event("forecast_pool").await;
    let pool = only(&daemon, "forecast_pool");
    assert_eq!(pool["connections"], 8, "all that the pool may have");
    let forecast = &health(&site).await["forecast"];
    assert_eq!(forecast["slots"]["base"], 4);
    assert_eq!(forecast["history"]["cycle"], "week");
    assert!(
        forecast["classes"]["normal"]["week"]["error"]
            .as_f64()
            .unwrap()
            < 0.05
    );
    let start = forecast["peaks"][0]["start"].as_u64().unwrap();
    let ahead = start.saturating_sub(forecast["slot"].as_u64().unwrap());
    assert!(ahead <= 2 * SLOT_MS, "{forecast}");
}

#[tokio::test(flavor = "multi_thread")]
async fn never_past_bad_health_and_back_at_once() {
    let site = site_with_probe();
    fs::write(site.path("trouble"), "5").unwrap();
    four_weeks(&site).await;
    let daemon = site.start("a");
    wait_until("it would raise, but for health", DEADLINE, || async {
        let slots = &health(&site).await["forecast"]["slots"];
        let unwell = slots["unwell"].as_str().unwrap_or_default();
        slots["wanted"].as_u64() > Some(4) && unwell.starts_with("other:thing")
    })
    .await;
    assert!(daemon.events("forecast_raised").is_empty());
    assert_eq!(health(&site).await["forecast"]["slots"]["now"], 4);
    site.push(&sleepers(6)).await;
    wait_until("four jobs run", DEADLINE, || async {
        running(&site).await == 4
    })
    .await;
    site.wait_for_stat("completed", 6, DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_unwell_ends_a_raise() {
    let site = site_with_probe();
    let file = site.path("trouble");
    fs::write(&file, "0").unwrap();
    four_weeks(&site).await;
    let daemon = site.start("a");
    wait_for_slots(&site, 10).await;
    site.push(&sleepers(10)).await;
    wait_until("ten jobs run", DEADLINE, || async {
        running(&site).await == 10
    })
    .await;
    fs::write(&file, "5").unwrap();
    wait_for_slots(&site, 4).await;
    let returned = only(&daemon, "forecast_returned");
    assert_eq!(
        (&returned["from"], &returned["to"]),
        (&10.into(), &4.into())
    );
    let reason = returned["reason"].as_str().unwrap();
    assert!(reason.contains("other:thing"), "{reason}");
    // What runs beyond it runs on.
    site.wait_for_stat("completed", 10, DEADLINE).await;
    let counts = site.queue("default").await.counts().await.unwrap();
    assert_eq!(counts.stats.get("handed_back"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn shadow_tells_what_it_would_do_and_changes_nothing() {
    let warm = "kind = \"app.warm\"\nhandler = \"exec\"\nbefore_peak = true\n[exec]\ncommand = [\"/bin/true\"]";
    let site = Site::new(&settings("shadow"), &[SLEEP, warm]);
    four_weeks(&site).await;
    let daemon = site.start("a");
    wait_for_slots(&site, 10).await;
    assert_eq!(only(&daemon, "forecast_raised")["shadow"], true);
    daemon.wait_for_event("forecast_warm").await;
    assert_eq!(only(&daemon, "forecast_warm")["shadow"], true);
    site.push(&sleepers(8)).await;
    wait_until(
        "four jobs run, and four wait for a slot",
        DEADLINE,
        || async {
            let counts = site.queue("default").await.counts().await.unwrap();
            (counts.running, counts.lanes.iter().sum()) == (4, 4_u64)
        },
    )
    .await;
    let warm = only(&daemon, "forecast_warm")["job_id"].clone();
    let queue = site.queue("default").await;
    let found = queue.find(warm.as_str().unwrap()).await.unwrap();
    assert!(found.is_none(), "it was enqueued");

    let json: Value = serde_json::from_str(&tidegate_forecast(&site, &["--json"])).unwrap();
    assert_eq!(json["wanted_slots"], 16);
    assert_eq!(json["daemons"][0]["slots"]["now"], 10);
    assert_eq!(json["ahead"]["normal"].as_array().unwrap().len(), 289);
    let text = tidegate_forecast(&site, &[]);
    for part in [
        "normal",
        "would have (mode shadow) 10",
        "the next known peak",
        "█",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_history_nothing_is_said_and_nothing_done() {
    let site = Site::new(&settings("on"), &[SLEEP]);
    let text = tidegate_forecast(&site, &[]);
    for part in [
        "no history yet",
        "no peak is known",
        "no daemon tells of one",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    let daemon = site.start("a");
    wait_until("it told", DEADLINE, || async {
        let forecast = health(&site).await["forecast"].clone();
        forecast["daemons"] == 1 && forecast["classes"].is_object()
    })
    .await;
    let forecast = health(&site).await["forecast"].clone();
    assert_eq!(forecast["slots"]["now"], 4);
    assert_eq!(forecast["slots"]["wanted"], Value::Null);
    assert_eq!(forecast["classes"]["all"]["expected"], Value::Null);
    assert!(daemon.events("forecast_raised").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_somebody_overwrote_is_told_of_once_and_raises_nothing() {
    let site = Site::new(&settings("on"), &[]);
    let today = slot_at(history(&site).await.now_ms().await.unwrap()) / DAY;
    let key = |day: u64| format!("{}:load:{{fleet}}:{day}", site.config.redis.prefix);
    for day in [today, today + 1] {
        redis::cmd("RPUSH")
            .arg(key(day))
            .arg("mine")
            .query_async::<()>(&mut site.redis().await)
            .await
            .unwrap();
    }
    let daemon = site.start("a");
    daemon.wait_for_event("forecast_blind").await;
    wait_until("it says what is wrong", DEADLINE, || async {
        let forecast = health(&site).await["forecast"].clone();
        let trouble = forecast["trouble"].as_str().unwrap_or_default();
        trouble.contains("wrong type")
    })
    .await;
    assert_eq!(health(&site).await["forecast"]["slots"]["now"], 4);
    // Whoever clears it away has it back at the next try.
    redis::cmd("DEL")
        .arg(key(today))
        .arg(key(today + 1))
        .query_async::<()>(&mut site.redis().await)
        .await
        .unwrap();
    wait_until("it goes on", DEADLINE, || async {
        health(&site).await["forecast"]["trouble"].is_null()
    })
    .await;
    assert!(daemon.events("forecast_raised").is_empty());
    for event in daemon.events("forecast_blind") {
        assert_eq!(event["level"], "WARN");
    }
}

fn tidegate_forecast(site: &Site, flags: &[&str]) -> String {
    let told = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .arg("forecast")
        .args(flags)
        .arg("--config")
        .arg(site.path("tidegate.toml"))
        .output()
        .unwrap();
    assert!(told.status.success(), "{told:?}");
    String::from_utf8(told.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_warms_once_and_shares_what_is_wanted() {
    let site = Site::new(&settings("on"), &[]);
    let file = site.path("warmed");
    let warm = super::process::append_to(&file, "before_peak = true");
    site.write_job("warm.toml", &warm);
    four_weeks(&site).await;
    let daemons = ["a", "b"].map(|name| site.start(name));
    for daemon in &daemons {
        daemon.wait_for_event("forecast_warm").await;
    }
    let created = daemons
        .iter()
        .flat_map(|d| d.events("forecast_warm"))
        .filter(|e| e["created"] == true)
        .count();
    assert_eq!(created, 1);
    // Whichever came second knows of the first at once: of sixteen slots in all it has half. The first one learns of it with
    // its next write, a minute later.
    let conn = connection::connect(&site.config.redis).await.unwrap();
    wait_until("two daemons share it", DEADLINE, || async {
        let told = pages::read(&conn, &site.config.redis.prefix).await.unwrap();
        let told = told
            .iter()
            .map(|page| serde_json::from_str::<Value>(&page.page).unwrap());
        told.map(|page| page["forecast"].clone()).any(|forecast| {
            (&forecast["daemons"], &forecast["slots"]["now"]) == (&2.into(), &8.into())
        })
    })
    .await;
    site.wait_for_stat("completed", 1, DEADLINE).await;
    assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ran_is_on_record_once_however_often_a_daemon_restarts() {
    let nap = "kind = \"app.nap\"\nhandler = \"exec\"\npriority = \"high\"\n[exec]\ncommand = [\"/bin/sleep\", \"0.3\"]";
    let site = Site::new("", &[nap]);
    let first = site.start("a");
    let naps: Vec<String> = (0..5)
        .map(|n| format!(r#"{{"kind":"app.nap","id":"n{n}"}}"#))
        .collect();
    site.push(&naps).await;
    site.wait_for_stat("completed", 5, DEADLINE).await;
    stop(first).await;
    let recorded = recorded(&site).await;
    let high = recorded.classes[Priority::High.index()];
    assert_eq!(high.jobs, 5);
    assert!((1_500..30_000).contains(&high.busy_ms), "{high:?}");
    assert_eq!(
        recorded.classes[Priority::Normal.index()],
        ClassLoad::default()
    );
    let second = site.start("b");
    second.wait_for_event("started").await;
    stop(second).await;
    let after = self::recorded(&site).await;
    assert_eq!(after.classes, recorded.classes);
    assert!(after.up_ms >= recorded.up_ms && recorded.up_ms > 0);
}

async fn stop(mut daemon: Process) {
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().await.success());
}

/// All that is on record.
async fn recorded(site: &Site) -> SlotLoad {
    let history = history(site).await;
    let today = slot_at(history.now_ms().await.unwrap()) / DAY;
    let read = history.read(today - 1..=today).await.unwrap();
    let mut sum = SlotLoad::default();
    read.iter().for_each(|(_, load)| sum.add(load));
    sum
}
