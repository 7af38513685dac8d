//! What takes in jobs by other ways than an inbox: wired here, from the configuration.

use super::DEFAULT_QUEUE;
use super::{DaemonError, Parts};
use crate::catalog::Catalog;
use crate::config::{BridgeConfig, Config};
use crate::queue::Queue;
use crate::queue::connection::Connection;
use crate::services::bridge::translate::Rules;
use crate::services::bridge::{self, Bridge, From};
use crate::services::outbox;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Whether all that is to be taken in has somewhere to come from.
///
/// # Errors
/// Names the setting that is missing.
pub fn check(config: &Config) -> Result<(), DaemonError> {
    if config.outbox.enabled && config.database.url.is_empty() {
        let problem =
            "outbox.enabled: needs a database: set [database] url or TIDEGATE_DATABASE__URL";
        return Err(DaemonError::setting(problem));
    }
    Ok(())
}

/// Starts the relay of the outbox, if there is to be one, and every bridge.
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
            aside: outbox::aside::Aside::default(),
        };
        services.spawn(outbox::run(relay, stop.clone()));
    }
    for own in &config.bridge {
        let bridge = build(own, parts, &config, conn);
        services.spawn(bridge::run(bridge, stop.clone()));
    }
}

/// The queue of a bridge: the one it names, or that of its kind's definition.
#[must_use]
pub fn bridge_queue<'a>(own: &'a BridgeConfig, catalog: &'a Catalog) -> &'a str {
    let spec = catalog.get(&own.kind);
    let defined = spec.map_or(DEFAULT_QUEUE, |spec| &*spec.queue);
    own.queue.as_deref().unwrap_or(defined)
}

fn build(own: &BridgeConfig, parts: &Parts, config: &Config, conn: &Connection) -> Bridge {
    let registry = parts.shared.registry.load();
    let queue = bridge_queue(own, &registry.catalog);
    let elsewhere = own
        .redis_url
        .as_ref()
        .filter(|url| **url != config.redis.url);
    Bridge {
        rules: Rules {
            name: own.name.clone(),
            kind: own.kind.clone(),
            arg: own.arg.as_ref().unwrap_or(&config.bridges.arg).clone(),
        },
        namespace: own.namespace.clone(),
        from: elsewhere.map_or_else(
            || From::Main(conn.clone()),
            |url| {
                let mut there = config.redis.clone();
                there.move_to(url.clone());
                From::Other(there)
            },
        ),
        queue: Queue::new(queue, conn.clone(), config),
        batch: config.bridges.batch,
        poll: config.bridges.poll,
        metrics: Arc::clone(&parts.shared.metrics),
        alerts: parts.shared.alerts.clone(),
    }
}
