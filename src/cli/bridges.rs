//! `tidegate bridges`: what waits in the namespaces of apalis-redis that are bridged, and what was set aside there.

use super::output::{age, table};
use super::setup::Global;
use super::store::connect;
use super::{CliError, Report};
use crate::config::{BridgeConfig, Config};
use crate::daemon::intake::bridge_queue;
use crate::queue::bridge::{Namespace, Standing};
use serde_json::{Value, json};

const EXAMPLES: &str = "\
Examples:
  tidegate bridges
  tidegate bridges --json | jq '.bridges[] | select(.lag_ms > 60000)'";

/// Flags of `tidegate bridges`: the global ones are all there are.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {}

/// Counts the namespace of every bridge.
///
/// # Errors
/// Configuration, or a Redis that can't be reached or holds something else under these names.
pub async fn run(_: Args, global: &Global) -> Result<Report, CliError> {
    let config = global.load_config()?;
    let catalog = global.load_catalog()?.unwrap_or_default();
    let (mut views, mut rows) = (Vec::new(), Vec::new());
    for bridge in &config.bridge {
        let queue = bridge_queue(bridge, &catalog);
        let standing = standing(&config, bridge).await?;
        views.push(view(bridge, queue, &standing));
        rows.push(cells(bridge, queue, &standing));
    }
    let mut text = table(
        &[
            "bridge",
            "namespace",
            "kind",
            "queue",
            "waiting",
            "set aside",
            "lag",
        ],
        &rows,
    );
    if config.bridge.is_empty() {
        text = "no bridge is configured: see [[bridge]]\n".to_owned();
    }
    Ok(Report::new(json!({"bridges": views}), text))
}

async fn standing(config: &Config, bridge: &BridgeConfig) -> Result<Standing, CliError> {
    let mut there = config.clone();
    if let Some(url) = &bridge.redis_url {
        there.redis.move_to(url.clone());
    }
    let conn = connect(&there).await?;
    Ok(Namespace::new(&bridge.namespace, conn).standing().await?)
}

fn view(bridge: &BridgeConfig, queue: &str, standing: &Standing) -> Value {
    json!({
        "name": bridge.name,
        "namespace": bridge.namespace,
        "kind": bridge.kind,
        "queue": queue,
        "waiting": standing.waiting,
        "set_aside": standing.set_aside,
        "lag_ms": standing.lag_ms,
    })
}

fn cells(bridge: &BridgeConfig, queue: &str, standing: &Standing) -> Vec<String> {
    vec![
        bridge.name.clone(),
        bridge.namespace.clone(),
        bridge.kind.clone(),
        queue.to_owned(),
        standing.waiting.to_string(),
        standing.set_aside.to_string(),
        age(standing.lag_ms),
    ]
}
