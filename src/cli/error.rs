//! Why a command failed: a word for programs, a sentence for people, an exit code for shells.

use crate::catalog::CatalogError;
use crate::config::{ConfigError, DatabaseConfig};
use crate::daemon::DaemonError;
use crate::db::DbError;
use crate::queue::QueueError;
use serde_json::{Value, json};

/// Exit codes: the shell's contract. 78 is `EX_CONFIG` of sysexits.h.
pub mod exit {
    /// Done.
    pub const OK: u8 = 0;
    /// Failed, or what was asked about is not so.
    pub const FAILED: u8 = 1;
    /// The command line can't be understood.
    pub const USAGE: u8 = 2;
    /// The configuration or the job definitions are wrong.
    pub const CONFIG: u8 = 78;
}

/// Why a command failed. No variant carries a secret.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The job definitions are wrong.
    #[error(transparent)]
    Jobs(#[from] CatalogError),
    /// The command line asks for something that can't be meant.
    #[error("{0}")]
    Usage(String),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// No connection to Redis.
    #[error("can't reach Redis at {url}: {cause}; set [redis] url or TIDEGATE_REDIS__URL")]
    Redis {
        /// Its URL without the password.
        url: String,
        /// The driver's words.
        cause: String,
    },
    /// Redis failed after it was reached.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// Postgres is not there, or turns us away.
    #[error("can't reach Postgres at {url}: {cause}; set [database] url or TIDEGATE_DATABASE__URL")]
    Postgres {
        /// Its URL without the password.
        url: String,
        /// What went wrong.
        cause: DbError,
    },
    /// Postgres failed after it was reached.
    #[error(transparent)]
    Database(#[from] DbError),
    /// Anything else, under a stable word.
    #[error("{message}")]
    Failed {
        /// The word.
        code: &'static str,
        /// The sentence.
        message: String,
    },
}

impl From<DaemonError> for CliError {
    fn from(error: DaemonError) -> Self {
        match error {
            DaemonError::Config(problems) => Self::Config(problems),
            DaemonError::Redis { url, error } => Self::Redis { url, cause: error },
            other => Self::failed("daemon", other.to_string()),
        }
    }
}

impl CliError {
    /// A failure of its own kind.
    pub fn failed(code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self::Failed { code, message }
    }

    /// An error of the database that `config` names.
    pub fn database(config: &DatabaseConfig, cause: DbError) -> Self {
        if cause.is_dependency() {
            let url = config.url.redacted_url();
            return Self::Postgres { url, cause };
        }
        Self::Database(cause)
    }

    /// The stable word for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Config(_) => "config",
            Self::Jobs(_) => "jobs",
            Self::Usage(_) => "usage",
            Self::NotFound(_) => "not_found",
            Self::Redis { .. } | Self::Queue(_) => "redis",
            Self::Postgres { .. } | Self::Database(_) => "database",
            Self::Failed { code, .. } => code,
        }
    }

    /// The exit code.
    #[must_use]
    pub const fn exit(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Jobs(_) | Self::Database(DbError::Config(_)) => exit::CONFIG,
            Self::Usage(_) => exit::USAGE,
            _ => exit::FAILED,
        }
    }

    /// `{"error","message"}`, as `--json` prints it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({"error": self.code(), "message": self.to_string()})
    }
}
