//! Metrics for Prometheus, in the OpenMetrics text format.
//!
//! Owns every metric's name, labels and unit, and the registry; there is no global state. Must not know who measures.
//! Counters and histograms of jobs are fed through a [`KindMetrics`] handle, resolved once per queue and kind.

mod forecast;
mod histogram;
mod intake;
mod kind;
mod labels;

pub use forecast::ForecastMetrics;
pub use intake::IntakeMetrics;
pub use kind::KindMetrics;

use histogram::{Bounds, DurationHistogram};
use kind::KindFamilies;
use labels::{Badness, Breaker, Class, Op, Operation, Queue, QueueState, Reason, State};
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// The kind label of what has no kind in the catalogue; no kind can be named so.
pub const UNKNOWN_KIND: &str = "-";

/// The states of a breaker as metrics show them: the current one is 1, the others 0.
const BREAKER_STATES: [&str; 4] = ["closed", "open", "half_open", "ramping"];

/// From a local round trip to the longest command deadline.
const REDIS_BOUNDS: Bounds = &[
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 500_000, 2_000_000, 10_000_000,
];

type FloatGauge = Gauge<f64, AtomicU64>;

/// All metrics of the process. Share it in an `Arc`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    kinds: KindFamilies,
    intake: IntakeMetrics,
    forecast: ForecastMetrics,
    stale_acks: Family<Op, Counter>,
    queue_depth: Family<QueueState, Gauge>,
    queue_oldest_age: Family<Queue, FloatGauge>,
    queue_paused: Family<Queue, Gauge>,
    queue_memory: Family<Queue, Gauge>,
    queue_dropped: Family<QueueState, Gauge>,
    ids_remembered: Family<Queue, Gauge>,
    schedule_lag: FloatGauge,
    workers_busy: Family<Queue, Gauge>,
    workers_capacity: Family<Queue, Gauge>,
    breaker_state: Family<Breaker, Gauge>,
    operation_limit: Family<Operation, Gauge>,
    operation_running: Family<Operation, Gauge>,
    operation_anchor: Family<Operation, FloatGauge>,
    health_badness: Family<Badness, FloatGauge>,
    gate_limit: Family<Class, FloatGauge>,
    redis_duration: Family<Op, DurationHistogram, fn() -> DurationHistogram>,
    pg_connections: Family<State, Gauge>,
    audit_repairs: Family<Queue, Counter>,
    admin_refused: Family<Reason, Counter>,
    reload_failures: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// A fresh registry with every metric in it.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("tidegate");
        let kinds = KindFamilies::register(&mut registry);
        let intake = IntakeMetrics::register(&mut registry);
        let forecast = ForecastMetrics::register(&mut registry);
        let r = &mut registry;
        Self {
            kinds,
            intake,
            forecast,
            stale_acks: add(r, "stale_acks", "Settlements that came too late"),
            queue_depth: add(r, "queue_depth", "Jobs of a queue by state"),
            queue_oldest_age: add(
                r,
                "queue_oldest_age_seconds",
                "Age of the oldest waiting job",
            ),
            queue_paused: add(r, "queue_paused", "1 while a queue is paused"),
            queue_memory: add(r, "queue_memory_bytes", "What a queue takes up in Redis"),
            queue_dropped: add(
                r,
                "queue_dropped",
                "Kept jobs and entries that gave way because of a cap, since ever, by state",
            ),
            ids_remembered: add(r, "ids_remembered", "Ids a queue remembers or has reserved"),
            schedule_lag: add(
                r,
                "schedule_lag_seconds",
                "How late the last scheduled job was",
            ),
            workers_busy: add(r, "workers_busy", "Jobs running now"),
            workers_capacity: add(r, "workers_capacity", "Jobs that may run at once"),
            breaker_state: add(r, "breaker_state", "1 for the state a breaker is in"),
            operation_limit: add(
                r,
                "operation_limit",
                "Jobs of a handler that may run at once on a dependency",
            ),
            operation_running: add(
                r,
                "operation_running",
                "Jobs of a handler that run on a dependency",
            ),
            operation_anchor: add(
                r,
                "operation_anchor_seconds",
                "What such a job takes when nothing is in its way, NaN is not known",
            ),
            health_badness: add(
                r,
                "health_badness",
                "0 is healthy, 1 is as bad as it gets, NaN is not known",
            ),
            gate_limit: add(r, "gate_limit", "Share of slots a priority class may use"),
            redis_duration: add_as(
                r,
                "redis_command_duration_seconds",
                "Round trips to Redis",
                Family::new_with_constructor(|| DurationHistogram::new(REDIS_BOUNDS)),
            ),
            pg_connections: add(r, "pg_pool_connections", "Connections of the pool by state"),
            audit_repairs: add(r, "audit_repairs", "Repairs by the auditor: each is a bug"),
            admin_refused: add(r, "admin_refused", "HTTP requests refused, by reason"),
            reload_failures: add(r, "reload_failures", "Reloads refused"),
            registry,
        }
    }

    /// The handle of one kind in one queue; all handles of the same count together. The kind must be of the catalogue,
    /// or [`UNKNOWN_KIND`].
    #[must_use]
    pub fn kind(&self, queue: &Arc<str>, kind: &Arc<str>) -> KindMetrics {
        self.kinds.handle(queue, kind)
    }

    /// What is counted of the outbox and of bridges.
    #[must_use]
    pub const fn intake(&self) -> &IntakeMetrics {
        &self.intake
    }

    /// What is measured of the forecast.
    #[must_use]
    pub const fn forecast(&self) -> &ForecastMetrics {
        &self.forecast
    }

    /// `n` settlements of this operation came too late.
    pub fn stale_acks(&self, op: &'static str, n: u64) {
        self.stale_acks.get_or_create(&Op { op }).inc_by(n);
    }

    /// So many jobs of a queue are in this state.
    pub fn queue_depth(&self, queue: &Arc<str>, state: &'static str, jobs: u64) {
        let labels = QueueState {
            queue: Arc::clone(queue),
            state,
        };
        self.queue_depth.get_or_create(&labels).set(signed(jobs));
    }

    /// The age of a queue's oldest waiting job; zero if none waits.
    pub fn queue_oldest_age(&self, queue: &Arc<str>, age: Duration) {
        self.queue_oldest_age
            .get_or_create(&of(queue))
            .set(age.as_secs_f64());
    }

    /// Whether a queue is paused.
    pub fn queue_paused(&self, queue: &Arc<str>, paused: bool) {
        self.queue_paused
            .get_or_create(&of(queue))
            .set(i64::from(paused));
    }

    /// What a queue takes up in Redis, bytes.
    pub fn queue_memory(&self, queue: &Arc<str>, bytes: u64) {
        self.queue_memory
            .get_or_create(&of(queue))
            .set(signed(bytes));
    }

    /// So many kept in this state gave way because of a cap, since ever, whichever daemon did it.
    pub fn queue_dropped(&self, queue: &Arc<str>, state: &'static str, count: u64) {
        let labels = QueueState {
            queue: Arc::clone(queue),
            state,
        };
        self.queue_dropped.get_or_create(&labels).set(signed(count));
    }

    /// So many ids a queue remembers.
    pub fn ids_remembered(&self, queue: &Arc<str>, ids: u64) {
        self.ids_remembered
            .get_or_create(&of(queue))
            .set(signed(ids));
    }

    /// How late the last scheduled job was.
    pub fn schedule_lag(&self, lag: Duration) {
        self.schedule_lag.set(lag.as_secs_f64());
    }

    /// How many jobs of a queue run here, and how many may.
    pub fn workers(&self, queue: &Arc<str>, busy: usize, capacity: usize) {
        self.workers_busy
            .get_or_create(&of(queue))
            .set(signed(busy as u64));
        self.workers_capacity
            .get_or_create(&of(queue))
            .set(signed(capacity as u64));
    }

    /// The state a breaker is in now: closed, open, half_open or ramping.
    pub fn breaker_state(&self, handler: &Arc<str>, dependency: &Arc<str>, now_in: &str) {
        for state in BREAKER_STATES {
            let labels = Breaker {
                handler: Arc::clone(handler),
                dependency: Arc::clone(dependency),
                state,
            };
            self.breaker_state
                .get_or_create(&labels)
                .set(i64::from(state == now_in));
        }
    }

    /// How many jobs of a handler may run on a dependency at once, how many do, and what one takes undisturbed.
    pub fn operation(
        &self,
        handler: &Arc<str>,
        dependency: &Arc<str>,
        limit: usize,
        running: usize,
        anchor: Option<Duration>,
    ) {
        let labels = Operation {
            handler: Arc::clone(handler),
            dependency: Arc::clone(dependency),
        };
        let [limit, running] = [limit, running].map(|n| signed(n as u64));
        self.operation_limit.get_or_create(&labels).set(limit);
        self.operation_running.get_or_create(&labels).set(running);
        let seconds = anchor.map_or(f64::NAN, |anchor| anchor.as_secs_f64());
        self.operation_anchor.get_or_create(&labels).set(seconds);
    }

    /// How bad a signal of a resource is, 0 to 1; none if it is missing.
    pub fn health_badness(&self, resource: &Arc<str>, signal: &'static str, badness: Option<f64>) {
        let labels = Badness {
            resource: Arc::clone(resource),
            signal,
        };
        self.health_badness
            .get_or_create(&labels)
            .set(badness.unwrap_or(f64::NAN));
    }

    /// The share of slots a priority class may use, 0 to 1.
    pub fn gate_limit(&self, class: &'static str, share: f64) {
        self.gate_limit.get_or_create(&Class { class }).set(share);
    }

    /// One round trip to Redis.
    pub fn redis_command(&self, op: &'static str, took: Duration) {
        self.redis_duration.get_or_create(&Op { op }).observe(took);
    }

    /// The connections of the Postgres pool.
    pub fn pg_pool(&self, idle: u64, busy: u64) {
        for (state, n) in [("idle", idle), ("busy", busy)] {
            self.pg_connections
                .get_or_create(&State { state })
                .set(signed(n));
        }
    }

    /// The auditor repaired `n` things of a queue.
    pub fn audit_repairs(&self, queue: &Arc<str>, n: u64) {
        self.audit_repairs.get_or_create(&of(queue)).inc_by(n);
    }

    /// An HTTP request was refused.
    pub fn admin_refused(&self, reason: &'static str) {
        self.admin_refused.get_or_create(&Reason { reason }).inc();
    }

    /// A reload was refused.
    pub fn reload_failed(&self) {
        self.reload_failures.inc();
    }

    /// Everything as OpenMetrics text, `application/openmetrics-text; version=1.0.0`.
    ///
    /// # Errors
    /// None that is known: writing to a string does not fail.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Registers a metric and returns it.
fn add<M>(registry: &mut Registry, name: &str, help: &str) -> M
where
    M: prometheus_client::registry::Metric + Clone + Default,
{
    add_as(registry, name, help, M::default())
}

fn add_as<M>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M
where
    M: prometheus_client::registry::Metric + Clone,
{
    registry.register(name, help, metric.clone());
    metric
}

fn of(queue: &Arc<str>) -> Queue {
    Queue {
        queue: Arc::clone(queue),
    }
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
