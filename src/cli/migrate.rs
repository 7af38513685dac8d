//! `tidegate migrate`: the project's own schema in Postgres, brought up to date.

use super::{CliError, Global, Report};
use crate::db::{self, Database};
use serde_json::json;

const EXAMPLES: &str = "\
Examples:
  tidegate migrate
  TIDEGATE_DATABASE__URL=postgres://app@db/app tidegate migrate --json";

/// Flags of `tidegate migrate`: the global ones are all there are.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {}

/// Applies what is missing. Doing it again changes nothing.
///
/// # Errors
/// No database is configured, it can't be reached, or the schema can't be changed.
pub async fn run(_: Args, global: &Global) -> Result<Report, CliError> {
    let config = global.load_config()?;
    let failed = |error| CliError::database(&config.database, error);
    let database = Database::open(&config.database).map_err(failed)?;
    let migrated = db::migrate(&database).await.map_err(failed)?;
    database.close().await;
    let text = match migrated.applied {
        0 => format!(
            "up to date: schema `tidegate` has version {}\n",
            migrated.version
        ),
        n => format!(
            "{n} applied: schema `tidegate` has version {} now\n",
            migrated.version
        ),
    };
    let json = json!({"applied": migrated.applied, "version": migrated.version});
    Ok(Report::new(json, text))
}
