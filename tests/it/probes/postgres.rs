//! What a Postgres tells of itself.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tidegate::db::{Database, Vitals};
use tidegate::stack::{PostgresOptions, PrivatePostgres, Scratch};
use tokio::sync::Mutex;

use super::{LIMIT, database};
use crate::support::{DEADLINE, fresh_database, wait_until};

async fn sql(url: &str, statements: &str) -> PgConnection {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))
        .execute(&mut connection)
        .await
        .unwrap();
    connection
}

async fn until(what: &str, database: &Database, reached: impl Fn(&Vitals) -> bool) {
    wait_until(what, DEADLINE, || async {
        reached(&database.vitals(LIMIT).await.unwrap())
    })
    .await;
}

#[tokio::test]
async fn postgres_tells_of_sessions_locks_old_transactions_and_its_log() {
    let url = fresh_database();
    let asked = database(&url);
    let before = asked.vitals(LIMIT).await.unwrap();
    assert!(before.sees_all && before.sessions_percent > 0.0);
    assert_eq!(
        (before.replication_lag_ms, before.archive_backlog),
        (0.0, 0.0)
    );

    drop(sql(&url, "create table t (n int)").await);
    let holder = sql(&url, "begin; lock table t").await;
    let waiter = tokio::spawn({
        let url = url.clone();
        async move { sql(&url, "begin; lock table t in share mode").await }
    });
    until("one waits", &asked, |v| v.waiting >= 1.0).await;
    drop(holder);
    let _ = waiter.await;

    let sleeper = tokio::spawn({
        let url = url.clone();
        async move { sql(&url, "select pg_sleep(60)").await }
    });
    until("one works", &asked, |v| v.active >= 1.0).await;
    sleeper.abort();

    let reader = sql(&url, "begin isolation level repeatable read; select 1").await;
    let burn =
        "create table b as select 1 as n; update b set n = 2; update b set n = 3; drop table b";
    let mut busy = sql(&url, burn).await;
    for _ in 0..40 {
        let one = sqlx::query("select txid_current()");
        one.execute(&mut busy).await.unwrap();
    }
    until("the oldest is old", &asked, |v| v.xmin_age >= 40.0).await;
    drop(reader);
    let written = "create table w as select repeat('x', 500) from generate_series(1, 10000)";
    drop(sql(&url, written).await);
    until("the log grew", &asked, |v| {
        v.wal_bytes >= before.wal_bytes + 1_000_000.0
    })
    .await;
}

#[tokio::test]
async fn a_role_without_rights_is_told_what_it_may_see() {
    let url = fresh_database();
    drop(sql(&url, "create role plain_reader login").await);
    let mut plain = url::Url::parse(&url).unwrap();
    plain.set_username("plain_reader").unwrap();
    let vitals = database(plain.as_str()).vitals(LIMIT).await.unwrap();
    assert!(!vitals.sees_all);
    assert!(vitals.sessions_percent > 0.0 && vitals.wal_bytes > 0.0);
}

#[tokio::test]
async fn postgres_tells_of_segments_that_can_not_be_archived() {
    let scratch = Scratch::new().unwrap();
    let mut options = PostgresOptions::new(scratch.path().join("postgres"));
    let broken = scratch.path().join("broken");
    let archive = format!("test ! -e {}", broken.display());
    let settings = [
        ("wal_level", "replica"),
        ("archive_mode", "on"),
        ("archive_command", &archive),
    ];
    options.settings = settings.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec();
    let server = PrivatePostgres::start(options).unwrap();
    let url = server.url("postgres");
    let asked = database(&url);
    let segment =
        "create table if not exists s (n int); insert into s values (1); select pg_switch_wal()";
    for _ in 0..2 {
        drop(sql(&url, segment).await);
    }
    until("none waits", &asked, |v| v.archive_backlog == 0.0).await;
    std::fs::write(&broken, "").unwrap();
    wait_until("some wait", DEADLINE, || async {
        drop(sql(&url, segment).await);
        asked.vitals(LIMIT).await.unwrap().archive_backlog >= 4.0
    })
    .await;
}

/// On a server of its own: what others leave open would count as well.
#[tokio::test]
async fn a_session_that_wrote_and_idles_holds_old_rows_though_it_looks_at_none() {
    let scratch = Scratch::new().unwrap();
    let server = PrivatePostgres::start(PostgresOptions::new(scratch.path().join("postgres")));
    let server = server.unwrap();
    let url = server.url("postgres");
    let asked = database(&url);
    let mut busy = sql(&url, "create table held as select 1 as n").await;
    let writer = sql(&url, "begin; update held set n = 2").await;
    for _ in 0..40 {
        let one = sqlx::query("select txid_current()");
        one.execute(&mut busy).await.unwrap();
    }
    assert!(asked.vitals(LIMIT).await.unwrap().xmin_age >= 40.0);
    drop(writer);
    until("nobody holds them", &asked, |v| v.xmin_age < 40.0).await;
}

#[tokio::test]
async fn postgres_and_its_standby_tell_how_far_the_standby_is_behind() {
    let scratch = Scratch::new().unwrap();
    let primary = PrivatePostgres::start(PostgresOptions::new(scratch.path().join("primary")));
    let primary = primary.unwrap();
    let standby = primary.standby(scratch.path().join("standby")).unwrap();
    let (url, copy) = (primary.url("postgres"), standby.url("postgres"));
    let both = [database(&url), database(&copy)];
    drop(sql(&url, "create table t (n int)").await);
    let reader = Mutex::new(PgConnection::connect(&copy).await.unwrap());
    wait_until("the standby has the table", DEADLINE, || async {
        let there = sqlx::query("select from pg_tables where tablename = 't'");
        let found = there.fetch_optional(&mut *reader.lock().await).await;
        found.unwrap().is_some()
    })
    .await;
    for asked in &both {
        until("it is not behind", asked, |v| v.replication_lag_ms == 0.0).await;
    }

    let replay = |word: &str| format!("select pg_wal_replay_{word}()");
    drop(sql(&copy, &replay("pause")).await);
    let writer = Mutex::new(PgConnection::connect(&url).await.unwrap());
    for asked in &both {
        wait_until("it is two seconds behind", DEADLINE, || async {
            let one = sqlx::query("insert into t values (1)");
            one.execute(&mut *writer.lock().await).await.unwrap();
            asked.vitals(LIMIT).await.unwrap().replication_lag_ms >= 2_000.0
        })
        .await;
    }
    drop(sql(&copy, &replay("resume")).await);
    for asked in &both {
        until("it has caught up", asked, |v| v.replication_lag_ms == 0.0).await;
    }
}
