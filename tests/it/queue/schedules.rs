//! The one step that serves ticks: once, whatever is repeated, lost or refused.

use super::rig::Rig;
use tidegate::queue::QueueError;
use tidegate::queue::schedules::{Tick, Ticked, tick_id};
use tidegate::stack::{PrivateRedis, RedisOptions};

/// A tick of `app.a` that moves its record from `record` to `new`.
fn tick(record: &str, new: &str, latest_ms: u64, jobs: &[u64]) -> Tick {
    let entry = |n: &u64| {
        let id = tick_id("app.a", *n);
        format!(r#"{{"kind":"app.a","id":"{id}","args":{{"n":{n}}}}}"#).into_bytes()
    };
    Tick {
        name: "app.a".to_owned(),
        record: record.to_owned(),
        new: new.to_owned(),
        latest_ms,
        passed_over: 0,
        entries: jobs.iter().map(entry).collect(),
    }
}

async fn serve(rig: &Rig, tick: Tick) -> Option<Ticked> {
    let served = rig.queue.tick("", &[tick]).await.unwrap();
    served.map(|(_, mut answers)| answers.remove(0))
}

#[tokio::test]
async fn a_tick_is_served_once_however_often_it_is_asked_for() {
    let rig = Rig::new().await;
    assert_eq!(
        serve(&rig, tick("", "1 x", 1, &[1, 2])).await,
        Some(Ticked::Served)
    );
    // The reply was lost, and the call repeated; another daemon planned the same.
    for _ in 0..2 {
        let again = serve(&rig, tick("", "1 x", 1, &[1, 2])).await;
        assert_eq!(again, Some(Ticked::Moved("1 x".to_owned())));
    }
    assert_eq!(
        serve(&rig, tick("1 x", "3 x", 3, &[3])).await,
        Some(Ticked::Served)
    );
    rig.admit().await;
    assert_eq!(rig.take(9).await, [1, 2, 3]);
    assert_eq!(rig.stat("ticks").await, 3);
}

#[tokio::test]
async fn many_at_once_serve_a_tick_once() {
    let rig = Rig::new().await;
    let tries = (0..50).map(|_| serve(&rig, tick("", "7 x", 7, &[7])));
    let answers = futures::future::join_all(tries).await;
    let served = answers.iter().filter(|a| **a == Some(Ticked::Served));
    assert_eq!(served.count(), 1);
    rig.admit().await;
    assert_eq!(rig.take(9).await, [7]);
}

#[tokio::test]
async fn a_record_that_was_lost_makes_no_second_job() {
    let rig = Rig::new().await;
    serve(&rig, tick("", "5 x", 5, &[5])).await;
    rig.admit().await;
    let jobs = rig.claim(9).await;
    rig.done(&jobs[0]).await;
    rig.redis::<()>("DEL", &[&rig.queue.keys().ticks]).await;
    assert_eq!(
        serve(&rig, tick("", "5 x", 5, &[5])).await,
        Some(Ticked::Served)
    );
    let (_, duplicates) = rig.admit().await;
    assert_eq!((duplicates, rig.take(9).await), (vec![0], vec![]));
}

#[tokio::test]
async fn redis_time_decides_what_is_due() {
    let rig = Rig::new().await;
    let glance = rig.queue.glance_at_schedules().await.unwrap();
    let later = tick("", "9 x", glance.now_ms + 3_600_000, &[9]);
    assert_eq!(serve(&rig, later).await, Some(Ticked::Early));
    let keys = rig.queue.keys();
    let there: u64 = rig.redis("EXISTS", &[&keys.ticks, &keys.inbox]).await;
    assert_eq!(there, 0);
}

#[tokio::test]
async fn who_has_not_seen_a_change_serves_nothing() {
    let rig = Rig::new().await;
    assert!(rig.queue.pause_schedule("app.a", 1).await.unwrap());
    assert!(!rig.queue.pause_schedule("app.a", 2).await.unwrap());
    assert_eq!(serve(&rig, tick("", "1 x", 1, &[1])).await, None);
    let stored = rig.queue.stored_schedules().await.unwrap();
    assert_eq!(stored.paused["app.a"], 1, "since the first pause");
    let glance = rig.queue.glance_at_schedules().await.unwrap();
    assert_eq!(stored.glance.revision, glance.revision);
    let (_, answers) = rig
        .queue
        .tick(&stored.glance.revision, &[tick("", "1 x", 1, &[1])])
        .await
        .unwrap()
        .unwrap();
    assert_eq!(answers, [Ticked::Served]);
    // What is resumed begins anew, once.
    assert!(rig.queue.resume_schedule("app.a").await.unwrap());
    let resumed = rig.queue.stored_schedules().await.unwrap();
    assert!(resumed.records.is_empty() && resumed.paused.is_empty());
    assert!(!rig.queue.resume_schedule("app.a").await.unwrap());
    let twice = rig.queue.stored_schedules().await.unwrap();
    assert_eq!(twice.glance.revision, resumed.glance.revision);
}

#[tokio::test]
async fn what_is_removed_leaves_nothing_behind() {
    let rig = Rig::new().await;
    assert!(rig.queue.add_schedule("x", "{}").await.unwrap());
    rig.queue.pause_schedule("x", 1).await.unwrap();
    rig.redis::<()>("HSET", &[&rig.queue.keys().ticks, "x", "1 UTC * * * * *"])
        .await;
    assert!(rig.queue.remove_schedule("x").await.unwrap());
    assert!(!rig.queue.remove_schedule("x").await.unwrap());
    let stored = rig.queue.stored_schedules().await.unwrap();
    assert!(stored.added.is_empty() && stored.records.is_empty() && stored.paused.is_empty());
}

#[tokio::test]
async fn out_of_memory_a_tick_waits_whole() {
    let dir = tempfile::tempdir().unwrap();
    let server = PrivateRedis::start(RedisOptions::new(dir.path())).unwrap();
    let rig = Rig::on(&server.url(), |_| {}).await;
    rig.redis::<()>("CONFIG", &["SET", "maxmemory", "1"]).await;
    let refused = rig.queue.tick("", &[tick("", "1 x", 1, &[1])]).await;
    assert!(matches!(refused, Err(QueueError::Redis(e)) if e.code() == Some("OOM")));
    rig.redis::<()>("CONFIG", &["SET", "maxmemory", "0"]).await;
    let keys = rig.queue.keys();
    let there: u64 = rig.redis("EXISTS", &[&keys.ticks, &keys.inbox]).await;
    assert_eq!(there, 0);
    assert_eq!(
        serve(&rig, tick("", "1 x", 1, &[1])).await,
        Some(Ticked::Served)
    );
}
