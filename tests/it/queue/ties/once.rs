//! Unique jobs and what becomes of the second one.

use super::{WAYS_OUT, args_of, rig, rig_with, unique};
use crate::queue::rig::{done, envelope, number_of};
use serde_json::json;
use tidegate::job::Priority;
use tidegate::queue::operate::{Enqueued, NewJob};

const SKIP: &str = r#""key":"k""#;

#[tokio::test]
async fn the_second_of_a_unique_job_is_skipped_and_counted() {
    let rig = rig().await;
    rig.push(&[
        unique(1, SKIP, r#","id":"a""#),
        unique(2, SKIP, ""),
        envelope("app.b", 3, ""),
    ])
    .await;
    let (_, away) = rig.admit().await;
    assert_eq!(away, [1], "in one batch");
    rig.push(&[unique(4, SKIP, r#","id":"d""#)]).await;
    assert_eq!(rig.admit().await.1, [0], "while it waits");
    let other_kind = envelope("app.b", 5, r#","unique":{"key":"k"}"#);
    rig.push(&[other_kind, unique(6, r#""key":"other""#, "")])
        .await;
    assert_eq!(rig.admit().await.1, Vec::<usize>::new(), "another lock");
    let jobs = rig.claim(9).await;
    let taken: std::collections::BTreeSet<u64> = jobs.iter().map(number_of).collect();
    assert_eq!(taken, [1, 3, 5, 6].into());
    rig.push(&[unique(7, SKIP, "")]).await;
    assert_eq!(rig.admit().await.1, [0], "while it runs");
    for job in &jobs {
        rig.done(job).await;
    }
    rig.push(&[unique(8, SKIP, ""), unique(9, SKIP, r#","id":"d""#)])
        .await;
    assert_eq!(
        rig.admit().await.1,
        [1],
        "an id that was skipped stays a duplicate"
    );
    assert_eq!(rig.stat("unique_skipped").await, 3);
    assert_eq!(rig.stat("duplicates").await, 1);
    assert_eq!(rig.stat("admitted").await, 5);
    let skipped = rig
        .queue
        .enqueue(&[("d", unique(1, SKIP, r#","id":"d""#).into_bytes())])
        .await;
    assert_eq!(
        skipped.unwrap(),
        [Enqueued::Duplicate("skipped".to_owned())]
    );
    rig.done(&rig.claim(1).await[0]).await;
    assert!(rig.left_over().await.is_empty());
}

#[tokio::test]
async fn whatever_ends_a_job_lets_go_of_its_lock() {
    for rule in [
        SKIP,
        r#""key":"k","until":"claimed""#,
        r#""key":"k","until":"ttl","ttl_ms":3600000"#,
    ] {
        for way in WAYS_OUT {
            let rig = rig_with(|c| c.retention.dead_max = 1).await;
            rig.put(&[unique(1, rule, r#","id":"first""#)]).await;
            rig.end("first", way).await;
            rig.push(&[unique(2, rule, r#","id":"second""#)]).await;
            assert_eq!(rig.admit().await.1, Vec::<usize>::new(), "{rule}, {way}");
            // It is the second one's lock now.
            rig.push(&[unique(3, rule, "")]).await;
            assert_eq!(rig.admit().await.1, [0], "{rule}, {way}");
            rig.end("second", "cancelled while it waits").await;
            if way == "dead" {
                rig.queue
                    .bury(&["first".to_owned()], Some("me"))
                    .await
                    .unwrap();
            }
            assert!(
                rig.left_over().await.is_empty(),
                "{rule}, {way}: {:?}",
                rig.left_over().await
            );
        }
    }
}

#[tokio::test]
async fn a_lock_until_claimed_admits_one_more_while_the_first_runs() {
    let rig = rig().await;
    let one = |n, key| envelope("app.claimed", key, &format!(r#","meta":{{"n":"{n}"}}"#));
    rig.put(&[one(1, 7), one(2, 7), one(3, 8)]).await;
    let jobs = rig.claim(9).await;
    assert_eq!(jobs.len(), 2);
    rig.push(&[one(4, 7), one(5, 7)]).await;
    assert_eq!(rig.admit().await.1, [1]);
    // The end of the first is not the end of the lock that the next one holds.
    rig.done(&jobs[0]).await;
    rig.push(&[one(6, 7)]).await;
    assert_eq!(rig.admit().await.1, [0]);
    rig.done(&jobs[1]).await;
    rig.done(&rig.claim(9).await[0]).await;
    assert!(rig.left_over().await.is_empty());
}

#[tokio::test]
async fn a_lock_with_a_time_is_gone_after_it() {
    let rig = rig().await;
    let rule = r#""key":"k","ttl_ms":1"#;
    rig.put(&[unique(1, rule, r#","id":"a""#)]).await;
    let past = rig.queue.look().await.unwrap().now_ms + 2;
    while rig.queue.look().await.unwrap().now_ms < past {}
    rig.push(&[unique(2, SKIP, r#","id":"b""#), unique(3, SKIP, "")])
        .await;
    assert_eq!(rig.admit().await.1, [1]);
    rig.done(&rig.claim(1).await[0]).await;
    rig.push(&[unique(4, SKIP, "")]).await;
    assert_eq!(
        rig.admit().await.1,
        [0],
        "the first one's end frees nothing of the second's"
    );
    rig.done(&rig.claim(1).await[0]).await;
    assert!(rig.left_over().await.is_empty());
}

#[tokio::test]
async fn until_ttl_allows_one_success_in_that_time_and_leaves_nothing_after_it() {
    let rig = rig().await;
    let rule = |key: &str, ms: u32| format!(r#""key":"{key}","until":"ttl","ttl_ms":{ms}"#);
    rig.put(&[unique(1, &rule("k", 3_600_000), r#","id":"a""#)])
        .await;
    rig.done(&rig.claim(1).await[0]).await;
    rig.push(&[unique(2, &rule("k", 3_600_000), "")]).await;
    assert_eq!(rig.admit().await.1, [0]);
    for n in 0..50 {
        rig.put(&[unique(n, &rule(&format!("short-{n}"), 1), "")])
            .await;
        rig.done(&rig.claim(1).await[0]).await;
    }
    let locks: u64 = rig.redis("HLEN", &[&rig.queue.keys().locks]).await;
    assert!(
        locks < 20,
        "{locks} locks are kept, of which one is still held"
    );
}

#[tokio::test]
async fn keys_come_from_chosen_arguments() {
    let rig = rig().await;
    let to = |n: u64, to: &str| format!(r#"{{"kind":"app.keyed","args":{{"n":{n},"to":"{to}"}}}}"#);
    let by_default = envelope("app.keyed", 3, "");
    rig.push(&[to(1, "x"), to(2, "x"), by_default, to(4, "all"), to(5, "y")])
        .await;
    assert_eq!(rig.admit().await.1, [1, 3], "the default counts as sent");
    let args = |n: u64, args: &str| envelope("app.a", n, &format!(r#","unique":{args}"#));
    rig.push(&[
        args(1, r#"{"args":["n"]}"#),
        args(1, r#"{"args":["to"]}"#),
        args(1, "{}"),
    ])
    .await;
    assert_eq!(
        rig.admit().await.1,
        Vec::<usize>::new(),
        "three different keys"
    );
    rig.push(&[
        args(1, r#"{"args":["n"]}"#),
        args(2, r#"{"args":["to"]}"#),
        args(1, "{}"),
        args(2, "{}"),
    ])
    .await;
    assert_eq!(rig.admit().await.1, [0, 1, 2]);
    rig.put(&[
        args(1, r#"{"args":["no"]}"#),
        r#"{"kind":"app.keyed","args":{"to":1}}"#.to_owned(),
    ])
    .await;
    assert_eq!(rig.quarantine().await["bad_args"], 2);
}

#[tokio::test]
async fn the_enqueue_script_answers_with_the_holder_of_a_lock() {
    let rig = rig().await;
    let raws = [1, 2, 3].map(|n| unique(n, SKIP, &format!(r#","id":"id-{n}""#)));
    let job = |n: usize| NewJob {
        id: ["id-1", "id-2", "id-3"][n],
        lock: "app.a:k",
        envelope: raws[n].as_bytes(),
    };
    let held = |state: &str| Enqueued::Held {
        state: state.to_owned(),
        id: "id-1".to_owned(),
    };
    let answers = rig.queue.enqueue_all(&[job(0), job(1)]).await.unwrap();
    assert_eq!(
        answers,
        [Enqueued::Created, held("pending")],
        "before it is admitted"
    );
    rig.admit().await;
    let state = async || rig.queue.enqueue_all(&[job(1)]).await.unwrap().remove(0);
    assert_eq!(state().await, held("pending"));
    let jobs = rig.claim(9).await;
    assert_eq!(state().await, held("running"));
    rig.done(&jobs[0]).await;
    assert_eq!(state().await, Enqueued::Created);
    let nobody = NewJob { id: "", ..job(2) };
    assert!(
        rig.queue.enqueue_all(&[nobody]).await.is_err(),
        "a lock without an id"
    );
    rig.admit().await;
    rig.done(&rig.claim(9).await[0]).await;
    assert!(rig.left_over().await.is_empty());
}

#[tokio::test]
async fn a_reserved_lock_whose_entry_is_refused_is_free_again() {
    let rig = rig().await;
    let bad = envelope("app.a", 1, r#","id":"x","colour":"red""#);
    let new = |id, raw: &str| {
        let (rig, raw) = (&rig, raw.to_owned());
        async move {
            let job = NewJob {
                id,
                lock: "app.a:k",
                envelope: raw.as_bytes(),
            };
            rig.queue.enqueue_all(&[job]).await.unwrap().remove(0)
        }
    };
    assert_eq!(new("x", &bad).await, Enqueued::Created);
    rig.admit().await;
    assert_eq!(
        new("y", &unique(2, SKIP, r#","id":"y""#)).await,
        Enqueued::Created
    );
    assert_eq!(rig.admit().await.1, Vec::<usize>::new());
}

#[tokio::test]
async fn a_duplicate_is_told_the_real_state_of_the_first() {
    let rig = rig_with(|c| c.retention.dead_max = 1).await;
    let entry = envelope("app.a", 1, r#","id":"x""#);
    let state = async |rig: &crate::queue::rig::Rig| match rig
        .queue
        .enqueue(&[("x", entry.clone().into_bytes())])
        .await
        .unwrap()
        .remove(0)
    {
        Enqueued::Duplicate(state) => state,
        other => format!("{other:?}"),
    };
    for (way, expected) in [
        ("cancelled while it waits", "cancelled"),
        ("cancelled while it is delayed", "cancelled"),
        ("cancelled while it runs", "cancelled"),
        ("expired", "expired"),
        ("dead", "dead"),
        ("dead and purged", "dead"),
        ("dead and crowded out", "dead"),
    ] {
        let rig = rig_with(|c| c.retention.dead_max = 1).await;
        rig.put(std::slice::from_ref(&entry)).await;
        rig.end("x", way).await;
        assert_eq!(state(&rig).await, expected, "{way}");
        rig.push(std::slice::from_ref(&entry)).await;
        assert_eq!(rig.admit().await.1, [0], "{way}: by the inbox too");
    }
    rig.put(std::slice::from_ref(&entry)).await;
    rig.done(&rig.claim(1).await[0]).await;
    assert_eq!(state(&rig).await, "done");
}

#[tokio::test]
async fn a_dead_job_that_is_run_again_stands_for_its_key_again() {
    let rig = rig().await;
    rig.put(&[unique(1, SKIP, r#","id":"a""#)]).await;
    rig.end("a", "dead").await;
    let home = crate::queue::rig::flow(Priority::Normal, "app.a");
    assert!(rig.queue.requeue("a", &home, None, "me").await.unwrap());
    rig.push(&[unique(2, SKIP, "")]).await;
    assert_eq!(rig.admit().await.1, [0]);
    rig.end("a", "dead").await;
    rig.put(&[unique(3, SKIP, r#","id":"b""#)]).await;
    assert!(rig.queue.requeue("a", &home, None, "me").await.unwrap());
    // Both run; the lock is that of the one which has it.
    let jobs = rig.claim(9).await;
    assert_eq!(jobs.len(), 2);
    rig.done(jobs.iter().find(|j| j.id == "a").unwrap()).await;
    rig.push(&[unique(4, SKIP, "")]).await;
    assert_eq!(rig.admit().await.1, [0]);
    rig.done(jobs.iter().find(|j| j.id == "b").unwrap()).await;
    assert!(rig.left_over().await.is_empty());
}

#[tokio::test]
async fn admission_that_is_repeated_or_comes_second_ties_nothing_twice() {
    let rig = rig().await;
    rig.push(&[unique(1, SKIP, r#","id":"a""#)]).await;
    let peeked = rig.queue.peek().await.unwrap();
    let verdicts = [rig.judge(&peeked), rig.judge(&peeked)];
    for verdicts in &verdicts {
        rig.queue
            .admit(crate::queue::rig::ME, &peeked, verdicts)
            .await
            .unwrap();
    }
    let jobs = rig.claim(9).await;
    assert_eq!(jobs.len(), 1);
    assert_eq!(args_of(&rig, &jobs[0]), json!({"n": 1, "to": "all"}));
    // A settlement that is repeated finds nothing of a lock that another one holds by then.
    let end = crate::queue::rig::settlement(&jobs[0], done(&jobs[0]));
    for round in 0..2 {
        let settled = rig
            .queue
            .settle(crate::queue::rig::ME, 7, std::slice::from_ref(&end))
            .await;
        assert_eq!(settled.unwrap().stale, Vec::<usize>::new());
        if round == 0 {
            rig.put(&[unique(2, SKIP, r#","id":"b""#)]).await;
        }
    }
    rig.push(&[unique(3, SKIP, "")]).await;
    assert_eq!(rig.admit().await.1, [0]);
}
