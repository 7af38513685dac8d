//! What can go wrong with Postgres, sorted by what to do about it.

use crate::job::Failure;
use sqlx::postgres::PgDatabaseError;
use std::sync::Arc;
use std::time::Duration;

/// The resource blamed by a definition that names no `postgres:` resource of its own.
const DEFAULT_RESOURCE: &str = "postgres:primary";
/// The longest message kept of a server error, bytes.
const MAX_MESSAGE: usize = 1_000;

/// An error of the database. No variant ever carries the URL or the password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DbError {
    /// `[database] url` can't be used.
    #[error("database.url: {0}")]
    Config(String),
    /// No connection could be made, or the one in use broke.
    #[error("Postgres could not be reached: {0}")]
    Connect(String),
    /// The pool had no connection to give in time.
    #[error("no Postgres connection became free within {0:?}")]
    PoolTimeout(Duration),
    /// The server did not answer in time; its own timeouts should have ended the statement before.
    #[error("Postgres did not answer within {0:?}")]
    Silent(Duration),
    /// The server turns work away: shutting down, starting, or out of connections.
    #[error("Postgres is not available: {message} ({code})")]
    Unavailable {
        /// SQLSTATE.
        code: String,
        /// The server's words.
        message: String,
    },
    /// 55P03: a lock was not granted within `lock_timeout`.
    #[error("a lock was not granted in time: {0} (55P03)")]
    LockNotAvailable(String),
    /// 57014: ended by `statement_timeout` or by an operator.
    #[error("the statement was cancelled: {0} (57014)")]
    Canceled(String),
    /// 40001 or 40P01: the transaction lost against another one; the same again may succeed.
    #[error("the transaction lost against another: {message} ({code})")]
    Conflict {
        /// SQLSTATE.
        code: String,
        /// The server's words.
        message: String,
    },
    /// The schema `tidegate` is not there, or older than this program.
    #[error("the database lacks schema `tidegate` in version {needed}: run `tidegate migrate`")]
    SchemaMissing {
        /// The version this program works with.
        needed: i64,
    },
    /// The schema can't be brought up to date.
    #[error("migration failed: {0}")]
    Migration(String),
    /// An argument does not fit its parameter.
    #[error("{0}")]
    Param(String),
    /// A mistake in the SQL, or a rule of the database that it breaks.
    #[error("{message} ({code})")]
    Sql {
        /// SQLSTATE.
        code: String,
        /// The server's words, with detail and hint.
        message: String,
    },
    /// Something the driver does not understand.
    #[error("{0}")]
    Driver(String),
}

impl DbError {
    /// Whether the server is at fault and not what was asked of it.
    #[must_use]
    pub const fn is_dependency(&self) -> bool {
        matches!(
            self,
            Self::Connect(_) | Self::PoolTimeout(_) | Self::Silent(_) | Self::Unavailable { .. }
        )
    }

    /// Whether the statement itself is wrong, so that the same again must fail: SQLSTATE class 42 (syntax, unknown
    /// names, missing rights), 22 (a value that does not fit) or 0A (not supported).
    #[must_use]
    pub fn is_mistake(&self) -> bool {
        match self {
            Self::Sql { code, .. } => ["42", "22", "0A"]
                .iter()
                .any(|class| code.starts_with(class)),
            Self::Param(_) => true,
            _ => false,
        }
    }

    /// The failure of a job that met this error. Only a server at fault is blamed, as `resource`.
    #[must_use]
    pub fn into_failure(self, resource: &str) -> Failure {
        let failure = Failure::new(self.to_string());
        if self.is_dependency() {
            failure.blaming(resource, matches!(self, Self::Connect(_)))
        } else {
            failure
        }
    }

    /// Sorts a server's answer by its SQLSTATE.
    fn from_server(error: &PgDatabaseError) -> Self {
        let code = error.code().to_owned();
        let message = words_of(error);
        match (&code[..], code.get(..2).unwrap_or_default()) {
            ("55P03", _) => Self::LockNotAvailable(message),
            ("57014", _) => Self::Canceled(message),
            ("40001" | "40P01", _) => Self::Conflict { code, message },
            // Class 08: connection. Class 28: not let in. 3D000: no such database. None of them is met once connected.
            ("3D000", _) | (_, "08" | "28") => Self::Connect(format!("{message} ({code})")),
            // Shutdown, crash, starting up; too many connections; disk or memory full.
            ("57P01" | "57P02" | "57P03", _) | (_, "53") => Self::Unavailable { code, message },
            _ => Self::Sql { code, message },
        }
    }
}

impl From<sqlx::Error> for DbError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(e) => match e.try_downcast_ref::<PgDatabaseError>() {
                Some(e) => Self::from_server(e),
                None => Self::Driver(e.to_string()),
            },
            sqlx::Error::Io(e) => Self::Connect(e.to_string()),
            sqlx::Error::Tls(e) => Self::Connect(format!("TLS: {e}")),
            sqlx::Error::PoolTimedOut => Self::PoolTimeout(Duration::ZERO),
            sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed | sqlx::Error::BeginFailed => {
                Self::Connect("the connection was closed".to_owned())
            }
            other => Self::Driver(other.to_string()),
        }
    }
}

/// The server's message with detail and hint, in one line of bounded length.
fn words_of(error: &PgDatabaseError) -> String {
    let mut words = error.message().to_owned();
    for (label, more) in [("detail", error.detail()), ("hint", error.hint())] {
        if let Some(more) = more {
            words.push_str(&format!("; {label}: {more}"));
        }
    }
    let words = words.replace(['\n', '\r'], " ");
    crate::job::history::cut(&words, MAX_MESSAGE).to_owned()
}

/// The resource to blame for a definition: its first `postgres:` one, or `postgres:primary`.
#[must_use]
pub fn resource_of(resources: &[Arc<str>]) -> &str {
    resources
        .iter()
        .find(|r| r.starts_with("postgres:"))
        .map_or(DEFAULT_RESOURCE, |r| r)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_at_fault_is_blamed() {
        let gone = DbError::Connect("connection refused".to_owned()).into_failure("postgres:a");
        assert!(
            gone.blame
                .is_some_and(|b| b.connect && b.resource == "postgres:a")
        );
        let full = DbError::PoolTimeout(Duration::from_secs(5)).into_failure("postgres:a");
        assert!(full.blame.is_some_and(|b| !b.connect));
        for ours in [
            DbError::Sql {
                code: "42601".to_owned(),
                message: "syntax error".to_owned(),
            },
            DbError::Canceled("statement timeout".to_owned()),
            DbError::LockNotAvailable("lock timeout".to_owned()),
        ] {
            assert_eq!(ours.into_failure("postgres:a").blame, None);
        }
    }

    #[test]
    fn the_first_postgres_resource_is_meant() {
        let list = |names: &[&str]| {
            names
                .iter()
                .map(|n| Arc::from(*n))
                .collect::<Vec<Arc<str>>>()
        };
        assert_eq!(
            resource_of(&list(&["redis:cache", "postgres:b", "postgres:c"])),
            "postgres:b"
        );
        assert_eq!(resource_of(&list(&["redis:cache"])), "postgres:primary");
    }
}
