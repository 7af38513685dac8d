//! Whole daemons that are killed at random while apps insert and push: every job runs, and none is admitted twice.

use crate::daemon::process::{Site, append_to};
use crate::support::{self, fresh_database};
use apalis_core::backend::TaskSink;
use apalis_redis::RedisStorage;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, PgPool};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;
use tidegate::db::{self, Database};

/// The ids of the jobs that have run.
fn ran(file: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(file).unwrap();
    text.lines()
        .map(|line| line.split_once(' ').unwrap().0.to_owned())
        .collect()
}

/// Two daemons, one of which is killed again and again until `over`.
async fn kill_at_random(site: &Site, random: &mut StdRng, rounds: u32) {
    for round in 0..rounds {
        let victim = site.start(&format!("victim{round}"));
        victim.wait_for_event("started").await;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..400))).await;
        victim.kill9();
    }
}

async fn all_admitted_once(site: &Site, total: u64) {
    site.wait_for_stat("completed", total, Duration::from_secs(60))
        .await;
    let counts = site.queue("default").await.counts().await.unwrap();
    assert_eq!(counts.stats["completed"], total);
    assert_eq!(counts.stats["admitted"], total, "none was admitted twice");
    assert_eq!(
        counts.inbox + counts.running + counts.delayed + counts.dead,
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_committed_transactions_run_whoever_is_killed_and_no_others() {
    let url = fresh_database();
    let out = tempfile::NamedTempFile::new().unwrap();
    let settings = format!(
        "[daemon]\nlease = \"1s\"\n[database]\nurl = \"{url}\"\n[outbox]\nenabled = true\nbatch = 50\npoll = \"1s\"\n"
    );
    let site = Site::new(&settings, &[&append_to(out.path(), "")]);
    db::migrate(&Database::open(&site.config.database).unwrap())
        .await
        .unwrap();
    let sql = PgPool::connect(&url).await.unwrap();
    let steady = site.start("steady");
    let writer = tokio::spawn(async move {
        let mut random = StdRng::seed_from_u64(7);
        let mut committed = BTreeSet::new();
        for n in 0..600 {
            let mut tx = sql.begin().await.unwrap();
            let insert = format!(
                "insert into tidegate.outbox (kind, id, args) values ('app.append', 'j{n}', '{{\"n\":{n}}}')"
            );
            sqlx::raw_sql(AssertSqlSafe(insert))
                .execute(&mut *tx)
                .await
                .unwrap();
            if random.random_bool(0.8) {
                tx.commit().await.unwrap();
                committed.insert(format!("j{n}"));
            } else {
                tx.rollback().await.unwrap();
            }
        }
        committed
    });
    kill_at_random(&site, &mut StdRng::seed_from_u64(8), 4).await;
    drop(steady);
    let _last = site.start("last");
    let committed = writer.await.unwrap();
    all_admitted_once(&site, committed.len() as u64).await;
    assert_eq!(ran(out.path()), committed);
}

#[derive(Serialize, Deserialize)]
struct Letter {
    n: u64,
}

#[tokio::test(flavor = "multi_thread")]
async fn what_apalis_redis_pushes_runs_whoever_is_killed() {
    let out = tempfile::NamedTempFile::new().unwrap();
    let namespace = format!("{}::Letter", support::fresh_prefix());
    let settings = format!(
        "[daemon]\nlease = \"1s\"\n[bridges]\nbatch = 20\npoll = \"20ms\"\n\
         [[bridge]]\nname = \"mail\"\nnamespace = \"{namespace}\"\nkind = \"app.append\"\n"
    );
    let site = Site::new(&settings, &[&append_to(out.path(), "")]);
    let steady = site.start("steady");
    let total = 600;
    let writer = tokio::spawn(async move {
        let conn = apalis_redis::connect(support::redis_url()).await.unwrap();
        let config = apalis_redis::Config::default().queue(&namespace);
        let mut storage = RedisStorage::<Letter>::new(conn).with_config(config);
        for n in 0..total {
            storage.push(Letter { n }).await.unwrap();
        }
    });
    kill_at_random(&site, &mut StdRng::seed_from_u64(9), 4).await;
    drop(steady);
    let _last = site.start("last");
    writer.await.unwrap();
    all_admitted_once(&site, total).await;
    assert_eq!(ran(out.path()).len() as u64, total);
}
