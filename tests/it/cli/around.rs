//! What `job show`, `explain` and `queues` tell of a job's dealings with others: locks, groups, limits, turns, what follows.

use super::{admit_all, at, json_at};
use crate::daemon::process::Site;
use crate::support::{DEADLINE, wait_until};
use serde_json::{Value, json};

const PLAIN: &str = "kind = \"app.ok\"\nhandler = \"exec\"\n[args]\nn = { type = \"array\", default = [] }\n[exec]\ncommand = [\"/bin/true\"]";
/// Runs until it is told to end.
const LONG: &str = "kind = \"app.long\"\nhandler = \"exec\"\n[concurrency]\nlimit = 1\nkey = \"args.t\"\n[args]\nt = { type = \"string\", default = \"\" }\n[exec]\ncommand = [\"/bin/sleep\", \"600\"]";
const RATED: &str = "kind = \"app.rated\"\nhandler = \"exec\"\n[rate]\nlimit = 1\nper = \"1h\"\n[exec]\ncommand = [\"/bin/true\"]";
const FAIR: &str = "kind = \"app.fair\"\nhandler = \"exec\"\nfairness = \"args.t\"\n[args]\nt = { type = \"string\" }\n[exec]\ncommand = [\"/bin/true\"]";

fn reason<'a>(answer: &'a Value, code: &str) -> &'a Value {
    let reasons = answer["reasons"].as_array().unwrap();
    let found = reasons.iter().find(|reason| reason["code"] == code);
    found.unwrap_or_else(|| panic!("no {code} in {answer}"))
}

fn enqueue(site: &Site, flags: &[&str]) -> Value {
    json_at(site, &[&["enqueue"], flags].concat()).ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_holds_a_lock_and_who_gave_way_is_told() {
    let site = Site::new("", &[PLAIN]);
    let queue = site.queue("default").await;
    let unique = [
        "--unique-key",
        "k",
        "--unique-until",
        "claimed",
        "--on-conflict",
        "merge",
    ];
    let of = |id: &'static str| [&["app.ok", "--id", id], &unique[..]].concat();
    for id in ["one", "two", "three"] {
        enqueue(&site, &of(id));
        admit_all(&site, &queue).await;
    }
    let shown = json_at(&site, &["job", "show", "one"]).ok();
    assert_eq!(
        (
            &shown["lock"],
            &shown["lock_until"],
            &shown["lock_holder"],
            &shown["merged"]
        ),
        (
            &json!("app.ok:k"),
            &json!("claimed"),
            &json!("one"),
            &json!(2)
        )
    );
    let text = at(&site, &["job", "show", "one"]).out;
    assert!(text.contains("app.ok:k (held until claimed)"), "{text}");
    for command in [&["job", "show", "two"][..], &["explain", "two"]] {
        let gone = json_at(&site, command);
        assert_eq!(gone.json()["error"], "not_found");
        assert!(gone.err.contains("\"two\" was merged"), "{gone:?}");
    }
    assert_eq!(json_at(&site, &["queues"]).ok()["queues"][0]["locks"], 1);

    let debounced = [
        "app.ok",
        "--id",
        "d",
        "--debounce-key",
        "u",
        "--debounce-wait",
        "1h",
    ];
    enqueue(&site, &debounced);
    admit_all(&site, &queue).await;
    let answer = json_at(&site, &["explain", "d"]).ok();
    assert_eq!(reason(&answer, "delayed")["debounced"], true);
    assert_eq!(answer["job"]["lock"], "app.ok:u");
    let text = at(&site, &["explain", "d"]).out;
    assert!(text.contains("unless another one of its lock"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn how_far_the_group_of_a_job_is_and_what_follows_is_told() {
    let then = "[then]\nkind = \"app.ok\"";
    let kind = PLAIN
        .replace("app.ok", "app.first")
        .replace("[args]", &format!("{then}\n[args]"));
    let site = Site::new("", &[PLAIN, &kind]);
    let queue = site.queue("default").await;
    let by = tidegate::clock::unix_ms() + 3_600_000;
    for id in ["m1", "m2"] {
        enqueue(
            &site,
            &["app.ok", "--id", id, "--group", "g", "--group-size", "3"],
        );
    }
    enqueue(
        &site,
        &["app.first", "--id", "f", "--expires-at", &by.to_string()],
    );
    admit_all(&site, &queue).await;
    json_at(&site, &["job", "cancel", "m1"]).ok();
    let shown = json_at(&site, &["job", "show", "m2"]).ok();
    assert_eq!(
        (&shown["group"], &shown["group_state"]),
        (
            &json!("g"),
            &json!({"state": "open", "size": 3, "members": 2, "done": 0, "failed": 1})
        )
    );
    let text = at(&site, &["explain", "m2"]).out;
    assert!(
        text.contains("g (open: 0 done, 1 failed, 2 of 3 came)"),
        "{text}"
    );
    let first = json_at(&site, &["job", "show", "f"]).ok();
    assert_eq!(
        (&first["then"], &first["expires_at"]),
        (&json!(["app.ok"]), &json!(by))
    );
    assert_eq!(json_at(&site, &["queues"]).ok()["queues"][0]["groups"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_rates_and_turns_are_told() {
    let site = Site::new("", &[LONG, RATED, FAIR]);
    let queue = site.queue("default").await;
    let _daemon = site.start("a");
    for id in ["r1", "r2"] {
        enqueue(&site, &["app.rated", "--id", id]);
        enqueue(
            &site,
            &[
                "app.long",
                "--id",
                &id.replace('r', "l"),
                "--concurrency-key",
                "acme",
            ],
        );
    }
    wait_until("one of each waits", DEADLINE, || async {
        let counts = queue.counts().await.unwrap();
        (counts.running, counts.parked, counts.lanes[2]) == (1, 1, 2)
    })
    .await;
    let state = |id: &str| json_at(&site, &["job", "show", id]).ok()["state"].clone();
    let [runs, waits] = if state("l1") == "running" {
        ["l1", "l2"]
    } else {
        ["l2", "l1"]
    };
    let shown = json_at(&site, &["job", "show", runs]).ok();
    assert_eq!(
        (&shown["slots"], &shown["key"]),
        (&json!(["app.long@acme"]), &json!("acme"))
    );
    let full = json_at(&site, &["explain", waits]).ok();
    let full = reason(&full, "slots_full");
    assert_eq!(
        (&full["held_by"], &full["parked"], &full["slots"]),
        (&json!([runs]), &json!(true), &json!("app.long@acme"))
    );
    let late = if state("r1") == "pending" { "r1" } else { "r2" };
    let rate = json_at(&site, &["explain", late]).ok();
    assert!(reason(&rate, "rate")["next_at"].is_u64(), "{rate}");
    let whole = json_at(&site, &["explain", "default"]).ok();
    assert_eq!(reason(&whole["queues"][0], "rate")["rate"], "app.rated");

    json_at(&site, &["pause", "default"]).ok();
    for (id, tenant) in [("f1", "a"), ("f2", "b")] {
        let args = format!("{{\"t\":\"{tenant}\"}}");
        enqueue(&site, &["app.fair", "--id", id, "--args", &args]);
        site.wait_for_stat("admitted", if id == "f1" { 5 } else { 6 }, DEADLINE)
            .await;
    }
    let turn = json_at(&site, &["explain", "f2"]).ok();
    let turn = reason(&turn, "turn");
    assert!(
        turn["flows_before"].as_u64().unwrap() >= 1 && turn["key"] == "b",
        "{turn}"
    );
}
