//! Exit codes, and what errors say and do not say.

use super::{JOBS, at, json_at, program};
use crate::daemon::process::Site;
use serde_json::json;
use std::time::{Duration, Instant};
use tidegate::stack::{PrivateRedis, RedisOptions};

#[test]
fn commands_and_their_parts_have_examples_in_their_help() {
    for command in [
        &["run"][..],
        &["enqueue"],
        &["job"],
        &["job", "show"],
        &["cron", "pause"],
        &["quarantine", "retry"],
    ] {
        let ran = program(&[command, &["--help"]].concat(), &[], "");
        let example = format!("Examples:\n  tidegate {}", command.join(" "));
        assert_eq!(ran.code, 0, "{command:?}");
        assert!(ran.out.contains(&example), "{command:?}: {}", ran.out);
    }
}

#[test]
fn what_can_not_be_understood_exits_2() {
    for args in [
        &["frobnicate"][..],
        &["queues", "--frob"],
        &["enqueue"],
        &["enqueue", "a.b", "--priority", "urgent"],
        &["enqueue", "a.b", "--delay", "5"],
        &["enqueue", "a.b", "--delay", "5s", "--run-at", "7"],
        &["enqueue", "a.b", "--id", "no spaces"],
        &["queues", "--queue", "A:B"],
        &["dead", "retry"],
        &["dead", "retry", "x", "--all"],
        &["quarantine", "purge", "not-an-id"],
        &["cron", "add", "x", "--kind", "a.b"],
        &[
            "cron",
            "add",
            "x",
            "--cron",
            "@daily",
            "--kind",
            "a.b",
            "--misfire",
            "maybe",
        ],
        &["cron", "list", "--next", "0"],
    ] {
        let ran = program(&[args, &["--json"]].concat(), &[], "");
        assert_eq!(ran.code, 2, "{args:?}: {ran:?}");
        assert!(ran.err.starts_with("error: "), "{args:?}: {ran:?}");
        assert_eq!(ran.json()["error"], "usage", "{args:?}");
    }
}

#[test]
fn a_wrong_configuration_exits_78_in_every_command() {
    let bad = [("TIDEGATE_DAEMON__LEESE", "5s")];
    for args in [
        &["run"][..],
        &["queues"],
        &["explain"],
        &["enqueue", "a.b"],
        &["migrate"],
        &["dead", "list"],
    ] {
        let ran = program(&[args, &["--json"]].concat(), &bad, "");
        assert_eq!(ran.code, 78, "{args:?}: {ran:?}");
        assert_eq!(ran.json()["error"], "config", "{args:?}");
        assert!(ran.err.contains("daemon.leese"), "{args:?}: {ran:?}");
    }
    let missing = program(&["queues", "--config", "/nowhere/tidegate.toml"], &[], "");
    assert_eq!(missing.code, 78, "{missing:?}");
    let no_database = program(&["migrate"], &[], "");
    assert_eq!(no_database.code, 78, "{no_database:?}");
    assert!(no_database.err.contains("database.url"), "{no_database:?}");
}

#[test]
fn wrong_definitions_exit_78_naming_file_and_line() {
    let site = Site::new("", &["kind = \"a.b\"\nhandler = \"exce\""]);
    let ran = json_at(&site, &["queues"]);
    assert_eq!(ran.code, 78);
    assert_eq!(ran.json()["error"], "jobs");
    assert!(ran.err.contains("0.toml:2"), "{ran:?}");
}

#[test]
fn an_absent_redis_is_told_without_its_password() {
    let url = "redis://app:hunter2@127.0.0.1:1/0";
    for command in ["queues", "run", "explain"] {
        let ran = program(&[command, "--json"], &[("TIDEGATE_REDIS__URL", url)], "");
        assert_eq!(ran.code, 1, "{ran:?}");
        assert_eq!(ran.json()["error"], "redis");
        assert!(
            ran.err
                .starts_with("error: can't reach Redis at redis://app:***@127.0.0.1:1/0: "),
            "{ran:?}"
        );
        assert!(ran.err.contains("TIDEGATE_REDIS__URL"), "{ran:?}");
        assert!(!format!("{ran:?}").contains("hunter2"), "{ran:?}");
    }
}

#[test]
fn secrets_are_in_no_answer() {
    let site = Site::new(
        "[database]\nurl = \"postgres://app:hunter2@127.0.0.1:1/app\"\nacquire_timeout = \"100ms\"\n[admin]\ntoken = \"hunter2-token-of-some-length\"\n[secrets]\nwebapp = \"hunter2\"\n",
        &JOBS,
    );
    for args in [
        &["check"][..],
        &["check", "--online"],
        &["migrate"],
        &["queues"],
        &["explain"],
    ] {
        for ran in [at(&site, args), json_at(&site, args)] {
            assert!(!format!("{ran:?}").contains("hunter2"), "{args:?}: {ran:?}");
        }
    }
    let ran = json_at(&site, &["migrate"]);
    assert_eq!(
        (ran.code, &ran.json()["error"]),
        (1, &json!("database")),
        "{ran:?}"
    );
    assert!(
        ran.err.contains("postgres://app:***@127.0.0.1:1/app"),
        "{ran:?}"
    );
}

#[test]
fn a_frozen_redis_keeps_no_command_for_long() {
    let dir = tempfile::tempdir().unwrap();
    let mut redis = PrivateRedis::start(RedisOptions::new(dir.path().join("redis"))).unwrap();
    let site = Site::on(&redis.url(), "", &JOBS);
    redis.pause().unwrap();
    let started = Instant::now();
    let ran = json_at(&site, &["queues"]);
    redis.resume().unwrap();
    assert_eq!(
        (ran.code, &ran.json()["error"]),
        (1, &json!("redis")),
        "{ran:?}"
    );
    // The connect timeout, and slack for a busy machine.
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
}
