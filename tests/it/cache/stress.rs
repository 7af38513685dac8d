//! Many rebuilders, writers and readers at once: after an invalidation nobody reads what was before it.
//!
//! The "database" is one version number per key. A writer raises it, invalidates, and only then announces the new
//! version. A reader notes what is announced, reads, and must not get less. Rebuilders are the readers that missed.

use super::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use tokio::task::JoinSet;

const KEYS: usize = 8;
const READERS: usize = 8;
const READS: usize = 600;
const WRITERS: usize = 3;
const WRITES: usize = 400;

/// The source of truth, and what of it has been invalidated so far.
#[derive(Default)]
struct Source {
    current: [AtomicU64; KEYS],
    announced: [AtomicU64; KEYS],
    running: AtomicU64,
}

#[derive(Default, Debug)]
struct Seen {
    hits: u64,
    invalidated: u64,
    other: u64,
}

fn names(n: usize) -> (String, String, String) {
    (
        format!("p:{n}"),
        format!("product:{n}"),
        format!("half:{}", n % 2),
    )
}

/// Reads, checks, and rebuilds what missed, dawdling between the steps.
async fn reader(region: Region, source: Arc<Source>) -> Seen {
    let mut seen = Seen::default();
    for _ in 0..READS {
        let n = rand::random_range(0..KEYS);
        let (at, product, half) = names(n);
        let least = source.announced[n].load(SeqCst);
        match get(&region, &at).await {
            Found::Hit { payload } => {
                let version: u64 = String::from_utf8(payload).unwrap().parse().unwrap();
                assert!(
                    version >= least,
                    "{at}: read {version} after {least} was announced"
                );
                seen.hits += 1;
                continue;
            }
            Found::Miss(Miss::Invalidated) => seen.invalidated += 1,
            Found::Miss(_) => seen.other += 1,
        }
        let stamp = region.begin().await.unwrap();
        dawdle().await;
        let version = source.current[n].load(SeqCst).to_string();
        dawdle().await;
        let filled = fill(&at, &[&product, &half], &version);
        region.put(&filled, HOUR, &stamp).await.unwrap();
    }
    seen
}

/// Changes a value, invalidates it by tag, key, shared tag or region, and announces the change.
async fn writer(region: Region, source: Arc<Source>) {
    for _ in 0..WRITES {
        let n = rand::random_range(0..KEYS);
        let (at, product, half) = names(n);
        let version = source.current[n].fetch_add(1, SeqCst) + 1;
        dawdle().await;
        let done = match rand::random_range(0..8) {
            0 => region.invalidate(&[], &[], true).await,
            1 => region.invalidate(&tags(&[&half]), &[], false).await,
            2..5 => region.invalidate(&[], &[key(&at)], false).await,
            _ => region.invalidate(&tags(&[&product]), &[], false).await,
        };
        done.unwrap();
        source.announced[n].fetch_max(version, SeqCst);
    }
    source.running.fetch_sub(1, SeqCst);
}

/// Lets others go first, for a few turns of the scheduler.
async fn dawdle() {
    for _ in 0..rand::random_range(0..20) {
        tokio::task::yield_now().await;
    }
}

async fn collector(region: Region, source: Arc<Source>) {
    while source.running.load(SeqCst) > 0 {
        region.collect_garbage(3).await.unwrap();
        dawdle().await;
    }
}

/// What a server short of memory does: drops any one key of the log, at any time.
async fn evictor(rig: Arc<Rig>, source: Arc<Source>) {
    let mut turn = 0;
    while source.running.load(SeqCst) > 0 {
        let part = ["seq", "inv", "floor", "epoch", "marks"][turn % 5];
        rig.raw::<()>(&["DEL", &rig.log_key(part, "eu")]).await;
        turn += 1;
        for _ in 0..20 {
            rig.raw::<String>(&["PING"]).await;
        }
    }
}

/// Runs it all, each reader and writer as a process of its own, and sums up what the readers saw.
async fn turmoil(log_max: usize, evicting: bool) -> Seen {
    let rig = Arc::new(Rig::on(redis_url(), |c| c.log_max = log_max).await);
    let name = RegionName::parse("eu").unwrap();
    let source = Arc::new(Source::default());
    source.running.store(WRITERS as u64, SeqCst);
    let mut others = JoinSet::new();
    let mut readers = JoinSet::new();
    for _ in 0..WRITERS {
        let region = rig.other_process().await.region(&name);
        others.spawn(writer(region, Arc::clone(&source)));
    }
    for _ in 0..READERS {
        let region = rig.other_process().await.region(&name);
        readers.spawn(reader(region, Arc::clone(&source)));
    }
    others.spawn(collector(rig.region("eu"), Arc::clone(&source)));
    if evicting {
        others.spawn(evictor(Arc::clone(&rig), Arc::clone(&source)));
    }
    let mut sum = Seen::default();
    for seen in readers.join_all().await {
        sum.hits += seen.hits;
        sum.invalidated += seen.invalidated;
        sum.other += seen.other;
    }
    others.join_all().await;
    sum
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_reads_what_was_before_an_invalidation() {
    let seen = turmoil(1_000, false).await;
    assert!(
        seen.hits > 200 && seen.invalidated > 200,
        "proves little: {seen:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_while_the_log_forgets_all_but_its_last_members() {
    let seen = turmoil(2, false).await;
    assert!(
        seen.hits > 100 && seen.other > 100,
        "proves little: {seen:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_while_the_server_evicts_parts_of_the_log() {
    let seen = turmoil(1_000, true).await;
    assert!(
        seen.hits > 100 && seen.other > 100,
        "proves little: {seen:?}"
    );
}
