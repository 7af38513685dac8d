//! Results: told at every end when somebody asked, kept for a time, waited for without asking again and again.

use super::chains::{done_with, end_with};
use super::{WAYS_OUT, rig, rig_with, unique};
use crate::queue::rig::{Rig, envelope};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tidegate::queue::wait::{Asked, ResultWaiter};

const ASK: &str = r#","id":"x","result_ttl_ms":60000"#;
const LONG: Duration = Duration::from_secs(8);

async fn told(rig: &Rig, id: &str) -> Value {
    let text = rig.queue.result(id).await.unwrap();
    text.map_or(Value::Null, |text| serde_json::from_str(&text).unwrap())
}

async fn waiter(rig: &Rig) -> ResultWaiter {
    ResultWaiter::connect(rig.queue.clone(), &rig.config.redis)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_result_is_kept_for_its_time_and_only_when_asked_for() {
    let rig = rig().await;
    let kept = envelope("app.kept", 2, r#","id":"kept""#);
    let not = envelope("app.kept", 3, r#","id":"not","result_ttl_ms":0"#);
    rig.put(&[
        envelope("app.a", 1, ASK),
        kept,
        not,
        envelope("app.a", 4, r#","id":"plain""#),
    ])
    .await;
    for job in rig.claim(9).await {
        end_with(&rig, &job, json!({"n": job.id})).await;
    }
    let expected =
        json!({"id": "x", "kind": "app.a", "state": "done", "at": 7, "result": {"n": "x"}});
    assert_eq!(told(&rig, "x").await, expected);
    let left: u64 = rig.redis("PTTL", &[&rig.queue.keys().result("x")]).await;
    assert!(left > 50_000 && left <= 60_000, "{left}");
    assert_eq!(told(&rig, "kept").await["result"], json!({"n": "kept"}));
    for id in ["not", "plain"] {
        assert_eq!(told(&rig, id).await, Value::Null, "{id}");
    }
    assert!(rig.left_over().await.is_empty());
}

#[tokio::test]
async fn every_end_is_told() {
    for way in WAYS_OUT {
        let rig = rig_with(|c| c.retention.dead_max = 1).await;
        rig.put(&[envelope("app.a", 1, ASK)]).await;
        rig.end("x", way).await;
        let state = ["cancelled", "expired", "dead", "quarantined"]
            .into_iter()
            .find(|state| way.starts_with(state))
            .unwrap();
        assert_eq!(told(&rig, "x").await["state"], state, "{way}");
    }
    let rig = rig().await;
    rig.put(&[envelope("app.a", 1, &format!(r#"{ASK},"queue":"other""#))])
        .await;
    assert_eq!(
        told(&rig, "x").await["state"],
        "quarantined",
        "before it was admitted"
    );
    let first = unique(1, r#""key":"k""#, r#","id":"first""#);
    rig.put(&[first, unique(2, r#""key":"k""#, ASK)]).await;
    let skipped = told(&rig, "x").await;
    assert_eq!(
        (&skipped["state"], &skipped["of"]),
        (&json!("skipped"), &json!("first"))
    );
}

#[tokio::test]
async fn who_waits_is_woken_by_the_end_and_others_too() {
    let rig = rig().await;
    rig.put(&[envelope("app.a", 1, ASK)]).await;
    let job = rig.claim(1).await.remove(0);
    let (mut one, mut other) = (waiter(&rig).await, waiter(&rig).await);
    let start = Instant::now();
    let blocked = async || {
        let clients: String = rig.redis("CLIENT", &["LIST"]).await;
        clients
            .lines()
            .filter(|l| l.contains("cmd=blmove") && l.contains("flags=b"))
            .count()
    };
    let (first, second, ()) = tokio::join!(one.wait("x", LONG), other.wait("x", LONG), async {
        // Other tests wait in this Redis as well: at least these two.
        while blocked().await < 2 {
            tokio::task::yield_now().await;
        }
        end_with(&rig, &job, json!("here")).await;
    });
    for text in [first, second] {
        let told: Value = serde_json::from_str(&text.unwrap().unwrap()).unwrap();
        assert_eq!(told["result"], "here");
    }
    assert!(start.elapsed() < LONG, "nobody waited for the deadline");
    let again = one.wait("x", LONG).await.unwrap();
    assert!(again.is_some(), "what is over already is answered at once");
    let nothing = one.wait("y", Duration::from_millis(5)).await.unwrap();
    assert_eq!(nothing, None);
}

#[tokio::test]
async fn a_job_that_waits_can_be_asked_later() {
    let rig = rig().await;
    rig.put(&[
        envelope("app.a", 1, r#","id":"x""#),
        unique(2, r#""key":"k""#, r#","id":"u""#),
    ])
    .await;
    let ttl = Duration::from_secs(60);
    for id in ["x", "u", "x"] {
        assert_eq!(rig.queue.ask_result(id, ttl).await.unwrap(), Asked::Yes);
    }
    assert_eq!(
        rig.queue.ask_result("nobody", ttl).await.unwrap(),
        Asked::Unknown
    );
    for job in rig.claim(9).await {
        end_with(&rig, &job, json!(job.id)).await;
    }
    assert_eq!(told(&rig, "x").await["result"], "x");
    assert_eq!(told(&rig, "u").await["result"], "u");
    rig.put(&[envelope("app.a", 1, r#","id":"dead""#)]).await;
    rig.end("dead", "dead").await;
    let asked = rig.queue.ask_result("dead", ttl).await.unwrap();
    assert_eq!(asked, Asked::Dead);
    assert!(rig.left_over().await.is_empty());
}

#[tokio::test]
async fn a_job_that_runs_can_be_asked_until_it_is_settled() {
    let ttl = Duration::from_secs(60);
    for tied in [false, true] {
        let rig = rig().await;
        let more = if tied { r#","unique":{"key":"k"}"# } else { "" };
        let one = |id: &str, more: &str| envelope("app.a", 1, &format!(r#","id":"{id}"{more}"#));
        let ids = ["done", "ended", "dead", "cancelled", "back"];
        rig.put(&[one("done", more)]).await;
        rig.put(&ids[1..].iter().map(|id| one(id, "")).collect::<Vec<_>>())
            .await;
        let jobs = rig.claim(9).await;
        for id in ids {
            assert_eq!(rig.queue.ask_result(id, ttl).await.unwrap(), Asked::Yes);
        }
        let job = |id: &str| jobs.iter().find(|job| job.id == id).unwrap();
        let mut done = done_with(&rig, job("done"), json!({"n": 7}));
        if done.notice.outcome.is_none() {
            let text = r#"{"id":"done","kind":"app.a","state":"done","result":{"n":7}}"#;
            done.notice.late = Some(text.to_owned());
        }
        let end = |id: &str, ending| crate::queue::rig::settlement(job(id), ending);
        let home = crate::queue::rig::flow(tidegate::job::Priority::Normal, "app.a");
        let batch = [
            done,
            end("ended", super::finished(job("ended"), "done")),
            end("dead", super::dead()),
            end("cancelled", super::finished(job("cancelled"), "cancelled")),
            end("back", crate::queue::rig::handed_back(home)),
        ];
        for _ in 0..2 {
            let settled = rig.queue.settle(crate::queue::rig::ME, 1, &batch).await;
            assert_eq!(settled.unwrap().stale, Vec::<usize>::new());
        }
        assert_eq!(told(&rig, "done").await["result"], json!({"n": 7}));
        for (id, state) in [
            ("ended", "done"),
            ("dead", "dead"),
            ("cancelled", "cancelled"),
        ] {
            let told = told(&rig, id).await;
            assert_eq!((&told["id"], &told["state"]), (&json!(id), &json!(state)));
            assert_eq!(
                told["kind"].as_str(),
                (id != "dead").then_some("app.a"),
                "{told}"
            );
        }
        assert_eq!(told(&rig, "back").await, Value::Null, "it has not ended");
        let again = rig.claim(1).await.remove(0);
        end_with(&rig, &again, json!("well")).await;
        assert_eq!(told(&rig, "back").await["result"], "well");
        rig.queue.bury(&["dead".to_owned()], None).await.unwrap();
        assert!(rig.left_over().await.is_empty());
    }
}

#[tokio::test]
async fn of_a_job_that_is_run_again_the_last_end_is_told() {
    let rig = rig().await;
    rig.put(&[envelope("app.a", 1, ASK)]).await;
    rig.end("x", "dead").await;
    assert_eq!(told(&rig, "x").await["state"], "dead");
    let home = crate::queue::rig::flow(tidegate::job::Priority::Normal, "app.a");
    assert!(rig.queue.requeue("x", &home, None, "me").await.unwrap());
    end_with(&rig, &rig.claim(9).await[0], json!("well")).await;
    assert_eq!(told(&rig, "x").await["result"], "well");
    let length: u64 = rig.redis("LLEN", &[&rig.queue.keys().result("x")]).await;
    assert_eq!(length, 1);
    assert!(rig.left_over().await.is_empty());
}
