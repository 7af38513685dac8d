//! Who serves a queue.

use super::super::CliError;
use super::super::output::age;
use super::super::store::Store;
use super::reason::Reason;
use crate::queue::Queue;
use crate::queue::lease::Heartbeat;

/// Who serves a queue, and when each gave its last sign of life.
pub(super) struct Workers {
    /// Those that live.
    pub(super) alive: Vec<String>,
    /// All that are registered.
    pub(super) beats: Heartbeat,
    lease_ms: u64,
}

impl Workers {
    /// Asks the queue.
    ///
    /// # Errors
    /// Redis failed.
    pub(super) async fn of(queue: &Queue, store: &Store) -> Result<Self, CliError> {
        let beats = queue.workers().await?;
        let lease_ms = u64::try_from(store.config.daemon.lease.as_millis()).unwrap_or(u64::MAX);
        let fresh = |at: u64| beats.now_ms.saturating_sub(at) < lease_ms;
        let alive = beats.workers.iter().filter(|(_, at)| fresh(*at));
        Ok(Self {
            alive: alive.map(|(worker, _)| worker.clone()).collect(),
            beats,
            lease_ms,
        })
    }

    /// That nobody serves the queue.
    pub(super) fn missing(&self, queue: &str) -> Option<Reason> {
        self.alive.is_empty().then(|| {
            let within = age(self.lease_ms);
            let message =
                format!("no daemon that serves {queue} gave a sign of life within {within}");
            let lift = format!("a daemon that serves {queue}: `tidegate run`");
            Reason::stop("no_daemon", message).lifted_by([lift])
        })
    }
}
