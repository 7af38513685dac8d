//! Incarnations: who lives, who is fenced, and what becomes of their jobs.

use super::rig::{ME, Rig, done, envelope, flow, handed_back, settlement};
use tidegate::job::Priority;
use tidegate::queue::QueueError;

const OTHER: &str = "00000000-0000-4000-8000-000000000002";

#[tokio::test]
async fn a_heartbeat_lists_those_who_live_the_longest_silent_first() {
    let rig = Rig::new().await;
    let first = rig.queue.heartbeat(OTHER, true).await.unwrap();
    let seen: Vec<&str> = first.workers.iter().map(|(w, _)| w.as_str()).collect();
    assert_eq!(seen.len(), 2);
    while rig.queue.heartbeat(ME, false).await.unwrap().now_ms == first.now_ms {}
    let later = rig.queue.heartbeat(ME, false).await.unwrap();
    assert_eq!(later.workers[0], (OTHER.to_owned(), first.now_ms));
    assert_eq!(later.workers[1], (ME.to_owned(), later.now_ms));
}

#[tokio::test]
async fn only_a_heartbeat_that_stood_still_is_fenced() {
    let rig = Rig::new().await;
    let seen = rig.queue.heartbeat(OTHER, true).await.unwrap().now_ms;
    while rig.queue.heartbeat(OTHER, false).await.unwrap().now_ms == seen {}
    assert!(
        !rig.queue.fence(OTHER, seen).await.unwrap(),
        "it has beaten since"
    );
    let now = rig.queue.heartbeat(OTHER, false).await.unwrap().now_ms;
    assert!(rig.queue.fence(OTHER, now).await.unwrap());
    assert!(!rig.queue.fence(OTHER, now).await.unwrap(), "only once");
    let refused = rig.queue.heartbeat(OTHER, false).await;
    assert!(matches!(refused, Err(QueueError::LeaseLost)));
}

#[tokio::test]
async fn the_jobs_of_the_fenced_run_elsewhere_and_it_can_settle_nothing() {
    let rig = Rig::new().await;
    rig.queue.heartbeat(OTHER, true).await.unwrap();
    let given = |n: u64| envelope("app.a", n, &format!(r#","id":"x{n:03}""#));
    rig.put(&(0..700).map(given).collect::<Vec<_>>()).await;
    let mut theirs = rig.claim_as(OTHER, 350).await;
    theirs.extend(rig.claim_as(OTHER, 350).await);
    let ends: Vec<_> = theirs.iter().map(|j| settlement(j, done(j))).collect();
    let seen = rig.queue.heartbeat(OTHER, false).await.unwrap().now_ms;
    assert!(rig.queue.fence(OTHER, seen).await.unwrap());

    let entries = sweep(&rig).await;
    assert_eq!(entries.len(), 700);
    assert!(entries.iter().all(|e| e.owner().unwrap().0 == OTHER));
    for step in theirs.chunks(200) {
        let home = flow(Priority::Normal, "app.a");
        let back: Vec<_> = step
            .iter()
            .map(|j| settlement(j, handed_back(home.clone())))
            .collect();
        assert_eq!(rig.settle(&back).await.stale, Vec::<usize>::new());
    }
    let lost = rig.queue.settle(OTHER, 1, &ends[..10]).await;
    assert!(matches!(lost, Err(QueueError::LeaseLost)));
    // Registered anew it is heard, but its tokens are not those of the jobs.
    rig.queue.heartbeat(OTHER, true).await.unwrap();
    let settled = rig.queue.settle(OTHER, 1, &ends[..10]).await.unwrap();
    assert_eq!(settled.stale.len(), 10);
    let ours = rig.claim(1_000).await;
    assert_eq!(ours.len(), 700);
    let settled = rig.queue.settle(OTHER, 2, &ends[..10]).await.unwrap();
    assert_eq!(settled.stale.len(), 10);
    for step in ours.chunks(500) {
        let ends: Vec<_> = step.iter().map(|j| settlement(j, done(j))).collect();
        assert_eq!(rig.settle(&ends).await.stale, Vec::<usize>::new());
    }
    assert_eq!(rig.stat("done").await, 700);
}

#[tokio::test]
async fn a_sweep_goes_on_past_what_others_wrote() {
    let rig = Rig::new().await;
    rig.put(&[envelope("app.a", 1, "")]).await;
    rig.claim(1).await;
    let mut conn = rig.conn.clone();
    redis::cmd("HSET")
        .arg(&rig.queue.keys().running)
        .arg(&[&b"\xff\xfe"[..], &b"\xff"[..], &b"id"[..], &b"no token"[..]])
        .query_async::<()>(&mut conn)
        .await
        .unwrap();
    let entries = sweep(&rig).await;
    assert_eq!(entries.len(), 3);
    assert_eq!(entries.iter().filter(|e| e.owner().is_none()).count(), 2);
}

async fn sweep(rig: &Rig) -> Vec<tidegate::queue::lease::RunningEntry> {
    let (mut cursor, mut all) = (0, Vec::new());
    loop {
        let (next, found) = rig.queue.sweep_running(cursor).await.unwrap();
        all.extend(found);
        cursor = next;
        if cursor == 0 {
            all.sort_by(|a, b| a.id.cmp(&b.id));
            all.dedup();
            return all;
        }
    }
}
