//! `tidegate outbox`: rows that wait in Postgres, and those that can't be jobs.

use super::act::{Act, Sure, acted};
use super::output::{age, brief, table};
use super::store::queue_name;
use super::{CliError, Global, Report};
use crate::config::Config;
use crate::db::outbox::inspect::{self, COUNT_MAX, Change, Filter, Listed, Standing};
use crate::db::outbox::require;
use crate::db::{Database, DbError};
use clap::Subcommand;
use serde_json::{Value, json};

const EXAMPLES: &str = "\
Examples:
  tidegate outbox list                        how far behind the relay is, and what waits
  tidegate outbox list --rejected --json      rows that can't be jobs, with the reason
  tidegate outbox retry 17 18                 after the reason is gone
  tidegate outbox purge --all --kind mail.send --yes";

/// The most characters of a reason in a table.
const REASON_WIDTH: usize = 80;

/// `tidegate outbox …`
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(super) enum Command {
    /// Show how far behind the relay is, and rows, the oldest first
    List {
        #[command(flatten)]
        of: Of,
        /// Only rows that can't be jobs
        #[arg(long)]
        rejected: bool,
        /// Rows at most
        #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=100_000))]
        limit: u32,
    },
    /// Let rows that could not be jobs be tried again
    Retry(Chosen),
    /// Remove rows that can't be jobs, for good
    Purge {
        #[command(flatten)]
        chosen: Chosen,
        #[command(flatten)]
        sure: Sure,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Of {
    /// Only this kind
    #[arg(long)]
    kind: Option<String>,
    /// Only this queue
    #[arg(long, value_name = "NAME", value_parser = queue_name)]
    queue: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Chosen {
    /// Numbers of rows, as `list` shows them
    #[arg(required_unless_present = "all", conflicts_with_all = ["all", "kind", "queue"], value_name = "SEQ")]
    seqs: Vec<i64>,
    /// All rejected rows that the filters leave
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    of: Of,
}

/// Runs one of them.
///
/// # Errors
/// No database is configured, it can't be reached, it has no outbox, or a purge of everything was not confirmed.
pub(super) async fn run(command: Command, global: &Global) -> Result<Report, CliError> {
    let (change, chosen) = match command {
        Command::List {
            of,
            rejected,
            limit,
        } => {
            let filter = of.filter(rejected);
            return list(&filter, limit, global).await;
        }
        Command::Retry(chosen) => (Change::Retry, chosen),
        Command::Purge { chosen, sure } => {
            sure.confirm(chosen.all)?;
            (Change::Purge, chosen)
        }
    };
    let config = global.load_config()?;
    let changed = on_database(&config, async |database| {
        if chosen.all {
            let filter = chosen.of.filter(true);
            return inspect::change_all(database, change, &filter).await;
        }
        inspect::change(database, change, &chosen.seqs).await
    })
    .await?;
    Ok(report_change(change, &chosen, changed))
}

impl Of {
    fn filter(&self, rejected: bool) -> Filter {
        Filter {
            kind: self.kind.clone(),
            queue: self.queue.clone(),
            rejected,
        }
    }
}

/// Does something on a database that has an outbox.
async fn on_database<T>(
    config: &Config,
    work: impl AsyncFnOnce(&Database) -> Result<T, DbError>,
) -> Result<T, CliError> {
    let failed = |error| CliError::database(&config.database, error);
    let database = Database::open(&config.database).map_err(failed)?;
    require(&database).await.map_err(failed)?;
    let answer = work(&database).await.map_err(failed)?;
    database.close().await;
    Ok(answer)
}

/// Says that a job is still in the outbox, if there is one and it can be asked.
pub(super) async fn whereabouts(config: &Config, id: &str) -> Option<String> {
    if !config.outbox.enabled {
        return None;
    }
    let found = on_database(config, async |database| inspect::find(database, id).await).await;
    let row = found.ok().flatten()?;
    let seq = row.seq;
    Some(match row.error {
        Some(error) => format!(
            "{id} is row {seq} of the outbox, and can't be a job: {error}; `tidegate outbox retry {seq}` after a remedy"
        ),
        None => format!(
            "{id} is row {seq} of the outbox, and has waited there for {}: no relay has come to it yet",
            age(whole(row.age_ms))
        ),
    })
}

async fn list(filter: &Filter, limit: u32, global: &Global) -> Result<Report, CliError> {
    let config = global.load_config()?;
    let (standing, rows) = on_database(&config, async |database| {
        let standing = inspect::standing(database).await?;
        let rows = inspect::list(database, filter, i64::from(limit)).await?;
        Ok((standing, rows))
    })
    .await?;
    let mut text = table(
        &["seq", "state", "age", "kind", "queue", "id", "error"],
        &rows.iter().map(cells).collect::<Vec<_>>(),
    );
    text.push_str(&summary(&standing, config.outbox.enabled));
    let json = json!({
        "rows": rows.iter().map(view).collect::<Vec<Value>>(),
        "waiting": standing.waiting,
        "rejected": standing.rejected,
        "counted_up_to": COUNT_MAX,
        "lag_ms": whole(standing.lag_ms),
        "enabled": config.outbox.enabled,
    });
    Ok(Report::new(json, text))
}

fn summary(standing: &Standing, enabled: bool) -> String {
    let count = |n: i64| {
        let more = if n >= COUNT_MAX { " or more" } else { "" };
        format!("{n}{more}")
    };
    let lag = if standing.waiting > 0 {
        format!(", the oldest for {}", age(whole(standing.lag_ms)))
    } else {
        String::new()
    };
    let relay = if enabled {
        ""
    } else {
        "; no relay here: [outbox] enabled is false"
    };
    format!(
        "{} waiting{lag}; {} rejected{relay}\n",
        count(standing.waiting),
        count(standing.rejected)
    )
}

fn view(row: &Listed) -> Value {
    json!({
        "seq": row.seq,
        "state": state(row),
        "id": row.id,
        "kind": row.kind,
        "queue": row.queue,
        "age_ms": whole(row.age_ms),
        "error": row.error,
    })
}

fn cells(row: &Listed) -> Vec<String> {
    vec![
        row.seq.to_string(),
        state(row).to_owned(),
        age(whole(row.age_ms)),
        row.kind.clone(),
        row.queue.clone(),
        row.id.clone(),
        brief(row.error.as_deref().unwrap_or("-"), REASON_WIDTH),
    ]
}

const fn state(row: &Listed) -> &'static str {
    if row.error.is_some() {
        "rejected"
    } else {
        "waiting"
    }
}

/// The clock of the app's transaction may be ahead of ours: then a row has no age yet.
fn whole(ms: f64) -> u64 {
    ms.max(0.0) as u64
}

fn report_change(change: Change, chosen: &Chosen, changed: u64) -> Report {
    let what = match change {
        Change::Retry => Act::Retry,
        Change::Purge => Act::Purge,
    };
    let asked = chosen.seqs.len() as u64;
    let missing = asked.saturating_sub(changed);
    let failure = (missing > 0).then(|| format!("{missing} are no rejected rows"));
    acted(what, changed, missing, failure)
}
