//! Why a daemon can't start or reload.

use crate::catalog::{CatalogError, Problem};
use crate::config::ConfigError;

/// Why a daemon can't start or reload.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration or a definition is wrong; one line per problem.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// Redis can't be reached.
    #[error("can't reach Redis at {url}: {error}; set [redis] url or TIDEGATE_REDIS__URL")]
    Redis {
        /// Where, without the password.
        url: String,
        /// What the connection said.
        error: String,
    },
    /// Redis answers but can't be used.
    #[error("can't use this Redis: {0}")]
    Unusable(String),
    /// The admin address can't be bound.
    #[error("[admin] listen = {0}")]
    Admin(String),
    /// Logging or signals could not be set up.
    #[error("{0}")]
    Setup(String),
}

impl DaemonError {
    /// One setting that can't be used.
    #[must_use]
    pub fn setting(problem: impl Into<String>) -> Self {
        Self::Config(ConfigError::one(problem))
    }

    /// Definitions that can't be used, one line each.
    #[must_use]
    pub fn definitions(problems: &[Problem]) -> Self {
        Self::Config(ConfigError {
            problems: problems.iter().map(Problem::to_string).collect(),
        })
    }
}

impl From<CatalogError> for DaemonError {
    fn from(e: CatalogError) -> Self {
        Self::definitions(&e.problems)
    }
}
