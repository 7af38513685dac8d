//! A replica takes over. What the primary had acknowledged and not yet passed on is lost when it is killed: that is what
//! Redis is, and no promise of ours. Nothing else may happen: no job is done twice, no old token is valid, all goes on.

use super::server::{info, redis};
use super::zombie::through;
use crate::bed::{Bed, DEADLINE, Setup};
use crate::invariants::{Terms, check};
use crate::proxy::Proxy;
use crate::row::{Outcome, Row, fired};
use crate::support::wait_until;
use std::time::Duration;
use tidegate::config::Secret;
use tidegate::stack::{PrivateRedis, RedisOptions};

pub const FAILOVER: Row = Row {
    number: 10,
    name: "failover",
    fault: "FAILOVER TO a replica, or SIGKILL of the primary under Sentinel",
    trial: |seed| {
        if seed.is_multiple_of(2) {
            Box::pin(handed_over(seed))
        } else {
            Box::pin(primary_killed(seed))
        }
    },
};

fn setup() -> Setup {
    Setup {
        lease: Duration::from_secs(5),
        redis_args: ["--repl-diskless-sync-delay", "0"]
            .map(str::to_owned)
            .into(),
        ..Setup::default()
    }
}

/// Starts another server in the folder of the site.
async fn server(bed: &Bed, name: &str, args: &[&str]) -> PrivateRedis {
    let mut options = RedisOptions::new(bed.site.path(name));
    options.extra_args = args.iter().map(|a| (*a).to_owned()).collect();
    let started = tokio::task::spawn_blocking(move || PrivateRedis::start(options).unwrap());
    started.await.unwrap()
}

/// A replica that has everything.
async fn replica(bed: &Bed) -> PrivateRedis {
    let port = bed.redis.port().to_string();
    let replica = server(bed, "replica", &["--replicaof", "127.0.0.1", &port]).await;
    wait_until("the replica is in sync", DEADLINE, || async {
        info(bed, "replication", "slave0")
            .await
            .contains("state=online")
    })
    .await;
    replica
}

/// In good order: writes pause until the replica has them all. The address stays, as behind a load balancer.
async fn handed_over(seed: u64) -> Outcome {
    let mut bed = Bed::new(seed, setup()).await;
    let replica = replica(&bed).await;
    let proxy = Proxy::start(bed.redis.port()).await;
    bed.apps_use(&proxy.url());
    for name in ["a", "b"] {
        let mut command = bed.program.command();
        through(&mut command, &proxy);
        bed.start_as(name, &mut command).await;
    }
    bed.begin();
    bed.instant().await;
    let port = replica.port().to_string();
    redis(
        &bed,
        &["FAILOVER", "TO", "127.0.0.1", &port, "TIMEOUT", "5000"],
    )
    .await
    .unwrap();
    wait_until("the primary is one no more", DEADLINE, || async {
        info(&bed, "replication", "role").await == "slave"
    })
    .await;
    let lag = bed.length(Duration::ZERO, Duration::from_millis(500));
    tokio::time::sleep(lag).await;
    proxy.retarget(replica.port());
    bed.moved_to(&replica.url());
    fired(
        info(&bed, "replication", "role").await == "master",
        "the replica was not promoted",
    )?;
    let verdict = check(&mut bed, Terms::default(), None).await?;
    let missed = info(&bed, "errorstats", "errorstat_NOSCRIPT").await;
    fired(!missed.is_empty(), "the new primary knew all scripts")?;
    Ok(verdict)
}

async fn primary_killed(seed: u64) -> Outcome {
    let mut bed = Bed::new(seed, setup()).await;
    let replica = replica(&bed).await;
    let sentinel = server(&bed, "sentinel", &["--sentinel"]).await;
    let port = bed.redis.port().to_string();
    let mut conn = redis::Client::open(sentinel.url().trim_end_matches("/0"))
        .unwrap()
        .get_multiplexed_async_connection()
        .await
        .unwrap();
    for words in [
        &["MONITOR", "mymaster", "127.0.0.1", &port, "1"][..],
        &[
            "SET",
            "mymaster",
            "down-after-milliseconds",
            "500",
            "failover-timeout",
            "5000",
        ],
    ] {
        let command = redis::cmd("SENTINEL").arg(words).to_owned();
        command.query_async::<()>(&mut conn).await.unwrap();
    }
    wait_until("Sentinel knows the replica", DEADLINE, || async {
        let ask = redis::cmd("SENTINEL")
            .arg("REPLICAS")
            .arg("mymaster")
            .to_owned();
        let known: Vec<redis::Value> = ask.query_async(&mut conn.clone()).await.unwrap();
        !known.is_empty()
    })
    .await;
    let url = sentinel.url().trim_end_matches("/0").to_owned();
    bed.apps_ask(Secret::new(url.as_str()));
    for name in ["a", "b"] {
        let mut command = bed.program.command();
        command.env("TIDEGATE_REDIS__SENTINELS", format!("[\"{url}\"]"));
        bed.start_as(name, &mut command).await;
    }
    bed.begin();
    bed.instant().await;
    tokio::task::block_in_place(|| bed.redis.kill9()).unwrap();
    bed.moved_to(&replica.url());
    wait_until("the replica is promoted", DEADLINE, || async {
        info(&bed, "replication", "role").await == "master"
    })
    .await;
    let terms = Terms {
        leases_expire: true,
        may_lose: true,
        ..Terms::default()
    };
    check(&mut bed, terms, None).await
}
