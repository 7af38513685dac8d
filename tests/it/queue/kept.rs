//! What is kept of jobs that are over, and within which bounds.

use super::rig::{Rig, done, envelope, failures, flow, handed_back, record, settlement};
use std::time::Duration;
use tidegate::job::{Event, History, Priority, Reject, RejectCode, What};
use tidegate::queue::claim::RawDelivery;
use tidegate::queue::inspect::Found;
use tidegate::queue::settle::Ending;

const BY: &str = "ann@example";

fn given(n: u64) -> String {
    envelope("app.a", n, &format!(r#","id":"x{n}""#))
}

fn dead(job: &RawDelivery) -> Ending {
    let mut history = History::parse(&job.history).unwrap_or_default();
    history.fail(7, "no luck");
    Ending::Dead {
        history: history.into(),
        given: true,
        counter: "dead",
    }
}

async fn found(rig: &Rig, id: &str) -> Found {
    rig.queue.find(id).await.unwrap().unwrap()
}

fn whats(found: &Found) -> Vec<What> {
    found.history.events.iter().map(|e| e.event).collect()
}

/// A size kept in `stats` as the scripts go, and what it should be.
async fn size(rig: &Rig, name: &str) -> i64 {
    let stats = rig.queue.keys().stats.clone();
    rig.redis::<Option<i64>>("HGET", &[&stats, name])
        .await
        .unwrap_or(0)
}

async fn summed(rig: &Rig, keys: &[&str], ids: &str) -> i64 {
    let ids: Vec<String> = rig.redis("ZRANGE", &[ids, "0", "-1"]).await;
    let mut sum = 0;
    for id in &ids {
        for key in keys {
            sum += rig.redis::<i64>("HSTRLEN", &[key, id]).await;
        }
    }
    sum
}

async fn assert_sizes(rig: &Rig) {
    let k = rig.queue.keys().clone();
    let of_dead = summed(rig, &[&k.jobs, &k.meta], &k.dead).await;
    assert_eq!(size(rig, "dead_bytes").await, of_dead, "dead_bytes");
    let of_archive = summed(rig, &[&k.archive], &k.archived).await;
    assert_eq!(size(rig, "history_bytes").await, of_archive);
    let quarantined = rig.queue.quarantined("", 10_000).await.unwrap();
    let of_quarantine: usize = quarantined
        .iter()
        .map(|e| e.raw.len() + e.reason.len() + e.code.len() + e.at_ms.to_string().len())
        .sum();
    assert_eq!(size(rig, "quarantine_bytes").await, of_quarantine as i64);
    let archived: u64 = rig.redis("ZCARD", &[&k.archived]).await;
    assert_eq!(rig.redis::<u64>("HLEN", &[&k.archive]).await, archived);
}

#[tokio::test]
async fn a_clean_job_leaves_a_record_alone_and_a_troubled_one_its_history() {
    let rig = Rig::with(|c| c.retention.recent_max = 1).await;
    rig.put(&[given(1), given(2)]).await;
    let jobs = rig.claim(2).await;
    rig.done(&jobs[0]).await;
    let archive = rig.queue.keys().archive.clone();
    assert_eq!(rig.redis::<u64>("EXISTS", &[&archive]).await, 0);
    let later = Ending::Later {
        delay: Duration::ZERO,
        history: failures(2),
        counter: "retried",
    };
    rig.settle(&[settlement(&jobs[1], later)]).await;
    rig.promote().await;
    let again = rig.claim(1).await.remove(0);
    rig.done(&again).await;
    rig.put(&[given(3)]).await;
    rig.done(&rig.claim(1).await[0]).await;
    // The ring has forgotten both; the archive has not.
    assert_eq!(rig.state("x1").await, None);
    let job = found(&rig, "x2").await;
    assert_eq!((job.state.as_str(), job.history.errors.len()), ("done", 2));
    assert_eq!(whats(&job), [What::Failed, What::Failed]);
    assert_eq!(job.finished.unwrap().kind, "app.a");
    assert_sizes(&rig).await;
}

#[tokio::test]
async fn what_operators_did_is_told_with_their_names() {
    let rig = Rig::new().await;
    rig.put(&[given(1), given(2), given(3)]).await;
    // Waiting: cancelled at once.
    let end = record("x3", "cancelled");
    rig.queue.cancel(&end, true, Some(5), BY).await.unwrap();
    let job = found(&rig, "x3").await;
    assert_eq!(job.state, "cancelled");
    assert_eq!(whats(&job), [What::Enqueued, What::Cancelled]);
    assert_eq!(job.history.events[1].by.as_deref(), Some(BY));
    // Running: asked to end; the wish is told with however it ends.
    let jobs = rig.claim(2).await;
    let end = record("x1", "cancelled");
    rig.queue.cancel(&end, true, None, BY).await.unwrap();
    rig.done(&jobs[0]).await;
    let job = found(&rig, "x1").await;
    assert_eq!(
        (job.state.as_str(), whats(&job)),
        ("done", vec![What::CancelAsked])
    );
    // Dead, retried, dead, removed.
    rig.settle(&[settlement(&jobs[1], dead(&jobs[1]))]).await;
    let home = flow(Priority::Normal, "app.a");
    assert!(rig.queue.requeue("x2", &home, None, BY).await.unwrap());
    assert_sizes(&rig).await;
    let again = rig.claim(9).await.remove(0);
    let opened = again
        .open(&rig.queue, &rig.catalog, again.ready_ms)
        .unwrap();
    assert_eq!(opened.job.attempt, 1, "it starts afresh");
    rig.settle(&[settlement(&again, dead(&again))]).await;
    assert_sizes(&rig).await;
    let removed = rig.queue.bury(&["x2".to_owned()], Some(BY)).await.unwrap();
    assert_eq!(removed, 1);
    let job = found(&rig, "x2").await;
    let told = [What::Failed, What::Retried, What::Failed, What::Deleted];
    assert_eq!(
        (job.state.as_str(), whats(&job)),
        ("deleted", told.to_vec())
    );
    assert_eq!(job.history.events[3].by.as_deref(), Some(BY));
    assert_sizes(&rig).await;
}

#[tokio::test]
async fn a_delayed_job_made_to_run_keeps_its_attempts() {
    let rig = Rig::new().await;
    rig.put(&[given(1)]).await;
    let job = rig.claim(1).await.remove(0);
    let later = Ending::Later {
        delay: Duration::from_secs(60),
        history: failures(2),
        counter: "retried",
    };
    rig.settle(&[settlement(&job, later)]).await;
    let home = flow(Priority::Normal, "app.a");
    assert!(rig.queue.requeue("x1", &home, None, BY).await.unwrap());
    let job = found(&rig, "x1").await;
    assert_eq!(job.history.attempts, 2);
    let last = job.history.events.last().unwrap();
    assert_eq!((last.event, last.by.as_deref()), (What::Hurried, Some(BY)));
}

#[tokio::test]
async fn the_archive_is_bounded_by_count_bytes_and_age() {
    let rig = Rig::with(|c| {
        c.retention.history_max = 30;
        c.retention.history_bytes = 1 << 20;
    })
    .await;
    rig.put(&(0..100).map(given).collect::<Vec<_>>()).await;
    let archived = rig.queue.keys().archived.clone();
    for job in rig.claim(100).await {
        let end = Ending::Finished {
            record: record(&job.id, "done").encode(),
            counter: "done",
            given: true,
            history: Some(failures(1)),
        };
        rig.settle(&[settlement(&job, end)]).await;
    }
    assert_eq!(rig.redis::<u64>("ZCARD", &[&archived]).await, 30);
    assert_eq!(rig.stat("history_dropped").await, 70);
    assert_sizes(&rig).await;
    assert_eq!(found(&rig, "x99").await.history.attempts, 1);
    // Now each is so large that bytes count.
    let mut large = History::default();
    for n in 0..50 {
        large.fail(n, &"x".repeat(5_000));
    }
    rig.put(&(100..130).map(given).collect::<Vec<_>>()).await;
    for job in rig.claim(100).await {
        let end = Ending::Finished {
            record: record(&job.id, "done").encode(),
            counter: "done",
            given: true,
            history: Some(large.clone().into()),
        };
        rig.settle(&[settlement(&job, end)]).await;
    }
    let (bytes, count) = (
        size(&rig, "history_bytes").await,
        rig.redis::<u64>("ZCARD", &[&archived]).await,
    );
    assert!(
        (800_000..=1 << 20).contains(&bytes) && count < 30,
        "{bytes} bytes, {count}"
    );
    assert_sizes(&rig).await;
    let time: (u64, u64) = rig.redis("TIME", &[]).await;
    rig.redis::<()>("ZADD", &[&archived, "1000", "x129"]).await;
    let now_ms = time.0 * 1_000;
    assert_eq!(
        rig.queue.forget_before(now_ms - 60_000).await.unwrap(),
        (1, 0)
    );
    assert_sizes(&rig).await;
    while rig.queue.forget_before(now_ms + 60_000).await.unwrap() != (0, 0) {}
    assert_eq!(size(&rig, "history_bytes").await, 0);
    // Smaller bounds hold as soon as somebody tidies.
    let off = Rig::with(|c| c.retention.history_max = 0).await;
    off.put(&[given(1)]).await;
    let job = off.claim(1).await.remove(0);
    off.settle(&[settlement(&job, dead(&job))]).await;
    off.queue.bury(&["x1".to_owned()], Some(BY)).await.unwrap();
    assert_eq!(off.state("x1").await, None);
}

#[tokio::test]
async fn the_dead_are_bounded_by_count_and_bytes_and_what_gave_way_is_told() {
    let rig = Rig::with(|c| {
        c.retention.dead_max = 10;
        c.retention.dead_bytes = 1 << 20;
    })
    .await;
    rig.put(&(0..25).map(given).collect::<Vec<_>>()).await;
    let jobs = rig.claim(100).await;
    let ends: Vec<_> = jobs.iter().map(|j| settlement(j, dead(j))).collect();
    rig.settle(&ends).await;
    assert_eq!(rig.queue.counts().await.unwrap().dead, 10);
    assert_eq!(rig.stat("dead_dropped").await, 15);
    assert_sizes(&rig).await;
    let dropped = jobs.iter().filter(|j| !ends.is_empty() && j.id != "x24");
    let mut told = 0;
    for job in dropped {
        let job = found(&rig, &job.id).await;
        if job.state == "dropped" {
            assert_eq!(whats(&job), [What::Failed, What::Dropped]);
            told += 1;
        }
    }
    assert!(told >= 14, "{told}");
    // Envelopes of 200 KiB: no more than five fit.
    let large = |n: u64| {
        format!(
            r#"{{"kind":"app.a","id":"y{n}","args":{{"n":{n}}},"meta":{{}}}}{}"#,
            " ".repeat(200 * 1024)
        )
    };
    rig.put(&(0..8).map(large).collect::<Vec<_>>()).await;
    for job in rig.claim(8).await {
        rig.settle(&[settlement(&job, dead(&job))]).await;
    }
    assert_eq!(rig.queue.counts().await.unwrap().dead, 5);
    assert_sizes(&rig).await;
    let left: Vec<String> = rig.redis("HKEYS", &[&rig.queue.keys().jobs]).await;
    assert_eq!(left.len(), 5, "envelopes go with their jobs: {left:?}");
}

#[tokio::test]
async fn the_quarantine_is_bounded_by_count_bytes_and_age() {
    let rig = Rig::with(|c| {
        c.retention.quarantine_max = 200;
        c.retention.quarantine_bytes = 1 << 20;
    })
    .await;
    rig.put(&vec!["garbage"; 1_000]).await;
    assert_eq!(rig.queue.counts().await.unwrap().quarantine, 200);
    assert_eq!(rig.stat("quarantine_dropped").await, 800);
    assert_sizes(&rig).await;
    rig.put(&vec!["x".repeat(300 * 1024); 20]).await;
    let kept = rig.queue.counts().await.unwrap().quarantine;
    assert!((3..200).contains(&kept), "{kept}");
    assert!(size(&rig, "quarantine_bytes").await <= 1 << 20);
    assert_sizes(&rig).await;
    let entries = rig.queue.quarantined("", 2).await.unwrap();
    let ids: Vec<String> = entries.into_iter().map(|e| e.id).collect();
    assert_eq!(rig.queue.discard(&ids[..1]).await.unwrap(), 1);
    assert_eq!(rig.queue.release(&ids).await.unwrap(), 1);
    assert_sizes(&rig).await;
    let time: (u64, u64) = rig.redis("TIME", &[]).await;
    let hour = 3_600_000;
    assert_eq!(
        rig.queue
            .discard_before(time.0 * 1_000 - hour)
            .await
            .unwrap(),
        0
    );
    while rig
        .queue
        .discard_before(time.0 * 1_000 + hour)
        .await
        .unwrap()
        > 0
    {}
    assert_eq!(size(&rig, "quarantine_bytes").await, 0);
    assert_eq!(rig.queue.counts().await.unwrap().quarantine, 0);
}

#[tokio::test]
async fn a_size_that_somebody_made_unusable_starts_anew() {
    let rig = Rig::new().await;
    let stats = rig.queue.keys().stats.clone();
    for name in ["dead_bytes", "history_bytes", "quarantine_bytes"] {
        rig.redis::<()>("HSET", &[&stats, name, "junk"]).await;
    }
    rig.put(&[given(1), "garbage".to_owned()]).await;
    let job = rig.claim(1).await.remove(0);
    rig.settle(&[settlement(&job, dead(&job))]).await;
    assert!(
        rig.queue
            .requeue("x1", &flow(Priority::Normal, "app.a"), None, BY)
            .await
            .unwrap()
    );
    let job = rig.claim(1).await.remove(0);
    rig.done(&job).await;
    assert_eq!(found(&rig, "x1").await.state, "done");
    assert_eq!(size(&rig, "dead_bytes").await, 0);
}

#[tokio::test]
async fn what_is_quarantined_after_trouble_leaves_its_history() {
    let rig = Rig::new().await;
    rig.put(&[given(1)]).await;
    let job = rig.claim(1).await.remove(0);
    let mut history = History::of(&"app.a".into(), Priority::Low);
    history.push(Event::new(1, What::Crashed));
    let back = Ending::HandedBack {
        flow: flow(Priority::Normal, "app.a"),
        history: Some(history.into()),
        counter: "recovered",
    };
    rig.settle(&[settlement(&job, back)]).await;
    let job = rig.claim(1).await.remove(0);
    let no = Ending::Quarantined(Reject::new(RejectCode::BadArgs, "no"));
    rig.settle(&[settlement(&job, no)]).await;
    let job = found(&rig, "x1").await;
    assert_eq!(job.state, "quarantined");
    assert_eq!(whats(&job), [What::Crashed, What::Quarantined]);
    let finished = job.finished.unwrap();
    assert_eq!(
        (finished.kind.as_str(), finished.priority),
        ("app.a", Priority::Low)
    );
    assert_sizes(&rig).await;
    // A clean job that is handed back has nothing stored.
    rig.put(&[given(2)]).await;
    let job = rig.claim(1).await.remove(0);
    rig.settle(&[settlement(
        &job,
        handed_back(flow(Priority::Normal, "app.a")),
    )])
    .await;
    assert_eq!(
        rig.redis::<u64>("EXISTS", &[&rig.queue.keys().meta]).await,
        0
    );
}

#[tokio::test]
async fn the_memory_of_a_queue_is_estimated_in_a_bounded_way() {
    let rig = Rig::new().await;
    let before = rig.queue.memory().await.unwrap().unwrap();
    let padded = |n: u64| format!("{}{}", given(n), " ".repeat(2_000));
    rig.put(&(0..1_000).map(padded).collect::<Vec<_>>()).await;
    let full = rig.queue.memory().await.unwrap().unwrap();
    let grown = full - before;
    assert!((2_000_000..6_000_000).contains(&grown), "{grown}");
    let jobs = rig.claim(1_000).await;
    for chunk in jobs.chunks(500) {
        let ends: Vec<_> = chunk.iter().map(|j| settlement(j, done(j))).collect();
        rig.settle(&ends).await;
    }
    let after = rig.queue.memory().await.unwrap().unwrap();
    assert!(after < full - 1_500_000, "{after}");
}

#[tokio::test]
async fn ids_are_forgotten_when_their_time_is_over() {
    let rig = Rig::new().await;
    rig.put(&[given(1), given(2)]).await;
    for job in rig.claim(2).await {
        rig.done(&job).await;
    }
    let ids = rig.queue.keys().ids.clone();
    rig.redis::<()>("ZADD", &[&ids, "1000", "x1", "1", "reserved"])
        .await;
    assert_eq!(rig.queue.forget_before(1).await.unwrap(), (0, 1));
    let left: Vec<String> = rig.redis("ZRANGE", &[&ids, "0", "-1"]).await;
    assert_eq!(left, ["reserved", "x2"]);
}
