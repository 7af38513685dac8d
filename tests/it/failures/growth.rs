//! What many jobs cost: memory after they are gone, and time while they wait.

use super::{fill, private};
use crate::queue::rig::{ME, Rig, done, envelope, failures, flow, number_of, record, settlement};
use crate::support::{DEADLINE, wait_until};
use std::time::{Duration, Instant};
use tidegate::job::{Priority, Reject, RejectCode};
use tidegate::queue::FlowAllowance;
use tidegate::queue::settle::Ending;

async fn memory(rig: &Rig) -> u64 {
    let text: String = rig.redis("INFO", &["memory"]).await;
    let field = text
        .lines()
        .find_map(|l| l.strip_prefix("used_memory_dataset:"));
    field.unwrap().trim().parse().unwrap()
}

/// A few thousand jobs come and go, in every way there is.
async fn round(rig: &Rig, from: u64) {
    for step in (from..from + 3_000).step_by(250) {
        let entry = |n: u64| match n % 10 {
            0 => "{".to_owned(),
            1 => envelope("app.b", n, r#","delay_ms":3600000"#),
            _ => envelope("app.a", n, &format!(r#","id":"job-{n}""#)),
        };
        rig.put(&(step..step + 250).map(entry).collect::<Vec<_>>())
            .await;
        let delayed: Vec<String> = rig
            .redis("ZRANGE", &[&rig.queue.keys().delayed, "0", "-1"])
            .await;
        for id in delayed {
            rig.queue
                .cancel(&record(&id, "cancelled"), false, None, "ann")
                .await
                .unwrap();
        }
        let ends: Vec<_> = rig
            .claim(250)
            .await
            .iter()
            .map(|job| settlement(job, ending(job)))
            .collect();
        assert_eq!(rig.settle(&ends).await.stale, Vec::<usize>::new());
    }
}

fn ending(job: &tidegate::queue::claim::RawDelivery) -> Ending {
    match number_of(job) % 5 {
        0 => Ending::Dead {
            history: failures(10),
            given: true,
            counter: "dead",
        },
        1 => Ending::Quarantined(Reject::new(RejectCode::BadArgs, "n: no")),
        _ => done(job),
    }
}

#[tokio::test]
async fn f08_redis_memory_growth() {
    let server = private(|_| {});
    let rig = Rig::on(&server.redis.url(), |c| {
        c.retention.dead_max = 200;
        c.retention.quarantine_max = 200;
        c.retention.recent_max = 500;
        c.retention.history_max = 200;
        c.dedupe.window = Duration::from_millis(1);
    })
    .await;
    let mut grown = Vec::new();
    for number in 0..4 {
        round(&rig, number * 10_000).await;
        grown.push(memory(&rig).await);
    }
    let keys = rig.queue.keys();
    let counts = rig.queue.counts().await.unwrap();
    assert_eq!(counts.dead, 200);
    assert!(counts.quarantine <= 300, "{}", counts.quarantine);
    let kept: u64 = rig.redis("LLEN", &[&keys.recent]).await;
    assert_eq!(kept, 500);
    let remembered: u64 = rig.redis("ZCARD", &[&keys.ids]).await;
    assert!(remembered < 2_000, "{remembered}");
    let archived: u64 = rig.redis("ZCARD", &[&keys.archived]).await;
    assert_eq!(archived, 200);
    let stored: u64 = rig.redis("HLEN", &[&keys.jobs]).await;
    assert_eq!(stored, 200, "the dead and nobody else");
    // The first round filled what is kept on purpose.
    assert!(grown[3] <= grown[0] + grown[0] / 5, "{grown:?}");
    // And there are bounds without anybody having asked for them.
    let default = tidegate::config::load(&tidegate::config::Sources::default()).unwrap();
    let retention = default.retention;
    assert!(retention.dead_max > 0 && retention.quarantine_max > 0 && retention.recent_max > 0);
    assert!(retention.dead_age > Duration::ZERO);
}

#[tokio::test]
async fn f09_priority_cost_and_starvation() {
    const WAITING: u64 = 400_000;
    let server = private(|_| {});
    let rig = Rig::on(&server.redis.url(), |c| {
        c.aging.after = Duration::from_millis(20)
    })
    .await;
    // The time of one admission, the shortest of many: others may be busy on this machine.
    let admission = async |from: u64| {
        let mut shortest = Duration::MAX;
        for step in 0..40 {
            let entry = |n: u64| {
                let class = Priority::ALL[(n % 5) as usize];
                envelope("app.a", n, &format!(r#","priority":"{class}""#))
            };
            let first = from + step * 100;
            rig.push(&(first..first + 100).map(entry).collect::<Vec<_>>())
                .await;
            let peeked = rig.queue.peek().await.unwrap();
            let verdicts = rig.judge(&peeked);
            let started = Instant::now();
            rig.queue.admit(ME, &peeked, &verdicts).await.unwrap();
            shortest = shortest.min(started.elapsed());
        }
        shortest
    };
    let empty = admission(0).await;
    let keys = rig.queue.keys().clone();
    for (class, ready) in Priority::ALL.iter().zip(&keys.ready) {
        let home = keys.flow(&flow(*class, "app.a"));
        let body = format!(
            r#"local id = '{class}-' .. n
            redis.call('HSET', KEYS[1], id, '{{"kind":"app.a","args":{{"n":1}}}}')
            redis.call('RPUSH', KEYS[2], string.format('%013d:%s', 9000000000000, id))"#
        );
        fill(&rig, &[&keys.jobs, &home], WAITING / 5, &body).await;
        rig.redis::<()>("ZADD", &[ready, "NX", "9000000000000", "app.a"])
            .await;
    }
    let full = admission(1_000_000).await;
    assert!(
        full <= empty * 2 + Duration::from_millis(1),
        "{empty:?} when empty, {full:?} behind {WAITING}"
    );

    // The lowest class waits its turn out, and then comes before what is more urgent and came later; but critical jobs never
    // wait behind a backlog that has grown old.
    let rig = Rig::on(&server.redis.url(), |c| {
        c.aging.after = Duration::from_millis(20)
    })
    .await;
    rig.put(&[envelope("app.b", 7, r#","priority":"bulk""#)])
        .await;
    let put = Instant::now();
    wait_until("it aged by four classes", DEADLINE, || {
        std::future::ready(put.elapsed() > Duration::from_millis(100))
    })
    .await;
    let urgent = |n: u64| envelope("app.a", n, r#","priority":"high""#);
    rig.put(&(100..200).map(urgent).collect::<Vec<_>>()).await;
    rig.put(&[envelope("app.a", 8, r#","priority":"critical""#)])
        .await;
    let flows = [
        (Priority::High, "app.a"),
        (Priority::Bulk, "app.b"),
        (Priority::Critical, "app.a"),
    ];
    let plan = flows.map(|(class, kind)| FlowAllowance {
        flow: flow(class, kind),
        allowance: 10,
        terms: Default::default(),
    });
    let first = rig.claim_from(ME, 2, &plan).await;
    assert_eq!(first.iter().map(number_of).collect::<Vec<_>>(), [8, 7]);
}
