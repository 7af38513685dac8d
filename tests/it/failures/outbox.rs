//! What an app commits and what it enqueues belong together.

use crate::daemon::process::{Site, append_to};
use crate::support::{DEADLINE, fresh_database, wait_until};
use sqlx::PgPool;
use std::fs;
use std::path::Path;
use tidegate::db::{self, Database};

/// The ids of the jobs that have run, in order.
fn ran(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    text.lines()
        .map(|line| line.split_once(' ').unwrap().0.to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn f13_the_gap_between_commit_and_enqueue() {
    let url = fresh_database();
    let out = tempfile::NamedTempFile::new().unwrap();
    let settings =
        format!("[database]\nurl = \"{url}\"\n[outbox]\nenabled = true\npoll = \"10m\"\n");
    let site = Site::new(&settings, &[&append_to(out.path(), "")]);
    db::migrate(&Database::open(&site.config.database).unwrap())
        .await
        .unwrap();
    // The app dies at once after its commit, or before it. No daemon is there either.
    let sql = PgPool::connect(&url).await.unwrap();
    let insert = "insert into tidegate.outbox (kind, id) values ('app.append', $1)";
    let mut tx = sql.begin().await.unwrap();
    sqlx::query(insert)
        .bind("kept")
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let mut tx = sql.begin().await.unwrap();
    sqlx::query(insert)
        .bind("gone")
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.rollback().await.unwrap();
    sql.close().await;

    let _daemon = site.start("daemon");
    site.wait_for_stat("completed", 1, DEADLINE).await;
    assert_eq!(ran(out.path()), ["kept"]);
    // One that is committed while it runs is on its way at once, long before the next look.
    let sql = PgPool::connect(&url).await.unwrap();
    sqlx::query(insert)
        .bind("next")
        .execute(&sql)
        .await
        .unwrap();
    wait_until("it runs", DEADLINE, || {
        std::future::ready(ran(out.path()) == ["kept", "next"])
    })
    .await;
}
