//! Taking over a new configuration: whole, or not at all.

use super::{DaemonError, Parts, scope};
use crate::catalog::Catalog;
use crate::config::Config;
use crate::runner::Registry;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Sections that are read once, at the start; of `daemon` all but the concurrency.
const AT_START: [&str; 21] = [
    "redis",
    "database",
    "daemon",
    "queue",
    "queues",
    "aging",
    "dedupe",
    "cache",
    "gate",
    "probes",
    "probe",
    "breaker",
    "retry_budget",
    "forecast",
    "admin",
    "log",
    "alerts",
    "retention",
    "outbox",
    "bridges",
    "bridge",
];

/// Swaps definitions and concurrency; says which other changes need a restart.
pub(super) fn apply(parts: &Parts, config: Config, catalog: Catalog) -> Result<(), DaemonError> {
    let mut new_deps = parts.deps.clone();
    new_deps.config = Arc::new(config.clone());
    new_deps.http = crate::handlers::SharedClient::default();
    let catalog = scope::own_kinds(&config, catalog, &parts.code)?;
    let catalog = parts.handlers.touching(catalog, &config);
    let shared = &parts.shared;
    let registry = Registry::build(
        catalog,
        &parts.handlers,
        &new_deps,
        &shared.operations,
        &shared.budgets,
    )
    .map_err(|problems| DaemonError::definitions(&problems))?;
    let unserved = unserved_queues(parts, &registry.catalog);
    let kinds = registry.catalog.len();
    if registry.catalog.has_critical() {
        shared.slots.expect_critical();
    }
    shared.registry.store(Arc::new(registry));
    shared.slots.set_total(config.daemon.concurrency);
    shared.operations.forget_unused();
    shared.budgets.forget_unused();
    shared.operations.configure(&config.limiter);
    let waiting = changed_at_start(&parts.config.load(), &config);
    parts.config.store(Arc::new(config));
    for context in &parts.queues {
        context.request_upkeep();
        context.limits_changed();
        context.nudge();
    }
    tracing::info!(
        event = "reloaded",
        kinds,
        "configuration and definitions reloaded"
    );
    if !waiting.is_empty() || !unserved.is_empty() {
        tracing::warn!(
            event = "reload_incomplete",
            sections = waiting.join(", "),
            queues = unserved.join(", "),
            "these changes take effect after a restart"
        );
    }
    Ok(())
}

fn changed_at_start(old: &Config, new: &Config) -> Vec<&'static str> {
    // Secrets serialize as stars, so that a change of one alone goes unnoticed here: it takes a restart all the same.
    let [old, new] = [old, new].map(|c| {
        let mut config = serde_json::to_value(c).unwrap_or_default();
        config["daemon"]["concurrency"].take();
        config
    });
    let differs = |section: &&'static str| old.get(*section) != new.get(*section);
    AT_START.into_iter().filter(differs).collect()
}

fn unserved_queues(parts: &Parts, catalog: &Catalog) -> Vec<String> {
    let served = |queue: &str| parts.queues.iter().any(|c| &*c.queue.name == queue);
    let unserved: BTreeSet<String> = catalog
        .iter()
        .filter(|spec| !served(&spec.queue))
        .map(|spec| spec.queue.to_string())
        .collect();
    unserved.into_iter().collect()
}
