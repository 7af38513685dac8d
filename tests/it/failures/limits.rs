//! Locks that nobody holds any more, and limits that do not hold.

use crate::queue::rig::{Rig, done, envelope, failures, handed_back, record, settlement};
use crate::queue::rig::{flow, number_of};
use crate::support::{DEADLINE, wait_until};
use tidegate::job::{Priority, Reject, RejectCode};
use tidegate::queue::claim::RawDelivery;
use tidegate::queue::operate::{Cancelled, Enqueued, NewJob};
use tidegate::queue::settle::Ending;

const LOCK: &str = "app.a:invoice-7";

/// Enqueues a unique job with this number, and an id made of it.
async fn enqueue(rig: &Rig, n: u64) -> Enqueued {
    let id = format!("job-{n}");
    let more = format!(r#","id":"{id}","unique":{{"key":"invoice-7"}}"#);
    let entry = envelope("app.a", n, &more);
    let job = NewJob {
        id: &id,
        lock: LOCK,
        envelope: entry.as_bytes(),
    };
    rig.queue.enqueue_all(&[job]).await.unwrap().remove(0)
}

fn finished(job: &RawDelivery, state: &'static str) -> Ending {
    Ending::Finished {
        record: record(&job.id, state).encode(),
        counter: state,
        given: true,
        history: None,
    }
}

fn dead() -> Ending {
    Ending::Dead {
        history: failures(1),
        given: true,
        counter: "dead",
    }
}

async fn end(rig: &Rig, job: &RawDelivery, ending: Ending) {
    let settled = rig.settle(&[settlement(job, ending)]).await;
    assert_eq!(settled.stale, Vec::<usize>::new());
}

#[tokio::test]
async fn f11_orphan_unique_locks_and_silent_dedup() {
    let rig = Rig::new().await;
    let ways = [
        "done",
        "expired",
        "cancelled while it runs",
        "cancelled while it waits",
        "dead",
        "quarantined",
        "rescued, then done",
        "dead, retried, dead and removed",
    ];
    for (n, way) in (1..).zip(ways) {
        assert_eq!(enqueue(&rig, n).await, Enqueued::Created, "before {way}");
        // Whoever comes second is told of the first, in whatever state that is.
        let first = |state: &str| Enqueued::Held {
            state: state.to_owned(),
            id: format!("job-{n}"),
        };
        assert_eq!(
            enqueue(&rig, 100 + n).await,
            first("pending"),
            "in the inbox"
        );
        rig.admit().await;
        assert_eq!(enqueue(&rig, 100 + n).await, first("pending"), "waiting");
        let id = format!("job-{n}");
        if way == "cancelled while it waits" {
            let cancelled = rig
                .queue
                .cancel(&record(&id, "cancelled"), true, None, "ann")
                .await;
            assert_eq!(cancelled.unwrap(), Cancelled::Done);
            continue;
        }
        let job = rig.claim(9).await.remove(0);
        assert_eq!(number_of(&job), n);
        assert_eq!(enqueue(&rig, 100 + n).await, first("running"));
        let home = flow(Priority::Normal, "app.a");
        match way {
            "expired" => end(&rig, &job, finished(&job, "expired")).await,
            "cancelled while it runs" => end(&rig, &job, finished(&job, "cancelled")).await,
            "dead" => end(&rig, &job, dead()).await,
            "quarantined" => {
                let reject = Reject::new(RejectCode::BadArgs, "n: no");
                end(&rig, &job, Ending::Quarantined(reject)).await;
            }
            "rescued, then done" => {
                end(&rig, &job, handed_back(home)).await;
                assert_eq!(enqueue(&rig, 100 + n).await, first("pending"), "rescued");
                rig.done(&rig.claim(1).await[0]).await;
            }
            "dead, retried, dead and removed" => {
                end(&rig, &job, dead()).await;
                assert!(rig.queue.requeue(&id, &home, None, "ann").await.unwrap());
                assert_eq!(enqueue(&rig, 100 + n).await, first("pending"), "retried");
                end(&rig, &rig.claim(1).await.remove(0), dead()).await;
                assert_eq!(rig.queue.bury(&[id], Some("ann")).await.unwrap(), 1);
            }
            _ => end(&rig, &job, done(&job)).await,
        }
    }
    assert_eq!(
        enqueue(&rig, 50).await,
        Enqueued::Created,
        "after all of them"
    );
}

#[tokio::test]
async fn f11_a_lock_that_outlived_its_time_is_not_taken_from_its_next_holder() {
    let rig = Rig::new().await;
    let timed = r#","unique":{"key":"invoice-7","until":"ttl","ttl_ms":1}"#;
    rig.put(&[envelope("app.a", 1, timed)]).await;
    rig.done(&rig.claim(1).await[0]).await;
    let ends = rig.queue.keys().lock_ends.clone();
    wait_until("its time is over", DEADLINE, || async {
        let at: f64 = rig.redis("ZSCORE", &[&ends, LOCK]).await;
        let time: (u64, u64) = rig.redis("TIME", &[]).await;
        time.0 * 1_000 + time.1 / 1_000 > at as u64
    })
    .await;
    assert_eq!(enqueue(&rig, 2).await, Enqueued::Created);
    rig.admit().await;
    let age = std::time::Duration::from_secs(60);
    rig.queue.prune_ties(age, 100).await.unwrap();
    assert!(matches!(enqueue(&rig, 3).await, Enqueued::Held { .. }));
}
