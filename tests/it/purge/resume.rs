//! Purges that end early: stopped, taken over, killed, or left alone by their server. The next delivery goes on.

use super::{Bench, PURGE, SESSIONS, delivery, delivery_of, done, handler, run};
use crate::support::{DEADLINE, wait_until};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;
use sqlx::PgPool;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tidegate::handlers::Context;
use tidegate::handlers::progress::Board;
use tidegate::job::Outcome;
use tidegate::stack::{PostgresOptions, PrivatePostgres};

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
    let board = Arc::new(Board::default());
    let context = delivery("a");
    let stop = context.stop.clone();
    let context = Context::new(context.job, context.stop, Arc::clone(&board));
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
    let told = board.take_news().remove(0).progress;
    assert_eq!(told.counters["rows_deleted"], deleted);
    assert!(told.counters["batches"] >= 3, "{told:?}");
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
    let context = delivery_of("b", json!({"days": -1}));
    assert_eq!(
        done(bench.handler(PURGE).run(&context).await)["rows_deleted"],
        left
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
            "purge::resume::purge_in_a_child",
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
