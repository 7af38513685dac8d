//! What jobs do. One file per handler, one list that registers them.
//!
//! Owns: the contract between the runner and a handler, and the built-in handlers. A handler must not know the runner,
//! the queue or attempts: it does its work and says what came of it.

mod cache_invalidate;
mod cache_warm;
mod code;
mod db_purge;
mod exec;
mod failure;
mod function;
mod http;
mod pace;
pub mod progress;
mod template;

pub use crate::policy::gate::Advice;
pub use code::{Handlers, Kind};
pub use exec::Once;
pub use failure::JobError;
pub use function::{Answers, JobFn};
pub use http::SharedClient;
pub use pace::Adviser;
pub use progress::Reporter;

use crate::cache::Cache;
use crate::catalog::{JobSpec, Problem};
use crate::config::Config;
use crate::db::Database;
use crate::job::{Job, Outcome};
use futures::future::BoxFuture;
use progress::Board;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Does the work of one kind of job.
///
/// The future may be dropped at any await point (timeout, hand-back, lost lease): what it started outside must end
/// with it.
pub trait Handler: Send + Sync + 'static {
    /// Runs one delivery.
    fn run<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Outcome>;
}

/// What a handler is given for one delivery.
#[derive(Debug, Clone)]
pub struct Context {
    /// The job.
    pub job: Arc<Job>,
    /// Cancelled when the job should stop soon: long work ends at its next safe point with
    /// [`Outcome::Interrupted`], before it is dropped.
    pub stop: CancellationToken,
    /// Where it tells how far it has come.
    pub progress: Reporter,
    asks: pace::Asks,
}

impl Context {
    /// The context of one delivery, whose reports go to `board`.
    #[must_use]
    pub fn new(job: Arc<Job>, stop: CancellationToken, board: Arc<Board>) -> Self {
        Self {
            progress: Reporter::new(board, Arc::clone(&job)),
            job,
            stop,
            asks: pace::Asks::default(),
        }
    }

    /// Which attempt this is, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.job.attempt
    }

    /// The fencing token: no other delivery of any job ever has the same. Hand it to whatever must refuse a delivery
    /// that another one has replaced.
    #[must_use]
    pub fn fencing_token(&self) -> &str {
        &self.job.token
    }

    /// Waits until the job should stop soon: it was cancelled, or the daemon stops.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }
}

/// What the resources that are a Postgres server begin with.
const POSTGRES: &str = "postgres:";

/// Whether what the jobs of a handler do to a resource takes connections of the pool of `[database]`, so that more of them
/// than it has only wait.
#[must_use]
pub fn uses_pool(handler: &str, resource: &str) -> bool {
    resource.starts_with(POSTGRES) && (handler.starts_with("db.") || handler == "cache.warm")
}

/// One way of handling jobs, as the list of them knows it.
#[derive(Clone, Copy)]
pub struct HandlerKind {
    /// Its name in definitions.
    pub name: &'static str,
    /// Checks a definition's section without touching any server.
    pub check: fn(&JobSpec, &Config) -> Result<(), Problem>,
    /// The resources its failures are laid to: jobs touch them whether or not their definition says so.
    pub touches: fn(&JobSpec, &Config) -> Vec<String>,
    /// Makes the handler of one definition.
    pub build: fn(&JobSpec, &Deps) -> Built,
}

/// The handler of one definition, or what is wrong with the definition.
pub type Built = Result<Arc<dyn Handler>, Problem>;

/// What handlers are built with.
#[derive(Debug, Clone)]
pub struct Deps {
    /// The configuration.
    pub config: Arc<Config>,
    /// The client of `http` jobs.
    pub http: SharedClient,
    /// Postgres, if `[database] url` is set.
    pub database: Option<Database>,
    /// Cache regions. The daemon always has them; none where handlers are built without a server.
    pub cache: Option<Cache>,
}

impl Deps {
    /// Deps of a configuration, without any server. Connects to nothing.
    #[must_use]
    pub fn new(config: Arc<Config>) -> Self {
        Self {
            config,
            http: SharedClient::default(),
            database: None,
            cache: None,
        }
    }
}

/// The built-in handlers.
pub const BUILT_IN: &[HandlerKind] = &[
    exec::KIND,
    http::KIND,
    cache_invalidate::KIND,
    cache_warm::KIND,
    db_purge::KIND,
];

#[cfg(test)]
mod testing {
    #![allow(clippy::unwrap_used)]
    use crate::catalog::{self, JobSpec};

    /// The one definition of a text, as it is read from `a.toml`.
    pub(super) fn spec(handler: &str, text: &str) -> JobSpec {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.toml"), text).unwrap();
        let catalog = catalog::load(dir.path(), &[handler]).unwrap();
        JobSpec::clone(catalog.iter().next().unwrap())
    }
}
