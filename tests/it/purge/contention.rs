//! Purges of tables in use: locked rows, rows that change meanwhile, a locked table, a slow server.

use super::{Bench, PURGE, SESSIONS, done, message, run};
use crate::support::{DEADLINE, wait_until};
use std::sync::Arc;
use tidegate::job::Outcome;

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
    // The first size timed out; how far below it the last one stands is the machine's affair.
    assert!(size <= 600, "{size}");
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
