//! The database of batch jobs: a daemon that comes back to it as a zombie, and what happens to the server itself.

use super::killed::{held_by, recovered};
use crate::bed::{Bed, DEADLINE, Setup};
use crate::invariants::{Terms, check};
use crate::row::{Broken, Failure, Outcome, Row, fired};
use crate::support::{self, wait_until};
use rustix::process::Signal;
use sqlx::PgPool;
use std::time::{Duration, Instant};
use tidegate::stack::{PostgresOptions, PrivatePostgres, Scratch};

/// What recovery may take beyond the lease.
const RECOVERY: Duration = Duration::from_secs(5);
/// Rows of the table, half of them to be deleted.
const ROWS: i64 = 20_000;

pub const ZOMBIE: Row = Row {
    number: 4,
    name: "zombie_in_postgres",
    fault: "a daemon stopped in the midst of batches in Postgres, then woken",
    trial: |seed| Box::pin(zombie(seed)),
};

pub const SERVER: Row = Row {
    number: 21,
    name: "postgres",
    fault: "Postgres killed and started again, its backends terminated, or the table locked",
    trial: |seed| Box::pin(server(seed)),
};

/// A table with rows to delete, and a note of every row that was.
const SCHEMA: &str = "
    create table things (id bigint primary key, old boolean not null);
    insert into things select n, n % 2 = 0 from generate_series(1, 20000) n;
    create table deleted (id bigint);
    create function note() returns trigger language plpgsql as
      $$ begin insert into deleted values (old.id); return old; end $$;
    create trigger note after delete on things for each row execute function note();
    analyze things;";

/// Small batches, so that there are many to hit.
const PURGE: &str = r#"
kind = "db.purge_things"
handler = "db.purge"
[retry]
max_attempts = 50
strategy = "fixed"
base = "200ms"
[db.purge]
table = "public.things"
key = ["id"]
where = "old"
pause = "2ms"
batch = { target = "10ms", start = 100, min = 100, max = 200 }
"#;

/// A bed with this database, and one daemon that deletes in it. Answers with its incarnation.
async fn purging(seed: u64, database: &str) -> (Bed, PgPool, String) {
    let pool = PgPool::connect(database).await.unwrap();
    sqlx::raw_sql(SCHEMA).execute(&pool).await.unwrap();
    let setup = Setup {
        more: format!("[database]\nurl = \"{database}\"\n"),
        ..Setup::default()
    };
    let mut bed = Bed::new(seed, setup).await;
    bed.site.write_job("purge.toml", PURGE);
    let mut migrate = bed.program.command();
    migrate
        .args(["migrate", "--config"])
        .arg(bed.site.path("tidegate.toml"));
    let migrated = migrate.output().unwrap();
    assert!(migrated.status.success(), "{migrated:?}");
    bed.start("a").await;
    let incarnation = bed.only_incarnation().await;
    let job = r#"{"kind":"db.purge_things","id":"purge"}"#.to_owned();
    bed.site.push(&[job]).await;
    bed.begin();
    let gone = bed.length(Duration::from_millis(500), Duration::from_secs(6));
    let gone = gone.as_millis() as i64;
    wait_until("rows go", DEADLINE, || async {
        count(&pool, "select count(*) from deleted").await > gone
    })
    .await;
    (bed, pool, incarnation)
}

async fn zombie(seed: u64) -> Outcome {
    let database = tokio::task::spawn_blocking(support::fresh_database);
    let (mut bed, pool, victim) = purging(seed, &database.await.unwrap()).await;
    bed.daemon("a").signal(Signal::STOP);
    let since = Instant::now();
    let held = held_by(&bed, &victim).await;
    fired(held.contains_key("purge"), "the purge was over")?;
    bed.start("b").await;
    let recovery = recovered(&bed, &held, since, bed.lease + RECOVERY).await?;
    bed.daemon("a").signal(Signal::CONT);
    bed.daemon("a").wait_for_event("lease_lost").await;
    let terms = Terms {
        leases_expire: true,
        attempts_fail: true,
        strangers: &["purge"],
        ..Terms::default()
    };
    let verdict = check(&mut bed, terms, Some(recovery)).await?;
    right_rows_are_gone(&pool).await?;
    Ok(verdict)
}

/// A server of its own: the others need theirs.
fn private() -> (Scratch, PrivatePostgres) {
    let scratch = Scratch::new().unwrap();
    let options = PostgresOptions::new(scratch.path().join("postgres"));
    let postgres = PrivatePostgres::start(options).unwrap();
    postgres.create_database("faults").unwrap();
    (scratch, postgres)
}

async fn server(seed: u64) -> Outcome {
    // The folder goes after the server.
    let (_scratch, mut postgres) = tokio::task::spawn_blocking(private).await.unwrap();
    let (mut bed, pool, incarnation) = purging(seed, &postgres.url("faults")).await;
    let held = held_by(&bed, &incarnation).await;
    fired(held.contains_key("purge"), "the purge was over")?;
    let length = bed.length(Duration::from_millis(100), Duration::from_secs(1));
    match seed % 3 {
        0 => {
            tokio::task::block_in_place(|| postgres.kill9()).unwrap();
            tokio::time::sleep(length).await;
            tokio::task::block_in_place(|| postgres.restart()).unwrap();
        }
        1 => {
            let ended = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                          where pid <> pg_backend_pid() and backend_type = 'client backend'";
            fired(count(&pool, ended).await > 0, "no backend was there")?;
        }
        _ => {
            let mut locking = pool.begin().await.unwrap();
            let lock = "lock table things in access exclusive mode";
            sqlx::raw_sql(lock).execute(&mut *locking).await.unwrap();
            tokio::time::sleep(length).await;
            locking.rollback().await.unwrap();
        }
    }
    let terms = Terms {
        attempts_fail: true,
        strangers: &["purge"],
        ..Terms::default()
    };
    let verdict = check(&mut bed, terms, None).await?;
    right_rows_are_gone(&pool).await?;
    Ok(verdict)
}

/// Every old row, each once, and no other; and the progress says so.
async fn right_rows_are_gone(pool: &PgPool) -> Result<(), Failure> {
    let found = [
        count(pool, "select count(*) from things where not old").await,
        count(pool, "select count(*) from things where old").await,
        count(
            pool,
            "select count(distinct id) from deleted where id % 2 = 0",
        )
        .await,
        count(pool, "select count(*) from deleted").await,
        count(
            pool,
            "select rows_done from tidegate.batch_progress where job_id = 'purge'",
        )
        .await,
    ];
    if found == [ROWS / 2, 0, ROWS / 2, ROWS / 2, ROWS / 2] {
        return Ok(());
    }
    let told =
        format!("rows that stay, rows to delete, rows deleted, deletions, rows counted: {found:?}");
    Err(Broken::new(told).into())
}

/// Asks again while the server has just come back.
async fn count(pool: &PgPool, sql: &'static str) -> i64 {
    let began = Instant::now();
    loop {
        match sqlx::query_scalar(sql).fetch_one(pool).await {
            Ok(found) => return found,
            Err(e) => assert!(began.elapsed() < DEADLINE, "{sql}: {e}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
