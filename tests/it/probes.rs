//! Signals from real servers: what Redis and Postgres tell of themselves, and what users ask for.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tidegate::config::{Config, GateConfig, Secret, Sources, load};
use tidegate::db::{Database, Vitals};
use tidegate::health::{
    HealthView, Monitor, Page, Probe, QUEUE_REDIS, REDIS_SECTIONS, SignalView, redis_info,
};
use tidegate::policy::gate::GateState;
use tidegate::queue::board;
use tidegate::queue::connection::{self, Connection};
use tidegate::stack::{PostgresOptions, PrivatePostgres, PrivateRedis, RedisOptions, Scratch};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::daemon::process::Site;
use crate::support::{DEADLINE, fresh_database, wait_until};

const LIMIT: Duration = Duration::from_secs(5);

fn config(redis_url: &str) -> Config {
    let mut config = load(&Sources::default()).unwrap();
    config.redis.url = Secret::new(redis_url);
    config.gate.sample = Duration::from_millis(100);
    config
}

/// What Redis tells of itself, sampled until dropped.
struct Told {
    conn: Connection,
    view: watch::Receiver<Arc<HealthView>>,
    stop: CancellationToken,
}

impl Told {
    async fn by(server: &PrivateRedis) -> Self {
        let config = config(&server.url());
        let conn = connection::connect(&config.redis).await.unwrap();
        let asked = conn.clone();
        let probe = redis_info(QUEUE_REDIS, &config.gate.limits, move || {
            let asked = asked.clone();
            async move {
                let info = board::info(&asked, &REDIS_SECTIONS).await;
                info.map_err(|e| e.to_string())
            }
        });
        Self::with(conn, &config.gate, probe)
    }

    fn with(conn: Connection, gate: &GateConfig, probe: Probe) -> Self {
        let (monitor, view) = Monitor::new(gate, vec![probe], |_, _| {});
        let stop = CancellationToken::new();
        tokio::spawn(monitor.run(stop.clone()));
        Self { conn, view, stop }
    }

    async fn until(&mut self, signal: &str, reached: impl Fn(&SignalView) -> bool) {
        let found = |view: &HealthView| {
            let mut signals = view.resources[QUEUE_REDIS].signals.iter();
            signals.any(|s| s.name == signal && s.value.is_some() && reached(s))
        };
        let seen = self.view.wait_for(|view| found(view));
        let seen = tokio::time::timeout(DEADLINE, seen).await.is_ok();
        assert!(seen, "{signal}: {}", self.view.borrow().to_json());
    }

    fn state(&self) -> GateState {
        self.view.borrow().resources[QUEUE_REDIS].state
    }

    async fn run(&self, command: &[&str]) -> redis::RedisResult<()> {
        let (name, args) = command.split_first().unwrap();
        let mut conn = self.conn.clone();
        redis::cmd(name).arg(args).query_async(&mut conn).await
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn redis(scratch: &Scratch, name: &str, change: impl FnOnce(&mut RedisOptions)) -> PrivateRedis {
    let mut options = RedisOptions::new(scratch.path().join(name));
    change(&mut options);
    PrivateRedis::start(options).unwrap()
}

#[tokio::test]
async fn redis_tells_of_full_memory_of_its_policy_and_of_evictions() {
    let scratch = Scratch::new().unwrap();
    let server = redis(&scratch, "redis", |o| o.max_memory = Some(8 << 20));
    let mut told = Told::by(&server).await;
    told.until("redis_memory_used_percent", |s| s.value.unwrap() < 60.0)
        .await;
    let block = "x".repeat(64 << 10);
    let mut n = 0;
    while told.run(&["SET", &format!("k{n}"), &block]).await.is_ok() {
        n += 1;
        assert!(n < 200, "the server has a limit");
    }
    told.until("redis_memory_used_percent", |s| s.badness > 0.6)
        .await;
    told.until("redis_memory_evicting_percent", |s| s.value == Some(0.0))
        .await;
    // Full memory alone slows, and never stops what would free it.
    assert_eq!(told.state(), GateState::Elevated);

    told.run(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"])
        .await
        .unwrap();
    told.until("redis_memory_evicting_percent", |s| {
        s.value.unwrap() > 60.0 && s.badness > 0.9
    })
    .await;
    for n in 0..200 {
        told.run(&["SET", &format!("more{n}"), &block])
            .await
            .unwrap();
    }
    told.until("redis_evictions_percent", |s| s.badness > 0.4)
        .await;
}

#[tokio::test]
async fn redis_tells_of_a_replica_that_confirms_nothing() {
    let scratch = Scratch::new().unwrap();
    let primary = redis(&scratch, "primary", |_| {});
    let port = primary.port().to_string();
    let mut replica = redis(&scratch, "replica", |o| {
        let args = ["--replicaof", "127.0.0.1", &port];
        o.extra_args = args.map(str::to_owned).to_vec();
    });
    let mut told = Told::by(&primary).await;
    told.until("redis_replica_lag_ms", |s| s.value == Some(0.0))
        .await;
    let conn = told.conn.clone();
    wait_until("the replica is online", DEADLINE, || async {
        let info = board::info(&conn, &REDIS_SECTIONS).await.unwrap();
        info.contains("state=online")
    })
    .await;
    replica.pause().unwrap();
    told.until("redis_replica_lag_ms", |s| s.value.unwrap() >= 3_000.0)
        .await;
    replica.resume().unwrap();
    told.until("redis_replica_lag_ms", |s| s.value.unwrap() <= 1_000.0)
        .await;
}

#[tokio::test]
async fn redis_tells_that_its_append_only_file_can_not_be_written() {
    let scratch = Scratch::new().unwrap();
    let server = redis(&scratch, "redis", |o| {
        o.append_only = true;
        o.disk = Some(1 << 20);
    });
    let mut told = Told::by(&server).await;
    told.until("redis_aof_write_failed", |s| s.value == Some(0.0))
        .await;
    let block = "x".repeat(128 << 10);
    let mut n = 0;
    while told.run(&["SET", &format!("k{n}"), &block]).await.is_ok() {
        n += 1;
        assert!(n < 100, "the disk has an end");
    }
    told.until("redis_aof_write_failed", |s| s.badness > 0.95)
        .await;
    assert_eq!(told.state(), GateState::Critical);
}

async fn sql(url: &str, statements: &str) -> PgConnection {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))
        .execute(&mut connection)
        .await
        .unwrap();
    connection
}

fn database(url: &str) -> Database {
    let mut config = config("redis://127.0.0.1:1/0").database;
    config.url = Secret::new(url);
    config.max_connections = 1;
    Database::open(&config).unwrap()
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

#[tokio::test]
async fn a_query_gives_one_number_or_says_what_it_gave() {
    let database = database(&fresh_database());
    let number = |sql: &'static str| {
        let database = &database;
        async move { database.number(sql, LIMIT).await.map_err(|e| e.to_string()) }
    };
    assert_eq!(
        number("select count(*) from pg_class where false").await,
        Ok(0.0)
    );
    assert_eq!(number("select 2.5 -- half").await, Ok(2.5));
    for (sql, reason) in [
        ("select 1 where false", "no row"),
        ("select 1 as a, 2 as b", "several columns"),
        ("select generate_series(1, 2)", "several rows"),
        ("select null::int", "null"),
        ("select 'one'", "text"),
        ("select 1/0", "22012"),
        ("create table forbidden ()", "42601"),
    ] {
        let error = number(sql).await.unwrap_err();
        assert!(error.contains(reason), "{sql}: {error}");
    }
    // A slow one is ended by the server.
    let slow = database.number("select 1 from pg_sleep(60)", Duration::from_millis(200));
    assert!(slow.await.unwrap_err().to_string().contains("57014"));
}

#[tokio::test]
async fn a_page_gives_one_number_and_its_address_stays_secret() {
    let router = Router::new()
        .route("/plain", get(|| async { "12.5\n" }))
        .route("/json", get(|| async { r#"{"queue":{"waiting":3}}"# }))
        .route("/large", get(|| async { "1".repeat(100_000) }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let number = |path: &str, field: Option<&'static str>| {
        let url = Secret::new(format!("http://app:hunter2@{address}/{path}"));
        let token = Secret::new("hunter2");
        let page = Page::new(&url, field, Some(&token), LIMIT).unwrap();
        async move { page.number().await }
    };
    assert_eq!(number("plain", None).await, Ok(12.5));
    assert_eq!(number("json", Some("/queue/waiting")).await, Ok(3.0));
    let mut errors = Vec::new();
    for (path, field, reason) in [
        ("json", None, "no number"),
        ("json", Some("/other"), "/other"),
        ("missing", None, "404"),
        ("large", None, "65536 bytes"),
    ] {
        let error = number(path, field).await.unwrap_err();
        assert!(error.contains(reason), "{path}: {error}");
        errors.push(error);
    }
    server.abort();
    let _ = server.await;
    errors.push(number("plain", None).await.unwrap_err());
    assert!(!errors.concat().contains("hunter2"), "{errors:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_gated_by_what_a_user_measures() {
    let backlog = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(backlog.path(), "7").unwrap();
    let url = fresh_database();
    let settings = format!(
        "[database]\nurl = \"{url}\"\n[gate]\nsample = \"100ms\"\n[probes]\nevery = \"1s\"\ntimeout = \"1s\"\n\
         [[probe]]\nname = \"backlog\"\nresource = \"smtp:main\"\ncommand = [\"cat\", \"{}\"]\nlo = 10\nhi = 100\n\
         [[probe]]\nname = \"tables\"\nresource = \"smtp:main\"\nsql = \"select 4\"\nlo = 10\nhi = 100\n\
         worst = \"elevated\"\n\
         [[probe]]\nname = \"page\"\nresource = \"web:app\"\nurl = \"http://app:hunter2@127.0.0.1:1/\"\nlo = 1\nhi = 2\n",
        backlog.path().display()
    );
    let job = |kind: &str, more: &str| {
        format!(
            "kind = \"app.{kind}\"\nhandler = \"exec\"\npriority = \"bulk\"\n{more}\n[exec]\ncommand = [\"true\"]"
        )
    };
    let mail = job("mail", "resources = [\"smtp:main\"]");
    let site = Site::new(&settings, &[&mail, &job("free", "")]);
    let daemon = site.start("a");
    site.push(&[r#"{"kind":"app.mail"}"#.to_owned()]).await;
    site.wait_for_stat("completed", 1, DEADLINE).await;

    std::fs::write(backlog.path(), "5000").unwrap();
    wait_until("too much mail", DEADLINE, || {
        let too_much =
            |e: &serde_json::Value| e["resource"] == "smtp:main" && e["to"] == "overloaded";
        std::future::ready(daemon.events("gate").iter().any(too_much))
    })
    .await;
    site.push(&["mail", "free"].map(|kind| format!(r#"{{"kind":"app.{kind}","id":"{kind}"}}"#)))
        .await;
    site.wait_for_stat("completed", 2, DEADLINE).await;
    let queue = site.queue("default").await;
    let held = queue.find("mail").await.unwrap().unwrap();
    assert_eq!((held.state.as_str(), held.history.attempts), ("pending", 0));

    let explained = || crate::cli::json_at(&site, &["explain", "smtp:main"]).ok();
    wait_until("it is published", DEADLINE, || {
        let state = explained()["state"].clone();
        std::future::ready(state == "overloaded" || state == "critical")
    })
    .await;
    let told = explained();
    assert_eq!(told["worst"]["name"], "probe_backlog");
    assert_eq!(told["worst"]["value"], 5000.0);
    let tables = told["signals"].as_array().unwrap().iter();
    let tables: Vec<_> = tables.filter(|s| s["name"] == "probe_tables").collect();
    assert_eq!(
        (&tables[0]["value"], &tables[0]["worst_state"]),
        (&4.0.into(), &"elevated".into())
    );
    assert!(!told["lifted_by"].as_array().unwrap().is_empty(), "{told}");
    assert!(
        told["history"]["states"]
            .as_str()
            .is_some_and(|s| !s.is_empty()),
        "{told}"
    );

    // What can't be measured is told of without its secret.
    daemon.wait_for_event("probe").await;
    let failing = |e: &serde_json::Value| e["resource"] == "web:app" && e["signal"] == "probe_page";
    assert!(daemon.events("probe").iter().any(failing));
    assert!(
        !std::fs::read_to_string(site.path("a.log"))
            .unwrap()
            .contains("hunter2")
    );
}
