//! The queue on Redis: keys, scripts, and typed calls for each step of a job's life.
//!
//! Owns: private storage and its invariants, and the connection. Every change of state is one script, bounded, safe to
//! repeat, and refused to a daemon that lost its lease. Must not know: what jobs do, who runs them, or why a flow is
//! closed; it is told which flows to claim from and how the deliveries ended.

pub mod admit;
mod around;
pub mod audit;
pub mod backend;
pub mod bell;
pub mod board;
pub mod bridge;
#[cfg(feature = "broken")]
pub mod broken;
pub mod claim;
pub mod connection;
pub mod control;
mod counts;
mod delivery;
mod depth;
mod ending;
mod find;
pub mod fleet;
pub mod heal;
pub mod home;
pub mod inspect;
mod keys;
pub mod lease;
pub mod limiters;
pub mod limits;
pub mod load_history;
pub mod look;
mod memory;
pub mod operate;
pub mod orders;
pub mod pages;
pub mod progress;
mod promote;
mod rehearse;
mod reply;
pub mod scan;
pub mod schedules;
mod script;
pub mod settle;
pub mod slots;
pub mod ties;
mod verdict;
pub mod wait;
pub mod wake;
pub mod workflow;

pub use admit::{Admission, Peeked, Verdict};
pub use claim::{Claimed, Delivery, FlowAllowance};
pub use control::Control;
pub use depth::Depth;
pub use keys::{Flow, Keys};
pub use limits::Terms;
pub use look::Look;
pub use settle::{Settled, Settlement};
pub use ties::Ties;

use crate::config::Config;
use connection::Connection;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What can go wrong between us and the queue.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// This incarnation is not registered any more: it lost its lease, and its jobs belong to others.
    #[error("the lease is lost")]
    LeaseLost,
    /// A key holds another type than the queue's: somebody wrote to private storage.
    #[error("a key of the queue has the wrong type: {0}")]
    WrongType(String),
    /// The server or the connection failed.
    #[error("redis: {0}")]
    Redis(redis::RedisError),
    /// The server answered something a script never answers.
    #[error("unexpected reply: {0}")]
    Reply(String),
}

impl From<redis::RedisError> for QueueError {
    fn from(e: redis::RedisError) -> Self {
        match code_of(&e).as_deref() {
            Some("LEASE") => Self::LeaseLost,
            Some("WRONGTYPE") => Self::WrongType(e.to_string()),
            _ => Self::Redis(e),
        }
    }
}

/// The code of what the server refused. The error of a pipeline has none of its own: that of the command which failed
/// first counts.
fn code_of(e: &redis::RedisError) -> Option<String> {
    let errors = e.clone().into_server_errors()?;
    Some(errors.first()?.1.code().to_owned())
}

/// Bounds of one queue's storage.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Dead jobs kept.
    pub dead_max: usize,
    /// Bytes of their envelopes and histories kept.
    pub dead_bytes: u64,
    /// Quarantined entries kept.
    pub quarantine_max: usize,
    /// Bytes of them kept.
    pub quarantine_bytes: u64,
    /// Histories of jobs that ended kept.
    pub history_max: usize,
    /// Bytes of them kept.
    pub history_bytes: u64,
    /// Records of finished jobs kept.
    pub recent_max: usize,
    /// How long a given id is remembered.
    pub dedupe_window: Duration,
    /// One class up per this much waiting.
    pub aging_after: Duration,
}

/// One queue: its name, its keys and a connection. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Queue {
    /// Its name.
    pub name: Arc<str>,
    keys: Arc<Keys>,
    conn: Connection,
    bounds: Bounds,
    observer: Option<Observer>,
}

/// Hears of every call of a script: its name, and how long the answer took.
#[derive(Clone)]
struct Observer(Arc<dyn Fn(&'static str, Duration) + Send + Sync>);

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}

impl Queue {
    /// The queue `name` on a connection.
    #[must_use]
    pub fn new(name: &str, conn: Connection, config: &Config) -> Self {
        Self {
            name: name.into(),
            keys: Arc::new(Keys::new(&config.redis.prefix, name)),
            conn,
            bounds: Bounds {
                dead_max: config.retention.dead_max,
                dead_bytes: config.retention.dead_bytes,
                quarantine_max: config.retention.quarantine_max,
                quarantine_bytes: config.retention.quarantine_bytes,
                history_max: config.retention.history_max,
                history_bytes: config.retention.history_bytes,
                recent_max: config.retention.recent_max,
                dedupe_window: config.dedupe.window,
                aging_after: config.aging.after,
            },
            observer: None,
        }
    }

    /// The same queue, with somebody who hears of every call of a script: its name, and how long the answer took.
    #[must_use]
    pub fn observed_by(mut self, hear: Arc<dyn Fn(&'static str, Duration) + Send + Sync>) -> Self {
        self.observer = Some(Observer(hear));
        self
    }

    /// One class up per this much waiting.
    #[must_use]
    pub const fn aging_after(&self) -> Duration {
        self.bounds.aging_after
    }

    /// Its keys.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }
}

/// Milliseconds of a duration, for a script.
fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}
