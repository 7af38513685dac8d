//! The command line: one file per family of commands.
//!
//! Owns: flags, examples, exit codes, and the two forms of every answer (for people, and with `--json` for programs).
//! A command asks the rest of the house and makes a [`Report`]; only this file prints. Must not know how anything is
//! done. To add a command: a variant of `Command` and its line in `Command::run`.

mod act;
mod bench;
mod bridges;
mod check;
mod completions;
mod cron;
mod dead;
mod dev;
mod enqueue;
mod error;
mod explain;
mod fleet;
mod forecast;
mod gate;
mod group;
mod help;
mod job;
mod jobs;
mod limits;
mod migrate;
mod outbox;
mod output;
mod pause;
mod quarantine;
mod queues;
mod run;
mod setup;
mod store;
mod verify;
mod who;
mod workflow;

pub use error::{CliError, exit};
pub use output::Report;
pub use setup::Global;

use clap::{FromArgMatches, Parser, Subcommand};
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  tidegate check                                      is the configuration good? touches no server
  tidegate run                                        the daemon
  tidegate dev                                        the same with a Redis and Postgres of its own
  tidegate enqueue mail.send --args '{\"to\":7}' --wait
  tidegate queues
  tidegate explain default                            what holds work back
  tidegate gate show                                  what the systems behind bear now

Settings come from --config (a file or a folder), then from the environment: TIDEGATE_REDIS__URL sets [redis] url.
Exit codes: 0 done, 1 failed, 2 wrong usage, 78 wrong configuration.";

/// A background job runner that lets through as much work as the systems behind it can bear.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, after_help = EXAMPLES, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon until SIGTERM or SIGINT
    Run(run::Args),
    /// Check configuration and job definitions, and with --online the servers too
    Check(check::Args),
    /// Bring the schema `tidegate` of the database up to date
    Migrate(migrate::Args),
    /// Put a job into its queue
    Enqueue(Box<enqueue::Args>),
    /// Show every queue in numbers
    Queues(queues::Args),
    /// Show, retry or cancel one job, or tell its result
    #[command(subcommand)]
    Job(job::Command),
    /// Show or cancel a group of jobs
    #[command(subcommand)]
    Group(group::Command),
    /// Count, list, retry, delete or move many jobs by what they have in common
    #[command(subcommand)]
    Jobs(jobs::Command),
    /// List, retry or remove dead jobs
    #[command(subcommand)]
    Dead(dead::Command),
    /// List, retry or remove entries that could not be jobs
    #[command(subcommand)]
    Quarantine(quarantine::Command),
    /// Look whether a queue is whole: every job in exactly one place; --repair puts it right
    Verify(verify::Args),
    /// Claim nothing from a queue, or nothing of one kind, until it is resumed
    Pause(pause::PauseArgs),
    /// Go on with a queue or a kind that was paused
    Resume(pause::ResumeArgs),
    /// Pause a queue and wait until nothing of it runs
    Drain(pause::DrainArgs),
    /// Show or change limits while daemons run
    #[command(subcommand)]
    Limits(limits::Command),
    /// Show who paused what and changed which limits
    Audit(limits::AuditArgs),
    /// List rows of the outbox, retry or remove those that can't be jobs
    #[command(subcommand)]
    Outbox(outbox::Command),
    /// Show what waits in bridged namespaces of apalis-redis
    Bridges(bridges::Args),
    /// List, add, run or pause what runs by itself
    #[command(subcommand)]
    Cron(cron::Command),
    /// Say what holds a queue or a job back
    Explain(explain::Args),
    /// Show the gate in all daemons; order it to take a resource, a breaker or a limit otherwise for a time
    #[command(subcommand)]
    Gate(gate::Command),
    /// Show the load that is expected, how good such forecasts were, and what is done about it
    Forecast(forecast::Args),
    /// Run the daemon with a private Redis and Postgres, alone or beside a command
    Dev(dev::Args),
    /// Measure what this machine does: enqueue, drain and pickup, with every guarantee on
    Bench(bench::Args),
    /// Print a script that completes commands and options in a shell
    Completions(completions::Args),
}

impl Command {
    async fn run(self, global: &Global) -> Result<Report, CliError> {
        match self {
            Self::Run(args) => run::run(args, global).await,
            Self::Check(args) => check::run(args, global).await,
            Self::Migrate(args) => migrate::run(args, global).await,
            Self::Enqueue(args) => enqueue::run(*args, global).await,
            Self::Queues(args) => queues::run(args, global).await,
            Self::Job(command) => job::run(command, global).await,
            Self::Group(command) => group::run(command, global).await,
            Self::Jobs(command) => jobs::run(command, global).await,
            Self::Dead(command) => dead::run(command, global).await,
            Self::Quarantine(command) => quarantine::run(command, global).await,
            Self::Verify(args) => verify::run(args, global).await,
            Self::Bridges(args) => bridges::run(args, global).await,
            Self::Pause(args) => pause::pause(args, global).await,
            Self::Resume(args) => pause::resume(args, global).await,
            Self::Drain(args) => pause::drain(args, global).await,
            Self::Limits(command) => limits::run(command, global).await,
            Self::Audit(args) => limits::audit(args, global).await,
            Self::Outbox(command) => outbox::run(command, global).await,
            Self::Cron(command) => cron::run(command, global).await,
            Self::Explain(args) => explain::run(args, global).await,
            Self::Gate(command) => gate::run(command, global).await,
            Self::Forecast(args) => forecast::run(args, global).await,
            Self::Dev(args) => dev::run(args, global).await,
            Self::Bench(args) => bench::run(args, global).await,
            Self::Completions(args) => Ok(completions::run(&args)),
        }
    }
}

impl Cli {
    /// Reads the command line.
    ///
    /// # Errors
    /// Help that was asked for, or a mistake: for [`usage_error`].
    pub fn read() -> Result<Self, clap::Error> {
        Self::from_arg_matches(&help::command().try_get_matches()?)
    }

    /// Runs the command, prints its answer, and says with which code to exit.
    pub async fn execute(self) -> ExitCode {
        let answer = self.command.run(&self.global).await;
        output::print(&answer, self.global.json);
        ExitCode::from(match &answer {
            Ok(report) => report.exit(),
            Err(error) => error.exit(),
        })
    }
}

/// Prints what clap has to say: help and version as they are, a mistake in both forms if `--json` was among the
/// arguments.
pub fn usage_error(error: &clap::Error) -> ExitCode {
    // If neither stream can be written to, there is nobody left to tell.
    let _ = error.print();
    if !error.use_stderr() {
        return ExitCode::SUCCESS;
    }
    if std::env::args_os().any(|arg| arg == "--json") {
        let rendered = error.render().to_string();
        let message = rendered.lines().next().unwrap_or_default();
        let message = message.trim_start_matches("error: ").to_owned();
        output::print_json(&CliError::Usage(message).to_json());
    }
    ExitCode::from(exit::USAGE)
}
