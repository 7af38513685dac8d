//! Deleting many rows of a live table: in batches, each small enough that nobody else notices.
//!
//! A run walks a unique key from the first row to the key that was last when it began. Each batch finds the key some
//! rows further on, deletes the rows of that range *that still match the predicate*, and moves its progress on in the
//! same transaction: a killed run has lost and repeated nothing. Rows locked by others are left for a later pass.
//! Batches follow the time the server takes for them.

mod batch;
mod preview;

use super::keyset::{KeyError, Keyset, MAX_COLUMNS, ORDERED};
use super::name::{Ident, TableName};
use super::progress::{self, Delivery, Progress};
use super::{Database, DbError, IDLE_IN_TRANSACTION, Param, TxOptions, limit_waits, migrate};
use crate::clock;
use crate::policy::batch::BatchSizer;
use batch::{Batch, BatchError, Locked};
use futures::future::BoxFuture;
use serde::Serialize;
use sha2::{Digest, Sha256};
use sqlx::Executor;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often a batch of the smallest size may run into the statement timeout before the run fails.
const TIMEOUTS_AT_MIN: u32 = 3;
/// How often in a row a batch may lose against another transaction.
const CONFLICTS: u32 = 5;
/// How often the ranges with rows locked by others are gone through again ...
const LOCKED_PASSES: u32 = 3;
/// ... and how long it waits before each time.
const LOCKED_PAUSE: Duration = Duration::from_secs(1);

/// Which rows to delete and how gently.
#[derive(Debug, Clone)]
pub struct Purge {
    /// The table.
    pub table: TableName,
    /// The columns of a unique key, in the order of the walk.
    pub key: Vec<Ident>,
    /// The condition a row must meet, from the definition, with `$1`, `$2`, ... for the arguments.
    pub predicate: String,
    /// Server time aimed at per batch.
    pub target: Duration,
    /// Rows in the first batch.
    pub start: u32,
    /// Fewest rows of a batch.
    pub min: u32,
    /// Most rows of a batch.
    pub max: u32,
    /// How long a batch waits for a lock before it goes on without the locked rows.
    pub lock_timeout: Duration,
    /// Longest single statement.
    pub statement_timeout: Duration,
    /// Rest between two batches.
    pub pause: Duration,
    /// The run ends once it has deleted this many rows.
    pub max_rows: Option<u64>,
    /// Whether to go on when no index serves the key.
    pub allow_no_index: bool,
}

/// What a run did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PurgeReport {
    /// Rows deleted, by all deliveries of the job together.
    pub rows_deleted: u64,
    /// Batches committed.
    pub batches: u64,
    /// From the first delivery's start to the end.
    pub seconds: f64,
    /// Whether it ended at `max_rows`.
    pub capped: bool,
}

/// How a run is watched while it goes on.
pub struct Watch<'a> {
    /// Cancelled when it should stop soon.
    pub stop: &'a CancellationToken,
    /// Hears of each committed batch: rows deleted and batches so far, by all deliveries of the job together.
    pub on_batch: &'a (dyn Fn(u64, u64) + Sync),
    /// Awaited between two batches with the time the last one took: rests as long as it should, or says why the run
    /// should end for now.
    pub between: &'a (dyn Fn(Duration) -> BoxFuture<'a, Option<String>> + Sync),
}

/// Why a run did not come to its end. What was committed stays, and the next delivery of the job goes on from there.
#[derive(Debug)]
pub enum Halt {
    /// The runner asked it to stop.
    Stopped,
    /// It was told to make room; why.
    Yielded(String),
    /// Another delivery of the job has taken over.
    Superseded,
    /// Another session holds a lock on the whole table, or an older delivery does not let go.
    TableLocked,
    /// Rows in this many ranges of keys stayed locked by other sessions to the end.
    RowsLocked(usize),
    /// The definition can't work on this table.
    Refused(String),
    /// The database's own error.
    Db(DbError),
}

impl From<DbError> for Halt {
    fn from(error: DbError) -> Self {
        Self::Db(error)
    }
}

impl From<sqlx::Error> for Halt {
    fn from(error: sqlx::Error) -> Self {
        Self::Db(error.into())
    }
}

impl From<KeyError> for Halt {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Refused(why) => Self::Refused(why),
            KeyError::Db(error) => Self::Db(error),
        }
    }
}

impl Purge {
    /// The most columns of a key.
    pub const MAX_KEY_COLUMNS: usize = MAX_COLUMNS;

    /// Runs to the end, or as far as it gets.
    ///
    /// # Errors
    /// See [`Halt`].
    pub async fn run(
        &self,
        database: &Database,
        delivery: &Delivery<'_>,
        params: &[Param],
        watch: &Watch<'_>,
    ) -> Result<PurgeReport, Halt> {
        migrate::require_schema(database).await?;
        let (keyset, progress) = self.start(database, delivery, params).await?;
        if progress.finished {
            return Ok(self.report(&progress, progress.seconds));
        }
        let sizer = BatchSizer::new(self.target, progress.batch_rows, self.min, self.max);
        let batch = Batch {
            purge: self,
            database,
            delivery,
            keyset: &keyset,
            params,
        };
        let progress = self.walk(&batch, progress, sizer, watch).await?;
        let seconds = batch.finish().await?;
        Ok(self.report(&progress, seconds))
    }

    /// Checks the key against the catalogue and makes this delivery the one that works.
    async fn start(
        &self,
        database: &Database,
        delivery: &Delivery<'_>,
        params: &[Param],
    ) -> Result<(Keyset, Progress), Halt> {
        // An older delivery may hold the row of progress for a batch, or until the server ends its idle transaction.
        let patience = self.statement_timeout + 2 * IDLE_IN_TRANSACTION;
        let mut transaction = database.begin(self.options(false)).await?;
        // Everything that waits on the server is within one deadline.
        let work = async {
            transaction.execute(ORDERED).await?;
            let keyset = Keyset::load(&mut transaction, &self.table, &self.key).await?;
            if !self.allow_no_index {
                keyset.check_index(&mut transaction).await?;
            }
            let last = keyset.last(&mut transaction).await?;
            limit_waits(&mut transaction, patience).await?;
            let fingerprint = self.fingerprint(params);
            let progress =
                progress::take_over(&mut transaction, delivery, &fingerprint, last, self.start)
                    .await?;
            transaction.commit().await?;
            Ok::<_, Halt>((keyset, progress))
        };
        let limit = 3 * patience;
        match tokio::time::timeout(limit, work).await {
            Ok(Err(Halt::Db(DbError::LockNotAvailable(_)))) => Err(Halt::TableLocked),
            Ok(done) => done,
            Err(_) => Err(DbError::Silent(limit).into()),
        }
    }

    /// Batch after batch, until nothing is left to do.
    async fn walk(
        &self,
        batch: &Batch<'_>,
        mut progress: Progress,
        mut sizer: BatchSizer,
        watch: &Watch<'_>,
    ) -> Result<Progress, Halt> {
        let stop = watch.stop;
        let mut locked = Locked::Wait;
        let (mut timeouts, mut conflicts, mut passes) = (0, 0, 0);
        let mut worked = None;
        while !self.is_capped(&progress) {
            if stop.is_cancelled() {
                return Err(Halt::Stopped);
            }
            if progress.ranges.todo.is_empty() {
                if progress.ranges.skipped.is_empty() {
                    break;
                }
                if passes == LOCKED_PASSES {
                    return Err(Halt::RowsLocked(progress.ranges.skipped.len()));
                }
                passes += 1;
                rest(LOCKED_PAUSE, stop).await;
                progress.ranges.next_pass();
                continue;
            }
            // Each delivery tries one batch at least, so that it gets somewhere.
            if let Some(worked) = worked.take() {
                self.pause_between(worked, watch).await?;
            }
            let begun = clock::monotonic();
            let rows = self.rows(&progress, &sizer);
            let ended = batch.run(&progress, rows, locked).await;
            worked = Some(clock::since(begun));
            match ended {
                Ok(done) => {
                    sizer.completed(done.rows, done.server_time);
                    progress = done.progress;
                    progress.batch_rows = sizer.rows();
                    (watch.on_batch)(progress.rows_done, progress.batches);
                    (locked, timeouts, conflicts) = (Locked::Wait, 0, 0);
                }
                Err(BatchError::Superseded) => return Err(Halt::Superseded),
                Err(BatchError::Db(DbError::LockNotAvailable(_))) if locked == Locked::Wait => {
                    locked = Locked::Skip;
                }
                // Rows are skipped now, so it is the table itself that is locked.
                Err(BatchError::Db(DbError::LockNotAvailable(_))) => return Err(Halt::TableLocked),
                Err(BatchError::Db(DbError::Canceled(_)))
                    if sizer.rows() > self.min || timeouts + 1 < TIMEOUTS_AT_MIN =>
                {
                    timeouts += u32::from(sizer.rows() <= self.min);
                    sizer.timed_out();
                }
                Err(BatchError::Db(DbError::Conflict { .. })) if conflicts < CONFLICTS => {
                    conflicts += 1
                }
                Err(BatchError::Db(error)) => return Err(error.into()),
            }
        }
        Ok(progress)
    }

    /// The rest between two batches; the run may have to end instead.
    async fn pause_between(&self, worked: Duration, watch: &Watch<'_>) -> Result<(), Halt> {
        rest(self.pause, watch.stop).await;
        match (watch.between)(worked).await {
            Some(reason) => Err(Halt::Yielded(reason)),
            None if watch.stop.is_cancelled() => Err(Halt::Stopped),
            None => Ok(()),
        }
    }

    fn is_capped(&self, progress: &Progress) -> bool {
        self.max_rows.is_some_and(|max| progress.rows_done >= max)
    }

    /// Rows of the next batch: what the sizer says, but not beyond the cap.
    fn rows(&self, progress: &Progress, sizer: &BatchSizer) -> u32 {
        let left = self
            .max_rows
            .map_or(u64::MAX, |max| max.saturating_sub(progress.rows_done));
        u32::try_from(left)
            .unwrap_or(u32::MAX)
            .min(sizer.rows())
            .max(1)
    }

    fn report(&self, progress: &Progress, seconds: f64) -> PurgeReport {
        PurgeReport {
            rows_deleted: progress.rows_done,
            batches: progress.batches,
            seconds,
            capped: self.is_capped(progress),
        }
    }

    fn options(&self, read_only: bool) -> TxOptions {
        TxOptions {
            read_only,
            statement_timeout: self.statement_timeout,
            lock_timeout: self.lock_timeout,
        }
    }

    /// What makes two runs the same: a walk is resumed only by the very same walk.
    fn fingerprint(&self, params: &[Param]) -> String {
        let identity = format!(
            "{} {:?} {} {params:?}",
            self.table, self.key, self.predicate
        );
        hex::encode(Sha256::digest(identity))
    }
}

async fn rest(pause: Duration, stop: &CancellationToken) {
    if !pause.is_zero() {
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}
