//! A daemon inside another program, with handlers of that program.

use super::run::serve;
use super::{Daemon, DaemonError};
use crate::catalog::{self, CODE, Catalog, CodeDefinition};
use crate::config::{self, Config, Secret, Sources};
use crate::handlers::{BUILT_IN, Handlers, JobFn, Kind};
use apalis_core::task::extensions::Extensions;
use serde::de::DeserializeOwned;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGTSTP};
use signal_hook_tokio::Signals;
use std::path::PathBuf;
use std::sync::Arc;

/// Puts a daemon together: see [`Daemon::builder`].
#[derive(Default)]
#[must_use]
pub struct Builder {
    source: Source,
    kinds: Vec<Kind>,
    data: Extensions,
}

/// Where configuration and definitions come from, each time they are read.
#[derive(Default)]
struct Source {
    config: Option<Config>,
    path: Option<PathBuf>,
    redis_url: Option<String>,
    jobs: Option<PathBuf>,
}

impl Builder {
    /// The configuration, as [`config::load`] reads it. Unless given: the defaults and the environment
    /// (`TIDEGATE_REDIS__URL` and so on).
    pub fn config(mut self, config: Config) -> Self {
        self.source.config = Some(config);
        self
    }

    /// A configuration file, or a folder of them, instead.
    pub fn config_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.source.path = Some(path.into());
        self
    }

    /// The Redis it works on, whatever the configuration says.
    pub fn redis_url(mut self, url: impl Into<String>) -> Self {
        self.source.redis_url = Some(url.into());
        self
    }

    /// A folder of definitions, `*.toml`. They may name the built-in handlers and those registered here.
    pub fn jobs_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.source.jobs = Some(dir.into());
        self
    }

    /// A value that functions ask for by its type, as `Data<T>`; shared by all of them. Usually an `Arc` or a pool.
    pub fn data<T: Clone + Send + Sync + 'static>(mut self, value: T) -> Self {
        self.data.insert(value);
        self
    }

    /// Registers an async function under a name: the kind of that name is run by it, with the defaults of a definition,
    /// and definitions may name it as their `handler`. See [`Kind::new`] for what a function may take, and
    /// [`Builder::kind`] to say more of the kind.
    pub fn handler<F, Args, Rest>(self, name: &str, function: F) -> Self
    where
        F: JobFn<Args, Rest>,
        Args: DeserializeOwned + 'static,
        Rest: 'static,
    {
        self.kind(Kind::new(name, function))
    }

    /// Registers a kind.
    pub fn kind(mut self, kind: Kind) -> Self {
        self.kinds.push(kind);
        self
    }

    /// Connects, starts everything and returns when jobs are being taken. Signals and logging are the caller's.
    ///
    /// # Errors
    /// Configuration or definitions are wrong, two handlers have one name, or what [`Daemon::start`] names.
    pub async fn start(self) -> Result<Daemon, DaemonError> {
        let (parts, config, catalog) = self.open()?;
        Daemon::launch(config, catalog, parts.handlers, parts.code).await
    }

    /// The same as a program's main task: runs until SIGTERM or SIGINT, then lets running jobs finish within
    /// `daemon.drain_timeout`. SIGHUP reads configuration and definitions anew, SIGTSTP makes it quiet.
    ///
    /// # Errors
    /// As [`Builder::start`]. Once started, it ends well.
    pub async fn run(self) -> Result<(), DaemonError> {
        // First of all, so that no signal is lost.
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGTSTP])
            .map_err(|e| DaemonError::Setup(format!("signals: {e}")))?;
        let (parts, config, catalog) = self.open()?;
        let drain = config.daemon.drain_timeout;
        let names = parts.names();
        let daemon = Daemon::launch(config, catalog, parts.handlers, parts.code).await?;
        serve(daemon, drain, &mut signals, || parts.source.load(&names)).await;
        Ok(())
    }

    fn open(self) -> Result<(Open, Config, Catalog), DaemonError> {
        let data = Arc::new(self.data);
        let mut open = Open {
            source: self.source,
            handlers: Handlers::new(BUILT_IN),
            code: Vec::new(),
        };
        for kind in self.kinds {
            let (definition, handler) = kind.open(Arc::clone(&data));
            let name = definition.kind();
            if name == CODE || !open.handlers.add(name, handler) {
                return Err(DaemonError::setting(format!(
                    "handler {name:?}: there is another one of that name"
                )));
            }
            open.code.push(definition);
        }
        let (config, catalog) = open.source.load(&open.names())?;
        Ok((open, config, catalog))
    }
}

/// What a builder has become before the daemon starts.
struct Open {
    source: Source,
    handlers: Handlers,
    code: Vec<CodeDefinition>,
}

impl Open {
    fn names(&self) -> Vec<String> {
        self.code.iter().map(|c| c.kind().to_owned()).collect()
    }
}

impl Source {
    /// Reads both. Definitions may name the handlers in `code`.
    fn load(&self, code: &[String]) -> Result<(Config, Catalog), DaemonError> {
        let mut config = match &self.config {
            Some(config) => config.clone(),
            None => config::load(&Sources {
                path: self.path.clone(),
            })?,
        };
        if let Some(url) = &self.redis_url {
            config.redis.move_to(Secret::new(url));
        }
        let built_in: Vec<&str> = BUILT_IN.iter().map(|h| h.name).collect();
        let code: Vec<&str> = code.iter().map(String::as_str).collect();
        let catalog = match &self.jobs {
            Some(dir) => catalog::load_with_code(dir, &built_in, &code)?,
            None => Catalog::default(),
        };
        Ok((config, catalog))
    }
}
