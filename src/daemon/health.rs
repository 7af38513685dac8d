//! Wiring of health: which probes there are, and what the gate makes of them.

use super::DaemonError;
use crate::config::{Config, GateMode, LimitsConfig};
use crate::db::{Database, Vitals};
use crate::health::{self, HealthView, Monitor, PostgresStats, Probe, QUEUE_REDIS, REDIS_SECTIONS};
use crate::policy::gate::{GateState, Rules, Transition};
use crate::queue::board;
use crate::queue::connection::Connection;
use crate::runner::context::{Gate, Standing};
use crate::telemetry::{Alerts, events};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// The resource under which the one configured database is known.
const PRIMARY: &str = "postgres:primary";
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
    let redis = conn.clone();
    probes.push(health::redis_info(QUEUE_REDIS, limits, move || {
        let redis = redis.clone();
        async move {
            let info = board::info(&redis, &REDIS_SECTIONS);
            info.await.map_err(|e| e.to_string())
        }
    }));
    let Some(pool) = database else {
        probes.extend(super::probes::build(config, None).map_err(DaemonError::setting)?);
        return Ok(probes);
    };
    // On connections of their own: a busy pool is no dead server, and a slow query of a user delays nothing else.
    let [asked, users] = [2, 1].map(|connections| {
        let mut own = config.database.clone();
        own.max_connections = connections;
        Database::open(&own).map_err(|e| DaemonError::setting(format!("database.url: {e}")))
    });
    let (asked, users) = (asked?, users?);
    probes.extend(of_postgres(limits, pool.clone(), asked));
    probes.extend(super::probes::build(config, Some(&users)).map_err(DaemonError::setting)?);
    Ok(probes)
}

/// What is measured of Postgres: the wait for the jobs' pool, and the rest on `own` connections.
fn of_postgres(limits: &LimitsConfig, pool: Database, own: Database) -> [Probe; 3] {
    let jobs = pool.clone();
    let acquire = move || {
        let pool = pool.clone();
        async move {
            let waited = pool.acquire_wait().await;
            waited.map(drop).map_err(|e| e.to_string())
        }
    };
    let pinged = own.clone();
    let ping = move || {
        let pinged = pinged.clone();
        async move {
            let pong = pinged.ping(PING_DEADLINE).await;
            pong.map(drop).map_err(|e| e.to_string())
        }
    };
    let told = Arc::new(AtomicBool::new(false));
    let ask = move || {
        let (own, jobs, told) = (own.clone(), jobs.clone(), Arc::clone(&told));
        async move {
            let vitals = own.vitals(PING_DEADLINE).await.map_err(|e| e.to_string())?;
            if !vitals.sees_all && !told.swap(true, Ordering::Relaxed) {
                tracing::info!(
                    event = "probe",
                    resource = PRIMARY,
                    "sessions of other roles and replicas are not seen: grant pg_monitor to the role of [database] url"
                );
            }
            Ok(stats(&vitals, jobs.slowdown()))
        }
    };
    [
        health::postgres_acquire(PRIMARY, limits, acquire),
        health::postgres_ping(PRIMARY, limits, ping),
        health::postgres_stats(PRIMARY, limits, ask),
    ]
}

/// The numbers that are signals, as they are.
const fn stats(vitals: &Vitals, slowdown: f64) -> PostgresStats {
    PostgresStats {
        active: vitals.active,
        waiting: vitals.waiting,
        sessions_percent: vitals.sessions_percent,
        replication_lag_ms: vitals.replication_lag_ms,
        xmin_age: vitals.xmin_age,
        wal_bytes: vitals.wal_bytes,
        archive_backlog: vitals.archive_backlog,
        vacuum_percent: vitals.vacuum_percent,
        slowdown,
    }
}

/// What the gate lets a class of a definition use.
pub(super) fn gate(view: watch::Receiver<Arc<HealthView>>, rules: Rules) -> Gate {
    Arc::new(move |spec, class, slots| {
        if spec.is_never_shed() {
            return slots;
        }
        let view = view.borrow().clone();
        health::slots_for(&view, class, &spec.resources, slots, &rules).0
    })
}

/// The state that [`gate`] goes by, with the resource that is in it.
pub(super) fn standing(view: watch::Receiver<Arc<HealthView>>, mode: GateMode) -> Standing {
    Arc::new(move |spec| {
        let view = view.borrow().clone();
        let worst = view.worst_for(&spec.resources);
        match worst.map(|(name, view)| (mode.heeded(view.state), name)) {
            Some((state, name)) if state > GateState::Ok && !spec.is_never_shed() => {
                (state, name.to_owned())
            }
            _ => (GateState::Ok, String::new()),
        }
    })
}

/// Logs a change of the gate and raises its alert.
fn tell_gate(alerts: &Alerts, mode: GateMode, resource: &str, change: &Transition) {
    alerts.raise(events::gate(events::GateChange {
        resource,
        from: change.from.as_str(),
        to: change.to.as_str(),
        signal: change.signal,
        value: change.value,
        shadow: mode != GateMode::On,
    }));
}
