//! `cache.invalidate` and `cache.warm` as the shipped definitions have them, on real servers.

use super::*;
use crate::support::{DEADLINE, fresh_database, wait_until};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use std::path::Path;
use std::sync::Arc;
use tidegate::catalog::{self, JobSpec};
use tidegate::config::Config;
use tidegate::db::Database;
use tidegate::handlers::{BUILT_IN, Context, Deps, Handler};
use tidegate::job::{Failure, Job, JobId, Outcome, Priority};
use tidegate::stack::{PrivateRedis, RedisOptions, Scratch};
use tokio_util::sync::CancellationToken;

/// Handlers of definitions, with a cache and maybe a database.
struct Shop {
    rig: Rig,
    deps: Deps,
    database_url: String,
}

impl Shop {
    async fn open() -> Self {
        let rig = Rig::shared().await;
        let database_url = fresh_database();
        let mut config = config();
        config.database.url = Secret::new(database_url.clone());
        let mut deps = Deps::new(Arc::new(config));
        deps.cache = Some(rig.cache.clone());
        deps.database = Some(Database::open(&deps.config.database).unwrap());
        let shop = Self {
            rig,
            deps,
            database_url,
        };
        let mut sql = shop.sql().await;
        for statement in [
            "create table products (id bigint primary key, category_id bigint, name text not null,
             price_cents bigint not null, updated_at timestamptz not null default now())",
            "insert into products select n, n % 5, 'product ' || n, n * 100 from generate_series(1, 1200) n",
            "update products set updated_at = now() - interval '30 days' where id > 1100",
            "update products set category_id = null where id = 13",
        ] {
            sqlx::query(statement).execute(&mut sql).await.unwrap();
        }
        shop
    }

    async fn sql(&self) -> PgConnection {
        PgConnection::connect(&self.database_url).await.unwrap()
    }

    fn handler(&self, spec: &JobSpec) -> Arc<dyn Handler> {
        build(spec, &self.deps)
    }
}

fn config() -> Config {
    config::load(&Sources::default()).unwrap()
}

/// A definition that is shipped with the project.
fn shipped(kind: &str) -> JobSpec {
    let names: Vec<&str> = BUILT_IN.iter().map(|kind| kind.name).collect();
    let jobs = Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs");
    let catalog = catalog::load(&jobs, &names).unwrap();
    JobSpec::clone(catalog.get(kind).unwrap())
}

/// A definition of one's own.
fn defined(text: &str) -> JobSpec {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.toml"), text).unwrap();
    let catalog = catalog::load(dir.path(), &["cache.invalidate", "cache.warm"]).unwrap();
    JobSpec::clone(catalog.get("app.test").unwrap())
}

fn build(spec: &JobSpec, deps: &Deps) -> Arc<dyn Handler> {
    let kind = BUILT_IN
        .iter()
        .find(|kind| kind.name == spec.handler)
        .unwrap();
    (kind.check)(spec, &deps.config).unwrap();
    (kind.build)(spec, deps).unwrap()
}

fn context(args: Value) -> Context {
    let Value::Object(args) = args else {
        panic!("args are an object");
    };
    let job = Job {
        id: JobId::parse("job-1").unwrap(),
        kind: "app.test".into(),
        queue: "default".into(),
        priority: Priority::Normal,
        args,
        attempt: 1,
        max_attempts: 5,
        traceparent: None,
        parents: Vec::new(),
        token: "t:1".into(),
    };
    Context::new(Arc::new(job), CancellationToken::new(), Arc::default())
}

async fn done(handler: &Arc<dyn Handler>, args: Value) -> Value {
    match handler.run(&context(args)).await {
        Outcome::Done(Some(result)) => result,
        other => panic!("{other:?}"),
    }
}

async fn fatal(handler: &Arc<dyn Handler>, args: Value) -> String {
    match handler.run(&context(args)).await {
        Outcome::Fatal(failure) => failure.message,
        other => panic!("{other:?}"),
    }
}

async fn failed(handler: &Arc<dyn Handler>, args: Value) -> Failure {
    match handler.run(&context(args)).await {
        Outcome::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

async fn payload(region: &Region, at: &str) -> Value {
    match get(region, at).await {
        Found::Hit { payload } => serde_json::from_slice(&payload).unwrap(),
        Found::Miss(why) => panic!("{at} is a miss: {why:?}"),
    }
}

#[tokio::test]
async fn rows_are_warmed_read_and_invalidated_by_tag_and_key() {
    let shop = Shop::open().await;
    let warm = shop.handler(&shipped("cache.warm_products"));
    let result = done(&warm, json!({"days": 7})).await;
    assert_eq!(
        (&result["rows"], &result["written"]),
        (&json!(1100), &json!(1099))
    );
    assert_eq!(
        (&result["skipped"], &result["truncated"]),
        (&json!(1), &json!(false))
    );
    let because = result["skipped_because"].as_str().unwrap();
    assert!(because.contains("{category_id} is null"), "{because}");

    let region = shop.rig.region("default");
    let seven = json!({"id": 7, "category_id": 2, "name": "product 7", "price_cents": 700});
    assert_eq!(payload(&region, "product:7").await, seven);
    for absent in ["product:13", "product:1101"] {
        assert_eq!(get(&region, absent).await, miss(Miss::Absent));
    }

    let invalidate = shop.handler(&shipped("cache.invalidate"));
    let result = done(
        &invalidate,
        json!({"tags": ["category:2"], "keys": ["product:1"]}),
    )
    .await;
    assert_eq!((&result["tags"], &result["keys"]), (&json!(1), &json!(1)));
    assert!(result["seq"].as_u64().is_some_and(|n| n > 0), "{result}");
    for gone in ["product:7", "product:1097", "product:1"] {
        assert_eq!(get(&region, gone).await, miss(Miss::Invalidated));
    }
    assert_eq!(payload(&region, "product:8").await["name"], "product 8");

    done(&warm, json!({"days": 7})).await;
    assert_eq!(payload(&region, "product:7").await, seven);
}

#[tokio::test]
async fn a_row_that_changes_while_it_is_warmed_is_a_miss() {
    let shop = Shop::open().await;
    // The query sees its snapshot and then waits for the lock.
    let warm = shop.handler(&defined(
        r#"
kind = "app.test"
handler = "cache.warm"
[cache.warm]
region = "default"
query = "select p.id, p.name from products p, (select pg_advisory_xact_lock_shared(7)) l"
key = "product:{id}"
tags = ["product:{id}"]
ttl = "1h"
"#,
    ));
    let mut sql = shop.sql().await;
    sqlx::query("select pg_advisory_lock(7)")
        .execute(&mut sql)
        .await
        .unwrap();
    let job = tokio::spawn(async move { warm.run(&context(json!({}))).await });
    let waiting = "select exists (select from pg_locks where locktype = 'advisory' and not granted
                   and database = (select oid from pg_database where datname = current_database()))";
    let mut watcher = shop.sql().await;
    let mut waits = async || -> bool {
        sqlx::query_scalar(waiting)
            .fetch_one(&mut watcher)
            .await
            .unwrap()
    };
    let deadline = std::time::Instant::now() + DEADLINE;
    while !waits().await {
        assert!(
            std::time::Instant::now() < deadline,
            "the query never waited"
        );
    }

    let change = "update products set name = 'new' where id = 7";
    sqlx::query(change).execute(&mut sql).await.unwrap();
    let invalidate = shop.handler(&shipped("cache.invalidate"));
    done(&invalidate, json!({"tags": ["product:7"], "keys": []})).await;
    sqlx::query("select pg_advisory_unlock(7)")
        .execute(&mut sql)
        .await
        .unwrap();

    assert!(matches!(job.await.unwrap(), Outcome::Done(Some(r)) if r["written"] == 1200));
    let region = shop.rig.region("default");
    assert_eq!(get(&region, "product:7").await, miss(Miss::Invalidated));
    assert_eq!(payload(&region, "product:8").await["name"], "product 8");
}

#[tokio::test]
async fn a_warm_can_be_stopped_bounded_and_wrong() {
    let shop = Shop::open().await;
    let with = |key: &str, more: &str| {
        shop.handler(&defined(&format!(
            "kind = \"app.test\"\nhandler = \"cache.warm\"\n[cache.warm]\nregion = \"default\"\n\
             query = \"select id, name from products order by id\"\nkey = \"{key}\"\nttl = \"1h\"\n{more}"
        )))
    };
    let stopped = context(json!({}));
    stopped.stop.cancel();
    let outcome = with("{id}", "").run(&stopped).await;
    assert!(
        matches!(outcome, Outcome::Interrupted { .. }),
        "{outcome:?}"
    );

    let result = done(
        &with("{id}", "max_rows = 100\nbatch = 30\nvalue = \"name\""),
        json!({}),
    )
    .await;
    assert_eq!(
        (&result["rows"], &result["truncated"]),
        (&json!(100), &json!(true))
    );
    let region = shop.rig.region("default");
    assert_eq!(get(&region, "100").await, hit("product 100"));
    assert_eq!(get(&region, "101").await, miss(Miss::Absent));

    let told = fatal(&with("{nothing}", ""), json!({})).await;
    assert!(
        told.contains("none of 1200 rows") && told.contains("{nothing}"),
        "{told}"
    );
}

#[tokio::test]
async fn hostile_names_are_refused_and_reach_nothing() {
    let shop = Shop::open().await;
    let region = shop.rig.region("default");
    rebuild(&region, "p:1", &["shop"], "one").await;
    let invalidate = shop.handler(&shipped("cache.invalidate"));
    let long = "é".repeat(65);
    for name in ["*", "!", "k:p:1", "", "a\nb", "a\0", &long] {
        let told = fatal(&invalidate, json!({"tags": ["fine", name]})).await;
        assert!(told.starts_with("tag "), "{told}");
    }
    for name in ["", "a\r\nb", "{x}", "p:}"] {
        let told = fatal(&invalidate, json!({"keys": [name]})).await;
        assert!(told.starts_with("key "), "{told}");
    }
    assert_eq!(get(&region, "p:1").await, hit("one"));
    let nothing = done(&invalidate, json!({"tags": [], "keys": []})).await;
    assert_eq!(nothing["tags"], 0);
    assert_eq!(get(&region, "p:1").await, hit("one"));
}

#[tokio::test]
async fn an_enqueuer_chooses_the_region_only_where_allowed() {
    let shop = Shop::open().await;
    let flush = shop.handler(&defined(
        r#"
kind = "app.test"
handler = "cache.invalidate"
[args]
place = { type = "string", required = true }
[cache.invalidate]
region_arg = "place"
all = true
"#,
    ));
    let (eu, us) = (shop.rig.region("eu"), shop.rig.region("us"));
    rebuild(&eu, "p:1", &[], "eu").await;
    rebuild(&us, "p:1", &[], "us").await;
    for name in ["", "EU", "eu}:x", "*", "eu:p", "../us", "eu\n"] {
        let told = fatal(&flush, json!({"place": name})).await;
        assert!(told.starts_with("region "), "{told}");
    }
    done(&flush, json!({"place": "eu"})).await;
    assert_eq!(get(&eu, "p:1").await, miss(Miss::Invalidated));
    assert_eq!(get(&us, "p:1").await, hit("us"));
}

#[tokio::test]
async fn templates_fill_in_arguments_and_nothing_else() {
    let shop = Shop::open().await;
    let invalidate = shop.handler(&defined(
        r#"
kind = "app.test"
handler = "cache.invalidate"
[args]
user_id = { type = "string", required = true }
[cache.invalidate]
region = "eu"
tags = ["user:{user_id}"]
keys = ["home:{user_id}"]
"#,
    ));
    let region = shop.rig.region("eu");
    for user in ["7", "8", "{user_id}"] {
        rebuild(
            &region,
            &format!("name:{}", user.len()),
            &[&format!("user:{user}")],
            user,
        )
        .await;
    }
    rebuild(&region, "home:7", &[], "home").await;
    done(&invalidate, json!({"user_id": "7"})).await;
    assert_eq!(get(&region, "home:7").await, miss(Miss::Invalidated));
    assert_eq!(get(&region, "name:9").await, hit("{user_id}"));
    let told = fatal(&invalidate, json!({"user_id": "7\n*"})).await;
    assert!(told.starts_with("tag "), "{told}");
}

#[tokio::test]
async fn a_dead_server_is_blamed_and_a_wrong_key_is_not() {
    let scratch = Scratch::new().unwrap();
    let mut redis = PrivateRedis::start(RedisOptions::new(scratch.path().join("redis"))).unwrap();
    let rig = Rig::on(redis.url(), |_| ()).await;
    let mut deps = Deps::new(Arc::new(config()));
    deps.cache = Some(rig.cache.clone());
    let invalidate = build(&shipped("cache.invalidate"), &deps);
    done(&invalidate, json!({"tags": ["a"]})).await;

    let seq = rig.log_key("seq", "default");
    rig.raw::<()>(&["DEL", &seq]).await;
    rig.raw::<()>(&["RPUSH", &seq, "mine"]).await;
    let failure = failed(&invalidate, json!({"tags": ["a"]})).await;
    assert_eq!(failure.blame, None, "{}", failure.message);
    rig.raw::<()>(&["DEL", &seq]).await;

    redis.stop().unwrap();
    let failure = failed(&invalidate, json!({"tags": ["a"]})).await;
    let blame = failure.blame.unwrap();
    assert_eq!((&*blame.resource, blame.connect), ("redis:cache", true));
    redis.restart().unwrap();
    wait_until("it works again", DEADLINE, async || {
        let outcome = invalidate.run(&context(json!({"tags": ["a"]}))).await;
        matches!(outcome, Outcome::Done(_))
    })
    .await;
}

#[tokio::test]
async fn a_dead_database_is_blamed() {
    let shop = Shop::open().await;
    let mut config = config();
    // Nobody listens on port 1.
    config.database.url = Secret::new("postgres://app@127.0.0.1:1/app");
    config.database.acquire_timeout = Duration::from_millis(200);
    let mut deps = Deps::new(Arc::new(config));
    deps.cache = Some(shop.rig.cache.clone());
    deps.database = Some(Database::open(&deps.config.database).unwrap());
    let warm = build(&shipped("cache.warm_products"), &deps);
    let blame = failed(&warm, json!({"days": 7})).await.blame.unwrap();
    assert_eq!(
        (&*blame.resource, blame.connect),
        ("postgres:primary", true)
    );

    let mut sql = shop.sql().await;
    let drop = AssertSqlSafe("drop table products".to_owned());
    sqlx::query(drop).execute(&mut sql).await.unwrap();
    let warm = shop.handler(&shipped("cache.warm_products"));
    // A mistake in the SQL is not the server's, and stays one.
    let message = fatal(&warm, json!({"days": 7})).await;
    assert!(message.contains("products"), "{message}");
}
