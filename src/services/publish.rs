//! Tells the world how things stand: the health key in Redis, gauges, summaries of the log.

use super::forecast::Told;
use crate::clock;
use crate::db::Database;
use crate::health::{HealthView, STEP_MS};
use crate::job::Priority;
use crate::policy::budget::BudgetState;
use crate::policy::gate::share;
use crate::queue::board;
use crate::queue::connection::Connection;
use crate::runner::budgets::Budgets;
use crate::runner::operations::Operations;
use crate::runner::slots::Slots;
use crate::telemetry::events::{self, RetryBudgetChange};
use crate::telemetry::{Metrics, Successes};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The health key outlives this many intervals, and at least [`LEAST_TTL`].
const TTL_INTERVALS: u32 = 10;
const LEAST_TTL: Duration = Duration::from_secs(10);

/// How often the last hour is published.
const HISTORY_INTERVAL: Duration = Duration::from_millis(STEP_MS);

/// What is published, and where.
pub struct Board {
    /// The server of the health key.
    pub conn: Connection,
    /// First part of its name.
    pub prefix: String,
    /// How often.
    pub interval: Duration,
    /// Health as the monitor sees it.
    pub view: watch::Receiver<Arc<HealthView>>,
    /// The operations with their breakers.
    pub operations: Arc<Operations>,
    /// The retry budgets.
    pub budgets: Arc<Budgets>,
    /// The slots, some of which are reserved.
    pub slots: Arc<Slots>,
    /// The gauges.
    pub metrics: Arc<Metrics>,
    /// The pool whose use is shown.
    pub database: Option<Database>,
    /// Successes not logged one by one.
    pub successes: Arc<Successes>,
    /// What the forecaster told last.
    pub forecast: Told,
}

/// Publishes at every interval.
pub async fn run(board: Board, stop: CancellationToken) {
    let mut interval = tokio::time::interval(board.interval);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let ttl = (board.interval * TTL_INTERVALS).max(LEAST_TTL);
    let key = board::health_key(&board.prefix);
    let mut history_told: Option<Instant> = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = interval.tick() => {}
        }
        board.successes.tick(clock::unix_ms());
        let view = Arc::clone(&board.view.borrow());
        board.gauge(&view);
        board.tell_budgets();
        let text = board.json(&view).to_string();
        if let Err(e) = board::publish(&board.conn, &key, &text, ttl).await {
            tracing::debug!(error = %e, "health not published");
        }
        let due = history_told.is_none_or(|at| clock::since(at) >= HISTORY_INTERVAL);
        if due && !view.histories.is_empty() {
            history_told = Some(clock::monotonic());
            board.tell_history(&view).await;
        }
    }
}

impl Board {
    fn json(&self, view: &HealthView) -> Value {
        json(
            view,
            &self.operations,
            &self.budgets,
            &self.slots,
            &self.forecast.load(),
        )
    }

    fn tell_budgets(&self) {
        for (resource, budget) in self.budgets.changes() {
            events::retry_budget(RetryBudgetChange {
                resource: &resource,
                holds: budget.state == BudgetState::Holding,
                share: budget.share,
                limit: budget.limit,
                per_second: budget.per_second,
                held: budget.held,
            });
        }
    }

    async fn tell_history(&self, view: &HealthView) {
        let key = board::history_key(&self.prefix);
        let text = view.history_json().to_string();
        let ttl = (self.interval * TTL_INTERVALS).max(HISTORY_INTERVAL * TTL_INTERVALS);
        if let Err(e) = board::publish(&self.conn, &key, &text, ttl).await {
            tracing::debug!(error = %e, "the history of health not published");
        }
    }

    fn gauge(&self, view: &HealthView) {
        for (resource, state) in &view.resources {
            let resource: Arc<str> = resource.as_str().into();
            for signal in &state.signals {
                let measured = signal.value.map(|_| signal.badness);
                self.metrics
                    .health_badness(&resource, signal.name, measured);
            }
        }
        let (state, _) = view.state_of::<&str>(&[]);
        for class in Priority::ALL {
            self.metrics.gate_limit(class.as_str(), share(class, state));
        }
        for (handler, resource, snapshot) in self.operations.snapshots() {
            let state = snapshot.state.as_str();
            self.metrics.breaker_state(&handler, &resource, state);
        }
        for of in self.operations.limiters() {
            let anchor = of
                .limiter
                .anchor_ms
                .map(|ms| Duration::from_secs_f64(ms / 1_000.0));
            let running = of.limiter.inflight;
            self.metrics
                .operation(&of.handler, &of.resource, of.limit, running, anchor);
        }
        if let Some(database) = &self.database {
            let pool = database.gauges();
            let busy = pool.size.saturating_sub(pool.idle);
            self.metrics.pg_pool(pool.idle.into(), busy.into());
        }
    }
}

/// Version 1 of what apps read: health with the breakers and limiters, the retry budgets, what is reserved for critical jobs,
/// and the forecast unless that is null.
#[must_use]
pub fn json(
    view: &HealthView,
    operations: &Operations,
    budgets: &Budgets,
    slots: &Slots,
    forecast: &Value,
) -> Value {
    let mut health = view.to_json();
    let each = operations.snapshots().into_iter().map(|(handler, resource, snapshot)| {
        json!({"handler": handler, "resource": resource, "breaker": snapshot})
    });
    health["breakers"] = each.collect();
    let budgets = budgets.snapshots().into_iter();
    let each = budgets.map(|(resource, budget)| json!({"resource": resource, "budget": budget}));
    health["budgets"] = each.collect();
    health["reserve"] = json!({
        "slots": slots.total(),
        "reserved": slots.reserved(),
        "lend_below_ms": slots.lend_below().as_millis() as u64,
        "busy": slots.busy(),
        "long": slots.busy_long(),
    });
    health["limiters"] = json!(operations.limiters());
    if !forecast.is_null() {
        health["forecast"] = forecast.clone();
    }
    health["published_at"] = clock::unix_ms().into();
    health
}
