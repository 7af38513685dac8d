//! `enqueue`, `queues`, `job` and `explain`.

use super::{JOBS, admit_all, at, at_with_input, json_at};
use crate::daemon::process::Site;
use crate::support::{DEADLINE, wait_until};
use serde_json::{Value, json};
use std::time::Duration;
use tidegate::queue::{board, connection};

fn keys(json: &Value) -> Vec<&str> {
    json.as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

fn events(shown: &Value) -> Vec<&str> {
    let events = shown["events"].as_array().unwrap().iter();
    events.map(|e| e["event"].as_str().unwrap()).collect()
}

fn codes(answer: &Value) -> Vec<&str> {
    let reasons = answer["reasons"].as_array().unwrap().iter();
    reasons.map(|r| r["code"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn enqueue_says_created_then_duplicate() {
    let site = Site::new("", &JOBS);
    let job = ["enqueue", "app.ok", "--args", "{\"n\":1}", "--id", "one"];
    let created = json_at(&site, &job).ok();
    assert_eq!(
        created,
        json!({"id": "one", "status": "created", "state": "pending"})
    );
    let again = json_at(&site, &job).ok();
    assert_eq!(
        again,
        json!({"id": "one", "status": "duplicate", "state": "pending"})
    );

    let minted = json_at(&site, &["enqueue", "app.ok"]).ok();
    let id = uuid::Uuid::parse_str(minted["id"].as_str().unwrap()).unwrap();
    assert_eq!(id.get_version_num(), 7);
    let inbox = site.queue("default").await.counts().await.unwrap().inbox;
    assert_eq!(inbox, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_be_a_job_is_not_sent() {
    let site = Site::new("", &JOBS);
    let large = format!("{{\"n\":\"{}\"}}", "x".repeat(400_000));
    for (args, code) in [
        (&["app.ok", "--args", "{\"n\":\"x\"}"][..], "bad_args"),
        (&["app.ok", "--args", "{\"m\":1}"], "bad_args"),
        (&["app.ok", "--args", "{\"n\":1,\"n\":2}"], "malformed"),
        (&["app.ok", "--args", "[1]"], "malformed"),
        (&["app.ok", "--max-attempts", "0"], "malformed"),
        (&["app.ok", "--delay", "800days"], "malformed"),
        (&["app.ok", "--args", "-"], "too_large"),
        (&["app.none"], "unknown_kind"),
    ] {
        let ran = at_with_input(&site, &[&["enqueue", "--json"], args].concat(), &large);
        assert_eq!(
            (ran.code, &ran.json()["error"]),
            (1, &json!(code)),
            "{args:?}: {ran:?}"
        );
    }
    let queue = site.queue("default").await;
    assert_eq!(queue.counts().await.unwrap().inbox, 0);
    json_at(&site, &["enqueue", "app.none", "--force"]).ok();
    assert_eq!(queue.counts().await.unwrap().inbox, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_come_from_a_file_or_standard_input() {
    let site = Site::new("", &JOBS);
    std::fs::write(site.path("args.json"), "{\n  \"n\": 3\n}\n").unwrap();
    let file = format!("@{}", site.path("args.json").display());
    json_at(&site, &["enqueue", "app.ok", "--id", "f", "--args", &file]).ok();
    let piped = at_with_input(
        &site,
        &["enqueue", "app.ok", "--id", "p", "--args", "-"],
        "{\"n\":4}",
    );
    assert_eq!(piped.code, 0, "{piped:?}");
    admit_all(&site, &site.queue("default").await).await;
    for (id, n) in [("f", 3), ("p", 4)] {
        let shown = json_at(&site, &["job", "show", id, "--payload"]).ok();
        assert_eq!(shown["args"], json!({"n": n}));
        assert_eq!(json_at(&site, &["job", "show", id]).ok().get("args"), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wait_tells_how_the_job_ended() {
    let site = Site::new("", &JOBS);
    let late = json_at(
        &site,
        &["enqueue", "app.ok", "--wait", "--wait-timeout", "50ms"],
    );
    assert_eq!(
        (late.code, &late.json()["error"]),
        (1, &json!("timeout")),
        "{late:?}"
    );

    let _daemon = site.start("a");
    let done = json_at(&site, &["enqueue", "app.ok", "--id", "good", "--wait"]).ok();
    assert_eq!(
        (&done["id"], &done["status"], &done["state"]),
        (&json!("good"), &json!("created"), &json!("done"))
    );
    let again = json_at(&site, &["enqueue", "app.ok", "--id", "good", "--wait"]).ok();
    assert_eq!(
        (&again["status"], &again["state"]),
        (&json!("duplicate"), &json!("done"))
    );

    let dead = json_at(&site, &["enqueue", "app.bad", "--id", "bad", "--wait"]);
    let answer = dead.json();
    assert_eq!(
        (dead.code, &answer["state"]),
        (1, &json!("dead")),
        "{dead:?}"
    );
    assert_eq!(
        (&answer["attempts"], &answer["errors"][0]["attempt"]),
        (&json!(1), &json!(1))
    );
    assert!(dead.err.contains("error: bad ended dead"), "{dead:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_are_told_in_the_promised_shape() {
    let site = Site::new("[[queue]]\nname = \"mail\"\n", &JOBS);
    for priority in ["bulk", "critical", "critical"] {
        json_at(&site, &["enqueue", "app.ok", "--priority", priority]).ok();
    }
    json_at(&site, &["enqueue", "app.ok", "--delay", "1h"]).ok();
    admit_all(&site, &site.queue("default").await).await;
    json_at(&site, &["enqueue", "app.ok"]).ok();
    let answer = json_at(&site, &["queues"]).ok();
    let queue = &answer["queues"][0];
    let wanted = [
        "counters",
        "dead",
        "delayed",
        "groups",
        "histories",
        "ids",
        "inbox",
        "lanes",
        "limits",
        "locks",
        "memory_bytes",
        "name",
        "oldest_age_ms",
        "parked",
        "pause",
        "paused",
        "paused_kinds",
        "quarantine",
        "running",
    ];
    assert_eq!(keys(queue), wanted);
    assert_eq!(queue["name"], "default");
    assert_eq!(
        queue["lanes"],
        json!({"critical": 2, "high": 0, "normal": 0, "low": 0, "bulk": 1})
    );
    assert_eq!(
        (&queue["delayed"], &queue["inbox"], &queue["paused"]),
        (&json!(1), &json!(1), &json!(false))
    );
    assert!(queue["oldest_age_ms"].is_u64(), "{queue}");
    assert!(queue["memory_bytes"].as_u64().unwrap() > 500, "{queue}");
    assert_eq!(
        (
            &answer["queues"][1]["name"],
            &answer["queues"][1]["oldest_age_ms"]
        ),
        (&json!("mail"), &Value::Null)
    );
    let named = json_at(&site, &["queues", "--queue", "other"]).ok();
    assert_eq!(named["queues"][0]["name"], "other");
    assert!(
        at(&site, &["queues"])
            .out
            .starts_with("queue    inbox  critical")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_shown_retried_and_cancelled() {
    let site = Site::new("", &JOBS);
    let unknown = json_at(&site, &["job", "show", "nobody"]);
    assert_eq!(
        (unknown.code, &unknown.json()["error"]),
        (1, &json!("not_found"))
    );

    let mut daemon = site.start("a");
    json_at(
        &site,
        &["enqueue", "app.again", "--id", "j", "--priority", "low"],
    )
    .ok();
    wait_until("it is put off", DEADLINE, || async {
        json_at(&site, &["job", "show", "j"]).json()["state"] == "delayed"
    })
    .await;
    let shown = json_at(&site, &["job", "show", "j"]).ok();
    for (key, value) in [
        ("id", json!("j")),
        ("kind", json!("app.again")),
        ("queue", json!("default")),
        ("priority", json!("low")),
        ("attempts", json!(1)),
        ("crashes", json!(0)),
        ("snoozes", json!(0)),
        ("max_attempts", json!(9)),
    ] {
        assert_eq!(shown[key], value, "{key} of {shown}");
    }
    assert_eq!(keys(&shown["errors"][0]), ["at", "attempt", "error"]);
    assert!(shown["due_at"].is_u64());
    daemon.signal(rustix::process::Signal::TERM);
    assert!(daemon.wait().await.success());

    let retried = json_at(&site, &["job", "retry", "j"]).ok();
    assert_eq!(
        retried,
        json!({"id": "j", "queue": "default", "state": "pending"})
    );
    let shown = json_at(&site, &["job", "show", "j"]).ok();
    assert_eq!(
        (&shown["state"], &shown["attempts"]),
        (&json!("pending"), &json!(1))
    );
    let twice = json_at(&site, &["job", "retry", "j"]);
    assert_eq!(
        (twice.code, &twice.json()["error"]),
        (1, &json!("not_retryable"))
    );

    assert_eq!(
        json_at(&site, &["job", "cancel", "j"]).ok()["state"],
        "cancelled"
    );
    let shown = json_at(&site, &["job", "show", "j"]).ok();
    assert_eq!(
        (&shown["state"], shown["finished_at"].is_u64()),
        (&json!("cancelled"), true)
    );
    assert_eq!(
        events(&shown),
        [
            "enqueued",
            "ready",
            "started",
            "failed",
            "hurried",
            "cancelled"
        ]
    );
    let told = &shown["events"];
    assert_eq!(told[2]["attempt"], 1);
    let hour = told[3]["due"].as_u64().unwrap() - told[3]["at"].as_u64().unwrap();
    assert_eq!(hour, 3_600_000, "{told}");
    assert!(told[3]["note"].as_str().unwrap().contains("exit"), "{told}");
    for act in [&told[4], &told[5]] {
        assert!(act["by"].as_str().unwrap().contains('@'), "{act}");
    }
    let text = at(&site, &["job", "show", "j"]).out;
    assert!(text.contains("  hurried    by "), "{text}");
    let twice = json_at(&site, &["job", "cancel", "j"]);
    assert_eq!(
        (twice.code, &twice.json()["error"]),
        (1, &json!("not_cancellable"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_may_keep_the_history_of_every_job() {
    let full = JOBS[0].replace("app.ok", "app.told") + "\n[history]\nfull = true";
    let site = Site::new("[retention]\nrecent_max = 0", &[JOBS[0], &full]);
    let _daemon = site.start("a");
    for (kind, id) in [("app.ok", "plain"), ("app.told", "told")] {
        site.push(&[format!(r#"{{"kind":"{kind}","id":"{id}"}}"#)])
            .await;
    }
    site.wait_for_stat("completed", 2, DEADLINE).await;
    let shown = json_at(&site, &["job", "show", "told"]).ok();
    assert_eq!(shown["state"], "done");
    assert_eq!(events(&shown), ["ready", "started", "done"]);
    assert_eq!(json_at(&site, &["job", "show", "plain"]).code, 1);
    let wrong = full.replace("full = true", "full = 1");
    std::fs::write(site.path("jobs/wrong.toml"), wrong).unwrap();
    let checked = at(&site, &["check"]);
    assert_eq!(checked.code, 1, "{checked:?}");
    assert!(checked.err.contains("wrong.toml:8"), "{checked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_job_is_asked_to_end() {
    let site = Site::new(
        "",
        &["kind = \"app.nap\"\nhandler = \"exec\"\n[exec]\ncommand = [\"/bin/sleep\", \"600\"]"],
    );
    let _daemon = site.start("a");
    json_at(&site, &["enqueue", "app.nap", "--id", "nap"]).ok();
    wait_until("it runs", DEADLINE, || async {
        json_at(&site, &["job", "show", "nap"]).json()["state"] == "running"
    })
    .await;
    assert_eq!(
        codes(&json_at(&site, &["explain", "nap"]).ok()),
        ["running"]
    );
    assert_eq!(
        json_at(&site, &["job", "cancel", "nap"]).ok()["state"],
        "running"
    );
    wait_until("it is cancelled", DEADLINE, || async {
        json_at(&site, &["job", "show", "nap"]).json()["state"] == "cancelled"
    })
    .await;
    let shown = json_at(&site, &["job", "show", "nap"]).ok();
    let told = events(&shown);
    assert_eq!(
        told[told.len() - 3..],
        ["started", "cancel_asked", "cancelled"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_names_what_holds_a_job_back() {
    let site = Site::new("", &JOBS);
    let queue = site.queue("default").await;
    for id in ["first", "second"] {
        json_at(
            &site,
            &["enqueue", "app.ok", "--id", id, "--priority", "bulk"],
        )
        .ok();
    }
    let unknown = json_at(&site, &["explain", "second"]);
    assert_eq!(unknown.json()["error"], "not_found");
    assert!(
        unknown.err.contains("default has 2 in its inbox"),
        "{unknown:?}"
    );
    admit_all(&site, &queue).await;

    let answer = json_at(&site, &["explain", "second"]).ok();
    assert_eq!(codes(&answer), ["no_daemon", "ahead"]);
    assert_eq!(answer["reasons"][1]["in_flow"], 1);
    assert_eq!(
        codes(&json_at(&site, &["explain", "first"]).ok()),
        ["no_daemon"]
    );

    queue.heartbeat("alive", true).await.unwrap();
    let health = json!({"v": 1, "resources": {"redis:main": {"state": "overloaded", "pressure": 0.8,
        "worst": {"name": "redis_rtt_p95_ms", "value": 21.0, "lo": 5.0, "hi": 25.0}}}, "breakers": []});
    let conn = connection::connect(&site.config.redis).await.unwrap();
    let key = board::health_key(&site.config.redis.prefix);
    board::publish(&conn, &key, &health.to_string(), Duration::from_secs(60))
        .await
        .unwrap();
    let gated = json_at(&site, &["explain", "first"]).ok();
    assert_eq!(codes(&gated), ["gate"]);
    assert_eq!(
        (
            &gated["reasons"][0]["signal"],
            &gated["reasons"][0]["value"]
        ),
        (&json!("redis_rtt_p95_ms"), &json!(21.0))
    );
    let whole = json_at(&site, &["explain", "default"]).ok();
    assert_eq!(
        (codes(&whole["queues"][0]), &whole["queues"][0]["workers"]),
        (vec!["gate"], &json!(1))
    );
    assert!(
        at(&site, &["explain"])
            .out
            .contains("redis:main is overloaded")
    );
}
