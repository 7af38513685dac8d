//! How the systems behind the jobs fare: probes sample them, a monitor judges and publishes.
//!
//! Owns what is measured and how: the pressure of this machine, the lateness of this process, a number on a web page, and
//! the closures it is handed for everything else. It may read what a Redis or a Postgres tells of itself; it must know no
//! driver, queues or jobs. What a value means (badness, states,
//! shares) is [`crate::policy::gate`]'s; the thresholds are the configuration's `[gate.limits]`.
//!
//! In reading order: a [`Probe`] samples the signals of one resource with a deadline; [`local_probes`] are those of
//! this machine, [`redis_rtt`] and its neighbours those of a dependency by the answers it gives, [`redis_info`] and
//! [`postgres_stats`] by what it tells of itself, [`custom`] what users define; the [`Monitor`] runs them all, keeps the
//! [`History`] of an hour and publishes a [`HealthView`]; [`slots_for`] turns a view into what a priority class may
//! use, and why.
//!
//! A failed sample says nothing, and nothing is never healthy: the state cannot improve without it, and after
//! `[gate] stale_after` it counts as elevated. A dependency that *answers with an error*, or not within the deadline,
//! does say something: that is what the `…_failed` signals are for.

mod allowance;
mod asked;
mod cgroup;
mod custom;
mod history;
mod lag;
mod latency;
mod load;
mod local;
mod memory;
mod monitor;
mod page;
mod postgres_stats;
mod pressure;
mod probe;
mod redis_info;
mod throttle;
mod view;

pub use crate::policy::gate::{GaugeSnapshot as ResourceView, SignalSnapshot as SignalView};
pub use allowance::{Reason, slots_for};
pub use custom::custom;
pub use history::{History, Peak, STEP_MS};
pub use latency::{Answer, postgres_acquire, postgres_ping, redis_rtt};
pub use local::local_probes;
pub use monitor::Monitor;
pub use page::Page;
pub use postgres_stats::{PostgresStats, postgres_stats};
pub use probe::{Probe, Reading, Source};
pub use redis_info::{REDIS_SECTIONS, redis_info};
pub use view::HealthView;

/// This machine: its CPU and disk, and how late it makes this process.
pub const HOST: &str = "host";
/// The memory of this machine, or of the part of it that is ours. Gates every job.
pub const MEMORY: &str = "memory";
/// The Redis that holds the queues. Gates every job.
pub const QUEUE_REDIS: &str = "redis:main";
