//! Pacing of jobs that work in batches: what they ask the gate between two of them, and how long they rest.
//!
//! Owns: the wait at a boundary. Must not know what the advice goes by: that is handed in.

use super::{Context, JobError};
use crate::clock;
use crate::job::Job;
use crate::policy::gate::Advice;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The longest rest at one boundary.
const LONGEST_REST: Duration = Duration::from_secs(60);
/// While a job rests, the gate is asked again this often.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Knows what the gate says of running jobs.
pub trait Adviser: Send + Sync {
    /// What a job should do at its next boundary.
    fn advise(&self, job: &Job) -> Advice;
}

/// Whom a delivery asks; nobody where there is no gate.
#[derive(Clone, Default)]
pub(super) struct Asks(Option<Arc<dyn Adviser>>);

impl fmt::Debug for Asks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whom = if self.0.is_some() {
            "the gate"
        } else {
            "nobody"
        };
        f.write_str(whom)
    }
}

impl Context {
    /// The same delivery, advised by the gate. A context that nobody advises is always told to go on.
    #[must_use]
    pub fn advised_by(mut self, adviser: Arc<dyn Adviser>) -> Self {
        self.asks = Asks(Some(adviser));
        self
    }

    /// What the gate says of this job's class and what it touches, now. Cheap; for work that is paced in a way of its own,
    /// else use [`Context::pace`].
    #[must_use]
    pub fn advice(&self) -> Advice {
        match &self.asks.0 {
            Some(adviser) => adviser.advise(&self.job),
            None => Advice::Go,
        }
    }

    /// To be awaited between two batches of long work, with the time the last one took: rests as long as the gate asks
    /// for, so that the job works for the share of the time that its class has of the slots. The rest does not count
    /// against the job's timeout.
    ///
    /// Do at least one batch before the first call, so that every delivery gets somewhere, and keep what is done (or work
    /// so that doing it again does no harm): the next delivery begins anew.
    ///
    /// ```
    /// use std::time::Instant;
    /// use tidegate::embed::{BoxDynError, Context};
    ///
    /// # async fn copy_page(_: u64) -> std::io::Result<bool> { Ok(false) }
    /// # async fn saved_page() -> std::io::Result<u64> { Ok(0) }
    /// # async fn save_page(_: u64) -> std::io::Result<()> { Ok(()) }
    /// async fn copy(_: serde_json::Value, ctx: Context) -> Result<(), BoxDynError> {
    ///     for page in saved_page().await?.. {
    ///         let begun = Instant::now();
    ///         let more = copy_page(page).await?;
    ///         save_page(page + 1).await?;
    ///         if !more {
    ///             break;
    ///         }
    ///         ctx.pace(begun.elapsed()).await?;
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// [`JobError::Yield`]: the class has no share now, or the breaker of what the job touches is open.
    /// [`JobError::Stopped`]: the job was cancelled, or the daemon stops. Hand either on: the job goes back to its place
    /// without a burnt attempt.
    pub async fn pace(&self, worked: Duration) -> Result<(), JobError> {
        let begun = clock::monotonic();
        while !self.stop.is_cancelled() {
            let advice = self.advice();
            if let Advice::Yield(reason) = advice {
                return Err(JobError::Yield { reason });
            }
            let rest = advice.rest(worked).min(LONGEST_REST);
            let left = rest.saturating_sub(clock::since(begun));
            if left.is_zero() {
                return Ok(());
            }
            let asleep = clock::monotonic();
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = tokio::time::sleep(left.min(ASK_AGAIN)) => {}
            }
            // At once: the timeout of the job may come in the middle of a rest.
            self.progress.rested(clock::since(asleep));
        }
        Err(JobError::Stopped)
    }
}
