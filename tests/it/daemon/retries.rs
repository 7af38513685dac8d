//! A storm of retries against the retry budget, through the whole daemon.

use super::process::Site;
use crate::support::{DEADLINE, wait_until};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tidegate::embed::{Context, Daemon, Data, JobError, Kind};
use tokio_util::sync::CancellationToken;

const STORM: usize = 1_000;
/// The floor of the budget, in a window of a second.
const FLOOR: usize = 60;

/// A dependency that is down at first, and what reached it since it is up.
#[derive(Default)]
struct App {
    up: AtomicBool,
    retries: AtomicUsize,
    fresh: AtomicUsize,
    /// The longest a new job waited for its start, ms.
    waited: AtomicUsize,
}

#[derive(serde::Deserialize)]
struct Call {
    /// Wall-clock time when it was sent, ms.
    sent: u64,
}

async fn call(call: Call, ctx: Context, app: Data<Arc<App>>) -> Result<(), &'static str> {
    if !app.up.load(Ordering::SeqCst) {
        return Err("down");
    }
    if ctx.attempt() > 1 {
        app.retries.fetch_add(1, Ordering::SeqCst);
    } else {
        app.fresh.fetch_add(1, Ordering::SeqCst);
        let waited = tidegate::clock::unix_ms().saturating_sub(call.sent);
        app.waited.fetch_max(waited as usize, Ordering::SeqCst);
    }
    Ok(())
}

fn jobs(count: usize) -> Vec<String> {
    let now = tidegate::clock::unix_ms();
    let job = json!({"kind": "app.call", "args": {"sent": now}}).to_string();
    vec![job; count]
}

/// Brings all that is delayed forward to now, in one step.
async fn all_are_due(site: &Site, delayed: &str) {
    let script = "local now = redis.call('TIME')[1] * 1000
        for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do redis.call('ZADD', KEYS[1], now, id) end";
    redis::cmd("EVAL")
        .arg(script)
        .arg(1)
        .arg(delayed)
        .query_async::<()>(&mut site.redis().await)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dependency_that_comes_back_meets_new_work_and_no_storm() {
    let settings = format!(
        "[gate]\nmode = \"off\"\n[breaker]\nmode = \"off\"\n[retry_budget]\nshare = 0.2\nfloor = {FLOOR}\nwindow = \"1s\"\n"
    );
    let site = Site::new(&settings, &[]);
    let app = Arc::new(App::default());
    let kind = Kind::new("app.call", call).resources(["other:app"]);
    let daemon = Daemon::builder()
        .config(site.config.clone())
        .data(Arc::clone(&app))
        .kind(kind.toml("[retry]\nstrategy = \"fixed\"\nbase = \"1h\"\njitter = \"none\""))
        .start()
        .await
        .unwrap();
    site.push(&jobs(STORM)).await;
    site.wait_for_stat("retried", STORM as u64, DEADLINE).await;

    // What their first starts allowed of retries fades within a few windows.
    wait_until("the floor is all there is", DEADLINE, || {
        let left = daemon.health()["budgets"][0]["budget"]["left"].as_f64();
        std::future::ready(left.is_some_and(|left| left <= FLOOR as f64 + 1.0))
    })
    .await;

    // The dependency is back, and all of them are due at once.
    app.up.store(true, Ordering::SeqCst);
    let queue = site.queue("default").await;
    all_are_due(&site, &queue.keys().delayed).await;
    let begun = Instant::now();
    let mut trickle = tokio::time::interval(Duration::from_millis(20));
    for _ in 0..300 {
        trickle.tick().await;
        site.push(&jobs(2)).await;
    }
    let took = begun.elapsed().as_secs_f64();
    let [retries, fresh] = [&app.retries, &app.fresh].map(|n| n.load(Ordering::SeqCst));
    let allowed = fresh as f64 * 0.25 + FLOOR as f64 * (took + 1.0);
    assert!(retries < STORM, "they are not through before the new work");
    assert!((retries as f64) <= allowed + 1.0, "{retries} of {allowed}");
    assert!(
        retries as f64 >= allowed / 3.0,
        "the budget is used: {retries} of {allowed}"
    );
    let budget = &daemon.health()["budgets"][0];
    assert_eq!(budget["resource"], "other:app");
    assert_eq!(budget["budget"]["state"], "holding", "{budget}");

    // In the end all are done, each in its second attempt, and new work never waited for them.
    site.wait_for_stat("completed", (STORM + 600) as u64, Duration::from_secs(90))
        .await;
    assert_eq!(app.retries.load(Ordering::SeqCst), STORM);
    assert_eq!(app.fresh.load(Ordering::SeqCst), 600);
    let waited = app.waited.load(Ordering::SeqCst);
    assert!(waited < 3_000, "a new job waited for {waited} ms");
    let counts = queue.counts().await.unwrap();
    assert_eq!(
        (counts.delayed, counts.dead, counts.stats["retried"]),
        (0, 0, STORM as u64)
    );
    wait_until("it says that nobody waits any more", DEADLINE, || {
        let state = daemon.health()["budgets"][0]["budget"]["state"] == "free";
        std::future::ready(state)
    })
    .await;
    let held = daemon.health()["budgets"][0]["budget"]["held"].clone();
    let metrics = daemon.metrics().encode().unwrap();
    let line = format!("tidegate_retries_held_total{{resource=\"other:app\"}} {held}");
    assert!(metrics.contains(&line), "{line}");
    assert_ne!(held, Value::from(0));
    daemon.stop(Duration::ZERO, CancellationToken::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_snoozes_again_and_again_is_new_work_once() {
    const NAPS: u32 = 6;
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    async fn nap(_: Value) -> Result<(), JobError> {
        if RUNS.fetch_add(1, Ordering::SeqCst) < NAPS as usize {
            return Err(JobError::snooze(Duration::from_millis(1), "not yet"));
        }
        Ok(())
    }
    // Each new job allows one retry, and next to nothing fades.
    let settings = "[retry_budget]\nshare = 0.5\nfloor = 1\nwindow = \"10m\"\n";
    let site = Site::new(&format!("[gate]\nmode = \"off\"\n{settings}"), &[]);
    let daemon = Daemon::builder()
        .config(site.config.clone())
        .kind(Kind::new("app.nap", nap).resources(["other:app"]))
        .start()
        .await
        .unwrap();
    site.push(&[r#"{"kind":"app.nap","id":"sleepy"}"#.to_owned()])
        .await;
    site.wait_for_stat("completed", 1, DEADLINE).await;
    let counts = site.queue("default").await.counts().await.unwrap();
    assert_eq!(counts.stats["snoozed"], u64::from(NAPS));
    let left = daemon.health()["budgets"][0]["budget"]["left"].clone();
    let left = left.as_f64().unwrap();
    assert!((1.5..=2.0).contains(&left), "{left}");
    daemon.stop(Duration::ZERO, CancellationToken::new()).await;
}
