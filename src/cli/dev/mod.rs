//! `tidegate dev`: a private Redis and Postgres and the daemon, in one command.
//!
//! Owns: what is started, in which order it ends, and what the command beside it is told. Everything lives in a folder
//! that is removed at the end, unless `--dir` names one to keep.

mod command;
mod servers;

use super::{CliError, Global, Report, output};
use crate::catalog::Catalog;
use crate::config::Config;
use crate::daemon::{self, Daemon};
use crate::db::{self, Database};
use crate::handlers::BUILT_IN;
use crate::telemetry::{Logs, Stream, logs};
use command::Command;
use futures::StreamExt;
use serde_json::json;
use servers::Servers;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook_tokio::Signals;
use std::ffi::OsString;
use std::path::PathBuf;

/// The queue of the example that is printed.
const EXAMPLE_QUEUE: &str = "default";
/// Where a daemon on a port of the system's choice listens.
const ANY_PORT: &str = "127.0.0.1:0";

const EXAMPLES: &str = "\
Examples:
  tidegate dev                                   until Ctrl-C; says where everything is
  tidegate dev --dir ./data                      the same, and the data is still there next time
  tidegate dev --log daemon.log -- npm test      for as long as a command runs; its exit code is ours

The command finds REDIS_URL, DATABASE_URL, TIDEGATE_ADMIN_URL and TIDEGATE_DEV_DIR in its environment, and
`tidegate` itself, run by it, uses the same servers, configuration and jobs.";

/// Flags of `tidegate dev`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Keep the data in this folder [default: a temporary one, removed at the end]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Start no Postgres; `[database] url` stays as it is configured
    #[arg(long)]
    no_postgres: bool,
    /// Write the daemon's log to this file, anew [default: standard error]
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// A command to run beside it; everything stops when it ends
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Runs until a signal, or until the command has ended; then everything it started is gone.
///
/// # Errors
/// A server, the daemon or the command could not be started.
pub async fn run(args: Args, global: &Global) -> Result<Report, CliError> {
    let config = global.load_config()?;
    let catalog = global.load_catalog()?.unwrap_or_default();
    let _logs = start_log(&config, &args)?;
    // Before anything starts, so that no signal is lost: neither one for us, nor word of the command's end.
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGCHLD]).map_err(failed)?;
    let (dir, with_postgres) = (args.dir.clone(), !args.no_postgres);
    let servers = blocking(move || Servers::start(dir, with_postgres)).await??;
    let outcome = serve(&args, global, (config, catalog), &servers, &mut signals).await;
    blocking(move || servers.stop()).await??;
    outcome
}

/// The daemon on private servers, from its start to its end.
async fn serve(
    args: &Args,
    global: &Global,
    (mut config, catalog): (Config, Catalog),
    servers: &Servers,
    signals: &mut Signals,
) -> Result<Report, CliError> {
    servers.overrule(&mut config);
    config.admin.listen = ANY_PORT.to_owned();
    if servers.has_postgres() {
        let database = Database::open(&config.database)?;
        db::migrate(&database).await?;
        database.close().await;
    }
    let drain = config.daemon.drain_timeout;
    let queue_keys = format!("{}:{{{EXAMPLE_QUEUE}}}", config.redis.prefix);
    let example = example_kind(&catalog);
    let daemon = Daemon::start(config, catalog, BUILT_IN).await?;
    let outcome = if args.command.is_empty() {
        let report = banner(servers, &admin_url(&daemon), &queue_keys, &example);
        output::print(&Ok(report), global.json);
        wait_for_end(signals).await;
        Ok(Report::silent())
    } else {
        let env = environment(global, servers, admin_url(&daemon));
        match Command::start(&args.command, &env) {
            Ok(command) => command.ended(signals).await,
            Err(error) => Err(failed(error)),
        }
    };
    daemon::stop(daemon, drain, signals).await;
    outcome
}

fn start_log(config: &Config, args: &Args) -> Result<Logs, CliError> {
    let logs = match &args.log {
        Some(path) => logs::init_file(&config.log, path),
        None => logs::init(&config.log, Stream::Stderr),
    };
    logs.map_err(failed)
}

/// Waits for a signal that means an end.
async fn wait_for_end(signals: &mut Signals) {
    while signals.next().await == Some(SIGCHLD) {}
}

fn admin_url(daemon: &Daemon) -> String {
    let address = daemon.admin_address().map(|a| a.to_string());
    format!("http://{}", address.unwrap_or_default())
}

/// What the command is told, beside what it inherits.
fn environment(
    global: &Global,
    servers: &Servers,
    admin_url: String,
) -> Vec<(&'static str, OsString)> {
    let mut env = vec![
        ("REDIS_URL", servers.redis_url().into()),
        ("TIDEGATE_REDIS__URL", servers.redis_url().into()),
        ("TIDEGATE_DEV_DIR", servers.dir().into()),
        ("TIDEGATE_ADMIN_URL", admin_url.into()),
    ];
    if let Some(url) = servers.postgres_url() {
        env.push(("DATABASE_URL", url.clone().into()));
        env.push(("TIDEGATE_DATABASE__URL", url.into()));
    }
    // Absolute, for the command may change its folder.
    let paths = [
        ("TIDEGATE_CONFIG", global.config_path()),
        ("TIDEGATE_JOBS", global.jobs_dir()),
    ];
    for (name, path) in paths {
        if let Some(path) = path.and_then(|p| std::path::absolute(p).ok()) {
            env.push((name, path.into()));
        }
    }
    env
}

/// A kind to try: one that needs no arguments, if there is one.
fn example_kind(catalog: &Catalog) -> String {
    let needs_nothing = |spec: &&std::sync::Arc<crate::catalog::JobSpec>| {
        spec.args.values().all(|arg| !arg.required) && &*spec.queue == EXAMPLE_QUEUE
    };
    let found = catalog.iter().find(needs_nothing);
    found.map_or_else(|| "KIND".to_owned(), |spec| spec.kind.to_string())
}

/// Where everything is.
fn banner(servers: &Servers, admin_url: &str, queue_keys: &str, kind: &str) -> Report {
    let redis_url = servers.redis_url();
    let database_url = servers.postgres_url();
    let entry = json!({ "kind": kind });
    let pairs = [
        ("REDIS_URL", redis_url.clone()),
        (
            "DATABASE_URL",
            database_url.clone().unwrap_or_else(|| "-".to_owned()),
        ),
        (
            "admin",
            format!("{admin_url}/health  /metrics  /readyz  /livez"),
        ),
        ("files", servers.dir().display().to_string()),
    ];
    let keeps = if servers.keeps_data() {
        "keeps the data"
    } else {
        "removes everything"
    };
    let text = format!(
        "Taking jobs. Ctrl-C stops everything and {keeps}.\n{}\nEnqueue from another terminal:\n  \
         redis-cli -u '{redis_url}' RPUSH '{queue_keys}:inbox' '{entry}'\n",
        output::pairs(&pairs)
    );
    let json = json!({
        "redis_url": redis_url,
        "database_url": database_url,
        "admin_url": admin_url,
        "dir": servers.dir(),
    });
    Report::new(json, text)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, CliError> {
    tokio::task::spawn_blocking(work).await.map_err(failed)
}

fn failed(error: impl std::fmt::Display) -> CliError {
    CliError::failed("dev", error.to_string())
}
