//! Looks now and then at how the server is set up: what makes it lose jobs may be changed while we run.

use crate::queue::board::inspect_server;
use crate::queue::connection::Connection;
use crate::telemetry::alerts::Alerts;
use crate::telemetry::events;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often it looks.
const INTERVAL: Duration = Duration::from_secs(10);

/// Looks until `stop`; `told` are the settings that were found unsafe, and told of, before.
pub async fn run(
    conn: Connection,
    alerts: Alerts,
    mut told: BTreeSet<&'static str>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        // That it does not answer is told by others.
        let Ok(server) = inspect_server(&conn).await else {
            continue;
        };
        for (setting, problem) in &server.unsafe_settings {
            if !told.contains(setting) {
                alerts.raise(events::redis_unsafe(setting, problem));
            }
        }
        told = server
            .unsafe_settings
            .iter()
            .map(|(setting, _)| *setting)
            .collect();
    }
}
