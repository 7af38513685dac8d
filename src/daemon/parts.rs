//! What a daemon is made of before it runs, and what it says of itself.

use super::{DaemonError, Parts};
use crate::admin::{QueueReadiness, Readiness};
use crate::catalog::Catalog;
use crate::clock::{self, Epoch};
use crate::config::{Config, Switch};
use crate::policy::breaker::Mode;
use crate::policy::budget::BudgetConfig;
use crate::policy::gate::Orders;
use crate::policy::length::ShortRule;
use crate::queue::board;
use crate::queue::connection::{self, Connection};
use crate::queue::orders::OrderBook;
use crate::runner::budgets::Budgets;
use crate::runner::operations::{Operations, Settings};
use crate::runner::slots::{Reserve, Slots};
use crate::services::orders::Obedience;
use crate::services::page::Turns;
use crate::services::{lag, stuck};
use crate::telemetry::events::{self, BreakerChange};
use crate::telemetry::{Alerts, Metrics};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::watch;

impl Parts {
    pub(super) fn is_live(&self) -> Result<(), String> {
        let limit = stuck::limit(&self.config.load());
        stuck::find(&self.queues, clock::monotonic(), limit)
    }

    pub(super) fn readiness(&self) -> Readiness {
        let config = self.config.load();
        let now = clock::monotonic();
        let limit = config.daemon.poll * 3 + config.redis.command_timeout;
        let each = self.queues.iter().map(|context| {
            let seen = context.progress.seen();
            QueueReadiness {
                name: Arc::clone(&context.queue.name),
                last_look: seen.looked.map(|at| now.saturating_duration_since(at)),
                oldest_age: (!seen.oldest_age.is_zero()).then_some(seen.oldest_age),
                objective: lag::objective(&config, &context.queue.name),
            }
        });
        let queues: Vec<QueueReadiness> = each.collect();
        Readiness {
            redis_answers: queues
                .iter()
                .any(|q| q.last_look.is_some_and(|ago| ago <= limit)),
            stopping: self.stopping.load(Ordering::Acquire),
            look_limit: limit,
            queues,
        }
    }

    pub(super) fn health_json(&self) -> serde_json::Value {
        self.teller.health()
    }
}

pub(super) async fn connect(config: &Config) -> Result<Connection, DaemonError> {
    connection::connect(&config.redis)
        .await
        .map_err(|e| DaemonError::Redis {
            url: config.redis.url.redacted_url(),
            error: e.to_string(),
        })
}

/// Refuses a server that can't work, and tells of one that may lose jobs.
pub(super) async fn inspect(
    conn: &Connection,
    alerts: &Alerts,
) -> Result<BTreeSet<&'static str>, DaemonError> {
    let server = board::inspect_server(conn)
        .await
        .map_err(|e| DaemonError::Unusable(e.to_string()))?;
    if let Some(reason) = server.unusable {
        return Err(DaemonError::Unusable(reason));
    }
    for (setting, problem) in &server.unsafe_settings {
        alerts.raise(events::redis_unsafe(setting, problem));
    }
    let settings = server.unsafe_settings.iter();
    Ok(settings.map(|(setting, _)| *setting).collect())
}

pub(super) fn slots(config: &Config, catalog: &Catalog) -> Slots {
    let reserve = Reserve {
        share: config.gate.reserve.share,
        lend_below: config.gate.reserve.lend_below,
        short: ShortRule {
            runs: config.gate.reserve.runs,
            long_share: config.gate.reserve.long_share,
        },
    };
    let slots = Slots::new(config.daemon.concurrency).reserving(reserve);
    if catalog.has_critical() {
        slots.expect_critical();
    }
    slots
}

pub(super) fn budgets(config: &Config, metrics: &Arc<Metrics>) -> Budgets {
    let own = &config.retry_budget;
    let settings = BudgetConfig {
        share: own.share,
        floor: f64::from(own.floor),
        window: own.window,
        line: own.line,
        crowd: f64::from(own.crowd),
        longest: own.longest,
    };
    Budgets::new(
        (own.mode == Switch::On).then_some(settings),
        Arc::clone(metrics),
    )
}

/// What operators ordered holds from the first job on.
pub(super) async fn obey(
    config: &Config,
    conn: &Connection,
    heard: watch::Sender<Arc<Orders>>,
    operations: &Arc<Operations>,
) -> Obedience {
    let usual = Mode::from(config.breaker.mode);
    let mut obedience = Obedience::new(heard, operations, usual);
    match OrderBook::new(conn, &config.redis.prefix).read().await {
        Ok((given, now_ms)) => obedience.obey(given, now_ms),
        Err(e) => tracing::warn!(error = %e, "orders to the gate not read"),
    }
    obedience
}

pub(super) fn operations(
    config: &Config,
    slots: &Arc<Slots>,
    turns: Arc<Turns>,
    alerts: Alerts,
) -> Operations {
    let pool = usize::try_from(config.database.max_connections).unwrap_or(usize::MAX);
    Operations::new(
        Settings {
            breaker: config.breaker.clone(),
            limiter: config.limiter.clone(),
            pool,
        },
        Epoch::start(),
        Arc::clone(slots),
        move |operation, change| {
            let reason = change.reason.to_string();
            turns.note(&operation.handler, &operation.resource, &reason);
            let alert = events::breaker(BreakerChange {
                handler: &operation.handler,
                resource: &operation.resource,
                from: change.from.as_str(),
                to: change.to.as_str(),
                reason: &reason,
                scope: change.reason.scope(),
            });
            if let Some(alert) = alert {
                alerts.raise(alert);
            }
        },
    )
}
