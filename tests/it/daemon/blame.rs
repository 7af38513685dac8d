//! Functions of a program that lay their failures to what they touch: the breaker goes by that and by nothing else.

use super::process::Site;
use crate::support::{DEADLINE, wait_until};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tidegate::embed::{Context, Daemon, Data, JobError, Kind};
use tidegate::job::What;
use tokio_util::sync::CancellationToken;

const BANK: &str = "http:bank.example:443";

/// A bank that is down at first, and how often it was called.
#[derive(Default)]
struct Bank {
    up: AtomicBool,
    calls: AtomicUsize,
}

async fn charge(_: Value, bank: Data<Arc<Bank>>) -> Result<(), JobError> {
    bank.calls.fetch_add(1, Ordering::SeqCst);
    match bank.up.load(Ordering::SeqCst) {
        true => Ok(()),
        false => Err(JobError::dependency(BANK, "503 Service Unavailable")),
    }
}

/// Its own fault, however often.
async fn clumsy(_: Value) -> Result<(), &'static str> {
    Err("no such account")
}

async fn mistaken(_: Value, _: Context) -> Result<(), JobError> {
    Err(JobError::unreachable("http:bank.example", "no route"))
}

fn breaker(daemon: &Daemon, handler: &str) -> Value {
    let health = daemon.health();
    let all = health["breakers"].as_array().unwrap();
    let own = all.iter().find(|one| one["handler"] == handler);
    own.map_or(Value::Null, |one| one["breaker"].clone())
}

fn jobs(kind: &str, count: usize) -> Vec<String> {
    let id = |n| format!("{}-{n}", kind.trim_start_matches("bank."));
    let each = (0..count).map(|n| json!({"kind": kind, "id": id(n)}));
    each.map(|job| job.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_opens_for_what_a_function_lays_to_its_dependency_and_for_nothing_else() {
    let settings = "[gate]\nmode = \"off\"\n[limiter]\nmode = \"off\"\n[retry_budget]\nmode = \"off\"\n\
        [breaker]\nfleet = \"off\"\nopen = \"1s\"\nopen_max = \"1s\"\nramp_step = \"0s\"\n";
    let site = Site::new(settings, &[]);
    let bank = Arc::new(Bank::default());
    let retry =
        "[retry]\nstrategy = \"fixed\"\nbase = \"1s\"\njitter = \"none\"\nmax_attempts = 3\n";
    let daemon = Daemon::builder()
        .config(site.config.clone())
        .data(Arc::clone(&bank))
        .kind(
            Kind::new("bank.charge", charge)
                .resources([BANK])
                .toml(retry),
        )
        .kind(
            Kind::new("bank.clumsy", clumsy)
                .resources([BANK])
                .toml(retry),
        )
        .kind(
            Kind::new("bank.mistaken", mistaken)
                .resources([BANK])
                .toml(retry),
        )
        .start()
        .await
        .unwrap();

    // A plain error, three times each, and one laid to what the kind does not name: their breakers stay closed.
    site.push(&jobs("bank.clumsy", 15)).await;
    site.push(&jobs("bank.mistaken", 5)).await;
    site.wait_for_stat("dead", 20, DEADLINE).await;
    for handler in ["bank.clumsy", "bank.mistaken"] {
        let breaker = breaker(&daemon, handler);
        assert_eq!(breaker["state"], "closed", "{handler}: {breaker}");
    }
    let queue = site.queue("default").await;
    let error = async |id: &str| {
        let found = queue.find(id).await.unwrap().unwrap();
        found.history.errors[0].error.clone()
    };
    assert_eq!(error("clumsy-0").await, "no such account");
    let told = error("mistaken-0").await;
    assert!(
        told.contains("no route (laid to \"http:bank.example\""),
        "{told}"
    );

    // The bank is down: after some dozen calls it is left alone, and who waits burns nothing.
    site.push(&jobs("bank.charge", 200)).await;
    wait_until("it opens", DEADLINE, || {
        std::future::ready(breaker(&daemon, "bank.charge")["state"] == "open")
    })
    .await;
    let calls = bank.calls.load(Ordering::SeqCst);
    let slots = site.config.daemon.concurrency;
    // Those that ran at once, and a trial or two.
    assert!((13..=16 + slots).contains(&calls), "{calls}");
    let last = queue.find("charge-199").await.unwrap().unwrap();
    assert_eq!((last.state.as_str(), last.history.attempts), ("pending", 0));

    bank.up.store(true, Ordering::SeqCst);
    site.wait_for_stat("completed", 200, Duration::from_secs(60))
        .await;
    let counts = queue.counts().await.unwrap();
    assert_eq!(counts.dead, 20, "none of the bank's");
    daemon.stop(Duration::ZERO, CancellationToken::new()).await;
}

/// Works in batches while the bank is down, or calls it.
async fn work(args: Value, ctx: Context, bank: Data<Arc<Bank>>) -> Result<(), JobError> {
    const BATCH: Duration = Duration::from_millis(5);
    if args["walks"] != true {
        return charge(args, bank).await;
    }
    while !bank.up.load(Ordering::SeqCst) {
        tokio::time::sleep(BATCH).await;
        ctx.pace(BATCH).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_job_makes_room_when_the_breaker_of_what_it_touches_opens() {
    let settings = "[gate]\nmode = \"off\"\n[limiter]\nmode = \"off\"\n[retry_budget]\nmode = \"off\"\n\
        [breaker]\nfleet = \"off\"\nopen = \"2s\"\nopen_max = \"2s\"\nramp_step = \"0s\"\n";
    let site = Site::new(settings, &[]);
    let bank = Arc::new(Bank::default());
    let kind = Kind::new("bank.work", work).resources([BANK]);
    let daemon = Daemon::builder()
        .config(site.config.clone())
        .data(Arc::clone(&bank))
        .kind(kind.toml("[retry]\nstrategy = \"fixed\"\nbase = \"1s\"\njitter = \"none\"\n"))
        .start()
        .await
        .unwrap();
    let queue = site.queue("default").await;
    site.push(&[r#"{"kind":"bank.work","id":"walker","args":{"walks":true}}"#.to_owned()])
        .await;
    wait_until("it walks", DEADLINE, || async {
        queue.counts().await.unwrap().running == 1
    })
    .await;
    site.push(&jobs("bank.work", 30)).await;
    site.wait_for_stat("yielded", 1, DEADLINE).await;
    let found = queue.find("walker").await.unwrap().unwrap();
    assert_eq!((found.history.attempts, found.history.crashes), (0, 0));
    let last = found
        .history
        .events
        .iter()
        .rfind(|e| e.event == What::HandedBack);
    let note = last.and_then(|event| event.note.clone()).unwrap();
    assert_eq!(note, format!("the breaker of bank.work on {BANK} is open"));

    bank.up.store(true, Ordering::SeqCst);
    site.wait_for_stat("completed", 31, Duration::from_secs(60))
        .await;
    let walker = queue.find("walker").await.unwrap().unwrap();
    assert_eq!(
        (walker.state.as_str(), walker.history.attempts),
        ("done", 0)
    );
    daemon.stop(Duration::ZERO, CancellationToken::new()).await;
}
