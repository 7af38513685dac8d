//! Wiring of health: which probes there are, and what the gate makes of them.

use super::{DaemonError, tell_gate};
use crate::config::{Config, GateMode};
use crate::db::Database;
use crate::health::{self, HealthView, Monitor, Probe, QUEUE_REDIS};
use crate::queue::board;
use crate::queue::connection::Connection;
use crate::runner::context::Gate;
use crate::telemetry::Alerts;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The resource under which the one configured database is known.
const PRIMARY: &str = "postgres:primary";
/// Jobs of this handler are never held back: they are what keeps caches correct.
pub const NEVER_SHED: &str = "cache.invalidate";
/// How long a ping of Postgres may take; the probe itself gives up sooner.
const PING_DEADLINE: Duration = Duration::from_secs(5);

/// The monitor of everything this daemon depends on.
pub(super) fn monitor(
    config: &Config,
    conn: &Connection,
    database: Option<&Database>,
    alerts: Alerts,
) -> Result<(Monitor, watch::Receiver<Arc<HealthView>>), DaemonError> {
    let probes = if config.gate.mode == GateMode::Off {
        Vec::new()
    } else {
        probes(config, conn, database)?
    };
    let mode = config.gate.mode;
    Ok(Monitor::new(
        &config.gate,
        probes,
        move |resource, change| {
            tell_gate(&alerts, mode, resource, change);
        },
    ))
}

fn probes(
    config: &Config,
    conn: &Connection,
    database: Option<&Database>,
) -> Result<Vec<Probe>, DaemonError> {
    let limits = &config.gate.limits;
    let mut probes = health::local_probes(&config.gate);
    let redis = conn.clone();
    probes.push(health::redis_rtt(QUEUE_REDIS, limits, move || {
        let redis = redis.clone();
        async move { board::ping(&redis).await.map_err(|e| e.to_string()) }
    }));
    let Some(pool) = database.cloned() else {
        return Ok(probes);
    };
    probes.push(health::postgres_acquire(PRIMARY, limits, move || {
        let pool = pool.clone();
        async move {
            pool.acquire_wait()
                .await
                .map(|_| ())
                .map_err(|e| e.to_string())
        }
    }));
    // On a connection of its own: a busy pool is no dead server.
    let mut lone = config.database.clone();
    lone.max_connections = 1;
    let lone =
        Database::open(&lone).map_err(|e| DaemonError::setting(format!("database.url: {e}")))?;
    probes.push(health::postgres_ping(PRIMARY, limits, move || {
        let lone = lone.clone();
        async move {
            lone.ping(PING_DEADLINE)
                .await
                .map(|_| ())
                .map_err(|e| e.to_string())
        }
    }));
    Ok(probes)
}

/// What the gate lets a class of a definition use.
pub(super) fn gate(view: watch::Receiver<Arc<HealthView>>, mode: GateMode) -> Gate {
    Arc::new(move |spec, class, slots| {
        if spec.handler == NEVER_SHED {
            return slots;
        }
        let view = view.borrow().clone();
        health::slots_for(&view, class, &spec.resources, slots, mode).0
    })
}
