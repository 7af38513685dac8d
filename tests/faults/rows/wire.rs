//! What networks do to the connections between daemons and Redis.

use super::zombie::through;
use crate::bed::{Bed, Setup};
use crate::invariants::{Terms, check};
use crate::proxy::{Harm, Proxy};
use crate::row::{Broken, Outcome, Row, fired};
use rand::RngExt;
use std::time::{Duration, Instant};

pub const CUT: Row = Row {
    number: 5,
    name: "reply_cut",
    fault: "connections cut before a request, between request and reply, or within a batch",
    trial: |seed| Box::pin(cut(seed)),
};

pub const HALF_OPEN: Row = Row {
    number: 6,
    name: "half_open",
    fault: "one direction of every open connection swallowed",
    trial: |seed| Box::pin(half_open(seed)),
};

pub const STORM: Row = Row {
    number: 7,
    name: "client_kill_storm",
    fault: "CLIENT KILL of everybody, every 50 ms",
    trial: |seed| Box::pin(storm(seed)),
};

pub const SLOW: Row = Row {
    number: 13,
    name: "redis_slow",
    fault: "5 to 250 ms each way, with jitter",
    trial: |seed| Box::pin(slow(seed)),
};

/// A bed with both daemons, and the app that enqueues, behind one proxy.
async fn behind_proxy(seed: u64, lease: Duration) -> (Bed, Proxy) {
    let setup = Setup {
        lease,
        ..Setup::default()
    };
    let mut bed = Bed::new(seed, setup).await;
    let proxy = Proxy::start(bed.redis.port()).await;
    bed.apps_use(&proxy.url());
    for name in ["a", "b"] {
        let mut command = bed.program.command();
        through(&mut command, &proxy);
        bed.start_as(name, &mut command).await;
    }
    (bed, proxy)
}

async fn cut(seed: u64) -> Outcome {
    let (mut bed, proxy) = behind_proxy(seed, Duration::from_secs(3)).await;
    let chance = bed.random.random_range(0.02..0.1);
    let harm = match seed % 4 {
        0 => Harm::CutRequest(chance),
        1 => Harm::Split(0.5),
        // The one that matters most.
        _ => Harm::CutReply(chance),
    };
    bed.begin();
    bed.instant().await;
    proxy.set(harm);
    let length = bed.length(Duration::from_millis(500), Duration::from_millis(1_500));
    tokio::time::sleep(length).await;
    proxy.set(Harm::Nothing);
    fired(proxy.hits() > 0, "nothing was cut")?;
    check(&mut bed, Terms::default(), None).await
}

async fn half_open(seed: u64) -> Outcome {
    let (mut bed, proxy) = behind_proxy(seed, Duration::from_secs(3)).await;
    let harm = if seed.is_multiple_of(2) {
        Harm::SwallowReplies
    } else {
        Harm::SwallowRequests
    };
    bed.begin();
    bed.instant().await;
    let before = proxy.accepted();
    proxy.set(harm);
    let began = Instant::now();
    // They time out within a third of the lease, and come again.
    let limit = bed.lease / 3 + Duration::from_secs(2);
    while proxy.accepted() < before + 2 {
        if began.elapsed() > limit {
            return Err(Broken::new(format!("nobody had reconnected after {limit:?}")).into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    fired(proxy.hits() > 0, "nothing was swallowed")?;
    // Never healed: the old connections stay as they are.
    check(&mut bed, Terms::default(), None).await
}

/// Ticks of the processor that a process used, user and system.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Connections that the server has accepted so far.
async fn connections(bed: &Bed) -> u64 {
    let info: String = redis::cmd("INFO")
        .arg("stats")
        .query_async(&mut bed.site.redis().await)
        .await
        .unwrap();
    let line = info
        .lines()
        .find_map(|l| l.strip_prefix("total_connections_received:"));
    line.unwrap().trim().parse().unwrap()
}

async fn storm(seed: u64) -> Outcome {
    /// New connections per kill that are no stampede: two daemons with a handful each, the app, and tries of theirs.
    const PER_KILL: u64 = 40;
    let mut bed = Bed::new(
        seed,
        Setup {
            lease: Duration::from_secs(3),
            ..Setup::default()
        },
    )
    .await;
    bed.start_both().await;
    bed.begin();
    bed.instant().await;
    let pids = ["a", "b"].map(|name| bed.daemon(name).id());
    let used = || pids.iter().map(|pid| cpu_ticks(*pid)).sum::<u64>();
    let (cpu, accepted, began) = (used(), connections(&bed).await, Instant::now());
    let mut conn = bed.site.redis().await;
    let (mut kills, mut killed) = (0, 0);
    while began.elapsed() < Duration::from_millis(1_500) {
        for kind in ["normal", "pubsub"] {
            let kill = redis::cmd("CLIENT")
                .arg(&["KILL", "TYPE", kind, "SKIPME", "yes"])
                .to_owned();
            killed += kill.query_async::<u64>(&mut conn).await.unwrap();
        }
        kills += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    // A hundred ticks are a second.
    let cores = (used() - cpu) as f64 / 100.0 / seconds;
    let reconnects = connections(&bed).await - accepted;
    fired(killed > kills, "nobody was killed")?;
    if cores > 1.2 || reconnects > kills * PER_KILL {
        return Err(Broken::new(format!(
            "a busy loop: {cores:.2} cores, {reconnects} connections for {kills} kills"
        ))
        .into());
    }
    check(&mut bed, Terms::default(), None).await
}

async fn slow(seed: u64) -> Outcome {
    let (mut bed, proxy) = behind_proxy(seed, Duration::from_secs(3)).await;
    bed.begin();
    bed.instant().await;
    let slowest = bed.length(Duration::from_millis(20), Duration::from_millis(250));
    proxy.set(Harm::Delay(Duration::from_millis(5), slowest));
    // Longer than the lease: a daemon that does not renew it in time loses it.
    tokio::time::sleep(bed.lease + Duration::from_secs(1)).await;
    proxy.set(Harm::Nothing);
    fired(proxy.hits() > 0, "nothing was delayed")?;
    check(&mut bed, Terms::default(), None).await
}
