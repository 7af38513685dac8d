//! Tells the world how things stand: this daemon's page and health in Redis, gauges, summaries of the log. And hears,
//! on the same way, what operators ordered.

use super::merge;
use super::orders::Obedience;
use super::page::Teller;
use crate::clock;
use crate::health::{HealthView, STEP_MS};
use crate::job::Priority;
use crate::policy::budget::BudgetState;
use crate::queue::board;
use crate::queue::connection::Connection;
use crate::queue::orders::OrderBook;
use crate::queue::pages::Desk;
use crate::telemetry::events::{self, RetryBudgetChange};
use crate::telemetry::{Metrics, Successes};
use serde_json::Value;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// What is published outlives this many intervals, and at least [`LEAST_TTL`].
const TTL_INTERVALS: u32 = 10;
const LEAST_TTL: Duration = Duration::from_secs(10);

/// How long taking the page away may take.
const LEAVE_DEADLINE: Duration = Duration::from_secs(1);

/// How often the last hour is published.
const HISTORY_INTERVAL: Duration = Duration::from_millis(STEP_MS);

/// What is published, and where.
pub struct Board {
    /// What this daemon tells of itself.
    pub teller: Arc<Teller>,
    /// Where it does so.
    pub desk: Desk,
    /// What it heard is to be done.
    pub obedience: Obedience,
    /// The server of the keys.
    pub conn: Connection,
    /// First part of their names.
    pub prefix: String,
    /// How often.
    pub interval: Duration,
    /// The gauges.
    pub metrics: Arc<Metrics>,
    /// Successes not logged one by one.
    pub successes: Arc<Successes>,
}

/// How long a page, and health, is kept after it was published.
#[must_use]
pub fn ttl(interval: Duration) -> Duration {
    (interval * TTL_INTERVALS).max(LEAST_TTL)
}

/// Publishes at every interval, and obeys what it hears; at the end takes the page away.
pub async fn run(mut board: Board, stop: CancellationToken) {
    let mut interval = tokio::time::interval(board.interval);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut others = Vec::new();
    // Whether to publish for all is known only after the first answer.
    board.publish(&mut others).await;
    let mut history_told: Option<Instant> = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = interval.tick() => {}
        }
        board.successes.tick(clock::unix_ms());
        let view = Arc::clone(&board.teller.view.borrow());
        board.gauge(&view);
        board.tell_budgets();
        board.publish(&mut others).await;
        let due = history_told.is_none_or(|at| clock::since(at) >= HISTORY_INTERVAL);
        if due && !view.histories.is_empty() {
            history_told = Some(clock::monotonic());
            board.tell_history(&view).await;
        }
    }
    let left = tokio::time::timeout(LEAVE_DEADLINE, board.desk.leave()).await;
    if !matches!(left, Ok(Ok(()))) {
        tracing::debug!("the page of this daemon is left to expire");
    }
}

impl Board {
    fn tell_budgets(&self) {
        for (resource, budget) in self.teller.budgets.changes() {
            let holds = budget.state == BudgetState::Holding;
            let reason = if holds {
                "retries wait"
            } else {
                "none waits any more"
            };
            self.teller.turns.note_budget(&resource, reason);
            events::retry_budget(RetryBudgetChange {
                resource: &resource,
                holds,
                share: budget.share,
                limit: budget.limit,
                per_second: budget.per_second,
                held: budget.held,
            });
        }
    }

    /// One round trip: the page, and health for all if that is on us, made with what the `others` told last.
    async fn publish(&mut self, others: &mut Vec<Value>) {
        let health = self.teller.health();
        let for_all = self.desk.leads().then(|| merge::merged(&health, others));
        let for_all = for_all.map(|health| health.to_string());
        let page = self.teller.page(health).to_string();
        match self.desk.publish(&page, for_all.as_deref()).await {
            Ok(heard) => {
                self.obedience.obey(heard.orders, heard.now_ms);
                let pages = heard.others.iter();
                *others = pages.filter_map(|p| serde_json::from_str(p).ok()).collect();
                if heard.ended && self.desk.leads() {
                    self.tidy().await;
                }
            }
            Err(e) => {
                tracing::debug!(error = %e, "health not published");
                if let Some(now_ms) = self.desk.now_ms() {
                    self.obedience.carry_on(now_ms);
                }
            }
        }
    }

    /// Puts the ends of orders on record.
    async fn tidy(&self) {
        let book = OrderBook::new(&self.conn, &self.prefix);
        if let Err(e) = book.tidy().await {
            tracing::debug!(error = %e, "the ends of orders not put on record");
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
            let share = self.teller.rules.shares.of(class, state);
            self.metrics.gate_limit(class.as_str(), share);
        }
        for (handler, resource, snapshot) in self.teller.operations.snapshots() {
            let state = snapshot.state.as_str();
            self.metrics.breaker_state(&handler, &resource, state);
        }
        for of in self.teller.operations.limiters() {
            let anchor = of
                .limiter
                .anchor_ms
                .and_then(|ms| Duration::try_from_secs_f64(ms / 1_000.0).ok());
            let running = of.limiter.inflight;
            self.metrics
                .operation(&of.handler, &of.resource, of.limit, running, anchor);
        }
        if let Some(database) = &self.teller.database {
            let pool = database.gauges();
            let busy = pool.size.saturating_sub(pool.idle);
            self.metrics.pg_pool(pool.idle.into(), busy.into());
        }
    }
}
