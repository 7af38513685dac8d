//! What jobs do. One file per handler, one list that registers them.
//!
//! Owns: the contract between the runner and a handler, and the built-in handlers. A handler must not know the runner,
//! the queue or attempts: it does its work and says what came of it.

mod db_purge;

use crate::catalog::{JobSpec, Problem};
use crate::config::Config;
use crate::db::Database;
use crate::job::{Job, Outcome};
use futures::future::BoxFuture;
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
}

/// One way of handling jobs, as the list of them knows it.
#[derive(Clone, Copy)]
pub struct HandlerKind {
    /// Its name in definitions.
    pub name: &'static str,
    /// Checks a definition's section without touching any server.
    pub check: fn(&JobSpec, &Config) -> Result<(), Problem>,
    /// Makes the handler of one definition.
    pub build: fn(&JobSpec, &Deps) -> Result<Arc<dyn Handler>, Problem>,
}

/// What handlers are built with.
#[derive(Debug, Clone)]
pub struct Deps {
    /// The configuration.
    pub config: Arc<Config>,
    /// Postgres, if `[database] url` is set.
    pub database: Option<Database>,
}

/// The built-in handlers.
pub const BUILT_IN: &[HandlerKind] = &[db_purge::KIND];
