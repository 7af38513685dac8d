//! What operators do: cancel, retry, purge, release.

use super::rig::{ME, Rig, done, envelope, failures, flow, handed_back, record, settlement};
use std::sync::Arc;
use std::time::Duration;
use tidegate::job::Priority;
use tidegate::queue::FlowAllowance;
use tidegate::queue::operate::Cancelled;
use tidegate::queue::settle::Ending;

const BY: &str = "ann@example";

async fn cancel(rig: &Rig, id: &str) -> Cancelled {
    let record = record(id, "cancelled");
    rig.queue.cancel(&record, true, None, BY).await.unwrap()
}

#[tokio::test]
async fn a_waiting_job_is_cancelled_and_never_runs() {
    let rig = Rig::new().await;
    let given = |n: u64| envelope("app.a", n, &format!(r#","id":"x{n}""#));
    rig.put(&[given(1), given(2), given(3)]).await;
    assert_eq!(cancel(&rig, "x2").await, Cancelled::Done);
    assert_eq!(cancel(&rig, "x2").await, Cancelled::Unknown);
    assert_eq!(rig.state("x2").await.as_deref(), Some("cancelled"));
    rig.push(&[given(2)]).await;
    assert_eq!(rig.admit().await.1, [0], "its id is remembered");
    assert_eq!(rig.take(9).await, [1, 3]);
    let tomb: u64 = rig.redis("EXISTS", &[&rig.queue.keys().tomb]).await;
    assert_eq!((tomb, rig.stat("cancelled").await), (0, 1));
}

#[tokio::test]
async fn the_same_id_again_after_a_cancellation_runs_in_its_own_place() {
    let rig = Rig::with(|c| c.dedupe.window = Duration::ZERO).await;
    let x = |kind, n, class: &str| {
        let more = format!(r#","id":"x","priority":"{class}""#);
        envelope(kind, n, &more)
    };
    // Three times over, each of another kind and class, while the entries of the earlier ones still stand there.
    rig.put(&[x("app.a", 1, "low")]).await;
    assert_eq!(cancel(&rig, "x").await, Cancelled::Done);
    rig.put(&[x("app.b", 2, "bulk")]).await;
    assert_eq!(cancel(&rig, "x").await, Cancelled::Done);
    rig.put(&[x("app.c", 3, "critical")]).await;
    let jobs = rig.claim(1).await;
    assert_eq!(super::rig::number_of(&jobs[0]), 3);
    assert_eq!(
        rig.take(9).await,
        Vec::<u64>::new(),
        "what was cancelled is not claimed again"
    );
    rig.done(&jobs[0]).await;
    let keys = rig.queue.keys();
    let left: u64 = rig
        .redis("EXISTS", &[&keys.tomb, &keys.jobs, &keys.running])
        .await;
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_delayed_job_is_cancelled() {
    let rig = Rig::new().await;
    rig.put(&[envelope("app.a", 1, r#","id":"x","delay_ms":60000"#)])
        .await;
    assert_eq!(cancel(&rig, "x").await, Cancelled::Done);
    let keys = rig.queue.keys();
    let left: u64 = rig
        .redis("EXISTS", &[&keys.delayed, &keys.jobs, &keys.tomb])
        .await;
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_running_job_is_asked_to_end_until_it_has() {
    let rig = Rig::new().await;
    rig.put(&[envelope("app.a", 1, r#","id":"x""#)]).await;
    let job = rig.claim(1).await.remove(0);
    assert_eq!(cancel(&rig, "x").await, Cancelled::Asked);
    assert_eq!(rig.queue.look().await.unwrap().cancels, ["x"]);
    // It was handed back before anybody told it: the wish stands.
    let back = settlement(&job, handed_back(flow(Priority::Normal, "app.a")));
    rig.settle(&[back]).await;
    let job = rig.claim(1).await.remove(0);
    assert_eq!(rig.queue.look().await.unwrap().cancels, ["x"]);
    rig.done(&job).await;
    assert_eq!(
        rig.queue.look().await.unwrap().cancels,
        Vec::<String>::new()
    );
}

/// Redis keeps a small hash as a list, and gives it whole whatever one asks for; a large one comes in pieces.
#[tokio::test]
async fn however_many_wishes_there_are_each_is_heard_at_once() {
    for wishes in [300, 2_000] {
        let rig = Rig::new().await;
        rig.put(&[
            envelope("app.a", 1, r#","id":"x""#),
            envelope("app.a", 2, r#","id":"y""#),
        ])
        .await;
        rig.claim(2).await;
        let cancels = rig.queue.keys().cancels.clone();
        let mut pipe = redis::pipe();
        for n in 0..wishes {
            let wish = r#"{"at":1,"event":"cancel_asked","by":"ann@mail-1","note":"of another daemon's job"}"#;
            pipe.hset(&cancels, format!("other-{n}"), wish).ignore();
        }
        pipe.query_async::<()>(&mut rig.conn.clone()).await.unwrap();
        assert_eq!(cancel(&rig, "y").await, Cancelled::Asked);
        let look = rig.queue.look().await.unwrap();
        assert_eq!((look.cancels.len(), look.many_cancels), (0, true));
        let mut held: Vec<Arc<str>> = (0..1_200).map(|n| format!("mine-{n}").into()).collect();
        held.extend(["x".into(), "y".into()]);
        let wished = rig.queue.cancels_among(&held).await.unwrap();
        assert_eq!(wished, [Arc::from("y")]);
    }
}

#[tokio::test]
async fn a_dead_job_runs_again_or_is_gone_for_good() {
    let rig = Rig::new().await;
    let given = |n: u64| envelope("app.a", n, &format!(r#","id":"x{n}""#));
    rig.put(&[given(1), given(2), given(3)]).await;
    for job in rig.claim(3).await {
        let dead = Ending::Dead {
            history: failures(5),
            given: true,
            counter: "dead",
        };
        rig.settle(&[settlement(&job, dead)]).await;
    }
    assert_eq!(cancel(&rig, "x1").await, Cancelled::Dead);
    let home = flow(Priority::Normal, "app.a");
    assert!(rig.queue.requeue("x1", &home, None, BY).await.unwrap());
    assert!(
        !rig.queue.requeue("x1", &home, None, BY).await.unwrap(),
        "it is dead no more"
    );
    assert!(rig.queue.requeue("x2", &home, None, BY).await.unwrap());
    assert!(!rig.queue.requeue("nobody", &home, None, BY).await.unwrap());
    let jobs = rig.claim(9).await;
    let attempt = |index: usize| {
        let job: &tidegate::queue::claim::RawDelivery = &jobs[index];
        let opened = job.open(&rig.queue, &rig.catalog, job.ready_ms).unwrap();
        opened.job.attempt
    };
    assert_eq!((jobs.len(), attempt(0), attempt(1)), (2, 1, 1));
    let ids = ["x3".to_owned(), "x1".to_owned()];
    assert_eq!(rig.queue.bury(&ids, Some(BY)).await.unwrap(), 1);
    assert_eq!(rig.state("x3").await.as_deref(), Some("deleted"));
    assert_eq!(rig.state("x1").await.as_deref(), Some("running"));
    for job in &jobs {
        rig.settle(&[settlement(job, done(job))]).await;
    }
    let keys = rig.queue.keys();
    let left: u64 = rig
        .redis("EXISTS", &[&keys.jobs, &keys.meta, &keys.dead])
        .await;
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_delayed_job_can_be_run_now() {
    let rig = Rig::new().await;
    rig.put(&[envelope(
        "app.a",
        1,
        r#","id":"x","delay_ms":60000,"priority":"low""#,
    )])
    .await;
    let home = flow(Priority::Low, "app.a");
    assert!(rig.queue.requeue("x", &home, None, BY).await.unwrap());
    assert_eq!(rig.take(9).await, [1]);
}

#[tokio::test]
async fn quarantined_entries_are_judged_anew_or_discarded() {
    let rig = Rig::new().await;
    rig.put(&[
        envelope("no.such", 1, ""),
        envelope("app.a", 2, r#","v":9"#),
    ])
    .await;
    let kept = rig.queue.quarantined("", 9).await.unwrap();
    let ids: Vec<String> = kept.iter().map(|entry| entry.id.clone()).collect();
    assert_eq!(rig.queue.release(&ids[..1]).await.unwrap(), 1);
    assert_eq!(rig.queue.release(&ids[..1]).await.unwrap(), 0, "only once");
    rig.admit().await;
    assert_eq!(
        rig.queue.counts().await.unwrap().quarantine,
        2,
        "still unknown"
    );
    assert_eq!(rig.queue.discard(&ids[1..]).await.unwrap(), 1);
    let left = rig.queue.quarantined("", 9).await.unwrap();
    assert_eq!((left.len(), left[0].code.as_str()), (1, "unknown_kind"));
}

#[tokio::test]
async fn a_new_job_under_a_cancelled_id_outlives_a_clock_that_steps_back() {
    // A minute between the clock at the cancellation and the clock since.
    const BACK_MS: u64 = 60_000;
    for requeued in [false, true] {
        let rig = Rig::with(|c| c.dedupe.window = Duration::ZERO).await;
        rig.put(&[envelope("app.a", 1, r#","id":"x""#)]).await;
        rig.queue
            .cancel(&record("x", "cancelled"), true, None, BY)
            .await
            .unwrap();
        let tomb = &rig.queue.keys().tomb;
        let stone: String = rig.redis("HGET", &[tomb, "x"]).await;
        let at: u64 = stone.strip_prefix("1:").unwrap().parse().unwrap();
        rig.redis::<()>("HSET", &[tomb, "x", &format!("1:{}", at + BACK_MS)])
            .await;
        rig.put(&[envelope("app.b", 2, r#","id":"x""#)]).await;
        // What the first one left behind still stands in the flow of its own kind.
        let home = flow(Priority::Normal, "app.b");
        let from = [FlowAllowance {
            flow: home.clone(),
            allowance: 1,
            terms: Default::default(),
        }];
        let job = rig.claim_from(ME, 1, &from).await.remove(0);
        let again = Ending::Later {
            delay: Duration::ZERO,
            history: failures(1),
            counter: "retried",
        };
        rig.settle(&[settlement(&job, again)]).await;
        if requeued {
            assert!(rig.queue.requeue("x", &home, None, BY).await.unwrap());
        } else {
            rig.promote().await;
        }
        let jobs = rig.claim_from(ME, 1, &from).await;
        assert_eq!(jobs.len(), 1, "requeued: {requeued}");
        assert_eq!(rig.take(9).await, [0; 0]);
        assert_eq!(rig.redis::<u64>("EXISTS", &[tomb]).await, 0);
    }
}
