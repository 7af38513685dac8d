//! From the inbox into the queue: nothing lost, nothing doubled.

use super::rig::{ME, Rig, done, envelope, settlement};
use tidegate::queue::operate::Enqueued;
use tidegate::queue::wake::Waker;
use tidegate::queue::{Admission, QueueError, Verdict};

#[tokio::test]
async fn of_two_that_admit_the_same_entries_one_is_told_so() {
    let rig = Rig::new().await;
    rig.push(
        &(0..10)
            .map(|n| envelope("app.a", n, ""))
            .collect::<Vec<_>>(),
    )
    .await;
    let (one, other) = (
        rig.queue.peek().await.unwrap(),
        rig.queue.peek().await.unwrap(),
    );
    let verdicts = [rig.judge(&one), rig.judge(&other)];
    let (first, second) = tokio::join!(
        rig.queue.admit(ME, &one, &verdicts[0]),
        rig.queue.admit(ME, &other, &verdicts[1]),
    );
    let outcomes = [first.unwrap(), second.unwrap()];
    let moved = |a: &&Admission| matches!(a, Admission::Moved);
    assert_eq!(outcomes.iter().filter(moved).count(), 1);
    // The same call again, after more has come, changes nothing either.
    rig.push(&[envelope("app.a", 10, "")]).await;
    let again = rig.queue.admit(ME, &one, &rig.judge(&one)).await.unwrap();
    assert!(matches!(again, Admission::Moved));
    rig.admit().await;
    assert_eq!(rig.take(100).await, (0..=10).collect::<Vec<u64>>());
    assert_eq!(rig.stat("admitted").await, 11);
}

#[tokio::test]
async fn entries_that_look_the_same_are_told_apart_by_what_was_taken_before() {
    let rig = Rig::new().await;
    rig.push(&vec![r#"{"kind":"app.a","args":{"n":1}}"#; 600])
        .await;
    let peeked = rig.queue.peek().await.unwrap();
    let (verdicts, repeated) = (rig.judge(&peeked), rig.judge(&peeked));
    rig.queue.admit(ME, &peeked, &verdicts).await.unwrap();
    let again = rig.queue.admit(ME, &peeked, &repeated).await.unwrap();
    assert!(matches!(again, Admission::Moved));
    let left: usize = rig.redis("LLEN", &[&rig.queue.keys().inbox]).await;
    assert_eq!(left + peeked.entries.len(), 600);
}

#[tokio::test]
async fn many_admitters_at_once_lose_and_double_nothing() {
    let rig = Rig::new().await;
    let entries: Vec<String> = (0..3_000).map(|n| envelope("app.a", n, "")).collect();
    let admitter = || async {
        while rig.redis::<u64>("HLEN", &[&rig.queue.keys().jobs]).await < 3_000 {
            let peeked = rig.queue.peek().await.unwrap();
            if !peeked.entries.is_empty() {
                let verdicts = rig.judge(&peeked);
                rig.queue.admit(ME, &peeked, &verdicts).await.unwrap();
            }
        }
    };
    let push = async {
        for chunk in entries.chunks(50) {
            rig.push(chunk).await;
        }
    };
    tokio::join!(push, admitter(), admitter(), admitter(), admitter());
    let mut taken = Vec::new();
    while let found = rig.take(256).await
        && !found.is_empty()
    {
        taken.extend(found);
    }
    assert_eq!(taken, (0..3_000).collect::<Vec<u64>>());
    assert_eq!(
        rig.redis::<u64>("GET", &[&rig.queue.keys().taken]).await,
        3_000
    );
}

#[tokio::test]
async fn a_push_at_the_wrong_end_is_no_confusion() {
    let rig = Rig::new().await;
    let given = |n: u64| envelope("app.a", n, &format!(r#","id":"id-{n}""#));
    rig.push(&[given(1), given(2)]).await;
    let mut peeked = rig.queue.peek().await.unwrap();
    // An entry of the same length slips in before the two.
    let inbox = rig.queue.keys().inbox.clone();
    rig.redis::<()>("LPUSH", &[&inbox, &given(3)]).await;
    let verdicts = rig.judge(&peeked);
    let admitted = rig.queue.admit(ME, &peeked, &verdicts).await.unwrap();
    assert!(matches!(admitted, Admission::Moved));
    peeked = rig.queue.peek().await.unwrap();
    assert_eq!(peeked.entries.len(), 3);
    rig.admit().await;
    for job in rig.claim(5).await {
        let raw = String::from_utf8(job.raw.clone()).unwrap();
        assert!(raw.contains(&job.id), "{} was stored as {raw}", job.id);
    }
}

#[tokio::test]
async fn the_same_id_again_is_a_duplicate() {
    let rig = Rig::new().await;
    let x = |n| envelope("app.a", n, r#","id":"x""#);
    rig.push(&[x(1), x(2), envelope("app.b", 3, "")]).await;
    let (_, doubles) = rig.admit().await;
    assert_eq!(doubles, [1], "twice in one batch");
    rig.push(&[x(4)]).await;
    assert_eq!(rig.admit().await.1, [0], "while it waits");
    let jobs = rig.claim(2).await;
    rig.push(&[x(5)]).await;
    assert_eq!(rig.admit().await.1, [0], "while it runs");
    rig.done(&jobs[0]).await;
    rig.push(&[x(6)]).await;
    assert_eq!(rig.admit().await.1, [0], "after its end");
    assert_eq!(rig.stat("duplicates").await, 4);
    assert_eq!(rig.take(9).await, Vec::<u64>::new());
}

#[tokio::test]
async fn an_id_is_forgotten_after_its_window() {
    let window = std::time::Duration::from_millis(50);
    let rig = Rig::with(|c| c.dedupe.window = window).await;
    let x = |n| envelope("app.a", n, r#","id":"x""#);
    rig.put(&[x(1)]).await;
    rig.done(&rig.claim(1).await[0]).await;
    let until: u64 = rig.redis("ZSCORE", &[&rig.queue.keys().ids, "x"]).await;
    while rig.queue.look().await.unwrap().now_ms <= until {}
    rig.push(&[x(2)]).await;
    assert_eq!(rig.admit().await.1, Vec::<usize>::new());
    assert_eq!(rig.take(9).await, [2]);
}

#[tokio::test]
async fn forgotten_ids_leave_no_trace() {
    let rig = Rig::with(|c| c.dedupe.window = std::time::Duration::from_millis(1)).await;
    for round in 0..40_u64 {
        let given = |n: u64| envelope("app.a", n, &format!(r#","id":"r{round}-{n}""#));
        rig.put(&(0..20).map(given).collect::<Vec<_>>()).await;
        let jobs = rig.claim(20).await;
        let ends: Vec<_> = jobs.iter().map(|j| settlement(j, done(j))).collect();
        rig.settle(&ends).await;
    }
    let kept: u64 = rig.redis("ZCARD", &[&rig.queue.keys().ids]).await;
    assert!(kept <= 60, "{kept} of 800 ids are still remembered");
    let never = Rig::with(|c| c.dedupe.window = std::time::Duration::ZERO).await;
    never.put(&[envelope("app.a", 1, r#","id":"x""#)]).await;
    never.done(&never.claim(1).await[0]).await;
    assert_eq!(
        never
            .redis::<u64>("EXISTS", &[&never.queue.keys().ids])
            .await,
        0
    );
}

#[tokio::test]
async fn an_id_reserved_by_the_script_is_admitted_once() {
    let rig = Rig::new().await;
    let x = envelope("app.a", 1, r#","id":"x""#).into_bytes();
    let minted = envelope("app.a", 2, "").into_bytes();
    let batch = [("x", x.clone()), ("", minted), ("x", x.clone())];
    let answers = rig.queue.enqueue(&batch).await.unwrap();
    let pending = Enqueued::Duplicate("pending".to_owned());
    assert_eq!(
        answers,
        [Enqueued::Created, Enqueued::Created, pending.clone()]
    );
    assert_eq!(rig.queue.enqueue(&batch[..1]).await.unwrap(), [pending]);
    let (verdicts, doubles) = rig.admit().await;
    assert_eq!((verdicts.len(), doubles.len()), (2, 0));
    let jobs = rig.claim(9).await;
    let state = async || rig.queue.enqueue(&batch[..1]).await.unwrap().remove(0);
    assert_eq!(state().await, Enqueued::Duplicate("running".to_owned()));
    rig.done(&jobs[0]).await;
    assert_eq!(state().await, Enqueued::Duplicate("done".to_owned()));
}

#[tokio::test]
async fn an_entry_that_is_refused_lets_go_of_its_id() {
    let rig = Rig::new().await;
    let wrong = [
        envelope("app.a", 1, r#","id":"x","colour":"red""#),
        envelope("app.a", 1, r#","id":"x","delay_ms":-1"#),
        envelope("no.such", 1, r#","id":"x""#),
        envelope("app.a", 1, r#","id":"x","queue":"other""#),
    ];
    for raw in wrong {
        let answer = rig.queue.enqueue(&[("x", raw.clone().into_bytes())]).await;
        assert_eq!(answer.unwrap(), [Enqueued::Created], "{raw}");
        let (verdicts, _) = rig.admit().await;
        assert!(matches!(verdicts[..], [Verdict::Rejected { .. }]), "{raw}");
    }
    let right = envelope("app.a", 2, r#","id":"x""#).into_bytes();
    let answer = rig.queue.enqueue(&[("x", right)]).await.unwrap();
    assert_eq!(answer, [Enqueued::Created]);
    rig.admit().await;
    assert_eq!(rig.take(9).await, [2]);
}

#[tokio::test]
async fn the_script_refuses_what_could_never_be_admitted() {
    let rig = Rig::new().await;
    let large = vec![b'x'; 384 * 1024 + 1];
    let small = envelope("app.a", 1, r#","id":"a""#).into_bytes();
    let answer = rig.queue.enqueue(&[("a", small), ("b", large)]).await;
    assert!(matches!(answer, Err(QueueError::Redis(e)) if e.code() == Some("REFUSED")));
    let keys = rig.queue.keys();
    let left: u64 = rig.redis("EXISTS", &[&keys.inbox, &keys.ids]).await;
    assert_eq!(left, 0, "nothing of the batch was done");
}

#[tokio::test]
async fn a_large_batch_goes_in_whole() {
    let rig = Rig::new().await;
    let ids: Vec<String> = (0..5_000).map(|n| format!("id-{n}")).collect();
    let jobs: Vec<(&str, Vec<u8>)> = ids
        .iter()
        .enumerate()
        .map(|(n, id)| {
            let raw = envelope("app.a", n as u64, &format!(r#","id":"{id}""#));
            (id.as_str(), raw.into_bytes())
        })
        .collect();
    let answers = rig.queue.enqueue(&jobs).await.unwrap();
    assert_eq!(answers, vec![Enqueued::Created; 5_000]);
    let (verdicts, doubles) = rig.admit().await;
    assert_eq!((verdicts.len(), doubles.len()), (5_000, 0));
    // A thousand at a time: what a reply brings is no argument list.
    let mut taken = Vec::new();
    for _ in 0..5 {
        taken.extend(rig.take(1_000).await);
    }
    assert_eq!(taken, (0..5_000).collect::<Vec<u64>>());
}

#[tokio::test]
async fn a_waker_sees_the_entry_and_takes_nothing() {
    let rig = Rig::new().await;
    // A server that has never seen the scripts.
    rig.redis::<()>("SCRIPT", &["FLUSH"]).await;
    let mut waker = Waker::connect(rig.queue.clone(), &rig.config.redis)
        .await
        .unwrap();
    let entry = envelope("app.a", 1, "");
    let (peeked, ()) = tokio::join!(waker.wait(), async {
        rig.push(std::slice::from_ref(&entry)).await;
    });
    let mut entries = peeked.unwrap().entries;
    if entries.is_empty() {
        entries = waker.wait().await.unwrap().entries;
    }
    assert_eq!(entries, [entry.into_bytes()]);
    rig.admit().await;
    assert_eq!(rig.take(9).await, [1]);
}
