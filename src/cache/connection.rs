//! The cache as one process holds it: a connection, limits, and what it has seen of each region.

use super::counters::{Counters, Counts};
use super::name::RegionName;
use super::region::Region;
use super::scripts::Scripts;
use crate::config::CacheConfig;
use crate::queue::connection::Connection;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// Regions whose counters are remembered. Beyond it a region is served all the same, but a counter that a failover set
/// back goes unnoticed by this process.
const MAX_SEEN: usize = 1_000;

/// All cache regions on one Redis. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Cache {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    connection: Connection,
    config: CacheConfig,
    /// First part of the log's keys.
    log_prefix: String,
    scripts: Scripts,
    counters: Counters,
    seen: Mutex<HashMap<RegionName, Seen>>,
}

/// How far a region's counter had come when this process last heard of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// In which epoch; empty if it never heard of it.
    pub epoch: String,
    /// The counter.
    pub seq: u64,
}

impl Cache {
    /// A cache on a connection to the primary: a replica may lag, and a lagging log serves stale entries. `redis_prefix`
    /// is the first part of the log's keys, and must not be that of the entries (`config.prefix`).
    #[must_use]
    pub fn new(connection: Connection, config: &CacheConfig, redis_prefix: &str) -> Self {
        Self {
            inner: Arc::new(Inner {
                connection,
                config: config.clone(),
                log_prefix: redis_prefix.to_owned(),
                scripts: Scripts::new(),
                counters: Counters::default(),
                seen: Mutex::default(),
            }),
        }
    }

    /// One region. Asks Redis nothing.
    #[must_use]
    pub fn region(&self, name: &RegionName) -> Region {
        Region::new(self.clone(), name.clone(), &self.inner.log_prefix)
    }

    /// How the reads of this process went so far, over all regions.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.inner.counters.read()
    }

    pub(super) fn connection(&self) -> Connection {
        self.inner.connection.clone()
    }

    pub(super) fn config(&self) -> &CacheConfig {
        &self.inner.config
    }

    pub(super) fn scripts(&self) -> &Scripts {
        &self.inner.scripts
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.inner.counters
    }

    /// What this process has seen of a region.
    pub(super) fn seen(&self, region: &RegionName) -> Seen {
        self.inner
            .seen
            .lock()
            .get(region)
            .cloned()
            .unwrap_or_default()
    }

    /// Remembers how far a region has come. Replies may arrive out of order: within an epoch only the highest counts.
    pub(super) fn note(&self, region: &RegionName, epoch: &str, seq: u64) {
        let mut all = self.inner.seen.lock();
        if let Some(seen) = all.get_mut(region) {
            if seen.epoch != epoch {
                epoch.clone_into(&mut seen.epoch);
                seen.seq = seq;
            }
            seen.seq = seen.seq.max(seq);
        } else if all.len() < MAX_SEEN {
            let epoch = epoch.to_owned();
            all.insert(region.clone(), Seen { epoch, seq });
        }
    }
}
