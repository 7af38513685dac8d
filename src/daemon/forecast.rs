//! Wiring of the forecast: what it records, looks at and may change.

use super::Parts;
use crate::config::ForecastMode;
use crate::queue::connection::Connection;
use crate::queue::load_history::LoadHistory;
use crate::services::forecast::{self, Desk};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Starts the forecaster, unless there is to be none.
pub(super) fn start(
    parts: &Arc<Parts>,
    conn: &Connection,
    services: &TaskTracker,
    stop: &CancellationToken,
) {
    let config = parts.config.load_full();
    if config.forecast.mode == ForecastMode::Off {
        return;
    }
    let configured = Arc::clone(parts);
    let desk = Desk {
        history: LoadHistory::new(conn.clone(), &config.redis.prefix),
        base: Arc::new(move || configured.config.load().daemon.concurrency),
        shared: parts.shared.clone(),
        queues: parts.queues.clone(),
        view: parts.teller.view.clone(),
        database: parts.deps.database.clone(),
        told: Arc::clone(&parts.teller.forecast),
        config,
    };
    services.spawn(forecast::run(desk, stop.clone()));
}
