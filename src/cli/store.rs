//! The queues that commands look at: which there are, and the connection to them.

use super::error::CliError;
use super::setup::Global;
use crate::catalog::Catalog;
use crate::config::Config;
use crate::daemon::queue_names;
use crate::handlers::{BUILT_IN, Handlers};
use crate::job::id;
use crate::queue::Queue;
use crate::queue::connection::{self, Connection};
use crate::queue::inspect::Found;
use crate::queue::operate::MOVED;
use std::path::Path;

/// The flag that names one queue.
#[derive(Debug, Clone, clap::Args)]
pub struct OnQueue {
    /// Only this queue [default: all that the configuration and the definitions name]
    #[arg(long, value_name = "NAME", value_parser = queue_name)]
    pub queue: Option<String>,
}

impl OnQueue {
    /// Opens that queue, or all of them: see [`Store::open`].
    ///
    /// # Errors
    /// As that.
    pub async fn open(&self, global: &Global) -> Result<Store, CliError> {
        Store::open(global, self.queue.as_deref()).await
    }
}

/// Reads the name of a queue from the command line.
pub(super) fn queue_name(given: &str) -> Result<String, String> {
    id::check_queue(given).map(|()| given.to_owned())
}

/// Reads the name of a kind from the command line.
pub(super) fn kind_name(given: &str) -> Result<String, String> {
    id::check_kind(given).map(|()| given.to_owned())
}

/// The queues, connected.
pub struct Store {
    /// The configuration.
    pub config: Config,
    /// Whether it is known where the definitions are.
    pub defined: bool,
    /// The definitions; empty if that is not known.
    pub catalog: Catalog,
    /// The connection.
    pub conn: Connection,
    /// The queues a command is about, in order of name.
    pub names: Vec<String>,
}

impl Store {
    /// Reads configuration and definitions and connects.
    ///
    /// # Errors
    /// Either is wrong, or Redis can't be reached within `redis.connect_timeout`.
    pub async fn open(global: &Global, only: Option<&str>) -> Result<Self, CliError> {
        let config = global.load_config()?;
        let loaded = global.load_catalog()?;
        let loaded = loaded.map(|catalog| Handlers::new(BUILT_IN).touching(catalog, &config));
        let defined = loaded.is_some();
        let catalog = loaded.unwrap_or_default();
        let names = match only {
            Some(name) => vec![name.to_owned()],
            None => queue_names(&config, &catalog).into_iter().collect(),
        };
        Ok(Self {
            conn: connect(&config).await?,
            config,
            defined,
            catalog,
            names,
        })
    }

    /// One queue.
    #[must_use]
    pub fn queue(&self, name: &str) -> Queue {
        Queue::new(name, self.conn.clone(), &self.config)
    }

    /// The queues the command is about.
    pub fn queues(&self) -> impl Iterator<Item = Queue> {
        self.names.iter().map(|name| self.queue(name))
    }

    /// Looks for a job in the queues the command is about.
    ///
    /// # Errors
    /// It is in none of them, or Redis failed.
    pub async fn find(&self, id: &str) -> Result<(Queue, Found), CliError> {
        let mut moved = None;
        for queue in self.queues() {
            match queue.find(id).await? {
                Some(found) if found.state == MOVED => moved = Some((queue, found)),
                Some(found) => return Ok((queue, found)),
                None => {}
            }
        }
        // Where it went to, it is not admitted yet, or it is another queue than those asked about.
        if let Some(moved) = moved {
            return Ok(moved);
        }
        for queue in self.queues() {
            let name = &queue.name;
            let message = match queue.remembered(id).await? {
                None => continue,
                Some("pending") => format!("{id:?} is in the inbox of {name}, not admitted yet"),
                Some(how @ ("skipped" | "replaced" | "merged")) => format!(
                    "{id:?} was {how}: another job of {name} held its lock, and stands for it"
                ),
                Some(how) => format!("{id:?} is {how}; {name} keeps no more of it than its id"),
            };
            return Err(CliError::NotFound(message));
        }
        if let Some(message) = super::outbox::whereabouts(&self.config, id).await {
            return Err(CliError::NotFound(message));
        }
        let queues = self.names.join(", ");
        Err(CliError::NotFound(format!(
            "no job {id:?} is known in {queues}: not admitted yet, forgotten, or in another queue"
        )))
    }
}

/// Connects to Redis.
///
/// # Errors
/// It can't be reached within `redis.connect_timeout`.
pub async fn connect(config: &Config) -> Result<Connection, CliError> {
    let unreachable = |cause: String| CliError::Redis {
        url: config.redis.url.redacted_url(),
        cause,
    };
    let limit = config.redis.connect_timeout;
    match tokio::time::timeout(limit, connection::connect(&config.redis)).await {
        Ok(Ok(conn)) => Ok(conn),
        Ok(Err(error)) => Err(unreachable(error.to_string())),
        Err(_) => Err(unreachable(format!("no answer within {limit:?}"))),
    }
}

/// A path as text.
pub(super) fn shown(path: Option<&Path>) -> String {
    path.map_or_else(|| "-".to_owned(), |p| p.display().to_string())
}
