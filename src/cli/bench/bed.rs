//! Where it is measured: a Redis of our own or a given one, and a prefix that nobody else uses.

use super::{failed, say};
use crate::cli::CliError;
use crate::config::{self, Config, Secret, Sources};
use crate::queue::Queue;
use crate::queue::connection::{self, Connection};
use crate::stack::{PrivateRedis, RedisOptions, Scratch};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The queue all measurements use.
pub(super) const QUEUE: &str = "default";
/// Keys looked at in one step of the clearing.
const SCAN_COUNT: usize = 1_000;

/// A prefix of the server, and what is needed to use it.
pub(super) struct Bed {
    pub(super) config: Config,
    pub(super) conn: Connection,
    pub(super) queue: Queue,
    // Dropped in this order: the folder goes last.
    own: Option<Arc<PrivateRedis>>,
    scratch: Arc<Scratch>,
}

impl Bed {
    /// Connects to the given server, or to one of our own.
    pub(super) async fn make(given: Option<String>, append_only: bool) -> Result<Self, CliError> {
        let scratch = Arc::new(Scratch::new().map_err(failed)?);
        let (own, url) = match given {
            Some(url) => (None, url),
            None => {
                let server = start_redis(scratch.path(), append_only).await?;
                let url = server.url();
                (Some(Arc::new(server)), url)
            }
        };
        let mut config = config::load(&Sources::default())?;
        config.redis.url = Secret::new(url);
        config.redis.prefix = format!("bench-{:016x}", rand::random::<u64>());
        let conn = connection::connect(&config.redis).await;
        let conn = conn.map_err(|e| CliError::Redis {
            url: config.redis.url.redacted_url(),
            cause: e.to_string(),
        })?;
        if own.is_none() {
            let (url, prefix) = (config.redis.url.redacted_url(), &config.redis.prefix);
            say(&format!("using {url}, and nothing there but {prefix}:*"));
        }
        Ok(Self {
            queue: Queue::new(QUEUE, conn.clone(), &config),
            conn,
            config,
            own,
            scratch,
        })
    }

    /// Another prefix of the same server; clearing this one clears it too.
    pub(super) fn beside(&self, name: &str) -> Self {
        let mut config = self.config.clone();
        config.redis.prefix = format!("{}-{name}", config.redis.prefix);
        Self {
            queue: Queue::new(QUEUE, self.conn.clone(), &config),
            conn: self.conn.clone(),
            config,
            own: self.own.clone(),
            scratch: Arc::clone(&self.scratch),
        }
    }

    /// A folder for files of this prefix, gone at the end. It need not be there.
    pub(super) fn dir(&self) -> PathBuf {
        self.scratch.path().join(&self.config.redis.prefix)
    }

    /// The process id of the server, if it is our own.
    pub(super) fn redis_pid(&self) -> Option<u32> {
        self.own.as_ref().and_then(|server| server.pid())
    }

    /// Removes every key under this prefix and those beside it, and no other one.
    pub(super) async fn clear(&self) -> Result<(), CliError> {
        let mut conn = self.conn.clone();
        let mut cursor = 0_u64;
        loop {
            let (next, keys): (u64, Vec<String>) = redis::cmd("SCAN")
                .arg(cursor)
                .arg("MATCH")
                .arg(format!("{}*", self.config.redis.prefix))
                .arg("COUNT")
                .arg(SCAN_COUNT)
                .query_async(&mut conn)
                .await
                .map_err(failed)?;
            for key in keys {
                let unlink = redis::cmd("UNLINK").arg(key).to_owned();
                unlink.query_async::<()>(&mut conn).await.map_err(failed)?;
            }
            cursor = next;
            if cursor == 0 {
                return Ok(());
            }
        }
    }
}

async fn start_redis(dir: &Path, append_only: bool) -> Result<PrivateRedis, CliError> {
    let mut options = RedisOptions::new(dir.join("redis"));
    options.append_only = append_only;
    // Other users of this machine must not be able to push jobs, not even ones that do nothing.
    options.password = Some(uuid::Uuid::new_v4().simple().to_string());
    let start = move || PrivateRedis::start(options);
    let started = tokio::task::spawn_blocking(start).await;
    started.map_err(failed)?.map_err(failed)
}
