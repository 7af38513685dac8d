//! The relay of the outbox: rows that apps insert into Postgres in their own transactions become jobs in Redis.
//!
//! Lock rows, push them under ids that never change, delete them, commit. Whoever dies before the commit leaves the rows
//! to the next relay, and the ids tell Redis which of them it has already. Any number of daemons may relay. Must not
//! know what the jobs are.

pub mod aside;
pub mod letter;

use self::aside::Aside;
use super::intake::{IntakeError, Moved, Trouble, push};
use crate::clock;
use crate::config::Config;
use crate::db::outbox::{self, Batch, Bounds, Row};
use crate::db::{Database, Listener};
use crate::job::envelope::MAX_ENTRY_BYTES;
use crate::queue::connection::Connection;
use crate::queue::operate::Enqueued;
use crate::queue::{Queue, QueueError};
use crate::telemetry::{Alerts, Metrics, events};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// The name of this source in logs, metrics and alerts.
pub const SOURCE: &str = "outbox";
/// Bytes moved in one transaction; more rows wait for the next one.
const BATCH_BYTES: u32 = 4 << 20;

/// How often the table is counted at most.
const GAUGE: Duration = Duration::from_secs(1);

/// What moves rows.
pub struct Relay {
    /// Where the rows are.
    pub database: Database,
    /// Where the queues are.
    pub conn: Connection,
    /// The configuration.
    pub config: Arc<Config>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Who hears of rows that can't be jobs.
    pub alerts: Alerts,
    /// Queues that are out of order.
    pub aside: Aside,
}

/// Rows of one batch for one queue, in order.
pub struct Parcel {
    /// The queue.
    pub queue: String,
    /// The rows.
    pub seqs: Vec<i64>,
    /// For each of them the id by which the enqueue script knows it, and its envelope.
    pub jobs: Vec<(String, Vec<u8>)>,
}

/// A batch, sorted.
#[derive(Default)]
pub struct Sorted {
    /// What is to be sent.
    pub parcels: Vec<Parcel>,
    /// Rows that can't be jobs, with the reason.
    pub rejected: Vec<(i64, String)>,
}

/// Relays until it is told to stop.
pub async fn run(relay: Relay, stop: CancellationToken) {
    let mut trouble = Trouble::none(SOURCE, relay.alerts.clone());
    let mut ear: Option<Listener> = None;
    let mut gauged: Option<Instant> = None;
    while !stop.is_cancelled() {
        let mut outcome = relay.round(&mut ear, &stop).await;
        // With an insert every millisecond there is a round every millisecond.
        if outcome.is_ok() && gauged.is_none_or(|at| clock::since(at) >= GAUGE) {
            gauged = Some(clock::monotonic());
            outcome = relay.gauge().await;
        }
        match outcome {
            Ok(()) => {
                trouble.over(clock::monotonic());
                relay.wait(&mut ear, &stop).await;
            }
            Err(e) => {
                if matches!(e, IntakeError::Database(_)) {
                    ear = None;
                }
                let pause = trouble.failed(&e, clock::monotonic());
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
    }
}

impl Relay {
    /// Listens, then moves rows until none are left: what is inserted from then on is heard of.
    async fn round(
        &self,
        ear: &mut Option<Listener>,
        stop: &CancellationToken,
    ) -> Result<(), IntakeError> {
        if ear.is_none() {
            outbox::require(&self.database).await?;
            *ear = Some(self.database.listen(outbox::CHANNEL).await?);
        }
        while !stop.is_cancelled() && self.step().await? {}
        Ok(())
    }

    /// Shows how far behind it is.
    async fn gauge(&self) -> Result<(), IntakeError> {
        let standing = outbox::inspect::standing(&self.database).await?;
        let intake = self.metrics.intake();
        let lag = Duration::try_from_secs_f64(standing.lag_ms / 1_000.0).unwrap_or_default();
        intake.lag(SOURCE, lag);
        intake.depth(SOURCE, "waiting", standing.waiting.unsigned_abs());
        intake.depth(SOURCE, "rejected", standing.rejected.unsigned_abs());
        Ok(())
    }

    /// Waits for word of an insert, for the next look, or for the end.
    async fn wait(&self, ear: &mut Option<Listener>, stop: &CancellationToken) {
        let Some(listener) = ear else { return };
        let poll = self.config.outbox.poll;
        let look = self.aside.next_in(clock::monotonic()).unwrap_or(poll);
        let alive = tokio::select! {
            () = stop.cancelled() => return,
            heard = listener.heard() => heard.is_ok(),
            () = tokio::time::sleep(look.min(poll)) => {
                listener.check(self.config.database.acquire_timeout).await.is_ok()
            }
        };
        if !alive {
            *ear = None;
        }
    }

    /// Moves one batch; whether there may be more.
    ///
    /// # Errors
    /// A server failed. What Redis had confirmed by then is done, the rest stays as it was.
    pub async fn step(&self) -> Result<bool, IntakeError> {
        let Some(mut batch) = self.take().await? else {
            return Ok(false);
        };
        let Sorted { parcels, rejected } = sort(&batch.rows, clock::unix_ms());
        let (mut moved, mut sent, mut failure) = (Moved::default(), Vec::new(), None);
        for parcel in parcels {
            match self.send(&parcel).await {
                Ok(answers) => {
                    self.aside.over(&parcel.queue, clock::monotonic());
                    moved.count(&answers);
                    sent.extend(parcel.seqs);
                }
                // Only this queue is out of order, until a daemon that serves it has put it right: others must not wait
                // for it.
                Err(error @ QueueError::WrongType(_)) => {
                    let now = clock::monotonic();
                    self.aside.put(&parcel.queue, &error, &self.alerts, now);
                }
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        batch.finish(&sent, &rejected).await?;
        let more = batch.more;
        batch.commit().await?;
        moved.rejected = rejected.len() as u64;
        self.report(moved, &rejected);
        match failure {
            Some(error) => Err(error.into()),
            None => Ok(more),
        }
    }

    /// Locks the oldest rows, but for those of queues that are out of order.
    ///
    /// # Errors
    /// Postgres failed.
    pub async fn take(&self) -> Result<Option<Batch>, IntakeError> {
        let bounds = Bounds {
            rows: self.config.outbox.batch,
            bytes: BATCH_BYTES,
            row_bytes: MAX_ENTRY_BYTES as u32,
        };
        let not_for = self.aside.names(clock::monotonic());
        Ok(Batch::take(&self.database, bounds, &not_for).await?)
    }

    /// Pushes the rows of one queue, whether or not any daemon serves it.
    ///
    /// # Errors
    /// Redis failed: then it is not known whether they arrived, and sending them again tells.
    pub async fn send(&self, parcel: &Parcel) -> Result<Vec<Enqueued>, QueueError> {
        let queue = Queue::new(&parcel.queue, self.conn.clone(), &self.config);
        push(&queue, &parcel.jobs).await
    }

    fn report(&self, moved: Moved, rejected: &[(i64, String)]) {
        self.metrics
            .intake()
            .moved(SOURCE, moved.created, moved.duplicates, moved.rejected);
        tracing::debug!(
            event = "intake",
            source = SOURCE,
            created = moved.created,
            duplicates = moved.duplicates,
            rejected = moved.rejected,
            "moved"
        );
        if let Some((seq, reason)) = rejected.first() {
            let what = format!("row {seq}: {reason}");
            self.alerts
                .raise(events::intake_rejected(SOURCE, moved.rejected, &what));
        }
    }
}

/// Makes envelopes of rows and puts them together by queue; within a queue they keep their order.
#[must_use]
pub fn sort(rows: &[Row], now_ms: u64) -> Sorted {
    let mut sorted = Sorted::default();
    for row in rows {
        let envelope = match letter::envelope(row, now_ms) {
            Ok(envelope) => envelope,
            Err(reason) => {
                sorted.rejected.push((row.seq, reason));
                continue;
            }
        };
        let place = sorted.parcels.iter().position(|p| p.queue == row.queue);
        let place = place.unwrap_or_else(|| {
            sorted.parcels.push(Parcel {
                queue: row.queue.clone(),
                seqs: Vec::new(),
                jobs: Vec::new(),
            });
            sorted.parcels.len() - 1
        });
        let parcel = &mut sorted.parcels[place];
        parcel.seqs.push(row.seq);
        parcel.jobs.push((letter::script_id(row), envelope));
    }
    sorted
}
