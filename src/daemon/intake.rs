//! What takes in jobs by other ways than an inbox: wired here, from the configuration.

use super::Parts;
use crate::queue::connection::Connection;
use crate::services::outbox;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Starts the relay of the outbox, if there is to be one.
pub(super) fn start(
    parts: &Arc<Parts>,
    conn: &Connection,
    services: &TaskTracker,
    stop: &CancellationToken,
) {
    let config = parts.config.load_full();
    if let (true, Some(database)) = (config.outbox.enabled, &parts.deps.database) {
        let relay = outbox::Relay {
            database: database.clone(),
            conn: conn.clone(),
            config: Arc::clone(&config),
            metrics: Arc::clone(&parts.shared.metrics),
            alerts: parts.shared.alerts.clone(),
        };
        services.spawn(outbox::run(relay, stop.clone()));
    }
}
