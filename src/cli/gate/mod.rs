//! `tidegate gate`: how the gate stands in all daemons, and operators' orders to it.

mod force;
mod known;
mod log;
mod show;
mod supply;

use super::{CliError, Global, Report};
use clap::Subcommand;

const EXAMPLES: &str = "\
Examples:
  tidegate gate show                                                   the whole gate at a glance
  tidegate gate show --daemons                                         and each daemon
  tidegate gate force postgres:primary overloaded --for 10m --why 'migration'
  tidegate gate force redis:main ok --for 5m --why 'the probe lies'    whatever is measured
  tidegate gate force http@http:app.example:443 open --for 1h          no call of that handler to it
  tidegate gate force http@http:app.example:443 limit=4                at once in each daemon
  tidegate gate release postgres:primary
  tidegate gate release --all
  tidegate gate log                                                    who ordered what, and when it ended";

/// `tidegate gate …`
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(super) enum Command {
    /// Show resources, classes, operations and orders, as all daemons together see them
    Show(show::Args),
    /// Order every daemon to take a resource for better or worse, or what a breaker or limiter is to do; it ends by itself
    Force(force::ForceArgs),
    /// Take orders back before their end
    Release(force::ReleaseArgs),
    /// Show who gave which orders, and how each ended
    Log(log::Args),
}

/// Runs one of them.
///
/// # Errors
/// Configuration, Redis, or an order that makes no sense.
pub(super) async fn run(command: Command, global: &Global) -> Result<Report, CliError> {
    match command {
        Command::Show(args) => show::run(&args, global).await,
        Command::Force(args) => force::force(args, global).await,
        Command::Release(args) => force::release(args, global).await,
        Command::Log(args) => log::run(&args, global).await,
    }
}
