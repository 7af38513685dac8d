//! `tidegate run`: the daemon as a process, driven by signals and watched by systemd.

use super::{Daemon, DaemonError};
use crate::catalog::{self, Catalog};
use crate::config::{self, Config, Sources};
use crate::handlers::BUILT_IN;
use crate::services::notify;
use crate::telemetry::{self, events};
use futures::StreamExt;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGTSTP};
use signal_hook_tokio::Signals;
use std::path::PathBuf;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Where configuration and definitions are.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// A file or a folder; defaults and environment alone if absent.
    pub config: Option<PathBuf>,
    /// The folder of definitions; none if absent.
    pub jobs: Option<PathBuf>,
}

impl Options {
    /// Reads both.
    ///
    /// # Errors
    /// Every problem found.
    pub fn load(&self) -> Result<(Config, Catalog), DaemonError> {
        let config = config::load(&Sources {
            path: self.config.clone(),
        })?;
        let handlers: Vec<&str> = BUILT_IN.iter().map(|h| h.name).collect();
        let catalog = match &self.jobs {
            Some(dir) => catalog::load(dir, &handlers)?,
            None => Catalog::default(),
        };
        Ok((config, catalog))
    }
}

/// Runs until SIGTERM or SIGINT. SIGHUP reloads, SIGTSTP makes it quiet, a second SIGTERM hands back at once.
///
/// # Errors
/// It can't start. Once started, it ends well.
pub async fn run(options: Options) -> Result<(), DaemonError> {
    // First of all, so that no signal is lost.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGTSTP])
        .map_err(|e| DaemonError::Setup(format!("signals: {e}")))?;
    let (config, catalog) = options.load()?;
    let _logs = telemetry::logs::init(&config.log, telemetry::Stream::Stdout)
        .map_err(|e| DaemonError::Setup(e.to_string()))?;
    tracing::debug!(event = "starting", "starting");
    let drain = config.daemon.drain_timeout;
    // Until it has started it holds no job, so that it can be dropped.
    let daemon = tokio::select! {
        started = Daemon::start(config, catalog, BUILT_IN) => started?,
        () = asked_to_stop(&mut signals) => return Ok(()),
    };
    serve(daemon, drain, &mut signals, || options.load()).await;
    Ok(())
}

/// Serves a started daemon to its end. `load` reads configuration and definitions anew.
pub(super) async fn serve(
    daemon: Daemon,
    drain: Duration,
    signals: &mut Signals,
    load: impl Fn() -> Result<(Config, Catalog), DaemonError>,
) {
    notify::ready();
    watch(&daemon, &load, signals).await;
    notify::stopping();
    tracing::info!(
        event = "stopping",
        drain_ms = drain.as_millis() as u64,
        "draining"
    );
    stop(daemon, drain, signals).await;
}

async fn asked_to_stop(signals: &mut Signals) {
    while !matches!(signals.next().await, Some(SIGTERM | SIGINT) | None) {}
}

/// Serves signals and the watchdog until it is time to stop.
async fn watch(
    daemon: &Daemon,
    load: &impl Fn() -> Result<(Config, Catalog), DaemonError>,
    signals: &mut Signals,
) {
    let mut quiet = false;
    // Without a watchdog this never fires before the daemon ends.
    let interval = notify::watchdog_interval();
    let mut feed = tokio::time::interval(interval.unwrap_or(Duration::from_secs(3_600)));
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Some(SIGHUP) => reload(daemon, load),
                Some(SIGTSTP) => {
                    quiet = !quiet;
                    daemon.set_quiet(quiet);
                    tracing::info!(event = "quiet", quiet, "claiming of new jobs");
                }
                Some(_) | None => return,
            },
            _ = feed.tick(), if interval.is_some() => match daemon.is_live() {
                Ok(()) => notify::pet(),
                Err(reason) => tracing::error!(event = "stuck", reason, "not feeding the watchdog"),
            },
        }
    }
}

fn reload(daemon: &Daemon, load: &impl Fn() -> Result<(Config, Catalog), DaemonError>) {
    notify::reloading();
    let reloaded = load().and_then(|(config, catalog)| daemon.reload(config, catalog));
    if let Err(e) = reloaded {
        daemon.reload_failed(events::reload_failed(&e.to_string()));
    }
    notify::ready();
}

/// Drains; a second SIGTERM or SIGINT hands back at once.
pub async fn stop(daemon: Daemon, drain: Duration, signals: &mut Signals) {
    let hurry = CancellationToken::new();
    let mut stopping = std::pin::pin!(daemon.stop(drain, hurry.clone()));
    loop {
        tokio::select! {
            () = &mut stopping => return,
            signal = signals.next() => {
                if matches!(signal, Some(SIGTERM | SIGINT)) {
                    hurry.cancel();
                }
            }
        }
    }
}
