//! What can go wrong with a cache, other than a miss.

use super::name::RegionName;
use crate::job::Failure;
use redis::{ErrorKind, RedisError};
use std::sync::Arc;

/// The resource blamed by a definition that names no `redis:` resource of its own.
const DEFAULT_RESOURCE: &str = "redis:main";

/// Why a cache operation did not happen.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// Redis could not do it: not reached, too slow, out of memory, read-only.
    #[error("region {region}: {source}")]
    Redis {
        /// The region.
        region: RegionName,
        /// What Redis or the connection said.
        source: RedisError,
    },
    /// A key of this region holds something this cache did not write. Nothing was changed.
    #[error("region {region}: a key of this cache holds something else: {detail}")]
    Foreign {
        /// The region.
        region: RegionName,
        /// What was found.
        detail: String,
    },
    /// The caller asked for more than a limit allows.
    #[error("{0}")]
    Limit(String),
}

impl CacheError {
    /// Sorts what Redis said: a value of a wrong type is the key's fault, everything else the server's or the way to it.
    pub(super) fn from_redis(region: &RegionName, source: RedisError) -> Self {
        let said = source.to_string();
        let misread = matches!(
            source.kind(),
            ErrorKind::Parse | ErrorKind::UnexpectedReturnType
        );
        if misread || said.contains("WRONGTYPE") {
            return Self::Foreign {
                region: region.clone(),
                detail: said,
            };
        }
        Self::Redis {
            region: region.clone(),
            source,
        }
    }

    /// Whether the same again may succeed: not so for what is over a limit.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        !matches!(self, Self::Limit(_))
    }

    /// The failure of a job that met this error. Only a server at fault is blamed, as `resource`.
    #[must_use]
    pub fn into_failure(self, resource: &str) -> Failure {
        let failure = Failure::new(self.to_string());
        match self {
            Self::Redis { source, .. } => {
                let connect = source.is_io_error() && !source.is_timeout();
                failure.blaming(resource, connect)
            }
            Self::Foreign { .. } | Self::Limit(_) => failure,
        }
    }
}

/// The resource to blame for a definition: its first `redis:` one, or `redis:main`.
#[must_use]
pub fn resource_of(resources: &[Arc<str>]) -> &str {
    resources
        .iter()
        .find(|r| r.starts_with("redis:"))
        .map_or(DEFAULT_RESOURCE, |r| r)
}
