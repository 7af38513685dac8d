//! The other side: the daemon that is measured, with its own handlers, told what to do on standard input.

use super::failed;
use crate::catalog::{self, JobSpec, Problem};
use crate::cli::{CliError, Global, Report};
use crate::clock;
use crate::config::Config;
use crate::daemon::Daemon;
use crate::handlers::{Context, Handler, HandlerKind};
use crate::job::Outcome;
use crate::telemetry::logs;
use futures::future::{self, BoxFuture};
use std::io::{self, Write};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// For measurements only: no definition of a real daemon can name them. One does nothing, one waits until it is told to
/// stop.
const HANDLERS: [HandlerKind; 2] = [
    HandlerKind {
        name: "noop",
        check: anything_goes,
        touches: |_, _| Vec::new(),
        build: |_, _| Ok(Arc::new(Noop)),
    },
    HandlerKind {
        name: "hold",
        check: anything_goes,
        touches: |_, _| Vec::new(),
        build: |_, _| Ok(Arc::new(Hold)),
    },
];

/// Runs until the end of its input.
pub(super) async fn run(global: &Global) -> Result<Report, CliError> {
    let config = global.load_config()?;
    let dir = global
        .jobs_dir()
        .ok_or_else(|| failed("no job definitions"))?;
    let catalog = catalog::load(&dir, &HANDLERS.map(|handler| handler.name))?;
    let _logs = logs::init_file(&config.log, &dir.join("daemon.log")).map_err(failed)?;
    let drain = config.daemon.drain_timeout;
    let daemon = Daemon::start(config, catalog, &HANDLERS).await?;
    answer("ready");
    let mut commands = commands();
    while let Some(word) = commands.recv().await {
        daemon.set_quiet(word == "quiet");
        answer(&word);
    }
    daemon.stop(drain, CancellationToken::new()).await;
    Ok(Report::silent())
}

/// The lines of standard input, until it ends.
fn commands() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::task::spawn_blocking(move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// One line to whoever measures.
fn answer(line: &str) {
    // Nobody left to hear it: then the input ends too.
    let _ = writeln!(io::stdout(), "{line}");
}

fn anything_goes(_: &JobSpec, _: &Config) -> Result<(), Problem> {
    Ok(())
}

struct Noop;

impl Handler for Noop {
    fn run<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Outcome> {
        if let Some(sent_us) = ctx.job.args.get("sent_us").and_then(|v| v.as_u64()) {
            answer(&clock::unix_us().saturating_sub(sent_us).to_string());
        }
        Box::pin(future::ready(Outcome::Done(None)))
    }
}

struct Hold;

impl Handler for Hold {
    fn run<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Outcome> {
        Box::pin(async {
            ctx.stopped().await;
            Outcome::Interrupted {
                reason: "told to stop".to_owned(),
            }
        })
    }
}
