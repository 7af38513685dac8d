//! Orders of operators in a daemon whose Redis is gone.

use super::process::{Process, Site};
use crate::cli;
use crate::support::{DEADLINE, wait_until};
use serde_json::Value;
use std::process::Command;
use tidegate::stack::{PrivateRedis, RedisOptions, Scratch};

/// Held by the state of its resource, and by its breaker.
const BULK: &str = "kind = \"app.bulk\"\nhandler = \"exec\"\npriority = \"bulk\"\nresources = [\"other:thing\"]\n[exec]\ncommand = [\"/bin/true\"]";
const QUICK: &str = "[gate]\nsample = \"200ms\"\nhold = \"1s\"\nfailure_hold = \"1s\"\n";

fn told(daemon: &Process, what: &str) -> Vec<Value> {
    let mut events = daemon.events("gate_order");
    events.retain(|event| event["what"] == what);
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_whose_time_is_over_while_redis_is_down_ends_all_the_same() {
    let scratch = Scratch::new().unwrap();
    let mut server = PrivateRedis::start(RedisOptions::new(scratch.path().join("redis"))).unwrap();
    let site = Site::on(&server.url(), QUICK, &[BULK]);
    let mut program = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    program.env("TIDEGATE_REDIS__COMMAND_TIMEOUT", "500ms");
    let daemon = site.start_as("a", &mut program);
    daemon.wait_for_event("started").await;
    for (target, order) in [("other:thing", "critical"), ("exec@other:thing", "open")] {
        let words = [
            "gate",
            "force",
            target,
            order,
            "--for",
            "10s",
            "--why",
            "they move",
        ];
        cli::json_at(&site, &words).ok();
    }
    wait_until("both are obeyed", DEADLINE, || {
        std::future::ready(told(&daemon, "begun").len() == 2)
    })
    .await;
    site.push(&[r#"{"kind":"app.bulk","id":"b"}"#.to_owned()])
        .await;
    site.wait_for_stat("admitted", 1, DEADLINE).await;

    server.pause().unwrap();
    assert!(
        told(&daemon, "over").is_empty(),
        "they end while it is gone"
    );
    wait_until("both are over", DEADLINE, || {
        std::future::ready(told(&daemon, "over").len() == 2)
    })
    .await;
    server.resume().unwrap();
    site.wait_for_stat("completed", 1, DEADLINE * 2).await;
    assert_eq!(told(&daemon, "begun").len(), 2, "none came back with Redis");
    assert_eq!(told(&daemon, "over").len(), 2);
    assert!(told(&daemon, "released").is_empty());
    let log = cli::json_at(&site, &["gate", "log"]).ok();
    let ends = log["entries"].as_array().map(|entries| {
        let over = |entry: &&Value| entry["event"] == "over";
        entries.iter().filter(over).count()
    });
    assert_eq!(ends, Some(2), "{log}");
}
