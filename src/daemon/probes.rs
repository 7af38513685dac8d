//! Signals that users define: whom each of them asks.

use crate::config::{Config, ProbeConfig, Secret, Way};
use crate::db::Database;
use crate::handlers::Once;
use crate::health::{self, Page, Probe};
use std::time::Duration;

/// What is wrong with the signals that users define, each naming its setting: what the configuration alone can't tell.
#[must_use]
pub fn check(config: &Config) -> Vec<String> {
    let each = config.probe.iter().filter_map(|own| match own.way()? {
        Way::Sql(_) => None,
        Way::Url(url) => page(config, own, url).err(),
        Way::Command(command) => program(own, command).err(),
    });
    each.collect()
}

/// Their probes; `database` is for their queries alone.
///
/// # Errors
/// The first thing that is wrong, naming its setting.
pub(super) fn build(config: &Config, database: Option<&Database>) -> Result<Vec<Probe>, String> {
    let each = config.probe.iter().map(|own| one(config, own, database));
    each.collect()
}

fn one(config: &Config, own: &ProbeConfig, database: Option<&Database>) -> Result<Probe, String> {
    let timeout = timeout(config, own);
    let defaults = &config.probes;
    match (own.way(), database.cloned()) {
        (Some(Way::Url(url)), _) => {
            let page = page(config, own, url)?;
            Ok(health::custom(own, defaults, move || {
                let page = page.clone();
                async move { page.number().await }
            }))
        }
        (Some(Way::Command(command)), _) => {
            let program = program(own, command)?;
            Ok(health::custom(own, defaults, move || {
                let program = program.clone();
                async move {
                    let value = tokio::time::timeout(timeout, program.value()).await;
                    let value = value.map_err(|_| format!("no value within {timeout:?}"))??;
                    value
                        .as_f64()
                        .ok_or_else(|| "it printed no number".to_owned())
                }
            }))
        }
        (Some(Way::Sql(sql)), Some(database)) => {
            let sql = sql.to_owned();
            Ok(health::custom(own, defaults, move || {
                let (database, sql) = (database.clone(), sql.clone());
                async move {
                    let number = database.number(&sql, timeout).await;
                    number.map_err(|e| e.to_string())
                }
            }))
        }
        (Some(Way::Sql(_)), None) => Err(format!("probe.{}.sql: there is no database", own.name)),
        (None, _) => Err(format!("probe.{}: asks nobody", own.name)),
    }
}

fn timeout(config: &Config, own: &ProbeConfig) -> Duration {
    own.timeout.unwrap_or(config.probes.timeout)
}

fn page(config: &Config, own: &ProbeConfig, url: &Secret) -> Result<Page, String> {
    let token = own
        .secret
        .as_ref()
        .and_then(|name| config.secrets.get(name));
    Page::new(url, own.field.as_deref(), token, timeout(config, own))
        .map_err(|e| format!("probe.{}.url: {e}", own.name))
}

fn program(own: &ProbeConfig, command: &[String]) -> Result<Once, String> {
    Once::new(command).map_err(|e| format!("probe.{}.command: {e}", own.name))
}
