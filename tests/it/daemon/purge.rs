//! Database maintenance through the whole daemon, killed at random.

use super::process::Site;
use crate::support::{self, DEADLINE, wait_until};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sqlx::PgPool;
use std::process::Command;
use std::time::Duration;

const ROWS: i64 = 600_000;

async fn count(pool: &PgPool, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_of_300_000_rows_killed_at_random_ends_with_exactly_the_right_rows_gone() {
    let url = support::fresh_database();
    let pool = PgPool::connect(&url).await.unwrap();
    sqlx::raw_sql(
        "create table sessions (id bigint primary key, created_at timestamptz not null);
         insert into sessions select n, now() - make_interval(days => case when n % 2 = 0 then 100 else 1 end, secs => n)
           from generate_series(1, 600000) n;
         create index on sessions (created_at, id);
         analyze sessions;",
    )
    .execute(&pool)
    .await
    .unwrap();
    let job = "kind = \"db.purge_sessions\"\nhandler = \"db.purge\"\ntimeout = \"5m\"\nresources = [\"postgres:primary\"]\n[db.purge]\ntable = \"public.sessions\"\nkey = [\"created_at\", \"id\"]\nwhere = \"created_at < now() - interval '30 days'\"\npause = \"5ms\"\nbatch = { target = \"20ms\", start = 500, min = 100, max = 2000 }\n";
    // The gate is not what this is about, and a busy test machine would close it.
    let settings =
        format!("[database]\nurl = \"{url}\"\n[daemon]\nlease = \"1s\"\n[gate]\nmode = \"off\"\n");
    let site = Site::new(&settings, &[job]);
    let migrated = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["migrate", "--config"])
        .arg(site.path("tidegate.toml"))
        .status()
        .unwrap();
    assert!(migrated.success());
    site.push(&[r#"{"kind":"db.purge_sessions","id":"purge"}"#.to_owned()])
        .await;
    let queue = site.queue("default").await;

    let mut random = StdRng::seed_from_u64(7);
    for round in 0..2 {
        let daemon = site.start(&format!("d{round}"));
        let gone = random.random_range(20_000..60_000) * (round + 1);
        wait_until("rows go", DEADLINE, || async {
            count(&pool, "select count(*) from sessions").await < ROWS - gone
        })
        .await;
        daemon.kill9();
    }
    let left = count(&pool, "select count(*) from sessions").await;
    assert!(left > ROWS / 2, "it was killed before it was through");

    let last = site.start("last");
    site.wait_for_stat("completed", 1, Duration::from_secs(60))
        .await;
    let old = count(
        &pool,
        "select count(*) from sessions where created_at < now() - interval '30 days'",
    )
    .await;
    let young = count(
        &pool,
        "select count(*) from sessions where created_at >= now() - interval '30 days'",
    )
    .await;
    assert_eq!((old, young), (0, ROWS / 2));
    let found = queue.find("purge").await.unwrap().unwrap();
    assert_eq!(
        (
            found.state.as_str(),
            found.history.crashes,
            found.history.attempts
        ),
        ("done", 2, 0)
    );
    last.wait_for_event("recovered").await;
}
