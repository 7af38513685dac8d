//! Keys that no catalogue names, flows with keys and slots, and that somebody overwrote: set aside, and nothing is lost.

use super::rig::{ME, Rig, catalog_of, done, settlement};
use tidegate::queue::claim::RawDelivery;
use tidegate::queue::heal::SetAside;
use tidegate::queue::{FlowAllowance, QueueError, Terms};

const ARGS: &str = "[args]\nt = { type = \"string\" }\n";

async fn rig(rules: &str) -> Rig {
    let mut rig = Rig::new().await;
    rig.catalog = catalog_of(&[("app.t", &format!("{rules}\n{ARGS}"))]);
    rig
}

fn job(tenant: &str, n: u32) -> String {
    format!(r#"{{"kind":"app.t","id":"{tenant}-{n}","args":{{"t":"{tenant}"}}}}"#)
}

/// Claims as a daemon does that knows every flow.
async fn claim(rig: &Rig, number: u64) -> Result<Vec<RawDelivery>, QueueError> {
    let look = rig.queue.look().await?;
    let spec = rig.catalog.get("app.t").unwrap();
    let allow = |(flow, _)| FlowAllowance {
        terms: Terms::of(&flow, spec, &look.control),
        flow,
        allowance: 9,
    };
    let flows: Vec<FlowAllowance> = look.heads.into_iter().map(allow).collect();
    Ok(rig.queue.claim(ME, number, 9, &flows).await?.jobs)
}

async fn junk(rig: &Rig, key: &str) {
    rig.redis::<()>("DEL", &[key]).await;
    rig.redis::<()>("SET", &[key, "junk"]).await;
}

async fn heal(rig: &Rig, now_ms: u64) -> Vec<String> {
    let healed = rig.queue.heal(now_ms, &rig.catalog).await.unwrap();
    let key = |gone: SetAside| gone.key;
    healed.into_iter().map(key).collect()
}

#[tokio::test]
async fn slots_and_flows_with_keys_are_set_aside_and_the_queue_goes_on() {
    let rig = rig("[concurrency]\nlimit = 1\nkey = \"args.t\"\ntotal = 5").await;
    let keys = rig.queue.keys();
    let wrong = [
        keys.slots("app.t@a"),
        keys.slots("app.t"),
        keys.named("flow:normal:app.t@a"),
    ];
    for (n, key) in (1..).zip(&wrong) {
        rig.put(&[job("a", n)]).await;
        junk(&rig, key).await;
        let number = u64::from(n) * 10;
        let claimed = claim(&rig, number).await;
        assert!(matches!(claimed, Err(QueueError::WrongType(_))), "{key}");
        assert_eq!(heal(&rig, number).await, std::slice::from_ref(key));
        assert_eq!(
            heal(&rig, number + 1).await,
            [""; 0],
            "it is set aside once"
        );
        rig.put(&[job("b", n)]).await;
        for job in claim(&rig, number + 1).await.unwrap() {
            rig.done(&job).await;
        }
        assert_eq!(rig.state(&format!("b-{n}")).await.unwrap(), "done");
    }
    // Only the content of the flow that was overwritten is gone from it, and the auditor brings it back.
    let states = [rig.state("a-1").await, rig.state("a-2").await];
    assert_eq!(states, ["done", "done"].map(|s| Some(s.to_owned())));
    assert_eq!(rig.state("a-3").await.unwrap(), "pending");
    assert_eq!(rig.quarantine().await["wrong_type"], 3);
}

#[tokio::test]
async fn a_settlement_whose_slots_were_overwritten_is_made_once_they_are_set_aside() {
    let rig = rig("[concurrency]\nlimit = 1\nkey = \"args.t\"").await;
    rig.put(&[job("a", 1), job("a", 2)]).await;
    let first = claim(&rig, 1).await.unwrap().remove(0);
    let slots = rig.queue.keys().slots("app.t@a");
    junk(&rig, &slots).await;
    let end = [settlement(&first, done(&first))];
    let settled = rig.queue.settle(ME, 1, &end).await;
    assert!(matches!(settled, Err(QueueError::WrongType(_))));
    assert_eq!(heal(&rig, 1).await, [slots]);
    let settled = rig.queue.settle(ME, 1, &end).await.unwrap();
    assert_eq!((settled.stale.len(), settled.woke), (0, true));
    assert_eq!(claim(&rig, 2).await.unwrap()[0].id, "a-2");
}

#[tokio::test]
async fn turns_begin_only_if_every_flow_can_be_read() {
    let rig = rig("fairness = \"args.t\"").await;
    for tenant in ["a", "b", "c"] {
        rig.put(&[job(tenant, 1), job(tenant, 2)]).await;
    }
    let flow = |tenant: &str| {
        rig.queue
            .keys()
            .named(&format!("flow:normal:app.t@{tenant}"))
    };
    junk(&rig, &flow("c")).await;
    let claimed = claim(&rig, 1).await;
    assert!(matches!(claimed, Err(QueueError::WrongType(_))));
    for tenant in ["a", "b"] {
        let waiting: u64 = rig.redis("LLEN", &[&flow(tenant)]).await;
        assert_eq!(waiting, 2, "nothing of {tenant} is taken out");
    }
}

#[tokio::test]
async fn a_lost_line_is_made_anew_beside_a_flow_that_was_overwritten() {
    let rig = rig("fairness = \"args.t\"").await;
    rig.put(&[job("a", 1), job("b", 1)]).await;
    let keys = rig.queue.keys();
    junk(&rig, &keys.ready[2]).await;
    junk(&rig, &keys.named("flow:normal:app.t@b")).await;
    assert_eq!(heal(&rig, 1).await, [keys.ready[2].clone()]);
    assert_eq!(claim(&rig, 1).await.unwrap()[0].id, "a-1");
}
