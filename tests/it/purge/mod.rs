//! `db.purge` on a real Postgres: what it deletes, what it refuses. Beside it: others that hold locks or take time
//! ([`contention`]), and runs that end early ([`resume`]).

mod contention;
mod resume;

use crate::handler::context;
use crate::support::{DEADLINE, fresh_database, wait_until};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};
use std::sync::Arc;
use tidegate::catalog;
use tidegate::config::{Config, Secret, Sources, load};
use tidegate::db::{self, Database};
use tidegate::handlers::{BUILT_IN, Context, Deps, Handler};
use tidegate::job::{Job, Outcome};

/// Sessions of 61 moments a day apart, about a hundred of each, so that many share a time. Half of them are to go.
const SESSIONS: &str = "
    create table sessions (
        id bigint generated always as identity primary key,
        created_at timestamptz not null,
        keep boolean not null default false
    );
    create unique index on sessions (created_at, id);
    insert into sessions (created_at)
        select now() - interval '60 days' + n % 61 * interval '1 day' from generate_series(1, 6000) n;
    analyze sessions;";

const PURGE: &str = r#"
table = "public.sessions"
key = ["created_at", "id"]
where = "created_at < now() - make_interval(days => $1::int) and not keep"
params = ["days"]
"#;

/// A database with a table, and a way to run the handler on it.
struct Bench {
    url: String,
    sql: PgPool,
}

impl Bench {
    /// A fresh database with the project's schema and a table of one's own.
    async fn new(schema: &str) -> Self {
        Self::at(fresh_database(), schema).await
    }

    async fn at(url: String, schema: &str) -> Self {
        let sql = PgPool::connect(&url).await.unwrap();
        db::migrate(&Database::open(&config(&url).database).unwrap())
            .await
            .unwrap();
        let bench = Self { url, sql };
        bench.execute(schema).await;
        bench
    }

    async fn execute(&self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
            .execute(&self.sql)
            .await
            .unwrap();
    }

    async fn number(&self, sql: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
            .fetch_one(&self.sql)
            .await
            .unwrap()
    }

    async fn rows(&self) -> i64 {
        self.number("select count(*) from sessions").await
    }

    /// Rows that the purge of 30 days is to delete.
    async fn matching(&self) -> i64 {
        self.number("select count(*) from sessions where created_at < now() - interval '30 days' and not keep")
            .await
    }

    /// Waits until the run of job `job-1` has come so far.
    async fn wait_progress(&self, condition: &'static str) {
        let sql = format!(
            "select count(*) from tidegate.batch_progress where job_id = 'job-1' and {condition}"
        );
        wait_until(condition, DEADLINE, || async {
            self.number(&sql).await > 0
        })
        .await;
    }

    fn handler(&self, section: &str) -> Arc<dyn Handler> {
        handler(&self.url, section)
    }
}

fn config(url: &str) -> Config {
    let mut config = load(&Sources::default()).unwrap();
    config.database.url = Secret::new(url);
    config
}

/// The handler of a definition with this section.
fn handler(url: &str, section: &str) -> Arc<dyn Handler> {
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "kind = \"t\"\nhandler = \"db.purge\"\n[args]\ndays = {{ type = \"integer\", default = 30 }}\n[db.purge]\n{section}"
    );
    std::fs::write(dir.path().join("t.toml"), text).unwrap();
    let catalog = catalog::load(dir.path(), &["db.purge"]).unwrap();
    let mut deps = Deps::new(Arc::new(config(url)));
    deps.database = Some(Database::open(&deps.config.database).unwrap());
    let kind = BUILT_IN.iter().find(|k| k.name == "db.purge").unwrap();
    (kind.build)(catalog.iter().next().unwrap(), &deps).unwrap()
}

/// A delivery of job `job-1`.
fn delivery(token: &str) -> Context {
    delivery_of(token, json!({"days": 30}))
}

/// One with arguments of its own.
fn delivery_of(token: &str, args: Value) -> Context {
    let context = context(args);
    let mut job = Job::clone(&context.job);
    job.token = token.into();
    Context::new(Arc::new(job), context.stop, Arc::default())
}

/// Runs one delivery within the deadline.
async fn run(handler: &Arc<dyn Handler>, token: &str) -> Outcome {
    let context = delivery(token);
    tokio::time::timeout(DEADLINE, handler.run(&context))
        .await
        .unwrap()
}

fn done(outcome: Outcome) -> Value {
    match outcome {
        Outcome::Done(Some(result)) => result,
        other => panic!("{other:?}"),
    }
}

fn message(outcome: Outcome) -> String {
    match outcome {
        Outcome::Failed(failure) | Outcome::Fatal(failure) => failure.message,
        Outcome::Interrupted { reason } | Outcome::Snooze { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn deletes_what_matches_and_nothing_else() {
    let bench = Bench::new(SESSIONS).await;
    bench
        .execute("update sessions set keep = true where id % 7 = 0")
        .await;
    let (all, matching) = (bench.rows().await, bench.matching().await);
    assert!(matching > 2_000);
    let purge = format!("{PURGE}batch = {{ start = 100, max = 300 }}");
    let result = done(run(&bench.handler(&purge), "a").await);
    assert_eq!(result["rows_deleted"], matching);
    assert!(result["batches"].as_i64().unwrap() >= 20, "{result}");
    assert_eq!(
        (bench.rows().await, bench.matching().await),
        (all - matching, 0)
    );

    // Delivered once more, because the word of its end was lost: it is known as finished, and nothing is deleted.
    bench
        .execute("insert into sessions (created_at) values (now() - interval '50 days')")
        .await;
    assert_eq!(done(run(&bench.handler(&purge), "b").await), result);
    assert_eq!(bench.matching().await, 1);
    // Long after that, the same id is a new job's.
    bench
        .execute("update tidegate.batch_progress set finished_at = now() - interval '2 days'")
        .await;
    assert_eq!(
        done(run(&bench.handler(&purge), "c").await)["rows_deleted"],
        1
    );
}

#[tokio::test]
async fn equal_times_are_walked_by_the_rest_of_the_key() {
    let bench = Bench::new(SESSIONS).await;
    bench
        .execute("update sessions set created_at = '2001-02-03 04:05:06.789012+07'")
        .await;
    let purge = format!("{PURGE}batch = {{ start = 250, max = 250 }}");
    assert_eq!(
        done(run(&bench.handler(&purge), "a").await)["rows_deleted"],
        6_000
    );
    assert_eq!(bench.rows().await, 0);
}

#[tokio::test]
async fn one_row_at_a_time_passes_rows_that_stay() {
    let bench = Bench::new(&format!(
        "{SESSIONS} delete from sessions where id > 100; update sessions set keep = id % 2 = 0;"
    ))
    .await;
    let (all, matching) = (bench.rows().await, bench.matching().await);
    let purge = format!("{PURGE}batch = {{ start = 1, min = 1, max = 1 }}");
    let result = done(run(&bench.handler(&purge), "a").await);
    assert_eq!(
        (&result["rows_deleted"], &result["batches"]),
        (&json!(matching), &json!(all))
    );
    assert_eq!(bench.rows().await, all - matching);
}

#[tokio::test]
async fn keys_of_any_ordered_type() {
    let bench = Bench::new(
        "create type colour as enum ('red', 'green');
         create table sessions (a colour, b text collate \"C\", c char(5), d numeric(12, 3), e uuid, f date,
            primary key (a, b, c, d, e, f));
         insert into sessions select (array['red', 'green'])[1 + n % 2]::colour, E'é\"''\\\\' || n % 3, n % 5,
            n / 7.0, gen_random_uuid(), current_date from generate_series(1, 2000) n;",
    )
    .await;
    let section = r#"table = "sessions"
        key = ["a", "b", "c", "d", "e", "f"]
        where = "d > $1::int -- and a comment"
        params = ["days"]
        batch = { start = 100, max = 100 }"#;
    let expected = bench
        .number("select count(*) from sessions where d > 30")
        .await;
    assert_eq!(
        done(run(&bench.handler(section), "a").await)["rows_deleted"],
        expected
    );
    assert_eq!(
        bench
            .number("select count(*) from sessions where d > 30")
            .await,
        0
    );
    assert_eq!(bench.rows().await, 2_000 - expected);
}

#[tokio::test]
async fn keys_that_could_lose_rows_are_refused() {
    let bench = Bench::new(
        "create table loose (id bigint primary key, at timestamptz, day date not null);
         create unique index on loose (at, id);
         create index on loose (day);
         create view looser as select * from loose;",
    )
    .await;
    for (table, key, told) in [
        ("loose", r#"["at", "id"]"#, "may be NULL"),
        ("loose", r#"["day"]"#, "not unique"),
        ("loose", r#"["nope"]"#, "no column"),
        ("loose", r#"["id", "day"]"#, "create index concurrently"),
        ("looser", r#"["id"]"#, "no table"),
        ("missing", r#"["id"]"#, "there is no"),
    ] {
        let section = format!("table = \"{table}\"\nkey = {key}\nwhere = \"true\"");
        let outcome = run(&bench.handler(&section), "a").await;
        assert!(matches!(outcome, Outcome::Fatal(_)), "{outcome:?}");
        let message = message(outcome);
        assert!(message.contains(told), "{table} {key}: {message}");
    }
    let section =
        "table = \"loose\"\nkey = [\"id\", \"day\"]\nwhere = \"true\"\nallow_no_index = true";
    assert_eq!(
        done(run(&bench.handler(section), "a").await)["rows_deleted"],
        0
    );
}

#[tokio::test]
async fn a_mistake_in_the_sql_is_fatal_and_blames_nobody() {
    let bench = Bench::new(SESSIONS).await;
    let purge = PURGE.replace("not keep", "not kept");
    match run(&bench.handler(&purge), "a").await {
        Outcome::Fatal(failure) => {
            assert!(failure.message.contains("kept"), "{failure:?}");
            assert_eq!(failure.blame, None);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn without_its_schema_it_says_what_to_run() {
    let bench = Bench::new(SESSIONS).await;
    bench.execute("drop schema tidegate cascade").await;
    let message = message(run(&bench.handler(PURGE), "a").await);
    assert!(message.contains("tidegate migrate"), "{message}");
}

#[tokio::test]
async fn a_cap_ends_the_run_exactly() {
    let bench = Bench::new(SESSIONS).await;
    let all = bench.rows().await;
    let purge = format!("{PURGE}max_rows = 777\nbatch = {{ start = 100, max = 200 }}");
    let result = done(run(&bench.handler(&purge), "a").await);
    assert_eq!(
        (&result["rows_deleted"], &result["capped"]),
        (&json!(777), &json!(true))
    );
    assert_eq!(bench.rows().await, all - 777);
}

#[tokio::test]
async fn a_dry_run_tells_and_touches_nothing() {
    let bench = Bench::new(&format!(
        "{SESSIONS} create table logins (session bigint references sessions on delete cascade);"
    ))
    .await;
    let (all, matching) = (bench.rows().await, bench.matching().await);
    let result = done(run(&bench.handler(&format!("{PURGE}dry_run = true")), "a").await);
    assert_eq!(bench.rows().await, all);
    assert_eq!(
        bench
            .number("select count(*) from tidegate.batch_progress")
            .await,
        0
    );
    assert!(
        result["sql"].as_str().unwrap().starts_with("delete from"),
        "{result}"
    );
    assert_eq!(result["plan"]["Node Type"], "ModifyTable");
    let estimated = result["estimated_rows"].as_f64().unwrap();
    assert!(
        (0.5..2.0).contains(&(estimated / matching as f64)),
        "{estimated} {matching}"
    );
    assert!(
        result["touches"][0].as_str().unwrap().contains("logins"),
        "{result}"
    );
}
