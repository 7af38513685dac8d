//! What this daemon holds of one queue: every delivery from the claim until its settlement is confirmed.

use super::stop::{Stop, StopReason};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// The deliveries held, by job id.
#[derive(Debug, Default)]
pub struct InFlight {
    held: Mutex<HashMap<Arc<str>, Held>>,
}

#[derive(Debug)]
struct Held {
    token: Arc<str>,
    stop: Stop,
    /// Given back when the delivery is let go.
    _turn: Option<SuspectTurn>,
}

/// Leave of a job that crashed its daemon twice to run: there is one at a time, whatever the queue.
pub type SuspectTurn = OwnedSemaphorePermit;

impl InFlight {
    /// Takes up a delivery.
    pub fn hold(&self, id: Arc<str>, token: Arc<str>, stop: Stop, turn: Option<SuspectTurn>) {
        let held = Held {
            token,
            stop,
            _turn: turn,
        };
        self.held.lock().insert(id, held);
    }

    /// Lets deliveries go, each only if it is held under that very token.
    pub fn let_go<'a>(&self, deliveries: impl IntoIterator<Item = (&'a str, &'a str)>) {
        let mut held = self.held.lock();
        for (id, token) in deliveries {
            if held.get(id).is_some_and(|h| &*h.token == token) {
                held.remove(id);
            }
        }
    }

    /// Whether a delivery is held.
    #[must_use]
    pub fn holds(&self, id: &str, token: &str) -> bool {
        self.held.lock().get(id).is_some_and(|h| &*h.token == token)
    }

    /// How many are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.lock().len()
    }

    /// The ids of the jobs that are held.
    #[must_use]
    pub fn ids(&self) -> Vec<Arc<str>> {
        self.held.lock().keys().cloned().collect()
    }

    /// Whether none is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.lock().is_empty()
    }

    /// Asks one job to stop, if it is held.
    pub fn stop_one(&self, id: &str, reason: StopReason) {
        if let Some(held) = self.held.lock().get(id) {
            held.stop.request(reason);
        }
    }

    /// Asks every delivery to stop.
    pub fn stop_all(&self, reason: StopReason) {
        for held in self.held.lock().values() {
            held.stop.request(reason);
        }
    }

    /// Lets everything go: whoever ran it is gone.
    pub fn let_all_go(&self) {
        self.held.lock().clear();
    }

    /// Lets everything go that is held under another incarnation than `current`: it belongs to others.
    pub fn forget_others(&self, current: &str) {
        let ours = |token: &str| {
            token
                .strip_prefix(current)
                .is_some_and(|r| r.starts_with(':'))
        };
        self.held.lock().retain(|_, held| ours(&held.token));
    }
}
