//! `tidegate run`: the daemon.

use super::{CliError, Global, Report};
use crate::daemon::{self, Options};

const EXAMPLES: &str = "\
Examples:
  tidegate run --config /etc/tidegate
  TIDEGATE_REDIS__URL=redis://10.0.0.5:6379/0 tidegate run --jobs ./jobs

Signals: TERM or INT drains and stops, a second one stops at once; TSTP stops claiming; HUP reloads.";

/// Flags of `tidegate run`: the global ones are all there are.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {}

/// Runs until a signal ends it.
///
/// # Errors
/// The daemon could not start, or had to give up.
pub async fn run(_: Args, global: &Global) -> Result<Report, CliError> {
    let options = Options {
        config: global.config_path(),
        jobs: global.jobs_dir(),
    };
    daemon::run(options).await?;
    Ok(Report::silent())
}
