//! A Postgres under load, out of connections, and frozen.

use super::scene::{DEFAULTS, QUICK, SLEEP, SOON_MS, Scene, kind, kinds_on, now_ms};
use crate::daemon::process::Site;
use crate::support::{DEADLINE, fresh_database, wait_until};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tidegate::stack::{PostgresOptions, PrivatePostgres, Scratch};
use tokio::task::JoinSet;

const PRIMARY: &str = "postgres:primary";

async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url).await.unwrap()
}

async fn run(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await
        .unwrap();
}

/// A table `t` of two rows that nobody else can read until the holder commits.
async fn lock_table(url: &str) -> PgConnection {
    let mut holder = connect(url).await;
    run(
        &mut holder,
        "create table t as select n from generate_series(1, 2) n",
    )
    .await;
    run(&mut holder, "begin; lock table t").await;
    holder
}

/// So many sessions, each in a statement that does not end by itself.
async fn sessions(url: &str, count: usize, sql: &'static str) -> JoinSet<()> {
    let mut busy = JoinSet::new();
    for _ in 0..count {
        let mut connection = connect(url).await;
        busy.spawn(async move {
            // It ends with an error when its server is stopped, or it is told to.
            let _ = sqlx::raw_sql(sql).execute(&mut connection).await;
        });
    }
    busy
}

async fn count(connection: &mut PgConnection, of: &str) -> i64 {
    let sql = format!(
        "select count(*) from pg_stat_activity where pid <> pg_backend_pid() \
         and datname = current_database() and {of}"
    );
    let counted = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(connection);
    counted.await.unwrap()
}

async fn until_busy(url: &str, sessions: i64, of: &str) {
    let asked = tokio::sync::Mutex::new(connect(url).await);
    wait_until(
        &format!("{sessions} sessions with {of}"),
        DEADLINE,
        || async { count(&mut *asked.lock().await, of).await >= sessions },
    )
    .await;
}

fn server(scratch: &Scratch) -> PrivatePostgres {
    let mut options = PostgresOptions::new(scratch.path().join("postgres"));
    options.max_connections = 100;
    PrivatePostgres::start(options).unwrap()
}

fn site(settings: &str, more: &str, url: &str, kinds: &[String]) -> Site {
    let settings = format!(
        "{settings}{more}[database]\nurl = \"{url}\"\nmax_connections = 2\nacquire_timeout = \"20s\"\n"
    );
    let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
    Site::new(&settings, &kinds)
}

/// 47 of 5 to 50 waiting sessions: overloaded, and never critical.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_wait_for_a_lock_stop_mass_work_alone() {
    let scratch = Scratch::new().unwrap();
    let server = server(&scratch);
    let url = server.url("postgres");
    let mut holder = lock_table(&url).await;
    let scene = Scene::begin(site(QUICK, "", &url, &kinds_on(PRIMARY, SLEEP))).await;

    let waiting = sessions(&url, 47, "select * from t").await;
    until_busy(&url, 47, "wait_event_type = 'Lock'").await;
    let onset_ms = now_ms();
    scene
        .until_state(PRIMARY, "overloaded", onset_ms - SOON_MS)
        .await;
    let trouble = scene.outlast(onset_ms).await;
    scene.assert_stopped("bulk", trouble).await;
    for kind in ["normal", "critical", "free"] {
        scene.assert_went_on(kind, trouble);
    }

    run(&mut holder, "commit").await;
    drop(waiting);
    scene.until_state(PRIMARY, "ok", trouble.end_ms).await;
    scene.until_started("bulk", now_ms()).await;
    scene.assert_recovered(PRIMARY, trouble);
    let worst = scene
        .changes(PRIMARY)
        .into_iter()
        .find(|c| c.to == "critical");
    assert!(worst.is_none(), "{worst:?}");
    scene.assert_told();
    scene.assert_nothing_burned();
}

/// Two jobs that wait inside the database have both connections of the pool.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_without_connections_leaves_only_critical_jobs() {
    let url = fresh_database();
    let mut holder = lock_table(&url).await;
    let warm = "handler = \"cache.warm\"\npriority = \"high\"\n[cache.warm]\nregion = \"default\"\n\
                query = \"select n, pg_sleep(0.1)::text as s from t\"\nkey = \"{n}\"\nttl = \"1h\"";
    let mut kinds = kinds_on(PRIMARY, SLEEP);
    kinds.push(kind(
        "warm",
        &format!("resources = [\"{PRIMARY}\"]\n{warm}"),
    ));
    let scene = Scene::begin(site(QUICK, "", &url, &kinds)).await;

    let warms = ["warm-0", "warm-1"].map(|id| format!(r#"{{"kind":"app.warm","id":"{id}"}}"#));
    scene.site.push(&warms).await;
    until_busy(&url, 2, "wait_event_type = 'Lock'").await;
    let onset_ms = now_ms();
    scene
        .until_state(PRIMARY, "critical", onset_ms - SOON_MS)
        .await;
    let trouble = scene.outlast(onset_ms).await;
    for kind in ["bulk", "normal"] {
        scene.assert_stopped(kind, trouble).await;
    }
    for kind in ["critical", "free"] {
        scene.assert_went_on(kind, trouble);
    }

    run(&mut holder, "commit").await;
    scene.until_state(PRIMARY, "ok", trouble.end_ms).await;
    scene.until_started("bulk", now_ms()).await;
    scene.assert_recovered(PRIMARY, trouble);
    // They were told to make room between two pages, and began again: that burns nothing either.
    let queue = scene.site.queue("default").await;
    for id in ["warm-0", "warm-1"] {
        let find = || async { queue.find(id).await.unwrap().unwrap() };
        wait_until("the warm ends", DEADLINE, || async {
            find().await.state == "done"
        })
        .await;
        assert_eq!(find().await.history.attempts, 0);
    }
    scene.assert_told();
    scene.assert_nothing_burned();
}

/// With the defaults, which sample once a second.
#[tokio::test(flavor = "multi_thread")]
async fn running_statements_stop_mass_work_and_a_freeze_all_but_critical_jobs_within_five_seconds()
{
    let scratch = Scratch::new().unwrap();
    let mut server = server(&scratch);
    let url = server.url("postgres");
    let active = "[gate.limits]\npostgres_active = [4.0, 30.0]\n";
    let (busy, frozen) = tokio::join!(
        Scene::begin(site(DEFAULTS, active, &url, &kinds_on(PRIMARY, SLEEP))),
        Scene::begin(site(
            DEFAULTS,
            "[gate.limits]\npostgres_active = [900.0, 1000.0]\n",
            &url,
            &kinds_on(PRIMARY, SLEEP)
        )),
    );

    let sleeping = sessions(&url, 40, "select pg_sleep(60)").await;
    until_busy(&url, 40, "query like '%pg_sleep%' and state = 'active'").await;
    let onset_ms = now_ms();
    busy.until_state(PRIMARY, "overloaded", onset_ms - SOON_MS)
        .await;
    let trouble = busy.outlast(onset_ms).await;
    busy.assert_stopped("bulk", trouble).await;
    for kind in ["critical", "free"] {
        busy.assert_went_on(kind, trouble);
    }
    busy.assert_told();
    busy.assert_nothing_burned();
    drop(busy);
    assert_eq!(sleeping.len(), 40, "the load lasted");

    assert!(
        frozen.changes(PRIMARY).is_empty(),
        "to this one all was well"
    );
    let onset_ms = now_ms();
    server.pause().unwrap();
    frozen.until_state(PRIMARY, "critical", onset_ms).await;
    let trouble = frozen.outlast(onset_ms).await;
    for kind in ["bulk", "normal"] {
        frozen.assert_stopped(kind, trouble).await;
    }
    for kind in ["critical", "free"] {
        frozen.assert_went_on(kind, trouble);
    }
    frozen.assert_told();
    frozen.assert_nothing_burned();
    server.resume().unwrap();
}
