//! `db.purge` and the database module under it, on a real Postgres.

use crate::handler::context;
use crate::support::{DEADLINE, fresh_database, wait_until};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tidegate::catalog;
use tidegate::config::{Config, Secret, Sources, load};
use tidegate::db::{self, Database};
use tidegate::handlers::{BUILT_IN, Context, Deps, Handler};
use tidegate::job::Outcome;
use tidegate::stack::{PostgresOptions, PrivatePostgres};

/// Sessions of three days each hour: many share a time, and half of them are to go.
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
    let mut context = context(json!({"days": 30}));
    Arc::get_mut(&mut context.job).unwrap().token = token.into();
    context
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
async fn a_row_that_stops_matching_while_a_batch_waits_for_it_is_kept() {
    let bench = Bench::new(SESSIONS).await;
    let (all, matching) = (bench.rows().await, bench.matching().await);
    let mut other = bench.sql.begin().await.unwrap();
    sqlx::query("update sessions set keep = true where id = 61")
        .execute(&mut *other)
        .await
        .unwrap();
    let handler = bench.handler(&format!(
        "{PURGE}lock_timeout = \"20s\"\nstatement_timeout = \"25s\""
    ));
    let purge = tokio::spawn(async move { run(&handler, "a").await });
    let waiting = "select count(*) from pg_stat_activity where datname = current_database() \
                   and application_name = 'tidegate' and wait_event_type = 'Lock'";
    wait_until("a batch waits", DEADLINE, || async {
        bench.number(waiting).await > 0
    })
    .await;
    other.commit().await.unwrap();
    assert_eq!(done(purge.await.unwrap())["rows_deleted"], matching - 1);
    assert_eq!(
        bench
            .number("select count(*) from sessions where id = 61")
            .await,
        1
    );
    assert_eq!(bench.rows().await, all - matching + 1);
}

#[tokio::test]
async fn locked_rows_are_left_for_a_last_pass() {
    let bench = Bench::new(SESSIONS).await;
    let (all, matching) = (bench.rows().await, bench.matching().await);
    let mut other = bench.sql.begin().await.unwrap();
    // One of them stops matching, the other one is only locked.
    for sql in [
        "update sessions set keep = true where id = 61",
        "select from sessions where id = 67 for update",
    ] {
        sqlx::query(sql).execute(&mut *other).await.unwrap();
    }
    let handler = bench.handler(&format!(
        "{PURGE}lock_timeout = \"20ms\"\nbatch = {{ start = 100, max = 100 }}"
    ));
    let purge = tokio::spawn(async move { run(&handler, "a").await });
    // All others are gone before the locked ones are met again.
    bench.wait_progress("todo = '[]' and skipped <> '[]'").await;
    assert_eq!(bench.rows().await, all - matching + 2);
    other.commit().await.unwrap();
    assert_eq!(done(purge.await.unwrap())["rows_deleted"], matching - 1);
    assert_eq!(bench.rows().await, all - matching + 1);
    assert_eq!(
        bench
            .number("select id from sessions where id in (61, 67)")
            .await,
        61
    );
}

#[tokio::test]
async fn rows_locked_to_the_end_fail_the_attempt_and_the_next_one_finishes() {
    let bench = Bench::new(SESSIONS).await;
    let matching = bench.matching().await;
    let mut other = bench.sql.begin().await.unwrap();
    sqlx::query("select from sessions where id = 61 for update")
        .execute(&mut *other)
        .await
        .unwrap();
    let handler = bench.handler(&format!("{PURGE}lock_timeout = \"20ms\""));
    let told = message(run(&handler, "a").await);
    assert!(told.contains("stayed locked"), "{told}");
    assert_eq!(bench.matching().await, 1);
    other.rollback().await.unwrap();
    assert_eq!(done(run(&handler, "b").await)["rows_deleted"], matching);
    assert_eq!(bench.matching().await, 0);
}

#[tokio::test]
async fn a_locked_table_puts_the_job_off() {
    let bench = Bench::new(SESSIONS).await;
    let handler = bench.handler(&format!(
        "{PURGE}lock_timeout = \"20ms\"\npause = \"20ms\"\nbatch = {{ max = 100, start = 100 }}"
    ));
    let running = {
        let handler = Arc::clone(&handler);
        tokio::spawn(async move { run(&handler, "a").await })
    };
    bench.wait_progress("batches > 1").await;
    let mut other = bench.sql.begin().await.unwrap();
    sqlx::query("lock table sessions in access exclusive mode")
        .execute(&mut *other)
        .await
        .unwrap();
    match running.await.unwrap() {
        Outcome::Snooze { reason, .. } => assert!(reason.contains("sessions"), "{reason}"),
        other => panic!("{other:?}"),
    }
    other.rollback().await.unwrap();
    done(run(&handler, "b").await);
    assert_eq!(bench.matching().await, 0);
}

#[tokio::test]
async fn a_newer_delivery_takes_over_and_the_older_one_is_refused() {
    let bench = Bench::new(SESSIONS).await;
    let (all, matching) = (bench.rows().await, bench.matching().await);
    let handler = bench.handler(&format!(
        "{PURGE}pause = \"20ms\"\nbatch = {{ start = 100, max = 100 }}"
    ));
    let older = {
        let handler = Arc::clone(&handler);
        tokio::spawn(async move { run(&handler, "old").await })
    };
    bench.wait_progress("batches >= 3").await;
    let newer = run(&handler, "new").await;
    match older.await.unwrap() {
        Outcome::Interrupted { reason } => assert!(reason.contains("taken over"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(done(newer)["rows_deleted"], matching);
    assert_eq!(bench.rows().await, all - matching);
}

#[tokio::test]
async fn a_stopped_run_goes_on_where_it_ended() {
    let bench = Bench::new(SESSIONS).await;
    let matching = bench.matching().await;
    let handler = bench.handler(&format!(
        "{PURGE}pause = \"20ms\"\nbatch = {{ start = 100, max = 100 }}"
    ));
    let context = delivery("a");
    let stop = context.stop.clone();
    let running = {
        let handler = Arc::clone(&handler);
        tokio::spawn(async move { handler.run(&context).await })
    };
    bench.wait_progress("batches >= 3").await;
    stop.cancel();
    let outcome = running.await.unwrap();
    assert!(
        matches!(outcome, Outcome::Interrupted { .. }),
        "{outcome:?}"
    );
    let deleted = matching - bench.matching().await;
    assert!(deleted >= 300 && deleted < matching, "{deleted}");
    // A row behind the place where it stopped shows that the walk does not begin anew.
    bench
        .execute("insert into sessions (created_at) values ('2001-01-01')")
        .await;
    assert_eq!(done(run(&handler, "b").await)["rows_deleted"], matching);
    assert_eq!(bench.matching().await, 1);
}

#[tokio::test]
async fn progress_of_other_arguments_is_not_resumed() {
    let bench = Bench::new(SESSIONS).await;
    done(run(&bench.handler(PURGE), "a").await);
    let left = bench.rows().await;
    let mut context = delivery("b");
    Arc::get_mut(&mut context.job).unwrap().args = json!({"days": -1}).as_object().unwrap().clone();
    assert_eq!(
        done(bench.handler(PURGE).run(&context).await)["rows_deleted"],
        left
    );
}

/// A trigger that makes each deleted row take this long.
fn slow(seconds: f64) -> String {
    format!(
        "{SESSIONS} delete from sessions where id > 1200;
         create function slow() returns trigger language plpgsql as
            $$ begin perform pg_sleep({seconds}); return old; end $$;
         create trigger slow before delete on sessions for each row execute function slow();"
    )
}

#[tokio::test]
async fn batches_that_time_out_shrink_until_they_fit() {
    let bench = Bench::new(&slow(0.001)).await;
    let matching = bench.matching().await;
    let purge = format!(
        "{PURGE}statement_timeout = \"300ms\"\nbatch = {{ target = \"100ms\", start = 1200, min = 1 }}"
    );
    let result = done(run(&bench.handler(&purge), "a").await);
    assert_eq!(result["rows_deleted"], matching);
    assert!(result["batches"].as_i64().unwrap() > 4, "{result}");
    assert_eq!(bench.matching().await, 0);
    let size = bench
        .number("select batch_rows::int8 from tidegate.batch_progress")
        .await;
    assert!(size < 300, "{size}");
}

#[tokio::test]
async fn a_batch_that_can_get_no_smaller_fails() {
    let bench = Bench::new(&slow(0.4)).await;
    let purge = format!(
        "{PURGE}statement_timeout = \"250ms\"\nbatch = {{ target = \"100ms\", start = 4, min = 2 }}"
    );
    let outcome = run(&bench.handler(&purge), "a").await;
    assert!(
        matches!(&outcome, Outcome::Failed(f) if f.blame.is_none()),
        "{outcome:?}"
    );
    let told = message(outcome);
    assert!(told.contains("57014"), "{told}");
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

#[tokio::test]
async fn a_server_that_dies_is_blamed_and_the_run_goes_on_after_it() {
    let scratch = tempfile::tempdir().unwrap();
    let options = PostgresOptions::new(scratch.path().join("postgres"));
    let mut postgres = PrivatePostgres::start(options).unwrap();
    postgres.create_database("app").unwrap();
    let url = postgres.url("app");
    let bench = Bench::at(url.clone(), SESSIONS).await;
    let matching = bench.matching().await;
    let section = format!("{PURGE}pause = \"20ms\"\nbatch = {{ start = 100, max = 100 }}");
    let handler = bench.handler(&section);
    let running = {
        let handler = Arc::clone(&handler);
        tokio::spawn(async move { run(&handler, "a").await })
    };
    bench.wait_progress("batches >= 3").await;
    postgres.kill9().unwrap();
    match running.await.unwrap() {
        Outcome::Failed(failure) => assert_eq!(failure.blame.unwrap().resource, "postgres:primary"),
        other => panic!("{other:?}"),
    }
    postgres.restart().unwrap();
    let sql = PgPool::connect(&url).await.unwrap();
    let bench = Bench { url, sql };
    assert_eq!(done(run(&handler, "b").await)["rows_deleted"], matching);
    assert_eq!(bench.matching().await, 0);
}

/// The database of [`purge_in_a_child`].
const CHILD_URL: &str = "PURGE_CHILD_URL";
/// Its token.
const CHILD_TOKEN: &str = "PURGE_CHILD_TOKEN";
/// What it runs: small batches, so that there are many moments at which to die.
const CHILD_BATCH: &str = "batch = { start = 1000, max = 2000 }";

#[tokio::test]
#[ignore = "the child of the test below, which starts and kills it"]
async fn purge_in_a_child() {
    let [url, token] = [CHILD_URL, CHILD_TOKEN].map(|name| std::env::var(name).unwrap());
    done(
        handler(&url, &format!("{PURGE}{CHILD_BATCH}"))
            .run(&delivery(&token))
            .await,
    );
}

#[tokio::test]
async fn a_run_of_300_000_rows_killed_at_random_deletes_exactly_the_right_rows() {
    const ROWS: i64 = 300_000;
    let bench = Bench::new(
        "create table sessions (
            id bigint generated always as identity primary key,
            created_at timestamptz not null, keep boolean not null default false, body text not null);
         insert into sessions (created_at, keep, body)
            select now() - random() * interval '20 days' - interval '31 days', false, repeat('x', 80)
            from generate_series(1, 300000) n;
         insert into sessions (created_at, keep, body)
            select now() - random() * interval '60 days', true, repeat('y', 80) from generate_series(1, 60000) n;
         create unique index on sessions (created_at, id);
         create table expected as select id from sessions where keep;
         analyze sessions;",
    )
    .await;
    assert_eq!(bench.matching().await, ROWS);
    let mut random = StdRng::seed_from_u64(20);
    let mut kills = 0;
    for run in 0..12 {
        let mut child = start_child(&bench.url, run);
        // Wherever it is once it has done some batches more: within one, between two, or at a commit.
        let deleted = bench
            .number("select coalesce(max(rows_done), 0) from tidegate.batch_progress")
            .await;
        let goal = deleted + random.random_range(2_000..30_000);
        let reached = format!(
            "select count(*) from tidegate.batch_progress where rows_done >= {goal} or finished_at is not null"
        );
        wait_until("some batches", DEADLINE, || async {
            bench.number(&reached).await > 0
        })
        .await;
        tokio::time::sleep(Duration::from_micros(random.random_range(0..20_000))).await;
        child.start_kill().unwrap();
        let status = child.wait().await.unwrap();
        kills += u32::from(!status.success());
    }
    assert!(
        kills >= 8,
        "only {kills} of 12 were killed before their end"
    );
    let result = done(run(&bench.handler(&format!("{PURGE}{CHILD_BATCH}")), "last").await);
    assert_eq!(result["rows_deleted"], ROWS);
    assert_eq!(bench.matching().await, 0);
    assert_eq!(bench.rows().await, 60_000);
    let lost = "select count(*) from expected left join sessions s using (id) where s.id is null";
    assert_eq!(bench.number(lost).await, 0);
}

fn start_child(url: &str, run: u32) -> tokio::process::Child {
    tokio::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "purge::purge_in_a_child",
            "--exact",
            "--ignored",
            "--nocapture",
        ])
        .env(CHILD_URL, url)
        .env(CHILD_TOKEN, format!("child-{run}"))
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}
