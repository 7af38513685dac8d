//! Stopping one delivery from outside, with the reason why.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use tokio_util::sync::CancellationToken;

/// Why a delivery is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum StopReason {
    /// Somebody cancelled the job.
    Cancelled = 1,
    /// The daemon stops, and its deadline for running jobs has passed.
    Shutdown = 2,
    /// The job belongs to another daemon by now: every moment longer it would run twice.
    LeaseLost = 3,
}

/// A handle on one delivery. The first reason counts, unless the lease is lost.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    token: CancellationToken,
    reason: Arc<AtomicU8>,
}

impl Stop {
    /// Asks the delivery to stop.
    pub fn request(&self, reason: StopReason) {
        let keep = |now: u8| (now == 0 || reason == StopReason::LeaseLost).then_some(reason as u8);
        // A refusal only means that an earlier reason stands.
        let _ = self
            .reason
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, keep);
        self.token.cancel();
    }

    /// Why it was asked to stop, if it was.
    #[must_use]
    pub fn reason(&self) -> Option<StopReason> {
        match self.reason.load(Ordering::Acquire) {
            1 => Some(StopReason::Cancelled),
            2 => Some(StopReason::Shutdown),
            3 => Some(StopReason::LeaseLost),
            _ => None,
        }
    }

    /// What the handler watches.
    #[must_use]
    pub const fn token(&self) -> &CancellationToken {
        &self.token
    }
}
