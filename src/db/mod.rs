//! Postgres: the pool, bounded reads, the project's own schema, and batched changes of live tables.
//!
//! Owns: every connection to Postgres, the deadlines of every statement, and what an error means. Must not know jobs'
//! handlers or queues; nothing outside this module names the driver.

mod bind;
mod error;
mod keyset;
mod listen;
mod migrate;
mod name;
mod number;
pub mod outbox;
mod pace;
mod progress;
pub mod purge;
mod ranges;
mod rows;
mod vitals;

pub use bind::{Param, check_params, params_of};
pub use error::{DbError, resource_of};
pub use listen::Listener;
pub use migrate::{Migrated, SCHEMA_VERSION, migrate, schema_version};
pub use name::{Ident, TableName};
pub use progress::Delivery;
pub use rows::{JsonQuery, JsonRows};
pub use vitals::Vitals;

use crate::clock;
use crate::config::DatabaseConfig;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, PgConnection, PgPool, Postgres};
use std::future::Future;
use std::str::FromStr;
use std::time::Duration;

/// The name by which the server lists our sessions.
const APPLICATION_NAME: &str = "tidegate";
/// A session of ours that sits in a transaction this long is ended by the server: a frozen daemon holds no locks
/// longer. (Field practice, see the project's notes on database maintenance.)
pub const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(10);
/// How long a statement that does not say otherwise waits for a lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// What an answer may take beyond the server's own timeout before the server counts as silent.
const GRACE: Duration = Duration::from_secs(2);

/// A transaction on a connection of the pool; rolled back when dropped.
pub(crate) type Transaction = sqlx::Transaction<'static, Postgres>;

/// A pool of connections to one Postgres. Cheap to clone; clones share the pool.
#[derive(Debug, Clone)]
pub struct Database {
    pool: PgPool,
    acquire_timeout: Duration,
    max_connections: u32,
    statement_timeout: Duration,
    pace: pace::Pace,
}

/// How the pool is used right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolGauges {
    /// Open connections.
    pub size: u32,
    /// Those of them that nobody uses.
    pub idle: u32,
    /// The most there may be.
    pub max: u32,
}

/// What holds for one transaction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TxOptions {
    pub read_only: bool,
    pub statement_timeout: Duration,
    pub lock_timeout: Duration,
}

impl Database {
    /// Prepares a pool. No connection is made before one is needed.
    ///
    /// # Errors
    /// [`DbError::Config`]: no URL, or not one of Postgres. Must be called within a tokio runtime.
    pub fn open(config: &DatabaseConfig) -> Result<Self, DbError> {
        if config.url.is_empty() {
            return Err(DbError::Config("is empty: there is no database".to_owned()));
        }
        // The driver's words about a bad URL may repeat parts of it, so they are left out.
        let options = PgConnectOptions::from_str(config.url.reveal())
            .map_err(|_| DbError::Config("is not a usable Postgres URL".to_owned()))?
            .application_name(APPLICATION_NAME)
            // Its records would show bound values.
            .disable_statement_logging();
        let session = format!(
            "set statement_timeout = {}; set lock_timeout = {}; set idle_in_transaction_session_timeout = {}",
            millis(config.statement_timeout),
            millis(LOCK_TIMEOUT),
            millis(IDLE_IN_TRANSACTION),
        );
        let pool = PgPoolOptions::new()
            .max_connections(config.max_connections)
            .acquire_timeout(config.acquire_timeout)
            .after_connect(move |connection, _| {
                let session = session.clone();
                Box::pin(
                    async move { connection.execute(AssertSqlSafe(session)).await.map(|_| ()) },
                )
            })
            .connect_lazy_with(options);
        Ok(Self {
            pool,
            acquire_timeout: config.acquire_timeout,
            max_connections: config.max_connections,
            statement_timeout: config.statement_timeout,
            pace: pace::Pace::start(),
        })
    }

    /// Where it is noted how long our own statements take.
    pub(crate) const fn pace(&self) -> &pace::Pace {
        &self.pace
    }

    /// Longest single statement, unless its caller sets its own.
    #[must_use]
    pub const fn statement_timeout(&self) -> Duration {
        self.statement_timeout
    }

    /// How the pool is used right now.
    #[must_use]
    pub fn gauges(&self) -> PoolGauges {
        PoolGauges {
            size: self.pool.size(),
            idle: u32::try_from(self.pool.num_idle()).unwrap_or(u32::MAX),
            max: self.max_connections,
        }
    }

    /// How long it takes to be given a connection; opens one if the pool is allowed to.
    ///
    /// # Errors
    /// None was given within `database.acquire_timeout`.
    pub async fn acquire_wait(&self) -> Result<Duration, DbError> {
        let start = clock::monotonic();
        drop(self.acquire().await?);
        Ok(clock::monotonic() - start)
    }

    /// Opens connections until the pool has `connections`, as far as it may, and says how many it has then. For a moment
    /// it holds those that nobody uses.
    ///
    /// # Errors
    /// One could not be had within `database.acquire_timeout`.
    pub async fn open_ahead(&self, connections: u32) -> Result<u32, DbError> {
        let wanted = connections.min(self.max_connections);
        let mut held = Vec::new();
        // No more rounds than connections: others may open some, or use those that come.
        for _ in 0..wanted {
            if self.pool.size() >= wanted {
                break;
            }
            held.push(self.acquire().await?);
        }
        drop(held);
        Ok(self.pool.size())
    }

    /// One round trip to the server, without the wait for a connection.
    ///
    /// # Errors
    /// No connection, or no answer within `deadline`.
    pub async fn ping(&self, deadline: Duration) -> Result<Duration, DbError> {
        let mut connection = self.acquire().await?;
        let start = clock::monotonic();
        within(deadline, async {
            sqlx::query("select 1").execute(&mut *connection).await?;
            Ok(())
        })
        .await
        // A connection whose answer is still to come must not go back to the pool.
        .inspect_err(|_| connection.close_on_drop())?;
        Ok(clock::monotonic() - start)
    }

    /// Closes the pool: connections in use are closed as they come back.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    async fn acquire(&self) -> Result<sqlx::pool::PoolConnection<Postgres>, DbError> {
        self.pool.acquire().await.map_err(|e| self.explain(e))
    }

    /// Begins a transaction whose statements have the given limits on the server.
    pub(crate) async fn begin(&self, options: TxOptions) -> Result<Transaction, DbError> {
        let begin = format!(
            // What a batch does about rows that change under it rests on this isolation level, whatever the role's
            // default. The parameters of a batch differ too much from one to the next for one plan to fit them all.
            "begin isolation level read committed, {}; set local statement_timeout = {}; set local lock_timeout = {}; \
             set local plan_cache_mode = force_custom_plan",
            if options.read_only {
                "read only"
            } else {
                "read write"
            },
            millis(options.statement_timeout),
            millis(options.lock_timeout),
        );
        within(self.acquire_timeout, async {
            self.pool
                .begin_with(AssertSqlSafe(begin))
                .await
                .map_err(|e| self.explain(e))
        })
        .await
    }

    /// The pool gives up without saying why. If it could have opened one more connection, then opening failed.
    fn explain(&self, error: sqlx::Error) -> DbError {
        match error {
            sqlx::Error::PoolTimedOut if self.pool.size() < self.max_connections => {
                DbError::Connect(format!("no connection within {:?}", self.acquire_timeout))
            }
            sqlx::Error::PoolTimedOut => DbError::PoolTimeout(self.acquire_timeout),
            other => other.into(),
        }
    }
}

/// Lets the statements of this transaction wait for a lock as long as `patience`.
pub(crate) async fn limit_waits(
    connection: &mut PgConnection,
    patience: Duration,
) -> Result<(), DbError> {
    let limits = format!(
        "set local lock_timeout = {}; set local statement_timeout = {}",
        millis(patience),
        millis(patience + GRACE)
    );
    connection.execute(AssertSqlSafe(limits)).await?;
    Ok(())
}

/// Waits for work on the server at most `limit` and some grace: the server's own timeout should come first.
pub(crate) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, DbError>> + Send,
) -> Result<T, DbError> {
    let limit = limit + GRACE;
    tokio::time::timeout(limit, work)
        .await
        .unwrap_or(Err(DbError::Silent(limit)))
}

/// Milliseconds as Postgres' settings take them. 0 would mean "no limit", so the least is 1.
fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis())
        .unwrap_or(i32::MAX)
        .max(1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::Secret;

    fn config(url: &str) -> DatabaseConfig {
        DatabaseConfig {
            url: Secret::new(url),
            max_connections: 2,
            acquire_timeout: Duration::from_millis(200),
            statement_timeout: Duration::from_secs(1),
        }
    }

    #[tokio::test]
    async fn a_password_is_shown_nowhere() {
        for url in [
            "postgres://app:hunter2@:x/db",
            "postgres://app:hunter2@h:99999999/db",
        ] {
            let error = Database::open(&config(url)).unwrap_err();
            assert!(
                !format!("{error} {error:?}").contains("hunter2"),
                "{error:?}"
            );
        }
        // Nobody listens on port 1.
        let database = Database::open(&config("postgres://app:hunter2@127.0.0.1:1/db")).unwrap();
        let error = database.ping(Duration::from_secs(1)).await.unwrap_err();
        assert!(matches!(error, DbError::Connect(_)), "{error:?}");
        let shown = format!("{database:?} {error} {error:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[tokio::test]
    async fn no_url_is_no_database() {
        let error = Database::open(&config("")).unwrap_err();
        assert!(error.to_string().contains("database.url"), "{error}");
    }
}
