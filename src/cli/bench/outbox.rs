//! How fast one relay moves rows of the outbox to Redis: from a Postgres of our own, one table full of rows, to a queue that
//! nobody serves.

use super::bed::Bed;
use super::load::rate;
use super::{failed, say};
use crate::cli::{CliError, Report, output};
use crate::clock;
use crate::config::Secret;
use crate::db::{self, Database};
use crate::services::outbox::{Relay, aside::Aside};
use crate::stack::{PostgresOptions, PrivatePostgres};
use crate::telemetry::{Alerts, Metrics};
use serde_json::json;
use std::sync::Arc;

/// Fills the table, and empties it.
pub(super) async fn measure(rows: u64, bed: &Bed) -> Result<Report, CliError> {
    say("a Postgres of our own");
    let options = PostgresOptions::new(bed.dir().join("postgres"));
    let start = move || {
        let server = PrivatePostgres::start(options)?;
        server.create_database("app")?;
        Ok::<_, crate::stack::StackError>(server)
    };
    let started = tokio::task::spawn_blocking(start).await;
    let server = started.map_err(failed)?.map_err(failed)?;
    let mut config = bed.config.clone();
    config.database.url = Secret::new(server.url("app"));
    let database = Database::open(&config.database).map_err(failed)?;
    db::migrate(&database).await.map_err(failed)?;
    say(&format!("{rows} rows"));
    db::outbox::inspect::fill(&database, "bench.noop", rows)
        .await
        .map_err(failed)?;
    let relay = Relay {
        database,
        conn: bed.conn.clone(),
        metrics: Arc::new(Metrics::new()),
        alerts: Alerts::default(),
        aside: Aside::default(),
        config: Arc::new(config),
    };
    say("one relay");
    let start = clock::monotonic();
    while relay.step().await.map_err(failed)? {}
    let moved = rate(rows, clock::since(start));
    let batch = relay.config.outbox.batch;
    let text = output::pairs(&[
        ("rows a transaction", batch.to_string()),
        ("one outbox relay", format!("{moved:.0} rows/s")),
    ]);
    let json = json!({"rows": rows, "batch": batch, "outbox_rows_per_s": moved});
    Ok(Report::new(json, text))
}
