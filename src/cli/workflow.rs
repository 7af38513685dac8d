//! Cancelling a chain or a group as a whole.

use super::CliError;
use super::job::cancel_found;
use super::store::Store;
use crate::queue::Queue;
use crate::queue::operate::Cancelled;
use crate::queue::workflow::belongs_to;

/// Jobs of a workflow that was cancelled.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// Ids of those that waited.
    pub cancelled: Vec<String>,
    /// Ids of those that run and were asked to end.
    pub asked: Vec<String>,
}

/// Cancels what belongs to the chain that began with `root`, or to the group of that id, and sees to it that nothing more
/// comes of it.
///
/// # Errors
/// Redis failed.
pub(super) async fn cancel_whole(
    store: &Store,
    queue: &Queue,
    root: &str,
) -> Result<Ended, CliError> {
    queue.stop_workflow(root).await?;
    let mut ended = Ended::default();
    ended.cancel(store, queue, root).await?;
    let mut cursor = 0;
    loop {
        let (next, tied) = queue.walk_ties(cursor).await?;
        let jobs = tied.iter().filter(|(_, ties)| belongs_to(ties, root));
        for (id, _) in jobs {
            ended.cancel(store, queue, id).await?;
        }
        cursor = next;
        if cursor == 0 {
            return Ok(ended);
        }
    }
}

impl Ended {
    async fn cancel(&mut self, store: &Store, queue: &Queue, id: &str) -> Result<(), CliError> {
        let Some(found) = queue.find(id).await? else {
            return Ok(());
        };
        // A job may be met twice on a walk.
        match cancel_found(store, queue, id, &found).await? {
            Cancelled::Done => self.cancelled.push(id.to_owned()),
            Cancelled::Asked if !self.asked.iter().any(|asked| asked == id) => {
                self.asked.push(id.to_owned());
            }
            Cancelled::Asked | Cancelled::Dead | Cancelled::Unknown => {}
        }
        Ok(())
    }
}
