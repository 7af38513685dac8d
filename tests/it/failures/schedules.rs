//! Jobs that come by themselves.

use super::private;
use crate::daemon::process::{Site, append_to};
use crate::support::{DEADLINE, wait_until};
use std::collections::BTreeMap;

#[tokio::test(flavor = "multi_thread")]
async fn f10_cron_fires_twice_stops_or_misses() {
    let mut server = private(|o| o.append_only = true);
    let out = tempfile::NamedTempFile::new().unwrap();
    let every_second = "[schedule]\ncron = \"* * * * * *\"\nmisfire = \"all\"\n[args]";
    let job = append_to(out.path(), "").replace("[args]", every_second);
    let site = Site::on(&server.redis.url(), "[daemon]\nlease = \"1s\"\n", &[&job]);
    let runs = || {
        let mut runs: BTreeMap<u64, u32> = BTreeMap::new();
        for line in std::fs::read_to_string(out.path()).unwrap().lines() {
            let id = line.split(' ').next().unwrap();
            let tick = id.strip_prefix("cron-app-append-").unwrap();
            *runs.entry(tick.parse().unwrap()).or_default() += 1;
        }
        runs
    };
    let more = async |count: usize| {
        let wanted = runs().len() + count;
        wait_until("more ticks have run", DEADLINE, || {
            std::future::ready(runs().len() >= wanted)
        })
        .await;
    };
    // Two daemons plan the same ticks; one of them is killed, and Redis goes away and comes back.
    let (first, _second) = (site.start("first"), site.start("second"));
    more(2).await;
    first.kill9();
    more(2).await;
    server.redis.kill9().unwrap();
    server.redis.restart().unwrap();
    more(3).await;
    let runs = runs();
    let ticks: Vec<u64> = runs.keys().copied().collect();
    let gaps = ticks.windows(2).filter(|pair| pair[1] - pair[0] != 1_000);
    assert_eq!(gaps.count(), 0, "no second was left out: {ticks:?}");
    // A run whose daemon, or whose settlement, was cut off is made again: one more for each of the two.
    let twice: u32 = runs.values().map(|count| count - 1).sum();
    assert!(twice <= 2, "{runs:?}");
    let queue = site.queue("default").await;
    let counts = queue.counts().await.unwrap().sizes.stats;
    assert!(counts["ticks"] >= ticks.len() as u64);
    assert_eq!(counts.get("duplicates"), None, "no tick had two jobs");
}
