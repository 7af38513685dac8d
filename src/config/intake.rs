//! `[outbox]`, `[bridges]`, `[[bridge]]`: jobs that come by other ways than an inbox.

use super::{Secret, duration};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// `[outbox]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutboxConfig {
    /// Whether rows of `tidegate.outbox` are moved to their queues.
    pub enabled: bool,
    /// Rows moved in one transaction.
    pub batch: u32,
    /// Longest time between looks at the table.
    #[serde(with = "duration")]
    pub poll: Duration,
}

/// `[bridges]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BridgesConfig {
    /// Tasks taken in one step.
    pub batch: usize,
    /// How often a namespace is looked at.
    #[serde(with = "duration")]
    pub poll: Duration,
    /// The argument that holds a payload which is no object.
    pub arg: String,
}

/// One `[[bridge]]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BridgeConfig {
    /// Its name in logs, metrics and ids.
    pub name: String,
    /// The namespace, as apalis-redis calls its queues.
    pub namespace: String,
    /// The kind its tasks become.
    pub kind: String,
    /// Where they go; the queue of the kind's definition unless given.
    #[serde(default)]
    pub queue: Option<String>,
    /// The argument that holds a payload which is no object; that of `[bridges]` unless given.
    #[serde(default)]
    pub arg: Option<String>,
    /// Where the namespace lives; the main Redis unless given.
    #[serde(default)]
    pub redis_url: Option<Secret>,
}
