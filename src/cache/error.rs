//! What can go wrong with a cache, other than a miss.

use super::name::RegionName;
use redis::RedisError;

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
    /// Sorts what Redis said: a wrong type is the key's fault, everything else the server's or the way to it.
    pub(super) fn from_redis(region: &RegionName, source: RedisError) -> Self {
        let said = source.to_string();
        if said.contains("WRONGTYPE") || said.contains("not an integer") {
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

    /// Whether the server is to blame, so that a circuit breaker should count it.
    #[must_use]
    pub const fn is_server(&self) -> bool {
        matches!(self, Self::Redis { .. })
    }

    /// Whether the server could not even be reached.
    #[must_use]
    pub fn is_connect(&self) -> bool {
        match self {
            Self::Redis { source, .. } => source.is_io_error() && !source.is_timeout(),
            Self::Foreign { .. } | Self::Limit(_) => false,
        }
    }
}
