//! The database module on a real Postgres: schema, reads, probes.

use crate::support::{DEADLINE, fresh_database, wait_until};
use serde_json::{Value, json};
use std::time::Duration;
use tidegate::config::{DatabaseConfig, Secret, Sources, load};
use tidegate::db::{self, Database, DbError, JsonQuery, Param};
use tidegate::job::ArgType;

fn config(url: &str) -> DatabaseConfig {
    let mut config = load(&Sources::default()).unwrap().database;
    config.url = Secret::new(url);
    config
}

fn open(url: &str) -> Database {
    Database::open(&config(url)).unwrap()
}

fn query<'a>(sql: &'a str, params: &'a [Param]) -> JsonQuery<'a> {
    JsonQuery {
        sql,
        params,
        page: 100,
        max_rows: 1_000,
        timeout: Duration::from_secs(10),
    }
}

/// All rows, page by page, and whether more were left out.
async fn read(
    database: &Database,
    query: &JsonQuery<'_>,
) -> Result<(Vec<Vec<Value>>, bool), DbError> {
    let mut rows = database.json_rows(query).await?;
    let mut pages = Vec::new();
    loop {
        let page = rows.next_page().await?;
        if page.is_empty() {
            return Ok((pages, rows.truncated()));
        }
        pages.push(page.into_iter().map(Value::Object).collect());
    }
}

#[tokio::test]
async fn many_daemons_migrate_at_once_and_one_does_the_work() {
    let url = fresh_database();
    let database = open(&url);
    assert_eq!(db::schema_version(&database).await.unwrap(), None);
    let all = futures::future::join_all((0..4).map(|_| {
        let database = open(&url);
        async move { db::migrate(&database).await.unwrap() }
    }))
    .await;
    assert!(all.iter().all(|m| m.version == db::SCHEMA_VERSION));
    assert_eq!(
        db::schema_version(&database).await.unwrap(),
        Some(db::SCHEMA_VERSION)
    );
    assert_eq!(db::migrate(&database).await.unwrap().applied, 0);
    let tables = "select table_schema || '.' || table_name as name from information_schema.tables \
                  where table_schema in ('tidegate', 'public') order by 1";
    let (pages, _) = read(&database, &query(tables, &[])).await.unwrap();
    assert_eq!(
        pages,
        [vec![
            json!({"name": "tidegate._sqlx_migrations"}),
            json!({"name": "tidegate.batch_progress"}),
            json!({"name": "tidegate.outbox"})
        ]]
    );
}

#[tokio::test]
async fn rows_come_in_bounded_pages() {
    let database = open(&fresh_database());
    let numbers = "select n, 'x' as t from generate_series(1, 250) n order by n; ";
    let (pages, truncated) = read(&database, &query(numbers, &[])).await.unwrap();
    assert_eq!(
        pages.iter().map(Vec::len).collect::<Vec<_>>(),
        [100, 100, 50]
    );
    assert_eq!(pages[2][49], json!({"n": 250, "t": "x"}));
    assert!(!truncated);
    for (max_rows, sizes, cut) in [
        (200, &[100, 100][..], true),
        (250, &[100, 100, 50], false),
        (50, &[50], true),
    ] {
        let bounded = JsonQuery {
            max_rows,
            ..query(numbers, &[])
        };
        let (pages, truncated) = read(&database, &bounded).await.unwrap();
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), sizes);
        assert_eq!(truncated, cut, "{max_rows}");
    }
}

#[tokio::test]
async fn arguments_are_bound_with_their_declared_types() {
    let database = open(&fresh_database());
    let param = |ty, value| Param { ty, value };
    let params = [
        param(ArgType::Integer, json!(i64::MIN)),
        param(ArgType::Number, json!(1.5)),
        param(ArgType::String, json!("'; drop table x; --")),
        param(ArgType::Boolean, json!(true)),
        param(ArgType::Array, json!([1, "a"])),
        param(ArgType::Integer, Value::Null),
    ];
    let sql = "select $1 as i, $2 as n, $3 as s, $4 as b, $5 -> 1 as a, $6 is null as missing, \
               pg_typeof($1)::text as ti, pg_typeof($5)::text as ta -- the end";
    let (pages, _) = read(&database, &query(sql, &params)).await.unwrap();
    let expected = json!({
        "i": i64::MIN, "n": 1.5, "s": "'; drop table x; --", "b": true, "a": "a", "missing": true,
        "ti": "bigint", "ta": "jsonb",
    });
    assert_eq!(pages, [vec![expected]]);
}

#[tokio::test]
async fn a_read_can_neither_write_nor_last() {
    let url = fresh_database();
    let database = open(&url);
    let sql = sqlx::PgPool::connect(&url).await.unwrap();
    sqlx::query("create sequence s")
        .execute(&sql)
        .await
        .unwrap();
    let error = read(&database, &query("select nextval('s') as n", &[]))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, DbError::Sql { code, .. } if code == "25006"),
        "{error:?}"
    );
    let brief = JsonQuery {
        timeout: Duration::from_millis(50),
        ..query("select pg_sleep(30)::text as s", &[])
    };
    let error = read(&database, &brief).await.unwrap_err();
    assert!(matches!(error, DbError::Canceled(_)), "{error:?}");
    assert!(!error.is_dependency());
    let error = read(&database, &query("select 1 as a; select 2 as b", &[]))
        .await
        .unwrap_err();
    assert!(error.is_mistake(), "{error:?}");
    // None of this has cost a connection.
    assert!(database.ping(Duration::from_secs(5)).await.is_ok());
}

#[tokio::test]
async fn probes_and_gauges_tell_of_the_pool() {
    let mut config = config(&fresh_database());
    config.max_connections = 1;
    config.acquire_timeout = Duration::from_millis(100);
    let database = Database::open(&config).unwrap();
    assert_eq!(database.gauges().size, 0);
    assert!(database.acquire_wait().await.unwrap() < Duration::from_millis(100));
    assert!(database.ping(Duration::from_secs(5)).await.unwrap() > Duration::ZERO);
    // Somebody reads and holds the only connection.
    let held = database
        .json_rows(&query("select 1 as n", &[]))
        .await
        .unwrap();
    let gauges = database.gauges();
    assert_eq!((gauges.size, gauges.idle, gauges.max), (1, 0, 1));
    let error = database.acquire_wait().await.unwrap_err();
    assert!(matches!(error, DbError::PoolTimeout(_)), "{error:?}");
    drop(held);
    database.ping(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn sessions_are_named_and_limited() {
    let database = open(&fresh_database());
    let sql = "select current_setting('application_name') as name, \
               current_setting('idle_in_transaction_session_timeout') as idle";
    let (pages, _) = read(&database, &query(sql, &[])).await.unwrap();
    assert_eq!(pages, [vec![json!({"name": "tidegate", "idle": "10s"})]]);
}

#[tokio::test]
async fn who_is_not_let_in_learns_it_without_the_password() {
    let url = fresh_database();
    let missing = url.rsplit_once('/').unwrap().0.to_owned() + "/hunter2less";
    let error = open(&missing)
        .ping(Duration::from_secs(5))
        .await
        .unwrap_err();
    assert!(matches!(error, DbError::Connect(_)), "{error:?}");
    assert!(
        error
            .into_failure("postgres:primary")
            .blame
            .unwrap()
            .connect
    );
}

#[tokio::test]
async fn connections_are_opened_ahead_as_far_as_the_pool_goes() {
    let url = fresh_database();
    let mut few = config(&url);
    few.max_connections = 5;
    let database = Database::open(&few).unwrap();
    assert_eq!(database.gauges().size, 0);
    assert_eq!(database.open_ahead(3).await.unwrap(), 3);
    wait_until("they are free", DEADLINE, || async {
        database.gauges().idle == 3
    })
    .await;
    assert_eq!(database.open_ahead(2).await.unwrap(), 3, "it closes none");
    assert_eq!(database.open_ahead(50).await.unwrap(), 5);
}
