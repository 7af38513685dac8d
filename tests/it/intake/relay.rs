//! The relay as a service: several of them, and servers that go away.

use super::{Harbour, relay};
use crate::queue::rig::Rig;
use crate::support::{DEADLINE, fresh_database, wait_until};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tidegate::services::outbox;
use tidegate::stack::{PostgresOptions, PrivatePostgres, PrivateRedis, RedisOptions};
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread")]
async fn several_relays_share_the_rows() {
    let mut harbour = Harbour::new().await;
    harbour.rig.config.outbox.batch = 20;
    harbour
        .execute(
            "insert into tidegate.outbox (kind, args)
             select 'app.a', jsonb_build_object('n', n) from generate_series(1, 2000) n",
        )
        .await;
    let harbour = Arc::new(harbour);
    let each = (0..4).map(|_| {
        let harbour = Arc::clone(&harbour);
        tokio::spawn(async move { harbour.relay_all().await })
    });
    for relay in each.collect::<Vec<_>>() {
        relay.await.unwrap();
    }
    harbour.relay_all().await;
    let entries = harbour.inbox("default").await;
    let distinct: BTreeSet<u64> = entries
        .iter()
        .map(|e| e["args"]["n"].as_u64().unwrap())
        .collect();
    assert_eq!((entries.len(), distinct.len()), (2_000, 2_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_stay_while_redis_is_down_and_go_when_it_is_back() {
    let scratch = tempfile::tempdir().unwrap();
    let mut redis = PrivateRedis::start(RedisOptions::new(scratch.path().join("redis"))).unwrap();
    let rig = Rig::on(&redis.url(), |_| {}).await;
    let harbour = Harbour::with(rig, fresh_database()).await;
    let insert = "insert into tidegate.outbox (kind) values ('app.a')";
    redis.kill9().unwrap();
    harbour.execute(insert).await;
    let relay = harbour.relay();
    assert!(relay.step().await.is_err());
    assert_eq!(harbour.rows().await, 1);
    let stop = CancellationToken::new();
    let service = tokio::spawn(outbox::run(relay, stop.clone()));
    redis.restart().unwrap();
    wait_until("it is sent", DEADLINE, || async {
        harbour.rows().await == 0
    })
    .await;
    assert_eq!(harbour.inbox("default").await.len(), 1);
    stop.cancel();
    service.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn it_listens_again_after_postgres_was_away() {
    let scratch = tempfile::tempdir().unwrap();
    let options = PostgresOptions::new(scratch.path().join("postgres"));
    let mut postgres = PrivatePostgres::start(options).unwrap();
    postgres.create_database("app").unwrap();
    // Without a notification it would not look in the time of this test.
    let rig = Rig::with(|config| config.outbox.poll = Duration::from_secs(600)).await;
    let mut harbour = Harbour::with(rig, postgres.url("app")).await;
    let insert = "insert into tidegate.outbox (kind) values ('app.a')";
    let stop = CancellationToken::new();
    let service = tokio::spawn(outbox::run(harbour.relay(), stop.clone()));
    let arrived = async |harbour: &Harbour, n: usize| {
        wait_until("it is sent", DEADLINE, || async {
            harbour.inbox("default").await.len() == n
        })
        .await;
    };
    for n in 1..=2 {
        harbour.execute(insert).await;
        arrived(&harbour, n).await;
    }

    postgres.kill9().unwrap();
    postgres.restart().unwrap();
    harbour.sql = sqlx::PgPool::connect(&postgres.url("app")).await.unwrap();
    for n in 3..=4 {
        harbour.execute(insert).await;
        arrived(&harbour, n).await;
    }
    // A listener that was thrown out notices at once.
    harbour
        .execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where query like 'LISTEN%'",
        )
        .await;
    harbour.execute(insert).await;
    arrived(&harbour, 5).await;
    stop.cancel();
    service.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_migrated_is_waited_for() {
    let rig = Rig::new().await;
    let url = fresh_database();
    let stop = CancellationToken::new();
    let relay = relay(&rig.config, &url, rig.conn.clone());
    let error = relay.take().await.err().unwrap();
    assert!(error.to_string().contains("tidegate.outbox"), "{error}");
    let service = tokio::spawn(outbox::run(relay, stop.clone()));
    let harbour = Harbour::with(rig, url).await;
    harbour
        .execute("insert into tidegate.outbox (kind) values ('app.a')")
        .await;
    wait_until("it is sent", DEADLINE, || async {
        harbour.rows().await == 0
    })
    .await;
    stop.cancel();
    service.await.unwrap();
}
