//! Slots that long jobs leave free: for critical jobs at any time, for short ones as long as nobody critical comes.

use super::process::Site;
use crate::support::{DEADLINE, wait_until};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tidegate::embed::{Daemon, Data, Kind, Priority};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Long jobs, which end when they get a permit.
struct Long {
    permits: Semaphore,
    running: AtomicUsize,
    most: AtomicUsize,
}

async fn long(_: Value, all: Data<Arc<Long>>) {
    let now = all.running.fetch_add(1, Ordering::SeqCst) + 1;
    all.most.fetch_max(now, Ordering::SeqCst);
    if let Ok(permit) = all.permits.acquire().await {
        permit.forget();
    }
    all.running.fetch_sub(1, Ordering::SeqCst);
}

fn jobs(kind: &str, count: usize) -> Vec<String> {
    vec![format!(r#"{{"kind":"app.{kind}"}}"#); count]
}

#[tokio::test(flavor = "multi_thread")]
async fn critical_jobs_find_a_slot_though_long_ones_wait_and_short_ones_may_use_it_too() {
    let settings = "[daemon]\nconcurrency = 10\npoll = \"100ms\"\n[gate]\nmode = \"off\"\n[gate.reserve]\nshare = 0.2\nlend_below = \"30s\"\n";
    let site = Site::new(settings, &[]);
    let all = Arc::new(Long {
        permits: Semaphore::new(0),
        running: AtomicUsize::new(0),
        most: AtomicUsize::new(0),
    });
    let short = |name| Kind::new(name, |_: Value| async {});
    let daemon = Daemon::builder()
        .config(site.config.clone())
        .data(Arc::clone(&all))
        .kind(Kind::new("app.long", long).timeout(Duration::from_secs(600)))
        .kind(short("app.short"))
        .kind(short("app.urgent").priority(Priority::Critical))
        .start()
        .await
        .unwrap();
    // Short ones that were seen often enough to be known as such.
    site.push(&jobs("short", 20)).await;
    site.wait_for_stat("completed", 20, DEADLINE).await;
    site.push(&jobs("long", 30)).await;
    let queue = site.queue("default").await;
    wait_until("long ones run", DEADLINE, || {
        std::future::ready(all.running.load(Ordering::SeqCst) == 8)
    })
    .await;
    // More than twenty long ones wait before these.
    site.push(&jobs("urgent", 3)).await;
    site.wait_for_stat("completed", 23, DEADLINE).await;
    site.push(&jobs("short", 50)).await;
    site.wait_for_stat("completed", 73, DEADLINE).await;
    let reserve = daemon.health()["reserve"].clone();
    assert_eq!(
        (&reserve["slots"], &reserve["reserved"], &reserve["long"]),
        (&10.into(), &2.into(), &8.into()),
        "{reserve}"
    );
    // The long ones that wait get each slot that another long one leaves.
    all.permits.add_permits(30);
    site.wait_for_stat("completed", 103, DEADLINE).await;
    assert_eq!(all.most.load(Ordering::SeqCst), 8);
    let counts = queue.counts().await.unwrap();
    assert_eq!((counts.running, counts.stats.get("retried")), (0, None));
    daemon.stop(Duration::ZERO, CancellationToken::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_is_critical_nothing_is_reserved_until_a_critical_job_comes() {
    let settings = "[daemon]\nconcurrency = 10\npoll = \"100ms\"\n[gate]\nmode = \"off\"\n[gate.reserve]\nshare = 0.2\n";
    let site = Site::new(settings, &[]);
    let all = Arc::new(Long {
        permits: Semaphore::new(0),
        running: AtomicUsize::new(0),
        most: AtomicUsize::new(0),
    });
    let daemon = Daemon::builder()
        .config(site.config.clone())
        .data(Arc::clone(&all))
        .kind(Kind::new("app.long", long).timeout(Duration::from_secs(600)))
        .start()
        .await
        .unwrap();
    let running = |count| {
        let all = Arc::clone(&all);
        async move {
            wait_until("so many run", DEADLINE, || {
                std::future::ready(all.running.load(Ordering::SeqCst) == count)
            })
            .await;
        }
    };
    site.push(&jobs("long", 30)).await;
    running(10).await;
    assert_eq!(daemon.health()["reserve"]["reserved"], 0);
    // An app may call a job of any kind critical.
    site.push(&[r#"{"kind":"app.long","priority":"critical"}"#.to_owned()])
        .await;
    wait_until("it was seen", DEADLINE, || {
        std::future::ready(daemon.health()["reserve"]["reserved"] == 2)
    })
    .await;
    all.permits.add_permits(5);
    site.wait_for_stat("completed", 5, DEADLINE).await;
    // The critical one among them, no more than eight of the others run.
    running(9).await;
    all.permits.add_permits(26);
    site.wait_for_stat("completed", 31, DEADLINE).await;
    daemon.stop(Duration::ZERO, CancellationToken::new()).await;
}
