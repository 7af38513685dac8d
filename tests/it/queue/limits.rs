//! Limits across daemons, rates and turns, by the scripts that keep them.

use super::rig::{ME, Rig, done, handed_back, number_of, settlement};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tidegate::catalog::{self, Catalog};
use tidegate::job::Priority;
use tidegate::queue::claim::{Claimed, RawDelivery, Stand};
use tidegate::queue::{Control, FlowAllowance, Settlement, Terms};

const OTHER: &str = "00000000-0000-4000-8000-000000000002";
const THIRD: &str = "00000000-0000-4000-8000-000000000003";

/// A rig whose only kind is `app.t`, which takes `t`, a tenant, and `n`.
async fn rig(more: &str) -> Rig {
    let mut rig = Rig::new().await;
    rig.catalog = kind(more);
    for daemon in [OTHER, THIRD] {
        rig.queue.heartbeat(daemon, true).await.unwrap();
    }
    rig
}

fn kind(more: &str) -> Catalog {
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "kind = \"app.t\"\nhandler = \"exec\"\n{more}\n[args]\nt = {{ type = \"string\" }}\nn = {{ type = \"integer\" }}\n[exec]\ncommand = [\"/bin/true\"]\n"
    );
    std::fs::write(dir.path().join("t.toml"), text).unwrap();
    catalog::load(dir.path(), &["exec"]).unwrap()
}

fn job(tenant: &str, n: u64) -> String {
    format!(r#"{{"kind":"app.t","id":"{tenant}-{n}","args":{{"t":"{tenant}","n":{n}}}}}"#)
}

fn jobs(tenant: &str, count: u64) -> Vec<String> {
    (0..count).map(|n| job(tenant, n)).collect()
}

/// Claims under the limits, as a daemon does that knows every flow.
async fn claim(rig: &Rig, daemon: &str, number: u64, limit: usize) -> Claimed {
    let look = rig.queue.look().await.unwrap();
    let spec = rig.catalog.get("app.t").unwrap();
    let flows: Vec<FlowAllowance> = look
        .heads
        .into_iter()
        .map(|(flow, _)| FlowAllowance {
            terms: Terms::of(&flow, spec, &look.control),
            flow,
            allowance: limit,
        })
        .collect();
    let claimed = rig.queue.claim(daemon, number, limit, &flows).await;
    claimed.unwrap()
}

fn tenants(jobs: &[RawDelivery]) -> Vec<String> {
    let tenant = |job: &RawDelivery| job.id.split('-').next().unwrap().to_owned();
    jobs.iter().map(tenant).collect()
}

async fn finish(rig: &Rig, daemon: &str, job: &RawDelivery) -> bool {
    let settled = rig
        .queue
        .settle(daemon, 0, &[settlement(job, done(job))])
        .await
        .unwrap();
    assert_eq!(settled.stale, Vec::<usize>::new());
    settled.woke
}

/// Nothing is left of any limit.
async fn assert_clean(rig: &Rig) {
    let keys = rig.queue.keys();
    let left: u64 = rig
        .redis("EXISTS", &[&keys.holds, &keys.parked, &keys.resume])
        .await;
    assert_eq!(left, 0);
    let pattern = format!("{}*", keys.slots(""));
    let slots: Vec<String> = rig.redis("KEYS", &[&pattern]).await;
    assert_eq!(slots, Vec::<String>::new());
}

#[tokio::test]
async fn a_kinds_limit_holds_across_daemons_and_a_release_wakes() {
    let rig = rig("[concurrency]\nlimit = 2").await;
    rig.put(&jobs("a", 5)).await;
    let first = claim(&rig, ME, 1, 10).await;
    assert_eq!(first.jobs.len(), 2);
    assert_eq!(
        (&*first.shut[0].kind, first.shut[0].until_ms),
        ("app.t", None)
    );
    for daemon in [OTHER, THIRD] {
        let more = claim(&rig, daemon, 2, 10).await;
        assert_eq!((more.jobs.len(), more.shut.len()), (0, 1));
    }
    assert!(finish(&rig, ME, &first.jobs[0]).await, "somebody waits");
    assert!(!finish(&rig, ME, &first.jobs[1]).await, "nobody any more");
    let next = claim(&rig, OTHER, 3, 10).await;
    assert_eq!(next.jobs.iter().map(number_of).collect::<Vec<_>>(), [2, 3]);
    for job in &next.jobs {
        finish(&rig, OTHER, job).await;
    }
    let last = claim(&rig, THIRD, 4, 10).await;
    finish(&rig, THIRD, &last.jobs[0]).await;
    assert_clean(&rig).await;
}

#[tokio::test]
async fn each_key_has_its_own_slots_and_blocked_ones_are_parked() {
    let rig = rig("[concurrency]\nlimit = 1\nkey = \"args.t\"\ntotal = 3").await;
    for tenant in ["a", "b", "c", "d"] {
        rig.put(&jobs(tenant, 3)).await;
    }
    let first = claim(&rig, ME, 1, 10).await;
    assert_eq!(tenants(&first.jobs), ["a", "b", "c"]);
    assert!(first.heads.contains(&Stand::Parked));
    // The total is reached: the kind as a whole has to wait, and only d, which is not parked, is still in line.
    assert_eq!(first.shut.len(), 1);
    let heads = rig.queue.look().await.unwrap().heads;
    let keys: Vec<_> = heads
        .iter()
        .map(|(f, _)| f.key.as_deref().unwrap())
        .collect();
    assert_eq!(keys, ["d"]);
    // What comes to a parked flow parks it again, without listing it twice.
    rig.put(&[job("a", 9)]).await;
    claim(&rig, OTHER, 2, 10).await;
    let parked: String = rig
        .redis("HGET", &[&rig.queue.keys().parked, "app.t@a"])
        .await;
    assert_eq!(parked.lines().count(), 1, "{parked}");
    assert!(finish(&rig, ME, &first.jobs[0]).await);
    let next = claim(&rig, OTHER, 3, 10).await;
    assert_eq!(tenants(&next.jobs), ["a"], "it waits longer than d");
    let mut left = vec![(ME, first.jobs[1].clone()), (ME, first.jobs[2].clone())];
    left.extend(next.jobs.iter().map(|job| (OTHER, job.clone())));
    let mut ran = 1;
    for number in 4.. {
        for (daemon, job) in left.drain(..) {
            finish(&rig, daemon, &job).await;
            ran += 1;
        }
        let claimed = claim(&rig, THIRD, number, 10).await;
        if claimed.jobs.is_empty() {
            break;
        }
        assert!(claimed.jobs.len() <= 3);
        let distinct: BTreeSet<String> = tenants(&claimed.jobs).into_iter().collect();
        assert_eq!(distinct.len(), claimed.jobs.len(), "one of each key");
        left.extend(claimed.jobs.into_iter().map(|job| (THIRD, job)));
    }
    assert_eq!(ran, 13);
    assert_clean(&rig).await;
}

#[tokio::test]
async fn a_rescue_gives_the_slots_of_the_dead_back() {
    let rig = rig("[concurrency]\nlimit = 1\nkey = \"args.t\"").await;
    rig.put(&jobs("a", 2)).await;
    let lost = claim(&rig, OTHER, 1, 10).await;
    assert_eq!(claim(&rig, ME, 1, 10).await.jobs.len(), 0);
    rig.queue.deregister(OTHER).await.unwrap();
    let job = &lost.jobs[0];
    let slots = rig.queue.held_by(&[&job.id]).await.unwrap().remove(0);
    let back = Settlement {
        slots,
        ..settlement(job, handed_back(job.home.clone()))
    };
    assert!(rig.settle(&[back]).await.woke);
    let again = claim(&rig, ME, 2, 10).await;
    assert_eq!(again.jobs[0].id, job.id);
    // The old delivery is settled in vain, and takes no slot from the new one.
    rig.queue.heartbeat(OTHER, true).await.unwrap();
    let late = rig
        .queue
        .settle(OTHER, 0, &[settlement(job, done(job))])
        .await
        .unwrap();
    assert_eq!(late.stale, [0]);
    assert_eq!(rig.queue.holders("app.t@a").await.unwrap(), 1);
    finish(&rig, ME, &again.jobs[0]).await;
    let last = claim(&rig, ME, 3, 10).await;
    finish(&rig, ME, &last.jobs[0]).await;
    assert_clean(&rig).await;
}

#[tokio::test]
async fn slots_that_nobody_holds_are_found_and_a_raised_limit_wakes() {
    let mut rig = rig("[concurrency]\nlimit = 1\nkey = \"args.t\"").await;
    rig.put(&jobs("a", 3)).await;
    let keys = rig.queue.keys().clone();
    rig.redis::<()>("SADD", &[&keys.slots("app.t@a"), "ghost"])
        .await;
    rig.redis::<()>("HSET", &[&keys.holds, "spook", "app.t@gone"])
        .await;
    rig.redis::<()>("SADD", &[&keys.slots("app.t@gone"), "spook"])
        .await;
    assert_eq!(claim(&rig, ME, 1, 10).await.heads, [Stand::Parked]);
    let doubtful = rig.queue.doubtful_slots().await.unwrap();
    let expected: BTreeSet<String> = ["app.t@a", "app.t@gone"].map(str::to_owned).into();
    assert_eq!(doubtful, expected);
    let limits: Vec<_> = doubtful.into_iter().map(|name| (name, Some(1))).collect();
    let put_right = rig.queue.unpark(ME, &limits).await.unwrap();
    assert_eq!((put_right.removed, put_right.woken), (2, 1));
    let first = claim(&rig, ME, 2, 10).await;
    assert_eq!(
        (first.jobs.len(), &first.heads[..]),
        (1, &[Stand::Parked][..])
    );
    // Nothing to put right: who is parked stays parked.
    let put_right = rig.queue.unpark(ME, &limits).await.unwrap();
    assert_eq!((put_right.removed, put_right.woken), (0, 0));
    rig.catalog = kind("[concurrency]\nlimit = 3\nkey = \"args.t\"");
    let raised = [("app.t@a".to_owned(), Some(3))];
    assert_eq!(rig.queue.unpark(ME, &raised).await.unwrap().woken, 1);
    let more = claim(&rig, ME, 3, 10).await;
    assert_eq!(more.jobs.len(), 2);
    for job in first.jobs.iter().chain(&more.jobs) {
        finish(&rig, ME, job).await;
    }
    assert_clean(&rig).await;
}

#[tokio::test]
async fn cancelled_jobs_use_up_neither_slots_nor_turns_of_a_limit() {
    let rig = rig("[concurrency]\nlimit = 1\nkey = \"args.t\"").await;
    rig.put(&jobs("a", 60)).await;
    for n in 0..59 {
        let record = super::rig::record(&format!("a-{n}"), "cancelled");
        rig.queue.cancel(&record, true, None, "test").await.unwrap();
    }
    let claimed = claim(&rig, ME, 1, 10).await;
    assert_eq!(claimed.jobs.iter().map(number_of).collect::<Vec<_>>(), [59]);
    assert_eq!(claimed.dropped, 59);
    finish(&rig, ME, &claimed.jobs[0]).await;
    assert_clean(&rig).await;
}

/// Starts as many as it may for a while, and looks again exactly when it is told to; returns when each started, Redis ms.
async fn starts(rig: &Rig, count: usize) -> Vec<u64> {
    let (mut at, mut number) = (Vec::new(), 0);
    while at.len() < count {
        number += 1;
        if rig.queue.look().await.unwrap().resumes {
            let nothing_else = rig.queue.promote(ME, &[], &rig.catalog).await;
            assert_eq!(nothing_else.unwrap(), []);
        }
        let claimed = claim(rig, ME, number, 100).await;
        at.extend(claimed.jobs.iter().map(|_| claimed.now_ms));
        for job in &claimed.jobs {
            finish(rig, ME, job).await;
        }
        if claimed.jobs.is_empty() {
            let shut = claimed.shut.iter().filter_map(|shut| shut.until_ms);
            let next = claimed.next_due_ms.into_iter().chain(shut).min();
            let wait = next.unwrap().saturating_sub(claimed.now_ms);
            assert!(wait <= 200, "a start comes every 50 ms: {wait}");
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
    }
    at
}

/// No window may hold more than the burst and what its length adds.
fn assert_rate(at: &[u64], burst: f64, every_ms: f64) {
    for (i, from) in at.iter().enumerate() {
        for (j, to) in at.iter().enumerate().skip(i) {
            let started = (j - i + 1) as f64;
            let allowed = burst + (to - from + 1) as f64 / every_ms;
            assert!(started <= allowed, "{started} from {from} to {to}: {at:?}");
        }
    }
}

#[tokio::test]
async fn a_rate_is_kept_exactly_and_used_up() {
    for more in ["", "key = \"args.t\""] {
        let rate = format!("[rate]\nlimit = 20\nper = \"1s\"\nburst = 5\n{more}");
        let rig = rig(&rate).await;
        rig.put(&jobs("a", 25)).await;
        let at = starts(&rig, 25).await;
        assert_eq!(at.iter().filter(|t| **t == at[0]).count(), 5, "the burst");
        assert_rate(&at, 5.0, 50.0);
        let took = at[24] - at[0];
        // Twenty starts after the burst take a second, and little more on a busy machine.
        assert!((999..5_000).contains(&took), "{took}");
        assert_clean(&rig).await;
    }
}

#[tokio::test]
async fn a_key_at_its_rate_does_not_hold_up_another() {
    let rig = rig("[rate]\nlimit = 2\nper = \"1h\"\nkey = \"args.t\"").await;
    rig.put(&jobs("a", 50)).await;
    let first = claim(&rig, ME, 1, 100).await;
    assert_eq!(tenants(&first.jobs), ["a", "a"]);
    let due = first.next_due_ms.unwrap() - first.now_ms;
    assert!(
        (1_799_000..=1_800_001).contains(&due),
        "half an hour: {due}"
    );
    rig.put(&jobs("b", 1)).await;
    assert_eq!(tenants(&claim(&rig, ME, 2, 100).await.jobs), ["b"]);
    // More of a changes nothing: it is out of line again at once, and no claim brings it.
    rig.put(&[job("a", 77)]).await;
    let none = claim(&rig, ME, 3, 100).await;
    assert_eq!(
        (none.jobs.len(), &none.heads[..]),
        (0, &[Stand::Parked][..])
    );
    assert_eq!(rig.queue.look().await.unwrap().heads, []);
    assert_eq!(none.next_due_ms, first.next_due_ms);
}

#[tokio::test]
async fn a_tenant_with_very_many_jobs_delays_another_by_one_round_at_most() {
    let rig = rig("fairness = \"args.t\"").await;
    for chunk in 0..20 {
        let many: Vec<String> = (0..5_000).map(|n| job("big", chunk * 5_000 + n)).collect();
        rig.put(&many).await;
    }
    let mut number = 0;
    let mut next = async || {
        number += 1;
        claim(&rig, ME, number, 1).await.jobs.remove(0)
    };
    for _ in 0..3 {
        assert_eq!(tenants(&[next().await]), ["big"]);
    }
    rig.put(&jobs("small", 2)).await;
    rig.put(&jobs("tiny", 1)).await;
    let mut order = Vec::new();
    for _ in 0..6 {
        order.extend(tenants(&[next().await]));
    }
    let place = |who: &str| order.iter().position(|t| t == who).unwrap();
    assert!(place("small") <= 2 && place("tiny") <= 2, "{order:?}");
    // From then on in turns, until big is alone again.
    assert_eq!(
        order.iter().filter(|t| *t == "small").count(),
        2,
        "{order:?}"
    );
}

#[tokio::test]
async fn several_in_one_claim_take_turns_too() {
    let rig = rig("fairness = \"args.t\"").await;
    for tenant in ["a", "b", "c"] {
        rig.put(&jobs(tenant, 10)).await;
    }
    let order = tenants(&claim(&rig, ME, 1, 9).await.jobs);
    for round in order.chunks(3) {
        let who: BTreeSet<&String> = round.iter().collect();
        assert_eq!(who.len(), 3, "{order:?}");
    }
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for tenant in tenants(&claim(&rig, ME, 2, 9).await.jobs) {
        *seen.entry(tenant).or_default() += 1;
    }
    assert!(seen.values().all(|n| *n == 3), "{seen:?}");
}

#[tokio::test]
async fn ten_thousand_tenants_make_neither_look_nor_claim_longer() {
    let rig = rig("fairness = \"args.t\"").await;
    for chunk in 0..10 {
        let many: Vec<String> = (0..1_000)
            .map(|n| job(&format!("t{}", chunk * 1_000 + n), 0))
            .collect();
        rig.put(&many).await;
    }
    let look = rig.queue.look().await.unwrap();
    assert_eq!(look.heads.len(), 2_000, "the first in line, no more");
    let mut next = look.horizon[2];
    let mut met: BTreeSet<String> = BTreeSet::new();
    let mut pages = vec![look.heads];
    while let Some(from) = next {
        let (page, behind) = rig
            .queue
            .look_further(Priority::Normal, from)
            .await
            .unwrap();
        pages.push(page);
        next = behind;
    }
    let lengths: Vec<usize> = pages.iter().map(Vec::len).collect();
    // Many came in the same millisecond; the last page is empty.
    assert_eq!(lengths, [2_000, 2_000, 2_000, 2_000, 2_000, 0]);
    met.extend(
        pages
            .iter()
            .flatten()
            .map(|(flow, _)| flow.member().into_owned()),
    );
    assert_eq!(met.len(), 10_000, "each once");
}

#[tokio::test]
async fn who_hands_a_job_back_does_not_lose_its_turn_nor_take_another_one() {
    let rig = rig("fairness = \"args.t\"").await;
    rig.put(&jobs("a", 5)).await;
    rig.put(&jobs("b", 5)).await;
    // a's turn, then b's; a second round has begun.
    let taken = claim(&rig, ME, 1, 3).await.jobs;
    assert_eq!(tenants(&taken), ["a", "b", "a"]);
    let line = |rig: &Rig| {
        let ready = rig.queue.keys().ready[2].clone();
        let mut conn = rig.conn.clone();
        async move {
            let mut cmd = redis::cmd("ZRANGE");
            cmd.arg(&ready).arg(0).arg(-1).arg("WITHSCORES");
            let line: Vec<(String, f64)> = cmd.query_async(&mut conn).await.unwrap();
            line
        }
    };
    let before = line(&rig).await;
    let home = taken[2].home.clone();
    let back = settlement(&taken[2], handed_back(home));
    rig.queue.settle(ME, 0, &[back]).await.unwrap();
    assert_eq!(line(&rig).await, before, "each keeps its place");
    let next = claim(&rig, ME, 2, 2).await.jobs;
    assert_eq!(tenants(&next), ["b", "a"]);
    assert_eq!(number_of(&next[1]), 1, "the one that came back goes first");
}

#[tokio::test]
async fn nothing_of_a_control_that_is_not_there() {
    let rig = rig("").await;
    assert_eq!(rig.queue.look().await.unwrap().control, Control::default());
}

#[tokio::test]
async fn flows_whose_parking_was_lost_are_in_line_again() {
    let rig = rig("[concurrency]\nlimit = 1\nkey = \"args.t\"").await;
    rig.put(&jobs("a", 3)).await;
    let first = claim(&rig, ME, 1, 10).await;
    assert_eq!(first.heads, [Stand::Parked]);
    let keys = rig.queue.keys();
    rig.redis::<()>("SET", &[&keys.parked, "nonsense"]).await;
    let set_aside = rig.queue.heal(7, &rig.catalog).await.unwrap();
    assert_eq!(set_aside[0].key, keys.parked);
    assert_eq!(rig.queue.look().await.unwrap().heads.len(), 1);
    assert_eq!(claim(&rig, ME, 2, 10).await.heads, [Stand::Parked]);
    assert!(finish(&rig, ME, &first.jobs[0]).await);
}
