//! Which job is taken next.

use super::rig::{Rig, envelope, flow, handed_back, number_of, settlement};
use tidegate::job::Priority;
use tidegate::queue::{FlowAllowance, Terms};

#[tokio::test]
async fn strictly_by_class_whatever_came_first() {
    let rig = Rig::new().await;
    let classes = ["bulk", "low", "normal", "high", "critical"];
    let entries: Vec<String> = (0..25_u64)
        .map(|n| {
            let class = classes[n as usize % 5];
            envelope("app.a", n, &format!(r#","priority":"{class}""#))
        })
        .collect();
    rig.put(&entries).await;
    let mut expected: Vec<u64> = (0..25).collect();
    expected.sort_by_key(|n| (4 - n % 5, *n));
    // In several claims, so that the order holds across them.
    let mut taken = Vec::new();
    for limit in [1, 3, 7, 25] {
        taken.extend(rig.take(limit).await);
    }
    assert_eq!(taken, expected);
    let look = rig.queue.look().await.unwrap();
    assert_eq!((look.heads.len(), look.running), (0, 25));
}

#[tokio::test]
async fn within_a_class_by_ready_time_across_kinds() {
    let rig = Rig::new().await;
    let kinds = ["app.a", "app.b", "app.a", "app.c", "app.c", "app.b"];
    for (n, kind) in kinds.iter().cycle().take(60).enumerate() {
        rig.put(&[envelope(kind, n as u64, "")]).await;
        next_millisecond(&rig).await;
    }
    let mut taken = rig.take(13).await;
    taken.extend(rig.take(100).await);
    assert_eq!(taken, (0..60).collect::<Vec<u64>>());
}

#[tokio::test]
async fn a_waiting_job_rises_one_class_per_step() {
    let rig = Rig::new().await;
    let names = ["bulk", "low", "normal", "high", "critical"];
    // A bulk job that waited one and a half steps counts as low, and is the oldest there.
    backdate(&rig, 100, 90_000).await;
    let fresh = |n: u64| {
        envelope(
            "app.b",
            n,
            &format!(r#","priority":"{}""#, names[n as usize]),
        )
    };
    let entries: Vec<String> = (0..5).map(fresh).collect();
    rig.put(&entries).await;
    assert_eq!(rig.take(10).await, [4, 3, 2, 100, 1, 0]);
    // One that waited for ever counts as high: never before what is critical.
    backdate(&rig, 101, 1_000_000).await;
    rig.put(&[fresh(4), fresh(3)]).await;
    assert_eq!(rig.take(10).await, [4, 101, 3]);
}

#[tokio::test]
async fn a_flow_that_is_told_to_stay_does_not_rise() {
    let rig = Rig::new().await;
    backdate(&rig, 100, 1_000_000).await;
    rig.put(&[envelope("app.b", 1, r#","priority":"low""#)])
        .await;
    let order = |still| {
        let rig = &rig;
        async move {
            let allow = |priority, kind, still| FlowAllowance {
                flow: flow(priority, kind),
                allowance: 9,
                terms: Terms::default().stay(still),
            };
            let flows = [
                allow(Priority::Bulk, "app.a", still),
                allow(Priority::Low, "app.b", false),
            ];
            let jobs = rig.claim_from(super::rig::ME, 9, &flows).await;
            let back = |job| settlement(job, handed_back(job.home.clone()));
            rig.settle(&jobs.iter().map(back).collect::<Vec<_>>()).await;
            jobs.iter().map(number_of).collect::<Vec<u64>>()
        }
    };
    assert_eq!(order(true).await, [1, 100]);
    assert_eq!(order(false).await, [100, 1]);
}

#[tokio::test]
async fn allowances_and_the_limit_hold() {
    let rig = Rig::new().await;
    let entries: Vec<String> = (0..40)
        .map(|n| envelope(if n % 2 == 0 { "app.a" } else { "app.b" }, n, ""))
        .collect();
    rig.put(&entries).await;
    let allow = |kind: &str, allowance| FlowAllowance {
        flow: flow(Priority::Normal, kind),
        allowance,
        terms: Terms::default(),
    };
    let flows = [allow("app.a", 3), allow("app.b", 5), allow("app.c", 9)];
    let count = |jobs: &[_]| jobs.iter().map(number_of).filter(|n| n % 2 == 0).count();
    let some = rig.claim_from(super::rig::ME, 100, &flows).await;
    assert_eq!((some.len(), count(&some)), (8, 3));
    let few = rig.claim_from(super::rig::ME, 4, &flows).await;
    assert_eq!(few.len(), 4);
    // A closed flow keeps its jobs in their places.
    let closed = [allow("app.a", 0), allow("app.b", 2)];
    let other = rig.claim_from(super::rig::ME, 100, &closed).await;
    assert_eq!((other.len(), count(&other)), (2, 0));
    let none = rig.claim_from(super::rig::ME, 0, &flows).await;
    assert_eq!(none.len(), 0);
}

#[tokio::test]
async fn what_is_handed_back_stands_where_it_stood() {
    let rig = Rig::new().await;
    // Of one moment, and of different ones.
    let entries: Vec<String> = (0..5).map(|n| envelope("app.a", n, "")).collect();
    rig.put(&entries).await;
    for n in 5..10 {
        next_millisecond(&rig).await;
        rig.put(&[envelope("app.a", n, "")]).await;
    }
    let jobs = rig.claim(8).await;
    let back = |index: usize| {
        let home = flow(Priority::Normal, "app.a");
        settlement(&jobs[index], handed_back(home))
    };
    // The younger ones first, in a call of their own.
    rig.settle(&[back(6), back(7)]).await;
    rig.settle(&[back(0), back(1), back(2), back(3), back(4), back(5)])
        .await;
    let mut taken = rig.take(3).await;
    taken.extend(rig.take(20).await);
    assert_eq!(taken, (0..10).collect::<Vec<u64>>());

    let jobs = {
        rig.put(&[envelope("app.a", 20, "")]).await;
        next_millisecond(&rig).await;
        rig.put(&[envelope("app.a", 21, "")]).await;
        rig.claim(2).await
    };
    let back =
        |index: usize| settlement(&jobs[index], handed_back(flow(Priority::Normal, "app.a")));
    // The older one first: the younger one must not pass it.
    rig.settle(&[back(0)]).await;
    rig.settle(&[back(1)]).await;
    assert_eq!(rig.take(2).await, [20, 21]);
}

/// Waits until Redis counts the next millisecond.
async fn next_millisecond(rig: &Rig) {
    let start = rig.queue.look().await.unwrap().now_ms;
    while rig.queue.look().await.unwrap().now_ms == start {}
}

/// Stores a bulk job that has been ready for `waited_ms`.
async fn backdate(rig: &Rig, n: u64, waited_ms: u64) {
    let keys = rig.queue.keys();
    let ready = (rig.queue.look().await.unwrap().now_ms - waited_ms).to_string();
    let (id, home) = (format!("old-{n}"), flow(Priority::Bulk, "app.a"));
    let raw = envelope("app.a", n, r#","priority":"bulk""#);
    rig.redis::<()>("HSET", &[&keys.jobs, &id, &raw]).await;
    rig.redis::<()>("RPUSH", &[&keys.flow(&home), &format!("{ready}:{id}")])
        .await;
    rig.redis::<()>("ZADD", &[&keys.ready[4], &ready, "app.a"])
        .await;
}
