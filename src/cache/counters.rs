//! How often reads hit and why they missed, counted in this process.

use super::validity::Miss;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts reads by outcome. Adding is one relaxed increment.
#[derive(Debug, Default)]
pub struct Counters {
    hits: AtomicU64,
    misses: [AtomicU64; Miss::ALL.len()],
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Reads that served an entry.
    pub hits: u64,
    /// Reads that did not, by [`Miss::index`].
    pub misses: [u64; Miss::ALL.len()],
}

impl Counters {
    pub(super) fn hit(&self) {
        self.hits.fetch_add(1, Relaxed);
    }

    pub(super) fn miss(&self, why: Miss) {
        self.misses[why.index()].fetch_add(1, Relaxed);
    }

    /// Reads them all.
    #[must_use]
    pub fn read(&self) -> Counts {
        Counts {
            hits: self.hits.load(Relaxed),
            misses: std::array::from_fn(|i| self.misses[i].load(Relaxed)),
        }
    }
}

impl Counts {
    /// Reads that missed for this reason.
    #[must_use]
    pub const fn missed(&self, why: Miss) -> u64 {
        self.misses[why.index()]
    }
}
