//! What a job that uses no feature costs in Redis commands, those inside scripts included. A feature that the job does not
//! use must not make it dearer.

use super::rig::{ME, Rig, done, envelope, flow, settlement};
use std::collections::BTreeMap;
use tidegate::job::{Envelope, Priority};
use tidegate::queue::claim::RawDelivery;
use tidegate::queue::settle::Ending;
use tidegate::queue::{FlowAllowance, Terms};
use tidegate::stack::{PrivateRedis, RedisOptions};

/// Calls of each command since some moment.
type Calls = BTreeMap<String, u64>;

/// Commands that only look whether, or of which type, a key is there: a script may do a few per batch.
const CHECKS: [&str; 7] = ["hlen", "zcard", "llen", "xlen", "scard", "exists", "strlen"];

/// What a batch of a hundred plain jobs may cost: what it took before there were features to pay for, and for each of
/// the four scripts three looks whether a feature is in use at all.
const WORK_PER_BATCH: u64 = 44;
const CHECKS_PER_BATCH: u64 = 38 + 12;

/// The price of a batch: what each job adds, and what the batch costs whatever its size.
#[derive(Debug, Default, PartialEq, Eq)]
struct Price {
    per_job: Calls,
    per_batch: Calls,
}

impl Price {
    /// From two batches, the second twice as large as the first.
    fn of(jobs: u64, single: &Calls, double: &Calls) -> Self {
        let mut price = Self::default();
        for (name, &twice) in double {
            let once = single.get(name).copied().unwrap_or(0);
            let added = (twice - once) / jobs;
            let rest = once - added * jobs;
            for (calls, count) in [(&mut price.per_job, added), (&mut price.per_batch, rest)] {
                if count > 0 {
                    calls.insert(name.clone(), count);
                }
            }
        }
        price
    }
}

fn work(calls: &Calls) -> u64 {
    let counted = calls
        .iter()
        .filter(|(name, _)| !CHECKS.contains(&name.as_str()));
    counted.map(|(_, count)| count).sum()
}

fn checks(calls: &Calls) -> u64 {
    calls.values().sum::<u64>() - work(calls)
}

async fn calls(rig: &Rig) -> Calls {
    let text: String = rig.redis("INFO", &["commandstats"]).await;
    let line = |line: &str| {
        let (name, stats) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let count = stats.split(',').next()?.parse().ok()?;
        (name != "info").then(|| (name.to_owned(), count))
    };
    text.lines().filter_map(line).collect()
}

/// What it takes to bring a batch through, from the look at the inbox to the settlement.
async fn through(rig: &Rig, entries: &[String], batch: u64) -> Calls {
    rig.push(entries).await;
    let before = calls(rig).await;
    let peeked = rig.queue.peek().await.unwrap();
    assert_eq!(peeked.entries.len(), entries.len());
    let verdicts = rig.judge(&peeked);
    rig.queue.admit(ME, &peeked, &verdicts).await.unwrap();
    let from = [FlowAllowance {
        flow: flow(Priority::Normal, "app.a"),
        allowance: entries.len(),
        terms: Terms::default(),
    }];
    let jobs = rig.claim_from(ME, entries.len(), &from).await;
    assert_eq!(jobs.len(), entries.len());
    let ends: Vec<_> = jobs.iter().map(|job| settlement(job, end(job))).collect();
    let settled = rig.queue.settle(ME, batch, &ends).await.unwrap();
    assert_eq!(settled.stale, Vec::<usize>::new());
    let mut spent = calls(rig).await;
    for (name, count) in before {
        *spent.entry(name).or_default() -= count;
    }
    spent.retain(|_, count| *count > 0);
    spent
}

/// As a daemon ends it: an id that was minted is not remembered.
fn end(job: &RawDelivery) -> Ending {
    let mut ending = done(job);
    if let Ending::Finished { given, .. } = &mut ending {
        *given = Envelope::parse(&job.raw).unwrap().id.is_some();
    }
    ending
}

async fn price(entry: impl Fn(u64) -> String) -> Price {
    let dir = tempfile::tempdir().unwrap();
    let redis = PrivateRedis::start(RedisOptions::new(dir.path().join("redis"))).unwrap();
    let rig = Rig::on(&redis.url(), |_| {}).await;
    let jobs = |from: u64, count: u64| (from..from + count).map(&entry).collect::<Vec<_>>();
    // The first time, scripts are sent along and nothing is there yet.
    through(&rig, &jobs(0, 10), 1).await;
    let single = through(&rig, &jobs(1_000, 100), 2).await;
    let double = through(&rig, &jobs(2_000, 200), 3).await;
    Price::of(100, &single, &double)
}

fn per_job(price: &Price) -> Vec<(&str, u64)> {
    price
        .per_job
        .iter()
        .map(|(name, n)| (&**name, *n))
        .collect()
}

/// What a batch costs besides its jobs.
fn assert_batch_is_cheap(price: &Price) {
    let calls = &price.per_batch;
    assert_eq!(calls["evalsha"], 4, "peek, admit, claim, settle: {calls:?}");
    assert!(work(calls) <= WORK_PER_BATCH, "{}: {calls:?}", work(calls));
    assert!(
        checks(calls) <= CHECKS_PER_BATCH,
        "{}: {calls:?}",
        checks(calls)
    );
}

#[tokio::test]
async fn a_plain_job_costs_nothing_but_its_share_of_the_batch() {
    let price = price(|n| envelope("app.a", n, "")).await;
    assert_eq!(per_job(&price), []);
    assert_batch_is_cheap(&price);
}

#[tokio::test]
async fn a_job_with_an_id_pays_for_being_the_only_one_and_for_being_remembered() {
    let price = price(|n| envelope("app.a", n, &format!(r#","id":"job-{n}""#))).await;
    let looked_up_and_kept = [("hexists", 1), ("zadd", 1), ("zscore", 1)];
    assert_eq!(per_job(&price), looked_up_and_kept);
    assert_batch_is_cheap(&price);
}
