//! How long a queue is and how long its jobs wait: true where there is little, bounded where there is much.

use super::rig::{ME, Rig, catalog_of, envelope};
use tidegate::queue::claim::{Claimed, Stand};
use tidegate::queue::{FlowAllowance, Terms};
use tidegate::stack::{PrivateRedis, RedisOptions};

const ARGS: &str = "[args]\nt = { type = \"string\" }\n";

fn job(tenant: &str) -> String {
    format!(r#"{{"kind":"app.t","args":{{"t":"{tenant}"}}}}"#)
}

async fn rig(more: &str) -> Rig {
    let mut rig = Rig::new().await;
    rig.catalog = catalog_of(&[("app.t", &format!("{more}\n{ARGS}"))]);
    rig
}

async fn claim(rig: &Rig, number: u64, limit: usize) -> Claimed {
    let look = rig.queue.look().await.unwrap();
    let spec = rig.catalog.get("app.t").unwrap();
    let allow = |(flow, _)| FlowAllowance {
        terms: Terms::of(&flow, spec, &look.control),
        flow,
        allowance: limit,
    };
    let flows: Vec<FlowAllowance> = look.heads.into_iter().map(allow).collect();
    rig.queue.claim(ME, number, limit, &flows).await.unwrap()
}

/// The ready time of what is admitted now, and a moment later.
async fn later(rig: &Rig) -> u64 {
    let then = rig.queue.look().await.unwrap().now_ms;
    while rig.queue.look().await.unwrap().now_ms < then + 5 {}
    then
}

#[tokio::test]
async fn each_state_is_counted() {
    let rig = Rig::new().await;
    let jobs: Vec<String> = (0..5).map(|n| envelope("app.a", n, "")).collect();
    rig.put(&jobs).await;
    rig.put(&[envelope("app.b", 9, r#","delay_ms":60000"#)])
        .await;
    rig.push(&[envelope("app.b", 9, "")]).await;
    let taken = rig.claim(2).await;
    let depth = rig.queue.depth().await.unwrap();
    assert_eq!((depth.waiting, depth.parked), (3, 0));
    let sizes = &depth.sizes;
    assert_eq!((sizes.delayed, sizes.running, sizes.inbox), (1, 2, 1));
    assert_eq!(depth.oldest_ready_ms, Some(taken[0].ready_ms));
}

#[tokio::test]
async fn a_job_that_waits_for_a_slot_of_its_key_waits_all_the_same() {
    let rig = rig("[concurrency]\nlimit = 1\nkey = \"args.t\"").await;
    let began = later(&rig).await;
    rig.put(&[job("a"), job("a"), job("a")]).await;
    assert_eq!(claim(&rig, 1, 9).await.heads[0], Stand::Parked);
    later(&rig).await;
    rig.put(&[job("b")]).await;
    let depth = rig.queue.depth().await.unwrap();
    assert_eq!((depth.waiting, depth.parked), (1, 2));
    let oldest = depth.oldest_ready_ms.unwrap();
    assert!(
        oldest < later(&rig).await - 4 && oldest >= began,
        "that of a"
    );
    let counts = rig.queue.counts().await.unwrap();
    assert_eq!((counts.lanes[2], counts.parked), (3, 2));
    assert_eq!(counts.oldest_ready_ms, Some(oldest));
}

#[tokio::test]
async fn a_job_that_waits_for_its_rate_waits_all_the_same() {
    let rig = rig("[rate]\nlimit = 1\nper = \"1h\"\nkey = \"args.t\"").await;
    rig.put(&[job("a"), job("a")]).await;
    let taken = claim(&rig, 1, 9).await;
    assert_eq!((taken.jobs.len(), taken.heads[0]), (1, Stand::Parked));
    let depth = rig.queue.depth().await.unwrap();
    assert_eq!((depth.waiting, depth.parked), (0, 1));
    assert_eq!(depth.oldest_ready_ms, Some(taken.jobs[0].ready_ms));
}

/// Its flow has just had a turn, so its place in line is late; its head is as old as ever.
#[tokio::test]
async fn a_job_that_waits_for_the_turn_of_its_key_waits_since_it_came() {
    let rig = rig("fairness = \"args.t\"").await;
    rig.put(&[job("a"), job("a")]).await;
    later(&rig).await;
    let taken = claim(&rig, 1, 1).await;
    let ready = taken.jobs[0].ready_ms;
    assert!(matches!(taken.heads[0], Stand::Waits(place) if place > ready));
    let depth = rig.queue.depth().await.unwrap();
    assert_eq!(depth.oldest_ready_ms, Some(ready));
}

async fn commands(rig: &Rig) -> u64 {
    let text: String = rig.redis("INFO", &["stats"]).await;
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix("total_commands_processed:"));
    line.unwrap().parse().unwrap()
}

/// 6,000 flows of 2 jobs each in line and about 6,000 out of line: a walk through them would take as many commands.
#[tokio::test]
async fn what_it_costs_does_not_grow_with_the_flows() {
    let dir = tempfile::tempdir().unwrap();
    let redis = PrivateRedis::start(RedisOptions::new(dir.path().join("redis"))).unwrap();
    let mut rig = Rig::on(&redis.url(), |_| {}).await;
    let limit = format!("[concurrency]\nlimit = 1\nkey = \"args.t\"\n{ARGS}");
    rig.catalog = catalog_of(&[("app.t", &limit)]);
    let all: Vec<String> = (0..6_000)
        .flat_map(|n| [job(&format!("t{n}")), job(&format!("t{n}"))])
        .collect();
    rig.put(&all).await;
    let before = commands(&rig).await;
    let depth = rig.queue.depth().await.unwrap();
    let spent = commands(&rig).await - before;
    assert_eq!((depth.waiting, depth.parked), (12_000, 0));
    assert!(spent < 400, "{spent} commands");
    for number in 1..=12 {
        claim(&rig, number, 250).await;
    }
    let running = rig.queue.sizes().await.unwrap().running;
    assert_eq!(running, 3_000, "the other jobs of these are parked");
    let before = commands(&rig).await;
    let depth = rig.queue.depth().await.unwrap();
    let spent = commands(&rig).await - before;
    assert!(spent < 1_500, "{spent} commands");
    assert_eq!(depth.waiting + depth.parked, 9_000);
    // A part was counted, and stands for all.
    assert!(depth.parked.abs_diff(3_000) < 30, "{}", depth.parked);
}
