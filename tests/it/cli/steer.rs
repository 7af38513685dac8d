//! `pause`, `resume`, `drain`, `limits`, `audit`, and what `explain` and `queues` say of them. Daemons look every ten
//! seconds here: what reaches them sooner came by the bell.

use super::{at, json_at};
use crate::daemon::process::{Process, Site};
use crate::support::{DEADLINE, wait_until};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const SLOW: &str = "[daemon]\npoll = \"10s\"\n";
const OK: &str = "kind = \"app.ok\"\nhandler = \"exec\"\n[exec]\ncommand = [\"/bin/true\"]";
const OTHER: &str = "kind = \"app.other\"\nhandler = \"exec\"\n[exec]\ncommand = [\"/bin/true\"]";

/// A kind whose jobs wait until a file is there.
fn held(site: &std::path::Path, more: &str) -> String {
    let go = site.join("go");
    format!(
        "kind = \"app.held\"\nhandler = \"exec\"\n{more}\n[args]\nt = {{ type = \"string\" }}\n[exec]\ncommand = [\"/bin/sh\", \"-c\", \"until [ -e {} ]; do sleep 0.02; done\"]",
        go.display()
    )
}

async fn daemons(site: &Site, names: &[&str]) -> Vec<Process> {
    let daemons: Vec<Process> = names.iter().map(|name| site.start(name)).collect();
    let queue = site.queue("default").await;
    wait_until("all listen", DEADLINE, || async {
        let (_, listening): (String, usize) = redis::cmd("PUBSUB")
            .arg("NUMSUB")
            .arg(&queue.keys().bell)
            .query_async(&mut site.redis().await)
            .await
            .unwrap();
        listening == names.len()
    })
    .await;
    daemons
}

async fn running(site: &Site, jobs: u64) {
    let queue = site.queue("default").await;
    wait_until(&format!("{jobs} run"), DEADLINE, || async {
        queue.counts().await.unwrap().running == jobs
    })
    .await;
}

fn codes(answer: &Value) -> Vec<String> {
    let reasons = answer["reasons"].as_array().unwrap().iter();
    reasons
        .map(|r| r["code"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_kind_waits_on_every_daemon_and_goes_on_when_it_is_resumed() {
    let site = Site::new(SLOW, &[OK, OTHER]);
    let _daemons = daemons(&site, &["a", "b"]).await;
    let paused = json_at(
        &site,
        &["pause", "default", "--kind", "app.ok", "--reason", "moving"],
    )
    .ok();
    assert_eq!(
        (&paused["paused"], &paused["was_paused"]),
        (&json!(true), &json!(false))
    );
    // Both have heard of it by the time each has done something since.
    for n in 0..20 {
        json_at(&site, &["enqueue", "app.other", "--id", &format!("o{n}")]).ok();
    }
    site.wait_for_stat("completed", 20, DEADLINE).await;
    let entry = |n: usize| format!(r#"{{"kind":"app.ok","id":"k{n}"}}"#);
    site.push(&(0..5).map(entry).collect::<Vec<_>>()).await;
    site.wait_for_stat("admitted", 25, DEADLINE).await;
    site.push(&[r#"{"kind":"app.other","id":"last"}"#.to_owned()])
        .await;
    site.wait_for_stat("completed", 21, DEADLINE).await;

    let view = &json_at(&site, &["queues"]).ok()["queues"][0];
    assert_eq!(
        (&view["lanes"]["normal"], &view["paused"]),
        (&json!(5), &json!(false))
    );
    assert_eq!(view["paused_kinds"]["app.ok"]["reason"], "moving");
    let why = json_at(&site, &["explain", "k0"]).ok();
    assert!(codes(&why).contains(&"kind_paused".to_owned()), "{why}");
    let text = at(&site, &["explain", "k0"]).out;
    assert!(
        text.contains("app.ok was paused by") && text.contains("moving"),
        "{text}"
    );

    let resumed = Instant::now();
    json_at(&site, &["resume", "default", "--kind", "app.ok"]).ok();
    site.wait_for_stat("completed", 26, DEADLINE).await;
    assert!(resumed.elapsed() < Duration::from_secs(5), "not by a look");
    let record = json_at(&site, &["audit", "default"]).ok();
    let fields: Vec<_> = record["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| &c["field"])
        .collect();
    assert_eq!(fields, ["pause:app.ok", "pause:app.ok"]);
    let first = &record["changes"][1];
    assert!(first["who"].as_str().unwrap().contains('@'), "{first}");
    assert!(
        first["new"].as_str().unwrap().contains("moving") && first["old"] == "",
        "{first}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn drain_waits_until_nothing_runs_and_leaves_the_queue_paused() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(SLOW, &[&held(dir.path(), "")]);
    let _daemons = daemons(&site, &["a"]).await;
    site.push(&[r#"{"kind":"app.held","id":"x"}"#.to_owned()])
        .await;
    running(&site, 1).await;
    let short = json_at(&site, &["drain", "default", "--timeout", "50ms"]);
    assert_eq!(
        (short.code, &short.json()["running"]),
        (1, &json!(1)),
        "{short:?}"
    );
    assert!(short.err.contains("still run"), "{short:?}");
    site.push(&[r#"{"kind":"app.held","id":"y"}"#.to_owned()])
        .await;
    site.wait_for_stat("admitted", 2, DEADLINE).await;
    std::fs::write(dir.path().join("go"), "").unwrap();
    let drained = json_at(&site, &["drain", "default", "--timeout", "20s"]).ok();
    assert_eq!(
        (&drained["running"], &drained["paused"]),
        (&json!(0), &json!(true))
    );
    let counts = site.queue("default").await.counts().await.unwrap();
    assert_eq!((counts.lanes.iter().sum::<u64>(), counts.running), (1, 0));
    assert!(
        json_at(&site, &["explain", "default"]).ok()["queues"][0]["reasons"][0]["code"] == "paused"
    );
    json_at(&site, &["resume", "default"]).ok();
    site.wait_for_stat("completed", 2, DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_changed_live_for_kinds_and_keys() {
    let dir = tempfile::tempdir().unwrap();
    let definition = held(dir.path(), "[concurrency]\nlimit = 1\nkey = \"args.t\"");
    let site = Site::new(SLOW, &[&definition]);
    let _daemons = daemons(&site, &["a", "b"]).await;
    let entry = |n: usize| format!(r#"{{"kind":"app.held","id":"h{n}","args":{{"t":"x"}}}}"#);
    site.push(&(0..6).map(entry).collect::<Vec<_>>()).await;
    running(&site, 1).await;
    let queue = site.queue("default").await;
    wait_until("the rest is parked", DEADLINE, || async {
        queue.counts().await.unwrap().parked == 5
    })
    .await;
    let waiting = (0..6)
        .find(|n| json_at(&site, &["job", "show", &format!("h{n}")]).json()["state"] == "pending");
    let why = json_at(&site, &["explain", &format!("h{}", waiting.unwrap())]).ok();
    let full = why["reasons"]
        .as_array()
        .unwrap()
        .iter()
        .find(|r| r["code"] == "slots_full")
        .unwrap();
    assert_eq!((&full["holders"], &full["limit"]), (&json!(1), &json!(1)));

    json_at(
        &site,
        &["limits", "set", "default", "app.held", "--limit", "4"],
    )
    .ok();
    running(&site, 4).await;
    let listed = json_at(&site, &["limits", "list"]).ok();
    let kind = &listed["queues"][0]["kinds"][0];
    assert_eq!(
        (&kind["limit"], &kind["changed"]),
        (&json!(4), &json!({"limit": 4}))
    );
    // Lowered: nobody is stopped, and nobody new comes until there is room.
    json_at(
        &site,
        &[
            "limits",
            "set",
            "default",
            "app.held",
            "--limit",
            "2",
            "--per-daemon",
            "9",
        ],
    )
    .ok();
    json_at(&site, &["limits", "clear", "default", "app.held"]).ok();
    std::fs::write(dir.path().join("go"), "").unwrap();
    site.wait_for_stat("completed", 6, DEADLINE).await;
    let record = json_at(&site, &["audit", "default", "--limit", "1"]).ok();
    let last = &record["changes"][0];
    assert_eq!(
        (&last["field"], &last["new"]),
        (&json!("limit:app.held"), &json!(""))
    );
    assert!(
        last["old"].as_str().unwrap().contains("\"per_daemon\":9"),
        "{last}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused() {
    let site = Site::new("", &[OK]);
    for (args, code, word) in [
        (
            &["limits", "set", "default", "app.ok", "--limit", "0"][..],
            2,
            "never run",
        ),
        (
            &["limits", "set", "default", "app.ok", "--rate", "5"],
            2,
            "100/1m",
        ),
        (
            &["limits", "set", "default", "app.ok", "--rate", "5/0s"],
            2,
            "rate.per",
        ),
        (
            &["limits", "set", "default", "app.ok", "--total", "5"],
            2,
            "key",
        ),
        (&["limits", "set", "default", "app.ok"], 2, ""),
        (&["limits", "set", "default"], 2, ""),
        (
            &["limits", "set", "default", "--concurrency", "0"],
            2,
            "1..=100000",
        ),
        (
            &["limits", "set", "default", "app.no", "--limit", "5"],
            1,
            "not defined",
        ),
        (&["pause", "no such queue"], 2, "queue"),
        (&["pause", "default", "--kind", "NO"], 2, "kind"),
        (&["drain", "default", "--timeout", "2days"], 2, "1day"),
    ] {
        let ran = at(&site, args);
        assert_eq!(ran.code, code, "{args:?}: {ran:?}");
        assert!(ran.err.to_lowercase().contains(word), "{args:?}: {ran:?}");
    }
    let control = site.queue("default").await.control().await.unwrap();
    assert_eq!(control, Default::default());
}
