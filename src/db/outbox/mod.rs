//! The table `tidegate.outbox` as a relay sees it: lock the oldest rows, delete what was sent, commit.
//!
//! Owns the SQL and the order of the steps. A row is deleted by the transaction that locked it, so whoever dies before
//! the commit leaves it where it was. Must not know what becomes of a row elsewhere. What operators do is in
//! [`inspect`].

pub mod inspect;

use super::{Database, DbError, Transaction, TxOptions, keyset, schema_version, within};
use crate::clock;
use crate::job::history::cut;
use sqlx::Executor;
use std::time::Duration;

/// The channel on which an insert is told.
pub const CHANNEL: &str = "tidegate_outbox";
/// The version of the schema that has the table.
pub const SCHEMA: i64 = 2;
/// The longest reason kept with a row, bytes.
const REASON_BYTES: usize = 1_000;

/// What one step takes at most.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Rows.
    pub rows: u32,
    /// Bytes of them in all; the first row is always taken.
    pub bytes: u32,
    /// Bytes of one row, beyond which its arguments and options are left where they are.
    pub row_bytes: u32,
}

/// A job as an app inserted it.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Row {
    /// Its place in the order.
    pub seq: i64,
    /// The kind.
    pub kind: String,
    /// The queue it goes to.
    pub queue: String,
    /// The app's id, or the row's own.
    pub id: String,
    /// The class of priority, if one is given.
    pub priority: Option<String>,
    /// The arguments as JSON; none if the row is too large.
    pub args: Option<String>,
    /// Further fields of the envelope as JSON.
    pub options: Option<String>,
    /// Bytes of the row.
    pub bytes: i64,
    /// Not before this time, ms since the epoch; may be infinite.
    pub run_at_ms: Option<f64>,
    /// Not before this long after `created_ms`, ms; may be infinite.
    pub delay_ms: Option<f64>,
    /// When it was inserted, ms since the epoch.
    pub created_ms: f64,
}

/// Rows that are locked, and the transaction that holds them. Dropped, it leaves them as they were.
pub struct Batch {
    tx: Transaction,
    deadline: Duration,
    /// The rows, the oldest first. Never empty.
    pub rows: Vec<Row>,
    /// Whether there may be more than these.
    pub more: bool,
}

/// $1: rows, $2: bytes in all, $3: bytes of one row, $4: queues whose rows stay. Nothing in it can fail because of what stands in a row.
const TAKE: &str = "
    with locked as (
        select seq, kind, queue, coalesce(id, uid::text) as id, priority, args::text as args,
               options::text as options, run_at, delay, created_at
        from tidegate.outbox where error is null and queue <> all($4) order by seq limit $1 for update skip locked
    ), sized as (
        select *, octet_length(args) + coalesce(octet_length(options), 0) + octet_length(kind) as size from locked
    ), summed as (
        select *, sum(least(size, $3)) over (order by seq) - least(size, $3) as before from sized
    )
    select seq, kind, queue, id, priority,
           case when size <= $3 then args end as args,
           case when size <= $3 then options end as options,
           size::int8 as bytes,
           (extract(epoch from run_at) * 1000)::float8 as run_at_ms,
           (extract(epoch from delay) * 1000)::float8 as delay_ms,
           (extract(epoch from created_at) * 1000)::float8 as created_ms,
           (select count(*) from locked) as locked
    from summed where before < $2 order by seq";

#[derive(sqlx::FromRow)]
struct Taken {
    #[sqlx(flatten)]
    row: Row,
    locked: i64,
}

/// Makes sure that the table is there.
///
/// # Errors
/// It is not, or the server failed.
pub async fn require(database: &Database) -> Result<(), DbError> {
    match schema_version(database).await? {
        Some(version) if version >= SCHEMA => Ok(()),
        _ => Err(DbError::SchemaMissing { needed: SCHEMA }),
    }
}

impl Batch {
    /// Locks the oldest rows that nobody else has locked, but for those of some queues; none if there are none.
    ///
    /// # Errors
    /// No connection, the table is not there, or the server failed.
    pub async fn take(
        database: &Database,
        bounds: Bounds,
        not_for: &[String],
    ) -> Result<Option<Self>, DbError> {
        let deadline = database.statement_timeout();
        let mut tx = database
            .begin(TxOptions {
                read_only: false,
                statement_timeout: deadline,
                lock_timeout: deadline,
            })
            .await?;
        let start = clock::monotonic();
        let found: Vec<Taken> = within(deadline, async {
            tx.execute(keyset::ORDERED).await?;
            Ok(sqlx::query_as(TAKE)
                .bind(i64::from(bounds.rows))
                .bind(i64::from(bounds.bytes))
                .bind(i64::from(bounds.row_bytes))
                .bind(not_for)
                .fetch_all(&mut *tx)
                .await?)
        })
        .await?;
        let took = clock::since(start);
        database.pace().note(TAKE, found.len() as u64, took);
        let Some(locked) = found.first().map(|first| first.locked) else {
            return Ok(None);
        };
        let more = locked >= i64::from(bounds.rows) || locked > found.len() as i64;
        let rows = found.into_iter().map(|taken| taken.row).collect();
        Ok(Some(Self {
            tx,
            deadline,
            rows,
            more,
        }))
    }

    /// Deletes the rows that were sent and notes why others never can be. Nothing counts before [`Batch::commit`].
    ///
    /// # Errors
    /// The server failed, or has ended the transaction meanwhile.
    pub async fn finish(
        &mut self,
        sent: &[i64],
        rejected: &[(i64, String)],
    ) -> Result<(), DbError> {
        within(self.deadline, async {
            if !sent.is_empty() {
                sqlx::query("delete from tidegate.outbox where seq = any($1)")
                    .bind(sent)
                    .execute(&mut *self.tx)
                    .await?;
            }
            if !rejected.is_empty() {
                let (seqs, reasons): (Vec<i64>, Vec<String>) = rejected
                    .iter()
                    // Postgres takes no NUL in a text.
                    .map(|(seq, reason)| {
                        (
                            *seq,
                            cut(&reason.replace('\0', ""), REASON_BYTES).to_owned(),
                        )
                    })
                    .unzip();
                sqlx::query(
                    "update tidegate.outbox o set error = r.reason, failed_at = now() \
                     from unnest($1::int8[], $2::text[]) as r (seq, reason) where o.seq = r.seq",
                )
                .bind(seqs)
                .bind(reasons)
                .execute(&mut *self.tx)
                .await?;
            }
            Ok(())
        })
        .await
    }

    /// Makes it so.
    ///
    /// # Errors
    /// The server failed: then it is not known whether the rows are gone, and those that are not come again.
    pub async fn commit(self) -> Result<(), DbError> {
        within(self.deadline, async { Ok(self.tx.commit().await?) }).await
    }
}
