//! Very many jobs at once: due together, or in every list there is.

use super::{fill, private};
use crate::queue::rig::{ME, Rig, done, flow, record, settlement};
use std::time::Duration;
use tidegate::job::Priority;

/// Every script call is to be shorter than this.
const LONGEST: Duration = Duration::from_millis(5);

#[tokio::test]
async fn f03_the_hand_off_from_scheduled_to_ready_loses_jobs() {
    const JOBS: u64 = 1_000_000;
    const MOVED: u64 = 200_000;
    let server = private(|_| {});
    let rig = Rig::on(&server.redis.url(), |_| {}).await;
    let keys = rig.queue.keys().clone();
    let body = r#"
        local id = string.format('d%07d', n)
        redis.call('HSET', KEYS[1], id, '{"kind":"app.a","id":"' .. id .. '","args":{"n":' .. n .. '}}')
        redis.call('ZADD', KEYS[2], 1700000000000, id)"#;
    fill(&rig, &[&keys.jobs, &keys.delayed], JOBS, body).await;
    let longest = LONGEST.as_micros().to_string();
    rig.redis::<()>("CONFIG", &["SET", "slowlog-log-slower-than", &longest])
        .await;
    let mut moved = 0;
    // With a million due, and with fewer.
    for half in 1..=2 {
        moved += promote_without_a_stall(&rig).await;
        while moved < MOVED / 2 * half {
            moved += promote(&rig).await;
        }
    }
    let home = keys.flow(&flow(Priority::Normal, "app.a"));
    let entries: Vec<String> = rig.redis("LRANGE", &[&home, "0", "-1"]).await;
    let ids: Vec<&str> = entries.iter().map(|entry| &entry[14..]).collect();
    let wanted: Vec<String> = (1..=moved).map(|n| format!("d{n:07}")).collect();
    assert!(ids == wanted, "each of the first is there once, in order");
    let left: u64 = rig.redis("ZCARD", &[&keys.delayed]).await;
    assert_eq!(left + moved, JOBS);
    for _ in 0..20 {
        let jobs = rig.claim(250).await;
        assert_eq!(jobs.len(), 250);
        let ends: Vec<_> = jobs.iter().map(|job| settlement(job, done(job))).collect();
        assert_eq!(rig.settle(&ends).await.stale, Vec::<usize>::new());
    }
    assert_eq!(rig.stat("done").await, 5_000);
}

/// Promotes for a while, in which no call may block the server for longer than allowed, as the server itself sees it. On a
/// busy machine it now and then waits for a processor in the middle of a script: then it gets another chance, or two.
async fn promote_without_a_stall(rig: &Rig) -> u64 {
    const LOOKS: usize = 20;
    const ATTEMPTS: usize = 3;
    let mut moved = 0;
    let mut stalls: Vec<u32> = Vec::new();
    while stalls.len() < ATTEMPTS {
        rig.redis::<()>("SLOWLOG", &["RESET"]).await;
        for _ in 0..LOOKS {
            moved += promote(rig).await;
        }
        stalls.push(rig.redis("SLOWLOG", &["LEN"]).await);
        if stalls.ends_with(&[0]) {
            return moved;
        }
    }
    panic!(
        "in each of {ATTEMPTS} attempts, calls blocked the server for more than {LONGEST:?}: {stalls:?}"
    );
}

/// Moves what one look brings. Of no call may the server use the processor for longer than allowed, however busy the
/// machine is.
async fn promote(rig: &Rig) -> u64 {
    let mut used = processor_time(rig).await;
    let due = rig.queue.look().await.unwrap().due;
    within(rig, &mut used, "look").await;
    // Another daemon looked at the same moment; it finds them moved.
    for _ in 0..2 {
        rig.queue.promote(ME, &due, &rig.catalog).await.unwrap();
        within(rig, &mut used, "promote").await;
    }
    due.len() as u64
}

async fn within(rig: &Rig, used: &mut Duration, call: &str) {
    let now = processor_time(rig).await;
    let took = now.saturating_sub(*used);
    assert!(took <= LONGEST, "{call} kept the server busy for {took:?}");
    *used = now;
}

/// What the server's main thread has used so far.
async fn processor_time(rig: &Rig) -> Duration {
    let text: String = rig.redis("INFO", &["cpu"]).await;
    let field = |name: &str| -> f64 {
        let found = text.lines().find_map(|line| line.strip_prefix(name));
        found.unwrap().trim().parse().unwrap()
    };
    Duration::from_secs_f64(
        field("used_cpu_user_main_thread:") + field("used_cpu_sys_main_thread:"),
    )
}

#[tokio::test]
async fn f07_too_many_results_to_unpack() {
    const MANY: u64 = 120_000;
    let server = private(|_| {});
    let rig = Rig::on(&server.redis.url(), |c| {
        c.retention.quarantine_max = 100_000
    })
    .await;
    let keys = rig.queue.keys().clone();
    let home = keys.flow(&flow(Priority::Normal, "app.a"));
    let raw = r#"local raw = '{"kind":"app.a","args":{"n":' .. n .. '}}'"#;
    let body = |rest: &str| format!("{raw}\n{rest}");
    fill(
        &rig,
        &[&keys.inbox],
        MANY,
        &body("redis.call('RPUSH', KEYS[1], raw)"),
    )
    .await;
    let waiting = "redis.call('HSET', KEYS[1], 'w' .. n, raw)
        redis.call('RPUSH', KEYS[2], string.format('%013d:w%d', 1700000000000, n))";
    fill(&rig, &[&keys.jobs, &home], MANY, &body(waiting)).await;
    rig.redis::<()>("ZADD", &[&keys.ready[2], "1700000000000", "app.a"])
        .await;
    for (key, letter) in [(&keys.delayed, "d"), (&keys.dead, "x")] {
        let set = format!(
            "redis.call('HSET', KEYS[1], '{letter}' .. n, raw) redis.call('ZADD', KEYS[2], n, '{letter}' .. n)"
        );
        fill(&rig, &[&keys.jobs, key], MANY, &body(&set)).await;
    }
    let running = "redis.call('HSET', KEYS[1], 'r' .. n, raw) redis.call('HSET', KEYS[2], 'r' .. n, 'gone:1:1700000000000')";
    fill(&rig, &[&keys.jobs, &keys.running], MANY, &body(running)).await;
    let remembered = "redis.call('ZADD', KEYS[1], 1000 + n, 'i' .. n)";
    fill(&rig, &[&keys.ids], MANY, remembered).await;
    for key in [&keys.cancels, &keys.meta, &keys.settled] {
        fill(
            &rig,
            &[key],
            MANY,
            "redis.call('HSET', KEYS[1], 'r' .. n, '{}')",
        )
        .await;
    }
    fill(
        &rig,
        &[&keys.tomb],
        MANY,
        "redis.call('HSET', KEYS[1], 't' .. n, '1:1')",
    )
    .await;
    fill(
        &rig,
        &[&keys.recent],
        MANY,
        "redis.call('LPUSH', KEYS[1], 'x')",
    )
    .await;
    let set_aside =
        "redis.call('XADD', KEYS[1], '*', 'at', 1, 'code', 'malformed', 'reason', 'r', 'raw', raw)";
    fill(&rig, &[&keys.quarantine], MANY, &body(set_aside)).await;
    fill(
        &rig,
        &[&keys.workers],
        MANY,
        "redis.call('ZADD', KEYS[1], n, 'w' .. n)",
    )
    .await;
    for key in &keys.ready {
        fill(
            &rig,
            &[key],
            MANY / 4,
            "redis.call('ZADD', KEYS[1], 1700000000001 + n, 'no.such' .. n)",
        )
        .await;
    }
    every_call(&rig).await;
}

/// Every call a daemon or an operator makes, once or a few times.
async fn every_call(rig: &Rig) {
    let queue = &rig.queue;
    queue.heartbeat(ME, true).await.unwrap();
    assert!(queue.heartbeat(ME, false).await.unwrap().workers.len() <= 512);
    for batch in 1..=4 {
        let peeked = queue.peek().await.unwrap();
        let verdicts = rig.judge(&peeked);
        queue.admit(ME, &peeked, &verdicts).await.unwrap();
        let look = queue.look().await.unwrap();
        assert!(!look.due.is_empty() && look.many_cancels);
        queue.promote(ME, &look.due, &rig.catalog).await.unwrap();
        let jobs = rig
            .claim_from(
                ME,
                200,
                &[tidegate::queue::FlowAllowance {
                    flow: flow(Priority::Normal, "app.a"),
                    allowance: 200,
                    terms: Default::default(),
                }],
            )
            .await;
        assert_eq!(jobs.len(), 200);
        let ends: Vec<_> = jobs.iter().map(|job| settlement(job, done(job))).collect();
        let settled = queue.settle(ME, batch, &ends).await.unwrap();
        assert_eq!(settled.stale, Vec::<usize>::new());
    }
    let (_, orphans) = queue.sweep_running(0).await.unwrap();
    assert!(!orphans.is_empty() && orphans.len() < 2_000);
    let ids: Vec<&str> = orphans.iter().map(|o| o.id.as_str()).collect();
    queue.stored(&ids).await.unwrap();
    queue
        .cancel(&record("d100000", "cancelled"), true, None, "ann")
        .await
        .unwrap();
    let home = flow(Priority::Normal, "app.a");
    assert!(queue.requeue("x100000", &home, None, "ann").await.unwrap());
    let dead = queue.dead_before(u64::MAX, 500).await.unwrap();
    assert_eq!(queue.bury(&dead, Some("ann")).await.unwrap(), 500);
    let aside = queue.quarantined("", 100).await.unwrap();
    let aside: Vec<String> = aside.into_iter().map(|entry| entry.id).collect();
    assert_eq!(queue.release(&aside).await.unwrap(), 100);
    assert!(queue.counts().await.unwrap().inbox > 100_000);
    queue.find("no-such").await.unwrap();
    queue.ahead_of(&home, "w119999").await.unwrap();
    queue.heal(1, &rig.catalog).await.unwrap();
}
