//! `cron`: what runs by itself.

use super::{JOBS, admit_all, at, json_at};
use crate::daemon::process::Site;
use serde_json::{Value, json};

const NIGHTLY: &str = "kind = \"app.nightly\"\nhandler = \"exec\"\n[schedule]\ncron = \"15 1 * * *\"\ntimezone = \"Europe/Amsterdam\"\nmisfire = \"all\"\n[exec]\ncommand = [\"/bin/true\"]";
const NEEDS: &str = "kind = \"app.needs\"\nhandler = \"exec\"\nqueue = \"mail\"\n[args]\nto = { type = \"string\", required = true }\n[exec]\ncommand = [\"/bin/true\"]";

fn site() -> Site {
    Site::new("", &[JOBS[0], NIGHTLY, NEEDS])
}

fn named<'a>(answer: &'a Value, name: &str) -> &'a Value {
    let list = answer["schedules"].as_array().unwrap();
    list.iter().find(|s| s["name"] == name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn schedules_of_both_kinds_are_listed_in_plain_words() {
    let site = site();
    let add = [
        "cron",
        "add",
        "mail.weekly",
        "--cron",
        "0 7 * * mon",
        "--kind",
        "app.needs",
        "--args",
        "{\"to\":\"all\"}",
    ];
    let added = json_at(&site, &add).ok();
    assert_eq!(
        (&added["queue"], &added["changed"]),
        (&json!("mail"), &json!(true))
    );
    assert_eq!(
        json_at(&site, &add).ok()["changed"],
        false,
        "the same again"
    );

    let answer = json_at(&site, &["cron", "list", "--next", "2"]).ok();
    let nightly = named(&answer, "app.nightly");
    for (key, value) in [
        ("queue", json!("default")),
        ("kind", json!("app.nightly")),
        ("source", json!("definition")),
        ("cron", json!("15 1 * * *")),
        ("timezone", json!("Europe/Amsterdam")),
        ("when", json!("every day at 01:15")),
        ("misfire", json!("all")),
        ("catch_up", json!(100)),
        ("paused", json!(false)),
        ("last", Value::Null),
    ] {
        assert_eq!(nightly[key], value, "{key} of {nightly}");
    }
    let next = nightly["next"].as_array().unwrap();
    let distance = next[1].as_u64().unwrap() - next[0].as_u64().unwrap();
    // A day, or an hour less or more when the clocks change.
    assert!((23..=25).contains(&(distance / 3_600_000)), "{nightly}");
    let weekly = named(&answer, "mail.weekly");
    assert_eq!(
        (&weekly["source"], &weekly["args"]),
        (&json!("added"), &json!({"to": "all"}))
    );

    let text = at(&site, &["cron", "list"]).out;
    assert!(
        text.contains("every day at 01:15 (Europe/Amsterdam)"),
        "{text}"
    );
    assert!(
        text.contains("every Monday at 07:00 (UTC)") && text.contains(", in "),
        "{text}"
    );
    assert!(
        at(&Site::new("", &JOBS), &["cron", "list"])
            .out
            .starts_with("nothing runs by itself")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_a_schedule_is_refused_and_the_field_named() {
    let site = site();
    let ok = ["--cron", "@daily", "--kind", "app.ok"];
    for (args, code, field) in [
        (
            &["x", "--cron", "0 0 30 2 *", "--kind", "app.ok"][..],
            "bad_schedule",
            "--cron",
        ),
        (
            &["x", "--cron", "61 * * * *", "--kind", "app.ok"],
            "bad_schedule",
            "--cron",
        ),
        (
            &["x", "--cron", "@daily", "--kind", "app.none"],
            "unknown_kind",
            "kind: \"app.none\"",
        ),
        (
            &["x", "--cron", "@daily", "--kind", "app.needs"],
            "bad_args",
            "args.to: required",
        ),
        (&[&["X y"], &ok[..]].concat(), "bad_schedule", "name"),
        (&[&["app.ok"], &ok[..]].concat(), "bad_schedule", "name"),
        (
            &[&["x"], &ok[..], &["--args", "{\"n\":\"1\"}"]].concat(),
            "bad_args",
            "args.n",
        ),
        (
            &[&["x"], &ok[..], &["--args", "{\"n\":1,\"n\":2}"]].concat(),
            "malformed",
            "--args",
        ),
        (
            &[&["x"], &ok[..], &["--args", "[]"]].concat(),
            "usage",
            "--args",
        ),
        (
            &[&["x"], &ok[..], &["--timezone", "Mars/Base"]].concat(),
            "bad_schedule",
            "--timezone",
        ),
        (
            &[&["x"], &ok[..], &["--catch-up", "5"]].concat(),
            "bad_schedule",
            "--catch-up",
        ),
        (
            &[
                &["x"],
                &ok[..],
                &["--misfire", "all", "--catch-up", "10001"],
            ]
            .concat(),
            "bad_schedule",
            "--catch-up",
        ),
    ] {
        let ran = json_at(&site, &[&["cron", "add"], args].concat());
        let answer = ran.json();
        assert_eq!(answer["error"], code, "{args:?}: {ran:?}");
        assert!(
            answer["message"].as_str().unwrap().contains(field),
            "{args:?}: {ran:?}"
        );
        assert_ne!(ran.code, 0);
    }
    let queue = site.queue("default").await;
    assert!(queue.stored_schedules().await.unwrap().added.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_belongs_to_one_schedule() {
    let site = site();
    let add = |cron: &'static str, kind: &'static str, more: &'static str| {
        let args = ["cron", "add", "x", "--cron", cron, "--kind", kind, "--args"];
        let args = if more == "--replace" {
            [&args[..], &["{}", more]].concat()
        } else {
            [&args[..], &[more]].concat()
        };
        json_at(&site, &args)
    };
    add("@daily", "app.ok", "{}").ok();
    assert_eq!(add("@hourly", "app.ok", "{}").json()["error"], "exists");
    assert_eq!(
        add("@hourly", "app.needs", "{\"to\":\"a\"}").json()["error"],
        "exists"
    );
    add("@hourly", "app.ok", "--replace").ok();
    let listed = json_at(&site, &["cron", "list"]).ok();
    assert_eq!(named(&listed, "x")["when"], "every hour");
    json_at(&site, &["cron", "remove", "x"]).ok();
    let gone = json_at(&site, &["cron", "remove", "x"]);
    assert_eq!((gone.code, &gone.json()["error"]), (1, &json!("not_found")));
    let defined = json_at(&site, &["cron", "remove", "app.nightly"]);
    assert_eq!(defined.json()["error"], "defined");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_is_run_now_and_its_job_says_so() {
    let site = site();
    let ran = json_at(&site, &["cron", "run", "app.nightly"]).ok();
    assert_eq!(ran["status"], "created");
    admit_all(&site, &site.queue("default").await).await;
    let shown = json_at(&site, &["job", "show", ran["id"].as_str().unwrap()]).ok();
    assert_eq!(
        (&shown["kind"], &shown["meta"]),
        (&json!("app.nightly"), &json!({"schedule": "app.nightly"}))
    );
    let unscheduled = json_at(&site, &["cron", "run", "app.ok"]);
    assert_eq!(unscheduled.json()["error"], "not_found");
    assert!(
        unscheduled.err.contains("tidegate enqueue app.ok"),
        "{unscheduled:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_is_told_and_outlives_its_definition() {
    let site = site();
    let run = |verb: &str| json_at(&site, &["cron", verb, "app.nightly"]).ok()["changed"].clone();
    assert_eq!(
        [run("resume"), run("pause"), run("pause")],
        [json!(false), json!(true), json!(false)]
    );
    let listed = json_at(&site, &["cron", "list"]).ok();
    let nightly = named(&listed, "app.nightly");
    assert_eq!(
        (&nightly["paused"], nightly["paused_at"].is_u64()),
        (&json!(true), true)
    );
    assert!(at(&site, &["cron", "list"]).out.contains("paused for "));
    let explained = at(&site, &["explain", "default"]).out;
    assert!(
        explained.contains("schedule_paused: the schedule app.nightly is paused"),
        "{explained}"
    );
    std::fs::remove_file(site.path("jobs").join("1.toml")).unwrap();
    let listed = json_at(&site, &["cron", "list"]).ok();
    assert!(
        named(&listed, "app.nightly")["problem"]
            .as_str()
            .unwrap()
            .contains("paused")
    );
    assert_eq!(run("resume"), true);
    assert_eq!(
        json_at(&site, &["cron", "list"]).ok(),
        json!({"schedules": []})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_entry_is_shown_and_can_be_removed() {
    let site = site();
    let queue = site.queue("default").await;
    queue.add_schedule("broken", "{\"kind\":").await.unwrap();
    let listed = json_at(&site, &["cron", "list"]).ok();
    assert!(named(&listed, "broken")["problem"].is_string());
    let explained = at(&site, &["explain", "default"]).out;
    assert!(
        explained.contains("schedule_unserved: the schedule broken"),
        "{explained}"
    );
    assert_eq!(
        json_at(&site, &["cron", "run", "broken"]).json()["error"],
        "unserved"
    );
    json_at(&site, &["cron", "remove", "broken"]).ok();
}
