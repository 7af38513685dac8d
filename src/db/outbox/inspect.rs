//! The outbox as operators see it: what waits, what can never be sent, and another chance or the end for the latter.

use super::CHANNEL;
use crate::db::{Database, DbError, within};
use sqlx::PgConnection;

/// How far rows are counted: a table that lags behind is large, and the exact number tells no more.
pub const COUNT_MAX: i64 = 10_000;
/// Rows changed in one transaction.
pub const CHANGE_MAX: i64 = 1_000;

/// The table in numbers.
#[derive(Debug, Clone, Copy, PartialEq, sqlx::FromRow)]
pub struct Standing {
    /// Rows that wait, counted up to [`COUNT_MAX`].
    pub waiting: i64,
    /// Rows that can't be sent, counted up to [`COUNT_MAX`].
    pub rejected: i64,
    /// The age of the oldest row that waits, ms; 0 if none does.
    pub lag_ms: f64,
}

/// Which rows are meant.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only of this kind.
    pub kind: Option<String>,
    /// Only for this queue.
    pub queue: Option<String>,
    /// Only rows that can't be sent.
    pub rejected: bool,
}

/// A row without its payload.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Listed {
    /// Its number.
    pub seq: i64,
    /// The id of its job.
    pub id: String,
    /// The kind.
    pub kind: String,
    /// The queue.
    pub queue: String,
    /// Its age, ms.
    pub age_ms: f64,
    /// Why it can't be sent; none if it waits.
    pub error: Option<String>,
}

/// What is done with rows that can't be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// They wait again.
    Retry,
    /// They are removed for good.
    Purge,
}

/// Counts the table.
///
/// # Errors
/// No connection, the table is not there, or the server failed.
pub async fn standing(database: &Database) -> Result<Standing, DbError> {
    let mut connection = database.acquire().await?;
    within(database.statement_timeout(), async {
        Ok(sqlx::query_as(
            "select (select count(*) from (select from tidegate.outbox where error is null limit $1) w) as waiting,
                    (select count(*) from (select from tidegate.outbox where error is not null limit $1) r) as rejected,
                    coalesce((select (extract(epoch from clock_timestamp() - created_at) * 1000)::float8
                              from tidegate.outbox where error is null order by seq limit 1), 0) as lag_ms",
        )
        .bind(COUNT_MAX)
        .fetch_one(&mut *connection)
        .await?)
    })
    .await
}

/// Lists rows, the oldest first.
///
/// # Errors
/// As [`standing`].
pub async fn list(
    database: &Database,
    filter: &Filter,
    limit: i64,
) -> Result<Vec<Listed>, DbError> {
    let mut connection = database.acquire().await?;
    within(database.statement_timeout(), async {
        Ok(sqlx::query_as(
            "select seq, coalesce(id, uid::text) as id, kind, queue,
                    (extract(epoch from clock_timestamp() - created_at) * 1000)::float8 as age_ms, error
             from tidegate.outbox
             where ($1::text is null or kind = $1) and ($2::text is null or queue = $2)
                   and (not $3 or error is not null)
             order by seq limit $4",
        )
        .bind(&filter.kind)
        .bind(&filter.queue)
        .bind(filter.rejected)
        .bind(limit)
        .fetch_all(&mut *connection)
        .await?)
    })
    .await
}

/// The row of a job, if it has not been relayed.
///
/// # Errors
/// As [`standing`].
pub async fn find(database: &Database, id: &str) -> Result<Option<Listed>, DbError> {
    let mut connection = database.acquire().await?;
    within(database.statement_timeout(), async {
        Ok(sqlx::query_as(
            "select seq, coalesce(id, uid::text) as id, kind, queue,
                    (extract(epoch from clock_timestamp() - created_at) * 1000)::float8 as age_ms, error
             from tidegate.outbox where coalesce(id, uid::text) = $1 order by seq limit 1",
        )
        .bind(id)
        .fetch_optional(&mut *connection)
        .await?)
    })
    .await
}

/// Inserts so many rows of one kind at once, as a measurement needs them.
///
/// # Errors
/// As [`standing`]; there is no time limit.
pub async fn fill(database: &Database, kind: &str, rows: u64) -> Result<(), DbError> {
    let mut connection = database.acquire().await?;
    sqlx::query(
        "insert into tidegate.outbox (kind, args) select $1, jsonb_build_object('n', n) from generate_series(1, $2) n",
    )
    .bind(kind)
    .bind(i64::try_from(rows).unwrap_or(i64::MAX))
    .execute(&mut *connection)
    .await?;
    Ok(())
}

/// Changes those of these rows that can't be sent; says how many there were.
///
/// # Errors
/// As [`standing`].
pub async fn change(database: &Database, change: Change, seqs: &[i64]) -> Result<u64, DbError> {
    let mut connection = database.acquire().await?;
    within(database.statement_timeout(), async {
        change_on(&mut connection, change, seqs).await
    })
    .await
}

async fn change_on(
    connection: &mut PgConnection,
    change: Change,
    seqs: &[i64],
) -> Result<u64, DbError> {
    let sql = match change {
        Change::Retry => {
            "update tidegate.outbox set error = null, failed_at = null where seq = any($1) and error is not null"
        }
        Change::Purge => "delete from tidegate.outbox where seq = any($1) and error is not null",
    };
    let mut changed = 0;
    for some in seqs.chunks(CHANGE_MAX as usize) {
        let done = sqlx::query(sql)
            .bind(some)
            .execute(&mut *connection)
            .await?;
        changed += done.rows_affected();
    }
    if change == Change::Retry {
        sqlx::query("select pg_notify($1, '')")
            .bind(CHANNEL)
            .execute(&mut *connection)
            .await?;
    }
    Ok(changed)
}

/// Changes all rows that can't be sent and that the filter leaves; says how many there were. Those that fail again
/// meanwhile are not met twice.
///
/// # Errors
/// As [`standing`].
pub async fn change_all(
    database: &Database,
    change: Change,
    filter: &Filter,
) -> Result<u64, DbError> {
    let (mut changed, mut after) = (0, 0_i64);
    loop {
        let mut connection = database.acquire().await?;
        let some: Vec<i64> = within(database.statement_timeout(), async {
            Ok(sqlx::query_scalar(
                "select seq from tidegate.outbox
                 where error is not null and seq > $1 and ($2::text is null or kind = $2)
                       and ($3::text is null or queue = $3)
                 order by seq limit $4",
            )
            .bind(after)
            .bind(&filter.kind)
            .bind(&filter.queue)
            .bind(CHANGE_MAX)
            .fetch_all(&mut *connection)
            .await?)
        })
        .await?;
        let Some(last) = some.last() else {
            return Ok(changed);
        };
        after = *last;
        changed += within(database.statement_timeout(), async {
            change_on(&mut connection, change, &some).await
        })
        .await?;
    }
}
