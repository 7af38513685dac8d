//! What jobs have to do with each other, from the command line: unique, debounce, chains, groups, results.

use super::{JOBS, admit_all, json_at};
use crate::daemon::process::Site;
use crate::support::{DEADLINE, wait_until};
use serde_json::json;

async fn ends(site: &Site, id: &str, state: &str) {
    let queue = site.queue("default").await;
    wait_until(&format!("{id} is {state}"), DEADLINE, || async {
        let found = queue.find(id).await.unwrap();
        found.is_some_and(|found| found.state == state)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_of_a_unique_job_is_answered_with_the_first() {
    let site = Site::new("", &JOBS);
    let unique = ["enqueue", "app.ok", "--unique-key", "k", "--id"];
    let first = json_at(&site, &[&unique[..], &["one"]].concat()).ok();
    assert_eq!(first["status"], "created");
    let second = json_at(&site, &[&unique[..], &["two"]].concat()).ok();
    assert_eq!(
        second,
        json!({"id": "one", "status": "duplicate", "state": "pending"})
    );
    admit_all(&site, &site.queue("default").await).await;
    let shown = json_at(&site, &["job", "show", "one"]).ok();
    assert_eq!(shown["lock"], "app.ok:k");
    for (flags, code) in [
        (&["--on-conflict", "merge", "--unique-key", "k"][..], 1),
        (&["--unique-args", "nope"], 1),
        (&["--debounce-key", "k"], 2),
        (&["--then", "[]"], 2),
        (&["--then", "{\"kind\":\"no.such\"}"], 1),
        (&["--group", "g"], 2),
        (&["--group", "g", "--group-size", "0"], 1),
        (&["--result-ttl", "30days"], 1),
    ] {
        let ran = json_at(&site, &[&["enqueue", "app.ok"], flags].concat());
        assert_eq!(ran.code, code, "{flags:?}: {ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chains_and_groups_run_to_their_ends_and_results_are_told() {
    let site = Site::new("", &JOBS);
    let _daemon = site.start("a");
    let next = [
        "--then",
        "{\"kind\":\"app.ok\"}",
        "--then",
        "{\"kind\":\"app.bad\"}",
    ];
    let root = [&["enqueue", "app.ok", "--id", "a", "--wait"], &next[..]].concat();
    let done = json_at(&site, &root).ok();
    assert_eq!(done["state"], "done");
    ends(&site, "a-t1", "done").await;
    ends(&site, "a-t2", "dead").await;
    let shown = json_at(&site, &["job", "show", "a-t2"]).ok();
    assert_eq!(
        (&shown["workflow"], &shown["parents"]),
        (&json!("a"), &json!(["a-t1"]))
    );
    assert_eq!(
        json_at(&site, &["job", "result", "a"]).ok()["state"],
        "done"
    );
    assert_eq!(
        json_at(&site, &["job", "result", "a-t1"]).code,
        1,
        "nobody asked"
    );

    let member = |id: &str, kind: &str| {
        let then = "{\"kind\":\"app.ok\",\"id\":\"sum\"}";
        let group = [
            "--group",
            "g",
            "--group-size",
            "2",
            "--group-always",
            "--group-then",
            then,
        ];
        json_at(
            &site,
            &[&["enqueue", kind, "--id", id], &group[..]].concat(),
        )
        .ok();
    };
    member("m1", "app.ok");
    ends(&site, "m1", "done").await;
    let open = json_at(&site, &["group", "show", "g"]).ok();
    assert_eq!(
        (&open["state"], &open["done"], &open["follows"]),
        (&json!("open"), &json!(1), &json!(true))
    );
    member("m2", "app.bad");
    ends(&site, "sum", "done").await;
    let over = json_at(&site, &["group", "show", "g"]).ok();
    assert_eq!(
        (&over["state"], &over["failed"]),
        (&json!("done"), &json!(1))
    );
    assert_eq!(json_at(&site, &["group", "show", "h"]).code, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workflow_is_cancelled_as_a_whole() {
    let site = Site::new("", &JOBS);
    let then = ["--then", "{\"kind\":\"app.ok\"}"];
    json_at(
        &site,
        &[&["enqueue", "app.ok", "--id", "a"], &then[..]].concat(),
    )
    .ok();
    for id in ["m1", "m2"] {
        let group = ["--group", "g", "--group-size", "3"];
        json_at(
            &site,
            &[&["enqueue", "app.ok", "--id", id], &group[..]].concat(),
        )
        .ok();
    }
    let queue = site.queue("default").await;
    admit_all(&site, &queue).await;
    let chain = json_at(&site, &["job", "cancel", "a", "--workflow"]).ok();
    assert_eq!(chain["cancelled"], json!(["a"]));
    let group = json_at(&site, &["group", "cancel", "g"]).ok();
    let mut members: Vec<&str> = group["cancelled"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|id| id.as_str())
        .collect();
    members.sort_unstable();
    assert_eq!(members, ["m1", "m2"]);
    assert_eq!(
        json_at(&site, &["group", "show", "g"]).ok()["state"],
        "cancelled"
    );
    let waiting: u64 = queue.counts().await.unwrap().stats["cancelled"];
    assert_eq!(waiting, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_duplicate_waits_for_the_first() {
    let site = Site::new("", &JOBS);
    let job = ["enqueue", "app.ok", "--id", "one", "--unique-key", "k"];
    json_at(&site, &job).ok();
    admit_all(&site, &site.queue("default").await).await;
    let daemon = site.start("a");
    let other = [
        "enqueue",
        "app.ok",
        "--id",
        "two",
        "--unique-key",
        "k",
        "--wait",
    ];
    let waited = json_at(&site, &other).ok();
    // It may have been done before the second came: then that one was a job of its own.
    assert_eq!(waited["state"], "done", "{waited}");
    let again = json_at(&site, &["enqueue", "app.ok", "--id", "one", "--wait"]).ok();
    assert_eq!(
        (&again["status"], &again["state"]),
        (&json!("duplicate"), &json!("done"))
    );
    drop(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_job_that_runs_already_is_told_its_end() {
    let site = std::sync::Arc::new(Site::new("", &[]));
    let go = site.path("go");
    let shell = format!("while [ ! -e {} ]; do sleep 0.02; done", go.display());
    site.write_job(
        "0.toml",
        &format!(
            "kind = \"app.wait\"\nhandler = \"exec\"\n[exec]\ncommand = [\"/bin/sh\", \"-c\", \"{shell}\"]\n"
        ),
    );
    let _daemon = site.start("a");
    let queue = site.queue("default").await;
    json_at(&site, &["enqueue", "app.wait", "--id", "r"]).ok();
    ends(&site, "r", "running").await;
    let waits = tokio::task::spawn_blocking({
        let site = std::sync::Arc::clone(&site);
        move || json_at(&site, &["enqueue", "app.wait", "--id", "r", "--wait"]).ok()
    });
    wait_until("it is asked", DEADLINE, || async {
        let (_, tied) = queue.walk_ties(0).await.unwrap();
        tied.iter()
            .any(|(id, ties)| id == "r" && ties.starts_with('r'))
    })
    .await;
    let start = std::time::Instant::now();
    std::fs::write(go, "").unwrap();
    let ended = waits.await.unwrap();
    assert_eq!(
        (&ended["state"], &ended["status"]),
        (&json!("done"), &json!("duplicate"))
    );
    // It is told, not looked for: that would be after ten seconds.
    assert!(start.elapsed() < std::time::Duration::from_secs(8));
    let (_, tied) = queue.walk_ties(0).await.unwrap();
    assert!(tied.is_empty(), "{tied:?}");
}
