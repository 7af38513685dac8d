//! The row in which a batch job keeps its progress, and the fence that lets one delivery at a time change it.
//!
//! Every batch takes the row's lock first and finds its own token there, or changes nothing. A newer delivery writes its
//! token and so waits for a batch under way; from then on the older delivery is refused.

use super::ranges::{Key, Range, Ranges};
use super::{DbError, millis};
use sqlx::PgConnection;
use sqlx::types::Json;
use std::collections::VecDeque;
use std::time::Duration;

/// The run a delivery belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    /// The job's queue.
    pub queue: &'a str,
    /// The job's id within it.
    pub job_id: &'a str,
    /// The token of this delivery.
    pub token: &'a str,
    /// How long a finished run is known as finished. Later the same id may be another job's.
    pub remembered: Duration,
}

/// Progress as it stands in the database.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    pub ranges: Ranges,
    pub rows_done: u64,
    pub batches: u64,
    /// Batch size reached.
    pub batch_rows: u32,
    /// Whether an earlier delivery finished the run.
    pub finished: bool,
    /// From the start of the first delivery to the end, or until now.
    pub seconds: f64,
}

type Stored = (
    Json<VecDeque<Range>>,
    Json<Vec<Range>>,
    i64,
    i64,
    i32,
    bool,
    f64,
);

/// Makes this delivery the one that may commit, and returns what earlier ones have done. Progress of other SQL or
/// other arguments (`fingerprint`), and that of a run finished longer ago than `remembered`, is forgotten first.
///
/// `last` is the key at which a new run ends.
pub(super) async fn take_over(
    connection: &mut PgConnection,
    delivery: &Delivery<'_>,
    fingerprint: &str,
    last: Option<Key>,
    batch_rows: u32,
) -> Result<Progress, DbError> {
    sqlx::query(
        "delete from tidegate.batch_progress where queue = $1 and job_id = $2 \
         and (fingerprint <> $3 or finished_at < now() - $4 * interval '1 ms')",
    )
    .bind(delivery.queue)
    .bind(delivery.job_id)
    .bind(fingerprint)
    .bind(millis(delivery.remembered))
    .execute(&mut *connection)
    .await?;
    let stored: Stored = sqlx::query_as(
        "insert into tidegate.batch_progress as p (queue, job_id, fingerprint, token, todo, batch_rows) \
         values ($1, $2, $3, $4, $5, $6) \
         on conflict (queue, job_id) do update set token = excluded.token, updated_at = now() \
         returning todo, skipped, rows_done, batches, batch_rows, finished_at is not null, \
                   extract(epoch from coalesce(finished_at, now()) - started_at)::float8",
    )
    .bind(delivery.queue)
    .bind(delivery.job_id)
    .bind(fingerprint)
    .bind(delivery.token)
    .bind(Json(Ranges::upto(last).todo))
    .bind(signed(batch_rows))
    .fetch_one(connection)
    .await?;
    let (todo, skipped, rows_done, batches, batch_rows, finished, seconds) = stored;
    Ok(Progress {
        ranges: Ranges {
            todo: todo.0,
            skipped: skipped.0,
        },
        rows_done: rows_done.unsigned_abs(),
        batches: batches.unsigned_abs(),
        batch_rows: batch_rows.unsigned_abs(),
        finished,
        seconds,
    })
}

/// Takes the row's lock until the end of the transaction. False: another delivery has taken over, or is about to.
pub(super) async fn lock(
    connection: &mut PgConnection,
    delivery: &Delivery<'_>,
) -> Result<bool, DbError> {
    let token: Result<Option<String>, DbError> = sqlx::query_scalar(
        "select token from tidegate.batch_progress where queue = $1 and job_id = $2 for update",
    )
    .bind(delivery.queue)
    .bind(delivery.job_id)
    .fetch_optional(connection)
    .await
    .map_err(DbError::from);
    match token {
        Ok(token) => Ok(token.as_deref() == Some(delivery.token)),
        // Only another delivery of this job ever locks this row.
        Err(DbError::LockNotAvailable(_)) => Ok(false),
        Err(other) => Err(other),
    }
}

/// Writes progress. The caller holds the row's lock.
pub(super) async fn save(
    connection: &mut PgConnection,
    delivery: &Delivery<'_>,
    progress: &Progress,
) -> Result<(), DbError> {
    sqlx::query(
        "update tidegate.batch_progress set todo = $3, skipped = $4, rows_done = $5, batches = $6, \
         batch_rows = $7, updated_at = now() where queue = $1 and job_id = $2",
    )
    .bind(delivery.queue)
    .bind(delivery.job_id)
    .bind(Json(&progress.ranges.todo))
    .bind(Json(&progress.ranges.skipped))
    .bind(i64::try_from(progress.rows_done).unwrap_or(i64::MAX))
    .bind(i64::try_from(progress.batches).unwrap_or(i64::MAX))
    .bind(signed(progress.batch_rows))
    .execute(connection)
    .await?;
    Ok(())
}

/// Marks the run as finished and forgets some runs of long ago. Returns how long it took, in seconds. The caller holds
/// the row's lock.
pub(super) async fn finish(
    connection: &mut PgConnection,
    delivery: &Delivery<'_>,
) -> Result<f64, DbError> {
    let seconds = sqlx::query_scalar(
        "update tidegate.batch_progress set finished_at = now(), updated_at = now() \
         where queue = $1 and job_id = $2 \
         returning extract(epoch from now() - started_at)::float8",
    )
    .bind(delivery.queue)
    .bind(delivery.job_id)
    .fetch_one(&mut *connection)
    .await?;
    forget_old(connection).await?;
    Ok(seconds)
}

/// Forgets runs finished a week ago (a job delivered again after that simply runs again) and those given up 90 days ago,
/// as long as a dead job is kept by default. A hundred at a time, so that no run pays for all of them.
async fn forget_old(connection: &mut PgConnection) -> Result<(), DbError> {
    sqlx::query(
        "delete from tidegate.batch_progress where (queue, job_id) in (\
           select queue, job_id from tidegate.batch_progress \
           where updated_at < now() - interval '7 days' \
             and (finished_at is not null or updated_at < now() - interval '90 days') \
           order by updated_at limit 100 for update skip locked)",
    )
    .execute(connection)
    .await?;
    Ok(())
}

fn signed(rows: u32) -> i32 {
    i32::try_from(rows).unwrap_or(i32::MAX)
}
