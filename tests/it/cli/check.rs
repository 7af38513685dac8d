//! `check` and `migrate`.

use super::{JOBS, json_at, program};
use crate::daemon::process::Site;
use crate::support;
use serde_json::{Value, json};
use std::path::Path;

fn shipped() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs");
    folder.to_str().unwrap().to_owned()
}

fn messages(found: &Value) -> String {
    let each = found.as_array().unwrap().iter();
    each.map(|f| {
        format!(
            "{}: {}\n",
            f["source"].as_str().unwrap(),
            f["message"].as_str().unwrap()
        )
    })
    .collect()
}

#[test]
fn the_shipped_definitions_are_good_with_a_database() {
    // Nobody listens there: without --online no server is asked.
    let env = [(
        "TIDEGATE_DATABASE__URL",
        "postgres://nobody@127.0.0.1:1/none",
    )];
    let answer = program(&["check", "--json", "--jobs", &shipped()], &env, "").ok();
    assert_eq!(
        (&answer["ok"], &answer["problems"]),
        (&json!(true), &json!([]))
    );
    let kinds: Vec<&str> = answer["kinds"]
        .as_array()
        .unwrap()
        .iter()
        .map(|k| k["handler"].as_str().unwrap())
        .collect();
    for handler in ["cache.invalidate", "cache.warm", "db.purge", "exec"] {
        assert!(kinds.contains(&handler), "{kinds:?}");
    }
}

#[test]
fn without_a_database_its_jobs_and_theirs_alone_are_refused() {
    let ran = program(&["check", "--json", "--jobs", &shipped()], &[], "");
    assert_eq!(ran.code, 1, "{ran:?}");
    let answer = ran.json();
    assert_eq!(answer["ok"], false);
    let problems = messages(&answer["problems"]);
    assert_eq!(problems.lines().count(), 2, "{problems}");
    for part in ["cache.warm_products.toml", "db.purge", "database.url"] {
        assert!(problems.contains(part), "{problems}");
    }
    assert!(
        ran.err.lines().all(|line| line.starts_with("error: ")),
        "{}",
        ran.err
    );
}

#[test]
fn all_problems_of_configuration_and_definitions_are_told_at_once() {
    let site = Site::new("", &JOBS);
    site.write_job(
        "x.toml",
        "kind = \"app.x\"\nhandler = \"exec\"\ntimeout = \"2years\"\n",
    );
    site.write_job(
        "y.toml",
        "kind = \"app.y\"\nhandler = \"exec\"\n[schedule]\ncron = \"61 * * * *\"\n",
    );
    let bad = site.path("bad.toml");
    std::fs::write(&bad, "[daemon]\nconcurrency = 0\n").unwrap();
    let (bad, jobs) = (bad.to_str().unwrap().to_owned(), site.path("jobs"));
    let ran = program(
        &[
            "check",
            "--json",
            "--config",
            &bad,
            "--jobs",
            jobs.to_str().unwrap(),
        ],
        &[],
        "",
    );
    assert_eq!(ran.code, 1);
    let problems = messages(&ran.json()["problems"]);
    for part in [
        "daemon.concurrency",
        "x.toml",
        "timeout",
        "y.toml",
        "schedule.cron",
    ] {
        assert!(problems.contains(part), "{part} is not in {problems}");
    }
}

#[test]
fn schedules_are_shown_with_their_next_run() {
    let site = Site::new(
        "",
        &[
            "kind = \"app.nightly\"\nhandler = \"exec\"\n[schedule]\ncron = \"0 15 1 * * *\"\n[exec]\ncommand = [\"/bin/true\"]",
        ],
    );
    let answer = json_at(&site, &["check"]).ok();
    let next = answer["kinds"][0]["next_run"].as_str().unwrap();
    assert!(next.ends_with("T01:15:00.000Z"), "{next}");
}

#[test]
fn online_the_servers_are_asked_and_migrate_mends_what_is_missing() {
    let settings = format!("[database]\nurl = \"{}\"\n", support::fresh_database());
    let purge = "kind = \"db.tidy\"\nhandler = \"db.purge\"\n[args]\ndays = { type = \"integer\", default = 1 }\n[db.purge]\ntable = \"public.sessions\"\nkey = [\"id\"]\nwhere = \"expires_at < now()\"\n";
    let site = Site::new(&settings, &[purge]);
    let before = json_at(&site, &["check", "--online"]);
    assert_eq!(before.code, 1, "{before:?}");
    let problems = messages(&before.json()["problems"]);
    assert!(problems.contains("tidegate migrate"), "{problems}");
    // The tests' Redis keeps nothing on disk.
    let warnings = messages(&before.json()["warnings"]);
    assert!(warnings.contains("appendonly"), "{warnings}");

    let first = json_at(&site, &["migrate"]).ok();
    assert!(first["applied"].as_u64().unwrap() > 0, "{first}");
    let second = json_at(&site, &["migrate"]).ok();
    assert_eq!(
        (&second["applied"], &second["version"]),
        (&json!(0), &first["version"])
    );
    assert_eq!(json_at(&site, &["check", "--online"]).ok()["ok"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_whose_function_is_a_programs_is_known() {
    let kind = "kind = \"mail.send\"\nhandler = \"code\"\nqueue = \"mail\"\n[args]\nto = { type = \"string\", required = true }\n";
    let site = Site::new("", &[JOBS[0], kind]);
    let answer = json_at(&site, &["check"]).ok();
    assert_eq!(answer["warnings"], json!([]), "{answer}");
    let kinds = answer["kinds"].as_array().unwrap();
    let known = kinds.iter().find(|k| k["kind"] == "mail.send").unwrap();
    assert_eq!(
        (&known["handler"], &known["function"], &known["queue"]),
        (&json!("code"), &json!("mail.send"), &json!("mail"))
    );
    let to_nobody = json_at(&site, &["enqueue", "mail.send"]);
    assert_eq!(
        (to_nobody.code, &to_nobody.json()["error"]),
        (1, &json!("bad_args"))
    );
    json_at(
        &site,
        &["enqueue", "mail.send", "--args", "{\"to\":\"ada\"}"],
    )
    .ok();
    assert_eq!(site.queue("mail").await.counts().await.unwrap().inbox, 1);

    site.write_job("mail.toml", &kind.replace("queue = \"mail\"\n", ""));
    std::fs::remove_file(site.path("jobs").join("1.toml")).ok();
    let answer = json_at(&site, &["check"]).ok();
    let warnings = messages(&answer["warnings"]);
    assert!(
        warnings.contains("mail.send") && warnings.contains("default"),
        "{warnings}"
    );
}

#[test]
fn what_follows_what_is_checked_over_all_definitions() {
    let kind = |name: &str, more: &str| {
        format!(
            "kind = \"{name}\"\nhandler = \"exec\"\n{more}\n[args]\nn = {{ type = \"integer\", default = 1 }}\n[exec]\ncommand = [\"/bin/true\"]"
        )
    };
    let then = |of: &str| format!("[then]\nkind = \"{of}\"");
    for (second, told) in [
        (
            then("app.a"),
            "then: goes round in a circle: app.a, then app.b, then app.a",
        ),
        (
            then("app.b"),
            "then: goes round in a circle: app.b, then app.b",
        ),
        (
            then("no.such"),
            "then: kind: \"no.such\" is not defined here",
        ),
        (then("app.far"), "a workflow lives in one queue"),
        (
            then("app.c") + "\nargs = { n = \"x\" }",
            "then: app.c: args.n:",
        ),
        (
            then("app.c") + "\nthen = { kind = \"app.a\" }",
            "goes round in a circle: app.a, then app.b, then app.c, then app.a",
        ),
        (then("app.c") + "\nid = \"x\"", "then.id: is one job's own"),
        (then("app.c") + "\ncolour = \"red\"", "unknown field"),
        ("ttl = \"0s\"".to_owned(), "ttl: must be within"),
    ] {
        let site = Site::new("", &[]);
        site.write_job("a.toml", &kind("app.a", &then("app.b")));
        site.write_job("b.toml", &kind("app.b", &second));
        site.write_job("c.toml", &kind("app.c", ""));
        site.write_job("far.toml", &kind("app.far", "queue = \"far\""));
        let ran = super::at(&site, &["check"]);
        assert_eq!(ran.code, 1, "{second}: {ran:?}");
        assert!(ran.err.contains(told), "{second}: {ran:?}");
    }
}
