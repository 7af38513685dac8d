//! Queues whose keys have the wrong type: their rows stay where they are until the queue is in order again, and hold up
//! no other queue.
//!
//! Must not know rows, or how a queue is put in order.

use super::super::intake::Trouble;
use super::SOURCE;
use crate::telemetry::Alerts;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt::Display;
use std::time::{Duration, Instant};

/// The queues that are out of order.
#[derive(Default)]
pub struct Aside(Mutex<HashMap<String, Entry>>);

struct Entry {
    trouble: Trouble,
    until: Instant,
}

impl Aside {
    /// The queues that are left alone for now.
    #[must_use]
    pub fn names(&self, now: Instant) -> Vec<String> {
        let queues = self.0.lock();
        let closed = queues.iter().filter(|(_, entry)| entry.until > now);
        closed.map(|(queue, _)| queue.clone()).collect()
    }

    /// How long until the next of them is tried again; none if all are in order.
    #[must_use]
    pub fn next_in(&self, now: Instant) -> Option<Duration> {
        let queues = self.0.lock();
        let soonest = queues.values().map(|entry| entry.until).min()?;
        Some(soonest.saturating_duration_since(now))
    }

    /// A queue is out of order, perhaps still.
    pub fn put(&self, queue: &str, error: &dyn Display, alerts: &Alerts, now: Instant) {
        let mut queues = self.0.lock();
        let entry = queues.entry(queue.to_owned()).or_insert_with(|| Entry {
            trouble: Trouble::none(&format!("{SOURCE} to {queue}"), alerts.clone()),
            until: now,
        });
        entry.until = now + entry.trouble.failed(error, now);
    }

    /// A queue is in order, perhaps again.
    pub fn over(&self, queue: &str, now: Instant) {
        if let Some(mut entry) = self.0.lock().remove(queue) {
            entry.trouble.over(now);
        }
    }
}
