//! How long our own statements take, against what is usual for each.

use super::Database;
use crate::clock::Epoch;
use crate::policy::slowdown::Slowdown;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What a statement costs apart from its rows, in rows. Our choice.
const ROWS_OF_A_STATEMENT: f64 = 20.0;

/// The pace of one database; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    epoch: Epoch,
    slowdown: Arc<Mutex<Slowdown>>,
}

impl Pace {
    pub(super) fn start() -> Self {
        Self {
            epoch: Epoch::start(),
            slowdown: Arc::default(),
        }
    }

    /// Takes in that statements of one kind, known by any text, took so long for so many rows.
    pub(crate) fn note(&self, kind: &str, rows: u64, took: Duration) {
        let mut hasher = DefaultHasher::new();
        kind.hash(&mut hasher);
        #[allow(clippy::cast_precision_loss)] // of rows
        let cost = took.as_secs_f64() / (rows as f64 + ROWS_OF_A_STATEMENT);
        let mut slowdown = self.slowdown.lock().unwrap_or_else(PoisonError::into_inner);
        slowdown.note(self.epoch.now_ms(), hasher.finish(), cost);
    }
}

impl Database {
    /// How much slower than usual our own statements were in the last minute: 95 of 100 were less. 1 if there were too
    /// few to tell.
    #[must_use]
    pub fn slowdown(&self) -> f64 {
        let pace = &self.pace;
        let mut slowdown = pace.slowdown.lock().unwrap_or_else(PoisonError::into_inner);
        slowdown.p95(pace.epoch.now_ms()).unwrap_or(1.0)
    }
}
