//! Configuration: compiled-in defaults, then files, then the environment, then validation.
//!
//! Owns: the shape of the configuration, its ranges, and how an error in it is told. Must not know what the settings
//! do. Every default stands in `config/default.toml`, nowhere else.

mod breaker;
pub mod duration;
mod forecast;
mod gate;
mod intake;
mod limiter;
mod limits;
mod load;
mod probes;
mod reserve;
mod retry_budget;
mod secret;
mod validate;

pub use breaker::{BreakerConfig, BreakerMode};
pub use forecast::{ForecastConfig, ForecastMode, ModelConfig, PeaksConfig, SlotsConfig};
pub use gate::{GateConfig, GateMode, SharesConfig, SmoothingConfig, StatesConfig};
pub use intake::{BridgeConfig, BridgesConfig, OutboxConfig};
pub use limiter::LimiterConfig;
pub use limits::LimitsConfig;
pub use load::{ConfigError, Sources, load};
pub use probes::{ProbeConfig, ProbesConfig, Way, Worst};
pub use reserve::ReserveConfig;
pub use retry_budget::RetryBudgetConfig;
pub use secret::Secret;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// The whole configuration, valid.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the queues live.
    pub redis: RedisConfig,
    /// Postgres for database jobs.
    pub database: DatabaseConfig,
    /// The process itself.
    pub daemon: DaemonConfig,
    /// Queues named explicitly.
    #[serde(default)]
    pub queue: Vec<QueueConfig>,
    /// What holds for queues that do not say otherwise.
    pub queues: QueueDefaults,
    /// Ageing.
    pub aging: AgingConfig,
    /// Remembered ids.
    pub dedupe: DedupeConfig,
    /// What is kept, and how long.
    pub retention: RetentionConfig,
    /// The auditor of the queues.
    pub audit: AuditConfig,
    /// The health gate.
    pub gate: GateConfig,
    /// What holds for all signals that users define.
    pub probes: ProbesConfig,
    /// Signals that users define.
    #[serde(default)]
    pub probe: Vec<ProbeConfig>,
    /// Circuit breakers.
    pub breaker: BreakerConfig,
    /// Retry budgets.
    pub retry_budget: RetryBudgetConfig,
    /// Limits found by latency.
    pub limiter: LimiterConfig,
    /// What is done about load that is known to come.
    pub forecast: ForecastConfig,
    /// Jobs that come by way of Postgres.
    pub outbox: OutboxConfig,
    /// What holds for all bridges.
    pub bridges: BridgesConfig,
    /// Namespaces of apalis-redis whose tasks are taken in.
    #[serde(default)]
    pub bridge: Vec<BridgeConfig>,
    /// HTTP endpoints for operators.
    pub admin: AdminConfig,
    /// Logs.
    pub log: LogConfig,
    /// Alerts.
    pub alerts: AlertsConfig,
    /// The `http` handler.
    pub http: HttpConfig,
    /// Cache regions.
    pub cache: CacheConfig,
    /// Secrets by name.
    #[serde(default)]
    pub secrets: BTreeMap<String, Secret>,
}

/// `[redis]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisConfig {
    /// Server URL.
    pub url: Secret,
    /// Sentinels that know where the server is; none if `url` says it.
    pub sentinels: Vec<Secret>,
    /// What the Sentinels call it.
    pub sentinel_name: String,
    /// First part of every key.
    pub prefix: String,
    /// Deadline of one command.
    #[serde(with = "duration")]
    pub command_timeout: Duration,
    /// Deadline of connecting.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
}

impl RedisConfig {
    /// Makes it the server of this URL, whatever Sentinels would say.
    pub fn move_to(&mut self, url: Secret) {
        self.url = url;
        self.sentinels.clear();
    }
}

/// `[database]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseConfig {
    /// Server URL; empty when there is none.
    pub url: Secret,
    /// Pool size.
    pub max_connections: u32,
    /// Deadline of waiting for a connection.
    #[serde(with = "duration")]
    pub acquire_timeout: Duration,
    /// Longest single statement.
    #[serde(with = "duration")]
    pub statement_timeout: Duration,
}

/// `[daemon]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DaemonConfig {
    /// Jobs at once, over all queues.
    pub concurrency: usize,
    /// Silence after which a daemon is dead.
    #[serde(with = "duration")]
    pub lease: Duration,
    /// How long running jobs may finish after SIGTERM.
    #[serde(with = "duration")]
    pub drain_timeout: Duration,
    /// Longest time between looks at a queue.
    #[serde(with = "duration")]
    pub poll: Duration,
}

/// One `[[queue]]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueConfig {
    /// Its name.
    pub name: String,
    /// Jobs of it at once; the daemon's unless given.
    #[serde(default)]
    pub concurrency: Option<usize>,
    /// Alert when its oldest waiting job is older.
    #[serde(default, with = "duration::option")]
    pub objective: Option<Duration>,
}

/// `[queues]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueDefaults {
    /// Alert when a queue's oldest waiting job is older.
    #[serde(with = "duration")]
    pub objective: Duration,
}

/// `[aging]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgingConfig {
    /// One class up per this much waiting.
    #[serde(with = "duration")]
    pub after: Duration,
}

/// `[dedupe]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DedupeConfig {
    /// How long a given id is remembered after its job's end.
    #[serde(with = "duration")]
    pub window: Duration,
}

/// `[retention]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionConfig {
    /// Dead jobs kept per queue.
    pub dead_max: usize,
    /// How long a dead job is kept.
    #[serde(with = "duration")]
    pub dead_age: Duration,
    /// Bytes of dead jobs kept per queue.
    pub dead_bytes: u64,
    /// Quarantined entries kept per queue.
    pub quarantine_max: usize,
    /// Bytes of quarantined entries kept per queue.
    pub quarantine_bytes: u64,
    /// How long a quarantined entry is kept.
    #[serde(with = "duration")]
    pub quarantine_age: Duration,
    /// Records of finished jobs kept per queue.
    pub recent_max: usize,
    /// Histories of jobs that ended kept per queue.
    pub history_max: usize,
    /// Bytes of histories kept per queue.
    pub history_bytes: u64,
    /// How long a history is kept after its job's end.
    #[serde(with = "duration")]
    pub history_age: Duration,
    /// Remembered ids of a queue beyond which there is an alert.
    pub ids_max: u64,
    /// Groups kept per queue.
    pub groups_max: usize,
    /// How long a group is kept after its last change.
    #[serde(with = "duration")]
    pub groups_age: Duration,
}

/// `[audit]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditConfig {
    /// How often the counts of a queue are compared.
    #[serde(with = "duration")]
    pub interval: Duration,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    /// Working.
    On,
    /// Not there.
    Off,
}

/// `[admin]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminConfig {
    /// Listen address; empty when off.
    pub listen: String,
    /// Bearer token; empty for none.
    pub token: Secret,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Pretty on a terminal, JSON elsewhere.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Pretty,
}

/// `[log]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// Form of a line.
    pub format: LogFormat,
    /// Level or filter directives.
    pub level: String,
    /// Clean successes logged singly per kind and second.
    pub successes_per_second: u32,
}

/// `[alerts]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertsConfig {
    /// Where alerts are posted; empty for nowhere.
    pub webhook: Secret,
    /// Deadline of one delivery.
    #[serde(with = "duration")]
    pub timeout: Duration,
}

/// `[http]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    /// Hosts that may be called, `host` or `host:port`.
    pub allow: Vec<String>,
    /// Whether they may be on a private network or this machine.
    pub allow_private: bool,
    /// Largest part of a response read, bytes.
    pub max_response: usize,
}

/// `[cache]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheConfig {
    /// First part of every cache key.
    pub prefix: String,
    /// Longest time an entry may live.
    #[serde(with = "duration")]
    pub max_ttl: Duration,
    /// Invalidated tags remembered per region.
    pub log_max: usize,
    /// Largest entry, bytes.
    pub max_entry: usize,
}
