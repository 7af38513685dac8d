//! From running jobs to whoever watches them: how far they have come.

use super::reply::Reply;
use super::script::PROGRESS;
use super::{Queue, QueueError};
use std::sync::Arc;

/// The most reports in one call.
pub const PROGRESS_MAX: usize = 500;

/// The last thing one delivery told.
#[derive(Debug, Clone)]
pub struct Report {
    /// The job.
    pub id: Arc<str>,
    /// The token of the delivery.
    pub token: Arc<str>,
    /// What it told, as JSON.
    pub json: String,
}

impl Queue {
    /// Keeps up to [`PROGRESS_MAX`] reports; returns the indices of those whose job does not run under that token.
    ///
    /// # Errors
    /// Redis failed or refused the write (out of memory), or a key has the wrong type.
    pub async fn report_progress(&self, reports: &[Report]) -> Result<Vec<usize>, QueueError> {
        debug_assert!(reports.len() <= PROGRESS_MAX);
        let mut cmd = PROGRESS.call([&self.keys.running, &self.keys.progress].into_iter());
        for report in reports {
            cmd.arg(&*report.id).arg(&*report.token).arg(&report.json);
        }
        let mut reply = Reply::new(PROGRESS.send(self, &cmd).await?)?;
        let mut stale = Vec::new();
        while !reply.is_empty() {
            // Lua counts from 1.
            stale.push(usize::try_from(reply.int()? - 1).unwrap_or(usize::MAX));
        }
        Ok(stale)
    }
}
