//! Chains: what follows a job is in the inbox with its end, once and in the same step.

use super::{WAYS_OUT, dead, finished, rig, rig_with};
use crate::queue::rig::{ME, Rig, envelope, flow, settlement};
use serde_json::{Value, json};
use tidegate::job::{Outcome, Priority};
use tidegate::queue::claim::RawDelivery;
use tidegate::queue::{Settlement, ties};

/// As a daemon settles a job that is done with a result.
pub(super) fn done_with(rig: &Rig, job: &RawDelivery, result: Value) -> Settlement {
    let delivery = match job.open(&rig.queue, &rig.catalog, job.ready_ms) {
        Ok(delivery) => delivery,
        Err(unfit) => panic!("{unfit:?}"),
    };
    let outcome = Outcome::Done(Some(result.clone()));
    assert_eq!(outcome.label(), "done");
    let told = tidegate::job::ties::outcome(
        &delivery.job.id,
        &delivery.job.kind,
        "done",
        7,
        Some(&result),
        None,
    );
    let mut settlement = settlement(job, finished(job, "done"));
    let workflow = delivery.workflow.as_ref();
    settlement.notice.follow = delivery
        .then
        .as_deref()
        .map(|then| ties::next_step(then, &delivery.job.id, workflow, &told));
    if delivery.tied {
        settlement.notice.outcome = Some(told);
        settlement.notice.result = delivery.keeps_result;
    }
    settlement
}

pub(super) async fn end_with(rig: &Rig, job: &RawDelivery, result: Value) {
    let settled = rig.settle(&[done_with(rig, job, result)]).await;
    assert_eq!(settled.stale, Vec::<usize>::new(), "{}", job.id);
}

async fn inbox(rig: &Rig) -> Vec<String> {
    rig.redis("LRANGE", &[&rig.queue.keys().inbox, "0", "-1"])
        .await
}

fn parents(rig: &Rig, job: &RawDelivery) -> Value {
    let delivery = job.open(&rig.queue, &rig.catalog, job.ready_ms);
    json!(delivery.map(|d| d.job.parents.clone()).unwrap_or_default())
}

/// `a`, then one of app.b, then one of app.a.
fn chain(more: &str) -> String {
    let last = r#"{"kind":"app.a","args":{"n":3}}"#;
    let next = format!(r#"{{ "kind":"app.b","args":{{"n":2}},"priority":"high","then":{last} }}"#);
    envelope("app.a", 1, &format!(r#","then":{next}{more}"#))
}

#[tokio::test]
async fn each_step_is_put_into_the_inbox_with_the_end_of_the_one_before() {
    let rig = rig().await;
    rig.put(&[chain(r#","id":"order-7""#)]).await;
    end_with(&rig, &rig.claim(9).await[0], json!({"sum": 5})).await;
    assert_eq!(inbox(&rig).await.len(), 1);
    rig.admit().await;
    let second = rig.claim(9).await.remove(0);
    assert_eq!(
        (second.id.as_str(), second.home.priority.as_str()),
        ("order-7-t1", "high")
    );
    let told =
        json!([{"id": "order-7", "kind": "app.a", "state": "done", "at": 7, "result": {"sum": 5}}]);
    assert_eq!(parents(&rig, &second), told);
    end_with(&rig, &second, json!([1])).await;
    rig.admit().await;
    let third = rig.claim(9).await.remove(0);
    assert_eq!(third.id, "order-7-t2");
    assert_eq!(parents(&rig, &third)[0]["id"], "order-7-t1");
    end_with(&rig, &third, Value::Null).await;
    assert!(inbox(&rig).await.is_empty() && rig.left_over().await.is_empty());
    assert_eq!(rig.stat("quarantined").await, 0);
}

#[tokio::test]
async fn a_minted_first_and_a_given_next_id_are_kept_to() {
    let rig = rig().await;
    rig.put(&[envelope(
        "app.a",
        1,
        r#","then":{"kind":"app.b","id":"mine"}"#,
    )])
    .await;
    let first = rig.claim(9).await.remove(0);
    end_with(&rig, &first, Value::Null).await;
    rig.admit().await;
    let second = rig.claim(9).await.remove(0);
    assert_eq!(second.id, "mine");
    assert_eq!(
        second.ties,
        format!("w{}", first.id),
        "it knows where the chain began"
    );
}

#[tokio::test]
async fn a_step_whose_name_another_job_has_is_set_aside_and_goes_on_later() {
    let rig = rig().await;
    rig.put(&[
        envelope("app.a", 9, r#","id":"a-t1""#),
        chain(r#","id":"a""#),
    ])
    .await;
    let (other, first) = {
        let mut jobs = rig.claim(9).await;
        (jobs.remove(0), jobs.remove(0))
    };
    end_with(&rig, &first, Value::Null).await;
    rig.admit().await;
    let kept = rig.queue.quarantined("", 9).await.unwrap();
    assert_eq!(kept.len(), 1, "nothing is lost");
    assert_eq!(kept[0].code, "id_taken");
    assert!(
        kept[0].reason.starts_with("id: a-t1 is"),
        "{}",
        kept[0].reason
    );
    // Once more while the other one is there, and then when it is forgotten.
    for forgotten in [false, true] {
        if forgotten {
            rig.done(&other).await;
            rig.redis::<()>("ZADD", &[&rig.queue.keys().ids, "2", "a-t1"])
                .await;
        }
        let kept = rig.queue.quarantined("", 9).await.unwrap();
        rig.queue.release(&[kept[0].id.clone()]).await.unwrap();
        rig.admit().await;
    }
    let second = rig.claim(9).await.remove(0);
    assert_eq!((second.id.as_str(), &*second.ties), ("a-t1", "wa"));
    assert_eq!(rig.stat("duplicates").await, 0);
}

#[tokio::test]
async fn a_given_name_that_another_job_has_is_a_duplicate() {
    let rig = rig().await;
    rig.put(&[
        envelope("app.a", 9, r#","id":"mine""#),
        envelope("app.a", 1, r#","then":{"kind":"app.b","id":"mine"}"#),
    ])
    .await;
    let first = rig.claim(9).await.remove(1);
    end_with(&rig, &first, Value::Null).await;
    let (_, away) = rig.admit().await;
    assert_eq!((away.len(), rig.stat("duplicates").await), (1, 1));
}

#[tokio::test]
async fn neither_a_repeated_nor_a_stale_settlement_brings_a_second_step() {
    let rig = rig().await;
    rig.put(&[chain(r#","id":"a""#)]).await;
    let job = rig.claim(9).await.remove(0);
    // The daemon is taken for dead, another one runs the job; then both say that it is done, one of them twice.
    let home = flow(Priority::Normal, "app.a");
    let back = crate::queue::rig::handed_back(home);
    rig.settle(&[settlement(&job, back)]).await;
    let again = rig.claim(9).await.remove(0);
    let late = done_with(&rig, &job, json!("late"));
    let right = done_with(&rig, &again, json!("right"));
    let stale = rig.queue.settle(ME, 1, &[late]).await.unwrap().stale;
    assert_eq!(stale, [0]);
    for _ in 0..3 {
        let settled = rig
            .queue
            .settle(ME, 2, std::slice::from_ref(&right))
            .await
            .unwrap();
        assert_eq!(settled.stale, Vec::<usize>::new());
    }
    let left = rig
        .queue
        .settle(ME, 0, std::slice::from_ref(&right))
        .await
        .unwrap()
        .stale;
    assert_eq!(left, [0]);
    let next = inbox(&rig).await;
    assert_eq!(next.len(), 1);
    assert!(next[0].contains("right"), "{next:?}");
}

#[tokio::test]
async fn nothing_follows_a_job_that_is_not_done() {
    for way in WAYS_OUT {
        let rig = rig_with(|c| c.retention.dead_max = 1).await;
        rig.put(&[chain(r#","id":"a""#)]).await;
        rig.end("a", way).await;
        assert!(inbox(&rig).await.is_empty(), "{way}");
    }
    let rig = rig().await;
    rig.put(&[chain(r#","id":"a""#)]).await;
    rig.settle_one(dead()).await;
    assert!(
        rig.queue
            .requeue("a", &flow(Priority::Normal, "app.a"), None, "me")
            .await
            .unwrap()
    );
    end_with(&rig, &rig.claim(9).await[0], Value::Null).await;
    assert_eq!(
        inbox(&rig).await.len(),
        1,
        "but one that was run again and is done then"
    );
}

#[tokio::test]
async fn a_step_that_could_never_run_is_refused_at_once() {
    let rig = rig().await;
    rig.put(&[
        envelope("app.a", 1, r#","then":{"kind":"no.such"}"#),
        envelope(
            "app.a",
            1,
            r#","then":{"kind":"app.b","then":{"kind":"app.a","args":{"n":"x"}}}"#,
        ),
        envelope("app.a", 1, r#","then":{"kind":"app.b","queue":"other"}"#),
    ])
    .await;
    let kept = rig.queue.quarantined("", 9).await.unwrap();
    let told: Vec<&str> = kept.iter().map(|e| e.reason.as_str()).collect();
    assert!(told[0].starts_with("then: kind: \"no.such\""), "{told:?}");
    assert!(told[1].starts_with("then: then: args.n:"), "{told:?}");
    assert!(told[2].starts_with("then: queue:"), "{told:?}");
}

#[tokio::test]
async fn a_cancelled_workflow_brings_nothing_more() {
    let rig = rig().await;
    rig.put(&[chain(r#","id":"a""#), chain(r#","id":"other""#)])
        .await;
    for job in rig.claim(9).await {
        end_with(&rig, &job, Value::Null).await;
    }
    assert_eq!(rig.queue.stop_workflow("a").await.unwrap(), None);
    let (_, away) = rig.admit().await;
    assert_eq!(away.len(), 1);
    let left = rig.claim(9).await;
    assert_eq!(
        left.iter().map(|j| j.id.as_str()).collect::<Vec<_>>(),
        ["other-t1"]
    );
    assert_eq!(rig.stat("cancelled").await, 1);
}
