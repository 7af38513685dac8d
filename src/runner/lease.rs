//! The identity under which this daemon works on one queue, and its loss.

use super::inflight::InFlight;
use super::stop::StopReason;
use crate::telemetry::events;
use std::sync::Arc;
use tokio::sync::watch;
use uuid::Uuid;

/// The current incarnation, or none between the loss of one and the registration of the next.
#[derive(Debug)]
pub struct Lease {
    queue: Arc<str>,
    current: watch::Sender<Option<Arc<str>>>,
}

impl Lease {
    /// Not registered yet.
    #[must_use]
    pub fn new(queue: Arc<str>) -> Self {
        Self {
            queue,
            current: watch::Sender::new(None),
        }
    }

    /// A new incarnation: an id no process ever had.
    #[must_use]
    pub fn mint() -> Arc<str> {
        Uuid::new_v4().simple().to_string().into()
    }

    /// The incarnation to work under, if there is one now.
    #[must_use]
    pub fn current(&self) -> Option<Arc<str>> {
        self.current.borrow().clone()
    }

    /// Waits until there is an incarnation to work under.
    pub async fn held(&self) -> Arc<str> {
        let mut changes = self.current.subscribe();
        loop {
            if let Some(incarnation) = changes.borrow_and_update().clone() {
                return incarnation;
            }
            if changes.changed().await.is_err() {
                // The sender lives in `self`, which outlives this call.
                std::future::pending::<()>().await;
            }
        }
    }

    /// A new incarnation was registered.
    pub fn register(&self, incarnation: Arc<str>) {
        self.current.send_replace(Some(incarnation));
    }

    /// Redis refused `incarnation`: everything that runs under it stops at once.
    pub fn lose(&self, incarnation: &str, inflight: &InFlight) {
        let lost = self.current.send_if_modified(|current| {
            let is_current = current.as_deref() == Some(incarnation);
            if is_current {
                *current = None;
            }
            is_current
        });
        if lost {
            events::lease_lost(&self.queue, incarnation, inflight.len());
            inflight.stop_all(StopReason::LeaseLost);
        }
    }
}
