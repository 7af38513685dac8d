//! The daemon inside another program, with handlers of its own.

use super::process::Site;
use crate::support::DEADLINE;
use futures::future::BoxFuture;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tidegate::catalog;
use tidegate::daemon::Daemon;
use tidegate::handlers::{Context, Handler, HandlerKind};
use tidegate::job::{Failure, Outcome};
use tokio_util::sync::CancellationToken;

/// Longer than a daemon waits at its end for a handler that does not yield.
const BLOCKED: Duration = Duration::from_secs(6);

/// Does what its job's arguments say.
struct Obedient;

impl Handler for Obedient {
    fn run<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            match ctx.job.args["do"].as_str() {
                Some("panic") => panic!("told to"),
                Some("retry_after") if ctx.job.attempt == 1 => {
                    let mut failure = Failure::new("busy");
                    failure.retry_after = Some(Duration::from_millis(30));
                    Outcome::Failed(failure)
                }
                Some("wait") => {
                    ctx.stop.cancelled().await;
                    Outcome::Interrupted {
                        reason: "asked to".to_owned(),
                    }
                }
                Some("block") => {
                    std::thread::sleep(BLOCKED);
                    Outcome::Done(None)
                }
                _ => Outcome::Done(Some(json!("ok"))),
            }
        })
    }
}

const OBEDIENT: HandlerKind = HandlerKind {
    name: "test.obedient",
    check: |_, _| Ok(()),
    touches: |_, _| Vec::new(),
    build: |_, _| Ok(Arc::new(Obedient)),
};

const JOB: &str = "kind = \"app.obey\"\nhandler = \"test.obedient\"\n[retry]\nmax_attempts = 2\nstrategy = \"fixed\"\nbase = \"1h\"\n[args]\ndo = { type = \"string\" }\n";

pub async fn start(site: &Site) -> Daemon {
    let catalog = catalog::load(&site.path("jobs"), &["test.obedient"]).unwrap();
    Daemon::start(site.config.clone(), catalog, &[OBEDIENT])
        .await
        .unwrap()
}

fn job(id: &str, what: &str) -> String {
    format!(r#"{{"kind":"app.obey","id":"{id}","args":{{"do":"{what}"}}}}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panicking_handler_is_a_failed_attempt_and_no_dead_daemon() {
    let site = Site::new("[daemon]\nconcurrency = 1\n", &[JOB]);
    let daemon = start(&site).await;
    site.push(&[job("p", "panic"), job("after", "work")]).await;
    site.wait_for_stat("completed", 1, DEADLINE).await;
    let queue = site.queue("default").await;
    let found = queue.find("p").await.unwrap().unwrap();
    assert_eq!(
        (found.state.as_str(), found.history.attempts),
        ("delayed", 1)
    );
    let error = &found.history.errors[0].error;
    assert!(
        error.contains("panicked") && error.contains("told to"),
        "{error}"
    );
    daemon.stop(Duration::ZERO, CancellationToken::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_can_ask_when_to_be_retried() {
    let site = Site::new("", &[JOB]);
    let daemon = start(&site).await;
    // The policy would wait for an hour.
    site.push(&[job("r", "retry_after")]).await;
    site.wait_for_stat("completed", 1, DEADLINE).await;
    daemon.stop(Duration::ZERO, CancellationToken::new()).await;
    let found = site
        .queue("default")
        .await
        .find("r")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found.finished.unwrap().attempts, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_is_told_to_stop_and_ends_as_cancelled() {
    let site = Site::new("[daemon]\npoll = \"100ms\"\n", &[JOB]);
    let daemon = start(&site).await;
    site.push(&[job("w", "wait")]).await;
    let queue = site.queue("default").await;
    crate::support::wait_until("it runs", DEADLINE, || async {
        queue.counts().await.unwrap().running == 1
    })
    .await;
    let record = tidegate::queue::settle::Record {
        id: "w",
        kind: "app.obey",
        priority: tidegate::job::Priority::Normal,
        state: "cancelled",
        attempts: 0,
        at_ms: 0,
        duration_ms: 0,
    };
    let answer = queue.cancel(&record, true, None, "ann").await.unwrap();
    assert_eq!(answer, tidegate::queue::operate::Cancelled::Asked);
    site.wait_for_stat("cancelled", 1, DEADLINE).await;
    assert_eq!(queue.find("w").await.unwrap().unwrap().state, "cancelled");
    daemon.stop(Duration::ZERO, CancellationToken::new()).await;
}

/// It stalls all others, and no timeout can end it: that the process must be started again is told to the watchdog.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_handler_that_blocks_all_others_is_noticed() {
    let site = Site::new("[daemon]\nlease = \"1s\"\npoll = \"20ms\"\n", &[JOB]);
    let daemon = start(&site).await;
    assert_eq!(daemon.is_live(), Ok(()));
    site.push(&[job("b", "block")]).await;
    crate::support::wait_until("it is noticed", DEADLINE, || {
        let noticed = daemon
            .is_live()
            .is_err_and(|e| e.contains("blocked all others"));
        std::future::ready(noticed)
    })
    .await;
    crate::support::wait_until("it is over", DEADLINE, || {
        std::future::ready(daemon.is_live().is_ok())
    })
    .await;
    daemon.stop(Duration::ZERO, CancellationToken::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_job_whose_handler_does_not_let_go_is_handed_back_and_not_taken_for_a_crash() {
    let site = Site::new("", &[JOB]);
    let daemon = start(&site).await;
    site.push(&[job("b", "block")]).await;
    let queue = site.queue("default").await;
    crate::support::wait_until("it runs", DEADLINE, || async {
        queue.counts().await.unwrap().running == 1
    })
    .await;
    daemon.stop(Duration::ZERO, CancellationToken::new()).await;
    let found = queue.find("b").await.unwrap().unwrap();
    assert_eq!(
        (found.state.as_str(), found.history.crashes),
        ("pending", 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn how_long_redis_takes_is_measured_by_script() {
    let site = Site::new("", &[JOB]);
    let daemon = start(&site).await;
    site.push(&[job("m", "work")]).await;
    site.wait_for_stat("completed", 1, DEADLINE).await;
    let metrics = std::sync::Arc::clone(daemon.metrics());
    daemon.stop(Duration::ZERO, CancellationToken::new()).await;
    let text = metrics.encode().unwrap();
    for op in ["look", "admit", "claim", "settle", "heartbeat"] {
        let count = text.lines().any(|line| {
            line.starts_with("tidegate_redis_command_duration_seconds_count")
                && line.contains(&format!("op=\"{op}\""))
        });
        assert!(count, "{op} is missing in {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_set_aside_is_counted() {
    let site = Site::new("", &[JOB]);
    let daemon = start(&site).await;
    let queue = site.queue("default").await;
    redis::cmd("SET")
        .arg(&queue.keys().running)
        .arg("graffiti")
        .query_async::<()>(&mut site.redis().await)
        .await
        .unwrap();
    let count = "tidegate_audit_repairs_total{queue=\"default\"} 1";
    crate::support::wait_until("it is counted", DEADLINE, || {
        std::future::ready(daemon.metrics().encode().unwrap().contains(count))
    })
    .await;
    daemon.stop(Duration::ZERO, CancellationToken::new()).await;
}

/// Looks bring the first flows of a class alone: those behind them are found all the same, and closed ones in front
/// hide nobody.
#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_tenants_behind_thousands_that_are_paused_all_have_their_turn() {
    let tenants = "fairness = \"args.t\"\n[args]\nt = { type = \"integer\" }\ndo = { type = \"string\", default = \"nothing\" }\n";
    let kind = |name: &str| format!("kind = \"{name}\"\nhandler = \"test.obedient\"\n{tenants}");
    let site = Site::new("", &[&kind("app.front"), &kind("app.behind")]);
    let queue = site.queue("default").await;
    let pause = r#"{"by":"a@b","at":1}"#.to_owned();
    let field = tidegate::queue::control::Field::Pause(Some("app.front".to_owned()));
    queue
        .change(&field, "a@b", |_| Some(pause.clone()))
        .await
        .unwrap();
    let entry = |kind: &str, n: u32| format!(r#"{{"kind":"{kind}","args":{{"t":{n}}}}}"#);
    let daemon = start(&site).await;
    site.push(
        &(0..2_500)
            .map(|n| entry("app.front", n))
            .collect::<Vec<_>>(),
    )
    .await;
    site.wait_for_stat("admitted", 2_500, DEADLINE).await;
    site.push(
        &(0..5_000)
            .map(|n| entry("app.behind", n % 2_500))
            .collect::<Vec<_>>(),
    )
    .await;
    // Counting every flow over and over would be more work than the jobs.
    let stats = &queue.keys().stats;
    crate::support::wait_until("all ran", DEADLINE * 2, || async {
        let completed: Option<u64> = redis::cmd("HGET")
            .arg(stats)
            .arg("completed")
            .query_async(&mut site.redis().await)
            .await
            .unwrap();
        completed == Some(5_000)
    })
    .await;
    let counts = queue.counts().await.unwrap();
    assert_eq!(counts.lanes.iter().sum::<u64>(), 2_500, "the paused wait");
    daemon
        .stop(Duration::from_secs(5), CancellationToken::new())
        .await;
}
