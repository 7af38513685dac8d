//! The auditor: one test for each sort of damage, and that it leaves a queue at work alone.

mod beside;
mod many;

use super::rig::{Rig, done, envelope, failures, flow, handed_back, record, settlement};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::Duration;
use tidegate::job::{Priority, What};
use tidegate::queue::audit::{Damage, Findings, KnownFlows, Options, Tally};
use tidegate::queue::settle::Ending;
use tidegate::queue::{FlowAllowance, Keys, Queue};

fn given(n: u64) -> String {
    envelope("app.a", n, &format!(r#","id":"x{n}""#))
}

fn home(keys: &Keys) -> String {
    keys.flow(&flow(Priority::Normal, "app.a"))
}

async fn tally(rig: &Rig) -> Tally {
    let mut flows = KnownFlows::default();
    flows.add(&rig.catalog);
    rig.queue.tally(&mut flows).await.unwrap().unwrap()
}

async fn sweep(rig: &Rig, repair: bool) -> Findings {
    let options = Options {
        repair,
        pace: Duration::ZERO,
    };
    rig.queue.sweep(&rig.catalog, options).await.unwrap()
}

/// Finds exactly this; once it is repaired, nothing any more, and the counts fit.
async fn repaired(rig: &Rig, damage: Damage, count: u64) {
    for repair in [false, true] {
        let found = sweep(rig, repair).await;
        assert_eq!(found.count(damage), count, "repair: {repair}, {found:?}");
        assert_eq!(found.iter().count(), 1, "nothing else: {found:?}");
    }
    assert_eq!(sweep(rig, false).await, Findings::default());
    let after = tally(rig).await;
    assert!(after.is_whole(), "{after:?}");
}

/// All that wait, however many entries are none.
async fn take_all(rig: &Rig) -> Vec<u64> {
    let mut taken = Vec::new();
    for _ in 0..20 {
        taken.extend(rig.take(100).await);
    }
    taken
}

#[tokio::test]
async fn a_queue_with_something_in_every_place_is_whole() {
    let rig = Rig::new().await;
    rig.put(&(0..10).map(given).collect::<Vec<_>>()).await;
    rig.put(&[envelope("app.b", 50, r#","delay_ms":60000"#)])
        .await;
    let jobs = rig.claim(3).await;
    let dead = Ending::Dead {
        history: failures(1),
        counter: "dead",
        given: true,
    };
    rig.settle(&[
        settlement(&jobs[0], dead),
        settlement(&jobs[1], done(&jobs[1])),
    ])
    .await;
    let end = record("x7", "cancelled");
    rig.queue.cancel(&end, true, None, "ann").await.unwrap();
    let now = tally(&rig).await;
    let places = [
        now.jobs,
        now.waiting,
        now.stones,
        now.delayed,
        now.running,
        now.dead,
    ];
    assert_eq!(places, [9, 7, 1, 1, 1, 1]);
    assert!(now.is_whole());
    assert_eq!(sweep(&rig, true).await, Findings::default());
}

#[tokio::test]
async fn a_job_in_no_place_comes_back_and_runs_once() {
    let rig = Rig::new().await;
    rig.put(&(0..5).map(given).collect::<Vec<_>>()).await;
    rig.redis::<()>("LTRIM", &[&home(rig.queue.keys()), "0", "1"])
        .await;
    assert_eq!(tally(&rig).await.mismatch(), 3);
    repaired(&rig, Damage::Lost, 3).await;
    let tomb: u64 = rig.redis("EXISTS", &[&rig.queue.keys().tomb]).await;
    assert_eq!(
        tomb, 0,
        "tombstones for entries that are not there are gone"
    );
    let job = rig.queue.find("x4").await.unwrap().unwrap();
    assert_eq!(job.history.events.last().unwrap().event, What::Repaired);
    let mut taken = take_all(&rig).await;
    taken.sort_unstable();
    assert_eq!(taken, [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn a_lost_running_or_delayed_entry_is_a_lost_job() {
    let rig = Rig::new().await;
    rig.put(&[
        given(1),
        envelope("app.b", 2, r#","id":"d","delay_ms":60000"#),
    ])
    .await;
    let job = rig.claim(1).await.remove(0);
    let keys = rig.queue.keys();
    rig.redis::<()>("DEL", &[&keys.running, &keys.delayed])
        .await;
    repaired(&rig, Damage::Lost, 2).await;
    // What ran is not ours to settle any more.
    let late = rig.settle(&[settlement(&job, done(&job))]).await;
    assert_eq!(late.stale, [0]);
    assert_eq!(take_all(&rig).await.len(), 2);
}

#[tokio::test]
async fn a_job_whose_envelope_was_spoilt_comes_back_to_be_set_aside() {
    let rig = Rig::new().await;
    rig.put(&[given(1)]).await;
    let keys = rig.queue.keys();
    rig.redis::<()>("HSET", &[&keys.jobs, "x1", "garbage"])
        .await;
    rig.redis::<()>("DEL", &[&home(keys)]).await;
    repaired(&rig, Damage::Lost, 1).await;
    let job = rig.claim(9).await.remove(0);
    assert!(job.open(&rig.queue, &rig.catalog, job.ready_ms).is_err());
}

#[tokio::test]
async fn an_entry_of_a_job_that_is_elsewhere_is_taken_out() {
    let rig = Rig::new().await;
    rig.put(&(0..4).map(given).collect::<Vec<_>>()).await;
    rig.put(&[envelope("app.b", 9, r#","id":"d","delay_ms":60000"#)])
        .await;
    let jobs = rig.claim(2).await;
    let dead = Ending::Dead {
        history: failures(1),
        counter: "dead",
        given: true,
    };
    rig.settle(&[settlement(&jobs[0], dead)]).await;
    let flow = home(rig.queue.keys());
    // Of a dead one, a running one, a delayed one, and one that is no job at all; in the middle and at the end.
    for id in ["x0", "x1"] {
        rig.redis::<()>("LPUSH", &[&flow, &format!("1700000000000:{id}")])
            .await;
    }
    for id in ["d", "nobody"] {
        rig.redis::<()>("RPUSH", &[&flow, &format!("9000000000000:{id}")])
            .await;
    }
    assert_eq!(tally(&rig).await.mismatch(), -4);
    repaired(&rig, Damage::Stray, 4).await;
    assert_eq!(take_all(&rig).await, [2, 3]);
    let tomb: u64 = rig.redis("EXISTS", &[&rig.queue.keys().tomb]).await;
    assert_eq!(tomb, 0, "the claim has dropped the holes");
    assert!(tally(&rig).await.is_whole());
}

#[tokio::test]
async fn a_second_entry_of_a_waiting_job_is_taken_out() {
    let rig = Rig::new().await;
    rig.put(&(0..4).map(given).collect::<Vec<_>>()).await;
    let keys = rig.queue.keys();
    let first: Vec<String> = rig.redis("LRANGE", &[&home(keys), "0", "0"]).await;
    // The very same entry again, another one, and one in another flow.
    rig.redis::<()>("RPUSH", &[&home(keys), &first[0], "9000000000000:x1"])
        .await;
    let other = keys.flow(&flow(Priority::Bulk, "app.c"));
    rig.redis::<()>("RPUSH", &[&other, "9000000000000:x2"])
        .await;
    rig.redis::<()>("ZADD", &[&keys.ready[4], "9000000000000", "app.c"])
        .await;
    repaired(&rig, Damage::Twin, 3).await;
    assert_eq!(take_all(&rig).await, [0, 1, 2, 3]);
    assert!(tally(&rig).await.is_whole());
}

#[tokio::test]
async fn a_flow_of_which_no_claim_knows_is_listed() {
    let rig = Rig::new().await;
    rig.put(&[given(1), envelope("app.b", 2, "")]).await;
    let keys = rig.queue.keys();
    rig.redis::<()>("DEL", &[&keys.ready[2]]).await;
    assert_eq!(tally(&rig).await.unlisted.len(), 2);
    assert_eq!(take_all(&rig).await, Vec::<u64>::new());
    repaired(&rig, Damage::Unlisted, 2).await;
    assert_eq!(take_all(&rig).await.len(), 2);
}

#[tokio::test]
async fn delayed_and_dead_ids_of_no_job_are_removed() {
    let rig = Rig::new().await;
    rig.put(&[given(1)]).await;
    let keys = rig.queue.keys();
    rig.redis::<()>(
        "ZADD",
        &[&keys.delayed, "9000000000000", "a", "9000000000000", "b"],
    )
    .await;
    rig.redis::<()>("ZADD", &[&keys.dead, "1700000000000", "c"])
        .await;
    assert_eq!(tally(&rig).await.mismatch(), -3);
    repaired(&rig, Damage::Bodiless, 3).await;
}

#[tokio::test]
async fn a_tombstone_without_its_entry_is_corrected() {
    let rig = Rig::with(|c| c.dedupe.window = Duration::ZERO).await;
    rig.put(&[given(1), given(2)]).await;
    let end = record("x1", "cancelled");
    rig.queue.cancel(&end, true, None, "ann").await.unwrap();
    let keys = rig.queue.keys();
    let stone: String = rig.redis("HGET", &[&keys.tomb, "x1"]).await;
    let more = stone.replacen("1:", "3:", 1);
    rig.redis::<()>(
        "HSET",
        &[&keys.tomb, "x1", &more, "nobody", "1:1700000000000"],
    )
    .await;
    assert_eq!(tally(&rig).await.mismatch(), 3);
    repaired(&rig, Damage::Stone, 2).await;
    let left: String = rig.redis("HGET", &[&keys.tomb, "x1"]).await;
    assert_eq!(left, stone);
    rig.put(&[given(1)]).await;
    assert_eq!(take_all(&rig).await, [2, 1]);
}

#[tokio::test]
async fn jobs_under_a_key_that_was_overwritten_come_back() {
    let rig = Rig::new().await;
    rig.put(&(0..30).map(given).collect::<Vec<_>>()).await;
    rig.put(&[envelope("app.b", 99, r#","id":"d","delay_ms":60000"#)])
        .await;
    rig.claim(10).await;
    let keys = rig.queue.keys();
    for key in [&home(keys), &keys.running, &keys.delayed] {
        rig.redis::<()>("SET", &[key, "junk"]).await;
    }
    rig.queue.heal(1, &rig.catalog).await.unwrap();
    repaired(&rig, Damage::Lost, 31).await;
    let mut taken = take_all(&rig).await;
    taken.sort_unstable();
    let all: Vec<u64> = (0..30).chain([99]).collect();
    assert_eq!(taken, all);
}

/// Sweeps of a queue at work.
const SWEEPS: u64 = 20;

/// A daemon that does everything that may happen to a job, as fast as it can.
async fn work(rig: &Rig, queue: &Queue, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let me = format!("00000000-0000-4000-8000-00000000000{seed}");
    queue.heartbeat(&me, true).await.unwrap();
    let mut held = Vec::new();
    for round in 0.. {
        let entries: Vec<String> = (0..40)
            .map(|n| {
                let kind = super::rig::KINDS[rng.random_range(0..3)];
                let id = format!(r#","id":"s{seed}-{round}-{n}""#);
                let more = if rng.random_bool(0.1) {
                    r#","delay_ms":1"#
                } else {
                    ""
                };
                envelope(kind, n, &format!("{id}{more}"))
            })
            .collect();
        let jobs: u64 = rig.redis("HLEN", &[&queue.keys().jobs]).await;
        if jobs < 600 {
            rig.push(&entries).await;
        }
        let peeked = queue.peek().await.unwrap();
        if !peeked.entries.is_empty() {
            let verdicts = rig.judge(&peeked);
            queue.admit(&me, &peeked, &verdicts).await.unwrap();
        }
        let look = queue.look().await.unwrap();
        queue.promote(&me, &look.due, &rig.catalog).await.unwrap();
        let flows: Vec<FlowAllowance> = look
            .heads
            .into_iter()
            .map(|(flow, _)| FlowAllowance {
                flow,
                allowance: 30,
                terms: Default::default(),
            })
            .collect();
        held.extend(queue.claim(&me, round + 1, 45, &flows).await.unwrap().jobs);
        let ends: Vec<_> = held
            .drain(..)
            .map(|job| {
                let kind = serde_json::from_slice::<serde_json::Value>(&job.raw).unwrap();
                let back = flow(Priority::Normal, kind["kind"].as_str().unwrap());
                let ending = match rng.random_range(0..10) {
                    0..4 => done(&job),
                    4 => Ending::Later {
                        delay: Duration::from_millis(rng.random_range(0..3)),
                        history: failures(1),
                        counter: "retried",
                    },
                    _ => handed_back(back),
                };
                settlement(&job, ending)
            })
            .collect();
        if !ends.is_empty() {
            queue.settle(&me, round + 1, &ends).await.unwrap();
        }
        let id = format!("s{seed}-{round}-{}", rng.random_range(0..40));
        let end = record(&id, "cancelled");
        queue.cancel(&end, true, None, "ann").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_at_work_is_never_taken_for_a_broken_one() {
    let rig = Rig::new().await;
    let audit = async {
        for sweeps in 0..SWEEPS {
            let now = tally(&rig).await;
            assert!(now.is_whole(), "after {sweeps} sweeps: {now:?}");
            let found = sweep(&rig, true).await;
            assert_eq!(found, Findings::default(), "after {sweeps} sweeps");
        }
    };
    tokio::select! {
        () = work(&rig, &rig.queue, 2) => {}
        () = work(&rig, &rig.queue, 3) => {}
        () = audit => {}
    }
    for counter in ["done", "retried", "handed_back", "cancelled"] {
        assert!(rig.stat(counter).await > 5, "{counter}");
    }
}
