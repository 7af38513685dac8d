//! `dead` and `quarantine`: what is kept for an operator.

use super::{JOBS, admit_all, at, json_at};
use crate::daemon::process::Site;
use crate::support::{DEADLINE, wait_until};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::process::Signal;
use serde_json::{Value, json};

/// More than a page of dead jobs.
const MANY: usize = 120;

fn ids(list: &Value) -> Vec<&str> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|e| e["id"].as_str().unwrap())
        .collect()
}

/// Lets a daemon run what was pushed until `dead` jobs have died, and stops it.
async fn die(site: &Site, dead: u64) {
    let mut daemon = site.start("a");
    let queue = site.queue("default").await;
    wait_until("they are dead", DEADLINE, || async {
        queue.counts().await.unwrap().dead == dead
    })
    .await;
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_jobs_are_listed_retried_and_purged() {
    let other = JOBS[1].replace("app.bad", "app.worse");
    let site = Site::new("", &[JOBS[1], &other]);
    let entries: Vec<String> = (0..MANY)
        .map(|n| format!("{{\"kind\":\"app.bad\",\"id\":\"b{n}\"}}"))
        .chain(["{\"kind\":\"app.worse\",\"id\":\"w\",\"priority\":\"low\"}".to_owned()])
        .collect();
    site.push(&entries).await;
    die(&site, MANY as u64 + 1).await;

    let list = json_at(&site, &["dead", "list", "--kind", "app.worse"]).ok();
    assert_eq!(list["total"], MANY + 1);
    assert_eq!(ids(&list["jobs"]), ["w"]);
    let job = &list["jobs"][0];
    assert_eq!(
        (&job["kind"], &job["priority"], &job["attempts"]),
        (&json!("app.worse"), &json!("low"), &json!(1))
    );
    assert!(job["error"].as_str().unwrap().contains("exit"), "{job}");
    assert_eq!(
        ids(&json_at(&site, &["dead", "list", "--limit", "70"]).ok()["jobs"]).len(),
        70
    );
    assert_eq!(
        json_at(&site, &["dead", "list", "--older", "1h"]).ok()["jobs"],
        json!([])
    );

    let some = json_at(&site, &["dead", "retry", "w", "nobody"]);
    assert_eq!(
        (some.code, some.json()),
        (1, json!({"retried": 1, "missing": ["nobody"]}))
    );
    let shown = json_at(&site, &["job", "show", "w"]).ok();
    assert_eq!(
        (&shown["state"], &shown["attempts"]),
        (&json!("pending"), &json!(0))
    );

    let limited = json_at(&site, &["dead", "purge", "--all", "--limit", "60"]).ok();
    assert_eq!(limited["purged"], 60);
    let none = json_at(&site, &["dead", "purge", "--all", "--older", "1h"]).ok();
    assert_eq!(none["purged"], 0);
    let all = json_at(&site, &["dead", "retry", "--all", "--kind", "app.bad"]).ok();
    assert_eq!(all["retried"], MANY - 60);
    let counts = site.queue("default").await.counts().await.unwrap();
    assert_eq!(
        (counts.dead, counts.lanes),
        (0, [0, 0, MANY as u64 - 60, 1, 0])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_passes_over_what_stays_dead() {
    let other = JOBS[1].replace("app.bad", "app.worse");
    let site = Site::new("", &[JOBS[1], &other]);
    let entries: Vec<String> = (0..MANY)
        .map(|n| {
            format!(
                "{{\"kind\":\"{}\",\"id\":\"j{n}\"}}",
                ["app.bad", "app.worse"][n % 2]
            )
        })
        .collect();
    site.push(&entries).await;
    die(&site, MANY as u64).await;
    let purged = json_at(
        &site,
        &["dead", "purge", "--all", "--kind", "app.bad", "--yes"],
    )
    .ok();
    assert_eq!(purged["purged"], MANY / 2);
    let left = json_at(&site, &["dead", "list", "--limit", "500"]).ok();
    assert_eq!(
        (ids(&left["jobs"]).len(), &left["total"]),
        (MANY / 2, &json!(MANY / 2))
    );
    assert!(
        left["jobs"]
            .as_array()
            .unwrap()
            .iter()
            .all(|j| j["kind"] == "app.worse")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_entries_are_shown_harmlessly_and_can_be_removed() {
    let site = Site::new("", &JOBS);
    let hostile = "{\"kind\":\"\u{1b}]0;owned\u{7}\u{1b}[2J\u{202e}\",\n\"x\":1}";
    site.push(&[hostile.to_owned(), "not json\r\n".to_owned()])
        .await;
    admit_all(&site, &site.queue("default").await).await;

    let list = json_at(&site, &["quarantine", "list"]).ok();
    assert_eq!(list["entries"].as_array().unwrap().len(), 2);
    let first = &list["entries"][0];
    let raw = STANDARD.decode(first["raw"].as_str().unwrap()).unwrap();
    assert_eq!(raw, hostile.as_bytes());
    assert!(
        first["at"].is_u64() && first["reason"].is_string() && first["queue"] == "default",
        "{first}"
    );

    let shown = at(&site, &["quarantine", "list"]);
    let harmful = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    assert!(!shown.out.contains(harmful), "{:?}", shown.out);
    assert_eq!(shown.out.lines().count(), 4, "{:?}", shown.out);

    let id = first["id"].as_str().unwrap();
    let purged = json_at(&site, &["quarantine", "purge", id, "1-1"]);
    assert_eq!(
        (purged.code, &purged.json()["purged"]),
        (1, &json!(1)),
        "{purged:?}"
    );
    assert_eq!(
        json_at(&site, &["quarantine", "purge", "--all"]).ok()["purged"],
        1
    );
    assert_eq!(
        json_at(&site, &["quarantine", "list"]).ok()["entries"],
        json!([])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_kind_is_retried_once_it_is_known() {
    let site = Site::new("", &[JOBS[0]]);
    let queue = site.queue("default").await;
    site.push(&[
        "{\"kind\":\"app.bad\",\"id\":\"late\"}".to_owned(),
        "{".to_owned(),
    ])
    .await;
    admit_all(&site, &queue).await;
    assert_eq!(queue.counts().await.unwrap().quarantine, 2);

    site.write_job("later.toml", JOBS[1]);
    let retried = json_at(
        &site,
        &["quarantine", "retry", "--all", "--code", "unknown_kind"],
    )
    .ok();
    assert_eq!(retried["retried"], 1);
    admit_all(&site, &queue).await;
    assert_eq!(
        json_at(&site, &["job", "show", "late"]).ok()["state"],
        "pending"
    );
    assert_eq!(queue.counts().await.unwrap().quarantine, 1);
}

#[test]
fn an_entry_is_not_looked_for_in_the_wrong_queue() {
    let site = Site::new("[[queue]]\nname = \"mail\"\n", &JOBS);
    let ran = json_at(&site, &["quarantine", "purge", "1-1"]);
    assert_eq!((ran.code, &ran.json()["error"]), (2, &json!("usage")));
    assert!(ran.err.contains("--queue: default, mail"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_tells_what_is_wrong_and_puts_it_right_when_asked() {
    let site = Site::new("", &JOBS);
    site.push(&["{\"kind\":\"app.ok\",\"id\":\"a\"}".to_owned()])
        .await;
    let queue = site.queue("default").await;
    admit_all(&site, &queue).await;
    let whole = json_at(&site, &["verify", "default"]).ok();
    assert_eq!(
        (&whole["whole"], &whole["mismatch"]),
        (&json!(true), &json!(0))
    );
    let flow = queue.keys().named("flow:normal:app.ok");
    redis::cmd("DEL")
        .arg(flow)
        .query_async::<()>(&mut site.redis().await)
        .await
        .unwrap();
    let wrong = json_at(&site, &["verify", "default"]);
    let answer = wrong.json();
    assert_eq!(
        (wrong.code, &answer["mismatch"]),
        (1, &json!(1)),
        "{wrong:?}"
    );
    assert_eq!(
        answer["findings"],
        json!([{"damage": "lost", "count": 1, "examples": ["a"]}])
    );
    assert_eq!(answer["repaired"], json!(false));
    let text = at(&site, &["verify", "default"]);
    assert!(text.out.contains("jobs that were in no place"), "{text:?}");
    assert!(text.err.contains("default is not whole"), "{text:?}");
    let repaired = json_at(&site, &["verify", "default", "--repair"]);
    assert_eq!(
        (repaired.code, &repaired.json()["repaired"]),
        (1, &json!(true))
    );
    json_at(&site, &["verify", "default"]).ok();
    assert_eq!(at(&site, &["verify", "a b"]).code, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_sets_aside_what_somebody_overwrote() {
    let site = Site::new("", &JOBS);
    let queue = site.queue("default").await;
    let slots = queue.keys().slots("app.ok");
    redis::cmd("SET")
        .arg(&slots)
        .arg("junk")
        .query_async::<()>(&mut site.redis().await)
        .await
        .unwrap();
    let ran = json_at(&site, &["verify", "default", "--repair"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let moved = ran.json()["set_aside"][0].as_str().unwrap().to_owned();
    assert!(moved.starts_with(&slots), "{moved}");
    assert_eq!(
        json_at(&site, &["verify", "default", "--repair"]).ok()["set_aside"],
        json!([])
    );
}
