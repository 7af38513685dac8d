//! One batch: its boundary, its rows and its progress, in one transaction.

use super::Purge;
use crate::clock;
use crate::db::keyset::{Keyset, ORDERED};
use crate::db::progress::{self, Delivery, Progress};
use crate::db::ranges::Range;
use crate::db::{Database, DbError, Param, Transaction, bind, within};
use sqlx::postgres::PgArguments;
use sqlx::{AssertSqlSafe, Executor, PgConnection};
use std::time::Duration;

/// What all batches of a delivery share.
pub(super) struct Batch<'a> {
    pub purge: &'a Purge,
    pub database: &'a Database,
    pub delivery: &'a Delivery<'a>,
    pub keyset: &'a Keyset,
    pub params: &'a [Param],
}

/// What to do about rows locked by others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Locked {
    /// Wait for them up to the lock timeout: the fast way, and almost always right.
    Wait,
    /// Leave them: the way after that timeout.
    Skip,
}

/// A committed batch.
pub(super) struct Done {
    pub progress: Progress,
    /// Rows the batch covered; fewer than asked at the end of a range.
    pub rows: u32,
    /// What the server took for it, without the wait for a connection or for the fence.
    pub server_time: Duration,
}

/// Why a batch changed nothing.
pub(super) enum BatchError {
    /// Another delivery of the job has taken over.
    Superseded,
    Db(DbError),
}

impl From<DbError> for BatchError {
    fn from(error: DbError) -> Self {
        Self::Db(error)
    }
}

impl From<sqlx::Error> for BatchError {
    fn from(error: sqlx::Error) -> Self {
        Self::Db(error.into())
    }
}

impl Batch<'_> {
    /// Deletes the matching rows among the next `rows` rows of the first range to do.
    pub(super) async fn run(
        &self,
        progress: &Progress,
        rows: u32,
        locked: Locked,
    ) -> Result<Done, BatchError> {
        let Some(range) = progress.ranges.todo.front() else {
            return Err(DbError::Driver("a batch needs a range".to_owned()).into());
        };
        let mut transaction = self.begin().await?;
        let start = clock::monotonic();
        let (end, deleted, left_rows) = self
            .timed(async {
                let end = self.keyset.boundary(&mut transaction, range, rows).await?;
                let upto = end.as_ref().unwrap_or(&range.upto).clone();
                let part = Range {
                    after: range.after.clone(),
                    upto,
                };
                let (deleted, left_rows) = self.delete(&mut transaction, &part, locked).await?;
                Ok((end, deleted, left_rows))
            })
            .await?;
        let server_time = clock::monotonic() - start;
        let table = self.purge.table.to_string();
        let touched = if end.is_some() {
            u64::from(rows)
        } else {
            deleted
        };
        self.database.pace().note(&table, touched, server_time);
        let covered = if end.is_some() { rows } else { 0 };
        let mut progress = progress.clone();
        progress
            .ranges
            .advance(end, left_rows)
            .map_err(DbError::Driver)?;
        progress.rows_done += deleted;
        progress.batches += 1;
        self.timed(async {
            progress::save(&mut transaction, self.delivery, &progress).await?;
            Ok(transaction.commit().await?)
        })
        .await?;
        Ok(Done {
            progress,
            rows: covered,
            server_time,
        })
    }

    /// Marks the run as finished. Returns how long all of it took, in seconds.
    pub(super) async fn finish(&self) -> Result<f64, super::Halt> {
        let mut transaction = self.begin().await.map_err(|e| match e {
            BatchError::Superseded => super::Halt::Superseded,
            BatchError::Db(error) => super::Halt::Db(error),
        })?;
        let seconds = self
            .timed(async {
                let seconds = progress::finish(&mut transaction, self.delivery).await?;
                transaction.commit().await?;
                Ok(seconds)
            })
            .await?;
        Ok(seconds)
    }

    /// A transaction that holds the fence.
    async fn begin(&self) -> Result<Transaction, BatchError> {
        let mut transaction = self.database.begin(self.purge.options(false)).await?;
        let ours = self
            .timed(async {
                transaction.execute(ORDERED).await?;
                progress::lock(&mut transaction, self.delivery).await
            })
            .await?;
        if ours {
            Ok(transaction)
        } else {
            Err(BatchError::Superseded)
        }
    }

    /// Deletes what matches in a range. Returns how many rows, and whether matching rows are left.
    async fn delete(
        &self,
        connection: &mut PgConnection,
        part: &Range,
        locked: Locked,
    ) -> Result<(u64, bool), DbError> {
        let condition = self.purge.condition(self.keyset, part, self.params.len());
        let table = &self.purge.table;
        if locked == Locked::Wait {
            let sql = format!("delete from {table} where {condition}");
            let done = sqlx::query_with(AssertSqlSafe(sql), self.arguments(part)?);
            return Ok((done.execute(connection).await?.rows_affected(), false));
        }
        // The condition stands twice: a row that left it before it was locked must stay.
        let sql = format!(
            "with free as materialized (select ctid from {table} where {condition} order by {} \
             for update skip locked) \
             delete from {table} where ctid = any (array(select ctid from free)) and {condition}",
            self.keyset.columns(),
        );
        let done = sqlx::query_with(AssertSqlSafe(sql), self.arguments(part)?)
            .execute(&mut *connection)
            .await?;
        let left = format!("select exists (select from {table} where {condition})");
        let left_rows = sqlx::query_scalar_with(AssertSqlSafe(left), self.arguments(part)?)
            .fetch_one(connection)
            .await?;
        Ok((done.rows_affected(), left_rows))
    }

    fn arguments(&self, part: &Range) -> Result<PgArguments, DbError> {
        bind::arguments(&[self.params, &part.params()].concat())
    }

    /// Up to three statements, each with its own limit on the server.
    async fn timed<T>(
        &self,
        work: impl Future<Output = Result<T, DbError>> + Send,
    ) -> Result<T, DbError> {
        within(3 * self.purge.statement_timeout, work).await
    }
}

impl Purge {
    /// The condition of the rows to delete in a range; the range's keys are bound after `params` arguments.
    pub(super) fn condition(&self, keyset: &Keyset, part: &Range, params: usize) -> String {
        // The line break ends a comment the predicate may end with.
        format!(
            "{} and ({}\n)",
            keyset.within(part, params + 1),
            self.predicate
        )
    }
}
