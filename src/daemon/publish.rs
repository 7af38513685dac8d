//! Wiring of what this daemon publishes, and of the orders it hears.

use super::Parts;
use crate::queue::connection::Connection;
use crate::queue::pages::Desk;
use crate::services::orders::Obedience;
use crate::services::publish::{self, Board};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Starts publishing.
pub(super) fn start(
    parts: &Arc<Parts>,
    conn: &Connection,
    obedience: Obedience,
    services: &TaskTracker,
    stop: &CancellationToken,
) {
    let config = parts.config.load_full();
    let (prefix, interval) = (config.redis.prefix.clone(), config.gate.sample);
    let instance = &parts.teller.identity.instance;
    let board = Board {
        desk: Desk::new(conn, &prefix, instance, interval, publish::ttl(interval)),
        teller: Arc::clone(&parts.teller),
        obedience,
        conn: conn.clone(),
        prefix,
        interval,
        metrics: Arc::clone(&parts.shared.metrics),
        successes: Arc::clone(&parts.shared.successes),
    };
    services.spawn(publish::run(board, stop.clone()));
}
