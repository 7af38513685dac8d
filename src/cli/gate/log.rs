//! `tidegate gate log`: the record of orders.

use super::super::output::table;
use super::super::store::Store;
use super::super::{CliError, Global, Report};
use crate::clock::rfc3339;
use crate::queue::orders::{Entry, OrderBook};
use serde_json::json;

/// Flags of `tidegate gate log`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Entries at most, the latest first. 1-10000
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
}

/// Lists who ordered what, and how each order ended.
///
/// # Errors
/// Configuration or Redis.
pub(super) async fn run(args: &Args, global: &Global) -> Result<Report, CliError> {
    let store = Store::open(global, None).await?;
    let book = OrderBook::new(&store.conn, &store.config.redis.prefix);
    // Daemons do this too; there may be none.
    book.tidy().await?;
    let entries = book.record(args.limit as usize).await?;
    let or_none = |text: &str| match text.is_empty() {
        true => "-".to_owned(),
        false => text.to_owned(),
    };
    let row = |entry: &Entry| {
        vec![
            rfc3339(entry.at),
            or_none(&entry.who),
            entry.event.clone(),
            entry.order.target.to_string(),
            entry.order.order.to_string(),
            rfc3339(entry.order.until),
            or_none(&entry.order.why),
        ]
    };
    let rows: Vec<Vec<String>> = entries.iter().map(row).collect();
    let text = table(
        &["at", "who", "what", "target", "order", "until", "why"],
        &rows,
    );
    Ok(Report::new(json!({"entries": entries}), text))
}
