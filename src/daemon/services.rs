//! Wiring of what runs beside the claim loops: the endpoints for operators and the services.

use super::{DaemonError, Parts, forecast, intake, publish};
use crate::admin::{self, AdminState};
use crate::config::Switch;
use crate::queue::connection::Connection;
use crate::services::orders::Obedience;
use crate::services::{auditor, bell, fleet, lag, limiter, scheduler, upkeep};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Answers with the address that is bound, none if the endpoints are off.
pub(super) async fn start_admin(
    parts: &Arc<Parts>,
    services: &TaskTracker,
    stop: &CancellationToken,
) -> Result<Option<SocketAddr>, DaemonError> {
    let config = parts.config.load_full();
    if config.admin.listen.is_empty() {
        return Ok(None);
    }
    let unusable = |e| DaemonError::Admin(format!("{}: {e}", config.admin.listen));
    let listener = tokio::net::TcpListener::bind(&config.admin.listen)
        .await
        .map_err(unusable)?;
    let address = listener.local_addr().map_err(unusable)?;
    let [live, ready, health] = [parts, parts, parts].map(Arc::clone);
    let state = AdminState {
        token: config.admin.token.clone(),
        liveness: Arc::new(move || live.is_live()),
        readiness: Arc::new(move || ready.readiness()),
        health: Arc::new(move || health.health_json()),
        metrics: Arc::clone(&parts.shared.metrics),
    };
    let stop = stop.clone();
    services.spawn(async move {
        if let Err(e) = admin::serve(listener, state, stop).await {
            tracing::error!(error = %e, "the admin endpoint ended");
        }
    });
    Ok(Some(address))
}

pub(super) fn start_services(
    parts: &Arc<Parts>,
    conn: &Connection,
    obedience: Obedience,
    services: &TaskTracker,
    stop: &CancellationToken,
) {
    let config = parts.config.load_full();
    publish::start(parts, conn, obedience, services, stop);
    services.spawn(limiter::run(
        Arc::clone(&parts.shared.operations),
        parts.teller.view.clone(),
        stop.clone(),
    ));
    forecast::start(parts, conn, services, stop);
    intake::start(parts, conn, services, stop);
    if config.breaker.fleet == Switch::On {
        let operations = Arc::clone(&parts.shared.operations);
        let prefix = &config.redis.prefix;
        let fleet = fleet::Fleet::new(conn.clone(), prefix, operations, &config.breaker);
        services.spawn(fleet.run(stop.clone()));
    }
    services.spawn(bell::run(
        parts.queues.clone(),
        config.redis.clone(),
        stop.clone(),
    ));
    for context in &parts.queues {
        services.spawn(lag::run(
            Arc::clone(context),
            lag::objective(&config, &context.queue.name),
            stop.clone(),
        ));
        services.spawn(auditor::run(
            Arc::clone(context),
            config.audit.interval,
            stop.clone(),
        ));
        services.spawn(upkeep::run(
            Arc::clone(context),
            config.retention.clone(),
            stop.clone(),
        ));
        services.spawn(scheduler::run(Arc::clone(context), stop.clone()));
    }
}
