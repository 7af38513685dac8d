//! From a daemon back into the queue: only under the token, only once.

use super::rig::{ME, Rig, done, envelope, failures, flow, handed_back, number_of, settlement};
use std::time::Duration;
use tidegate::job::{Event, History, Priority, Reject, RejectCode, What};
use tidegate::queue::QueueError;
use tidegate::queue::settle::Ending;

fn later(delay: Duration, attempts: u32) -> Ending {
    Ending::Later {
        delay,
        history: failures(attempts),
        counter: "retried",
    }
}

fn dead() -> Ending {
    Ending::Dead {
        history: failures(3),
        given: true,
        counter: "dead",
    }
}

#[tokio::test]
async fn a_claim_puts_jobs_under_its_token_and_settling_ends_them() {
    let rig = Rig::new().await;
    rig.put(&[envelope("app.a", 1, r#","id":"x""#)]).await;
    let job = rig.claim(1).await.remove(0);
    assert_eq!(job.id, "x");
    assert_eq!(job.token, format!("{ME}:{:020}:{:013}", 1, job.ready_ms));
    let running: String = rig
        .redis("OBJECT", &["ENCODING", &rig.queue.keys().running])
        .await;
    assert_eq!(
        running, "hashtable",
        "found at once, however many there are"
    );
    let found = rig.queue.find("x").await.unwrap().unwrap();
    assert_eq!(found.token.as_deref(), Some(job.token.as_str()));
    rig.done(&job).await;
    assert_eq!(rig.state("x").await.as_deref(), Some("done"));
    let keys = rig.queue.keys();
    let left: u64 = rig
        .redis(
            "EXISTS",
            &[&keys.jobs, &keys.meta, &keys.running, &keys.ready[2]],
        )
        .await;
    assert_eq!(left, 0);
    assert_eq!(rig.stat("done").await, 1);
}

#[tokio::test]
async fn a_settlement_without_the_token_changes_nothing() {
    let rig = Rig::new().await;
    rig.put(&[envelope("app.a", 1, r#","id":"x""#)]).await;
    let first = rig.claim(1).await.remove(0);
    let home = flow(Priority::Normal, "app.a");
    rig.settle(&[settlement(&first, handed_back(home.clone()))])
        .await;
    let second = rig.claim(1).await.remove(0);
    assert_ne!(first.token, second.token);
    let quarantined = Ending::Quarantined(Reject::new(RejectCode::Malformed, "no"));
    let soon = later(Duration::ZERO, 1);
    for ending in [done(&first), soon, dead(), handed_back(home), quarantined] {
        let settled = rig.settle(&[settlement(&first, ending)]).await;
        assert_eq!(settled.stale, [0]);
    }
    let counts = rig.queue.counts().await.unwrap();
    let elsewhere = counts.delayed + counts.dead + counts.quarantine + counts.lanes[2];
    assert_eq!((counts.running, elsewhere), (1, 0));
    rig.done(&second).await;
    let again = rig.settle(&[settlement(&second, done(&second))]).await;
    assert_eq!(again.stale, [0], "what is over can't end again");
}

#[tokio::test]
async fn the_same_batch_again_is_told_what_it_did() {
    let rig = Rig::new().await;
    rig.put(&(0..3).map(|n| envelope("app.a", n, "")).collect::<Vec<_>>())
        .await;
    let jobs = rig.claim(3).await;
    let mut wrong = settlement(&jobs[1], done(&jobs[1]));
    wrong.token = format!("{ME}:77:0").into();
    let batch = [
        settlement(&jobs[0], done(&jobs[0])),
        wrong,
        settlement(&jobs[0], done(&jobs[0])),
        settlement(&jobs[2], later(Duration::from_secs(60), 1)),
    ];
    for _ in 0..3 {
        let settled = rig.queue.settle(ME, 7, &batch).await.unwrap();
        assert_eq!(settled.stale, [1, 2]);
    }
    assert_eq!((rig.stat("done").await, rig.stat("retried").await), (1, 1));
    let old = rig.queue.settle(ME, 6, &batch[1..2]).await.unwrap();
    assert_eq!(old.stale, [0], "an older batch is refused");
    let right = settlement(&jobs[1], done(&jobs[1]));
    let next = rig.queue.settle(ME, 8, &[right]).await.unwrap();
    assert_eq!(next.stale, Vec::<usize>::new());
}

#[tokio::test]
async fn a_retry_waits_keeps_its_history_and_comes_back() {
    let rig = Rig::new().await;
    rig.put(&[envelope("app.a", 1, r#","id":"x","priority":"high""#)])
        .await;
    let job = rig.claim(1).await.remove(0);
    let settled = rig
        .settle(&[settlement(&job, later(Duration::from_millis(30), 1))])
        .await;
    assert_eq!(rig.state("x").await.as_deref(), Some("delayed"));
    let due = rig.queue.look().await.unwrap().next_due_ms;
    assert_eq!(due, Some(settled.now_ms + 30));
    let job = promoted(&rig).await;
    assert_eq!(job.ready_ms, settled.now_ms + 30);
    let delivery = job.open(&rig.queue, &rig.catalog, job.ready_ms).unwrap();
    assert_eq!(
        (delivery.job.attempt, delivery.job.priority),
        (2, Priority::High)
    );
    rig.done(&job).await;
    let meta: u64 = rig.redis("EXISTS", &[&rig.queue.keys().meta]).await;
    assert_eq!(meta, 0, "the history goes with the job");
}

/// Waits until the one delayed job is due, promotes and claims it.
async fn promoted(rig: &Rig) -> tidegate::queue::claim::RawDelivery {
    while rig.queue.look().await.unwrap().due.is_empty() {}
    rig.promote().await;
    rig.claim(1).await.remove(0)
}

#[tokio::test]
async fn of_two_that_promote_the_same_jobs_one_does() {
    let rig = Rig::new().await;
    let entries: Vec<String> = (0..300)
        .map(|n| envelope("app.a", n, r#","delay_ms":1"#))
        .collect();
    rig.put(&entries).await;
    while rig.queue.look().await.unwrap().due.len() < 256 {}
    let look = rig.queue.look().await.unwrap();
    let (one, other) = tokio::join!(
        rig.queue.promote(ME, &look.due, &rig.catalog),
        rig.queue.promote(ME, &look.due, &rig.catalog),
    );
    assert_eq!((one.unwrap().len(), other.unwrap().len()), (1, 1));
    while rig.queue.counts().await.unwrap().delayed > 0 {
        rig.promote().await;
    }
    let mut taken = rig.take(1_000).await;
    taken.sort_unstable();
    assert_eq!(taken, (0..300).collect::<Vec<u64>>());
}

#[tokio::test]
async fn the_dead_set_is_bounded_and_the_oldest_go_first() {
    let rig = Rig::with(|c| c.retention.dead_max = 10).await;
    for n in 0..25 {
        rig.put(&[envelope("app.a", n, &format!(r#","id":"x{n:02}""#))])
            .await;
        let job = rig.claim(1).await.remove(0);
        rig.settle(&[settlement(&job, dead())]).await;
    }
    let counts = rig.queue.counts().await.unwrap();
    assert_eq!((counts.dead, rig.stat("dead").await), (10, 25));
    assert_eq!(rig.stat("dead_dropped").await, 15);
    let keys = rig.queue.keys();
    for hash in [&keys.jobs, &keys.meta] {
        assert_eq!(rig.redis::<u64>("HLEN", &[hash]).await, 10);
    }
    assert_eq!(rig.state("x24").await.as_deref(), Some("dead"));
    let dead = rig.queue.dead(0, 100).await.unwrap();
    assert_eq!(dead.len(), 10);
    let found = rig.queue.find(&dead[0].0).await.unwrap().unwrap();
    assert_eq!(found.history, *failures(3));
}

#[tokio::test]
async fn a_stored_job_that_is_none_goes_to_quarantine_with_its_bytes() {
    let rig = Rig::new().await;
    rig.put(&[envelope("app.a", 1, "")]).await;
    let job = rig.claim(1).await.remove(0);
    let reject = Reject::new(RejectCode::UnknownKind, "gone");
    rig.settle(&[settlement(&job, Ending::Quarantined(reject))])
        .await;
    let kept = rig.queue.quarantined("", 9).await.unwrap().remove(0);
    assert_eq!((kept.code.as_str(), &kept.raw), ("unknown_kind", &job.raw));
    assert_eq!(rig.state(&job.id).await, None);
}

#[tokio::test]
async fn the_ring_of_finished_jobs_is_bounded_or_off() {
    let rig = Rig::with(|c| c.retention.recent_max = 20).await;
    rig.put(
        &(0..100)
            .map(|n| envelope("app.a", n, ""))
            .collect::<Vec<_>>(),
    )
    .await;
    let jobs = rig.claim(100).await;
    let ends: Vec<_> = jobs.iter().map(|j| settlement(j, done(j))).collect();
    rig.settle(&ends).await;
    let recent = rig.queue.keys().recent.clone();
    assert_eq!(rig.redis::<u64>("LLEN", &[&recent]).await, 20);
    assert_eq!(rig.state(&jobs[99].id).await.as_deref(), Some("done"));
    assert_eq!(rig.state(&jobs[0].id).await, None);

    let off = Rig::with(|c| c.retention.recent_max = 0).await;
    off.put(&[
        envelope("app.a", 1, r#","id":"x""#),
        envelope("app.a", 2, r#","id":"y""#),
    ])
    .await;
    off.done(&off.claim(1).await[0]).await;
    off.queue
        .cancel(
            &super::rig::record("y", "cancelled"),
            true,
            None,
            "ann@example",
        )
        .await
        .unwrap();
    let ring: u64 = off.redis("EXISTS", &[&off.queue.keys().recent]).await;
    assert_eq!(ring, 0);
}

#[tokio::test]
async fn a_batch_of_everything_at_once() {
    let rig = Rig::new().await;
    rig.put(
        &(0..500)
            .map(|n| envelope("app.a", n, ""))
            .collect::<Vec<_>>(),
    )
    .await;
    let jobs = rig.claim(500).await;
    let end = |n: u64| match n % 5 {
        0 => done(&jobs[n as usize]),
        1 => later(Duration::from_secs(60), 1),
        2 => dead(),
        3 => handed_back(flow(Priority::Normal, "app.a")),
        _ => Ending::Quarantined(Reject::new(RejectCode::BadArgs, "no")),
    };
    let ends: Vec<_> = jobs
        .iter()
        .map(|job| settlement(job, end(number_of(job))))
        .collect();
    assert_eq!(rig.settle(&ends).await.stale, Vec::<usize>::new());
    let counts = rig.queue.counts().await.unwrap();
    let places = [
        counts.delayed,
        counts.dead,
        counts.lanes[2],
        counts.quarantine,
        counts.running,
    ];
    assert_eq!(places, [100, 100, 100, 100, 0]);
    for name in ["done", "retried", "dead", "handed_back", "quarantined"] {
        assert_eq!(rig.stat(name).await, 100, "{name}");
    }
    let expected: Vec<u64> = (0..500).filter(|n| n % 5 == 3).collect();
    assert_eq!(rig.take(500).await, expected);
}

#[tokio::test]
async fn an_expired_job_is_seen_when_it_is_opened() {
    let rig = Rig::new().await;
    rig.put(&[envelope("app.a", 1, r#","ttl_ms":50"#)]).await;
    let job = rig.claim(1).await.remove(0);
    assert!(
        job.open(&rig.queue, &rig.catalog, job.ready_ms + 50)
            .is_ok()
    );
    assert!(
        job.open(&rig.queue, &rig.catalog, job.ready_ms + 51)
            .is_err()
    );
}

#[tokio::test]
async fn what_made_room_half_done_expires_no_more() {
    let rig = Rig::new().await;
    rig.put(&[envelope("app.a", 1, r#","ttl_ms":50"#)]).await;
    let job = rig.claim(1).await.remove(0);
    let mut history = History::default();
    history.push(Event::new(job.ready_ms, What::HandedBack).note("it made room"));
    let back = Ending::HandedBack {
        flow: flow(Priority::Normal, "app.a"),
        history: Some(Box::new(history)),
        counter: "yielded",
    };
    let settled = rig.queue.settle(ME, 1, &[settlement(&job, back)]).await;
    assert!(settled.is_ok());
    let again = rig.claim(1).await.remove(0);
    let late = again.ready_ms + 1_000_000;
    assert!(again.open(&rig.queue, &rig.catalog, late).is_ok());
}

#[tokio::test]
async fn a_definition_says_how_long_its_jobs_may_wait() {
    let mut rig = Rig::new().await;
    let args = "[args]\nn = { type = \"integer\" }\n";
    rig.catalog = super::rig::catalog_of(&[("app.a", &format!("ttl = \"50ms\"\n{args}"))]);
    rig.put(&[
        envelope("app.a", 1, ""),
        envelope("app.a", 2, r#","ttl_ms":100"#),
    ])
    .await;
    for (job, ttl) in rig.claim(2).await.iter().zip([50, 100]) {
        let open = |ms| {
            job.open(&rig.queue, &rig.catalog, job.ready_ms + ms)
                .is_ok()
        };
        assert_eq!((open(ttl), open(ttl + 1)), (true, false), "{}", job.id);
    }
}

#[tokio::test]
async fn who_is_not_registered_is_refused_everything() {
    let rig = Rig::new().await;
    rig.put(&[envelope("app.a", 1, "")]).await;
    let job = rig.claim(1).await.remove(0);
    rig.push(&[envelope("app.a", 2, "")]).await;
    rig.queue.deregister(ME).await.unwrap();
    let peeked = rig.queue.peek().await.unwrap();
    let verdicts = rig.judge(&peeked);
    let lost = |e: QueueError| matches!(e, QueueError::LeaseLost);
    assert!(lost(
        rig.queue.admit(ME, &peeked, &verdicts).await.unwrap_err()
    ));
    assert!(lost(rig.queue.claim(ME, 2, 1, &[]).await.unwrap_err()));
    let end = [settlement(&job, done(&job))];
    assert!(lost(rig.queue.settle(ME, 1, &end).await.unwrap_err()));
    assert!(lost(
        rig.queue.promote(ME, &[], &rig.catalog).await.unwrap_err()
    ));
    assert!(lost(rig.queue.heartbeat(ME, false).await.unwrap_err()));
    let counts = rig.queue.counts().await.unwrap();
    assert_eq!((counts.inbox, counts.running), (1, 1));
}
