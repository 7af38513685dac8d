//! What the daemons published, and what operators ordered: read together, for `gate` and `explain`.

use super::CliError;
use super::store::Store;
use crate::policy::gate::Orders;
use crate::queue::orders::OrderBook;
use crate::queue::{board, pages};
use serde_json::Value;

/// The gate as it stands in Redis.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    /// What the daemons together told last; none if none did lately.
    pub(super) health: Option<Value>,
    /// Each daemon's page.
    pub(super) pages: Vec<Value>,
    /// The orders that hold.
    pub(super) orders: Orders,
    /// Redis time, ms.
    pub(super) now_ms: u64,
}

impl Fleet {
    /// Reads all of it.
    ///
    /// # Errors
    /// Redis failed.
    pub(super) async fn read(store: &Store) -> Result<Self, CliError> {
        let prefix = &store.config.redis.prefix;
        let health = board::read(&store.conn, &board::health_key(prefix)).await?;
        let pages = pages::read(&store.conn, prefix).await?;
        let (orders, now_ms) = OrderBook::new(&store.conn, prefix).read().await?;
        let json = |text: &String| serde_json::from_str(text).ok();
        Ok(Self {
            health: health.as_ref().and_then(json),
            pages: pages.iter().filter_map(json).collect(),
            orders,
            now_ms,
        })
    }

    /// One resource of health.
    pub(super) fn resource(&self, name: &str) -> Option<&Value> {
        self.health.as_ref()?.get("resources")?.get(name)
    }

    /// The entries of one list of health: `breakers`, `limiters` and their like.
    pub(super) fn each(&self, field: &str) -> impl Iterator<Item = &Value> {
        let list = self
            .health
            .as_ref()
            .and_then(|health| health[field].as_array());
        list.into_iter().flatten()
    }

    /// The resources of health, by name.
    pub(super) fn resources(&self) -> impl Iterator<Item = (&str, &Value)> {
        let all = self
            .health
            .as_ref()
            .and_then(|health| health["resources"].as_object());
        all.into_iter()
            .flatten()
            .map(|(name, value)| (name.as_str(), value))
    }

    /// With this health alone.
    #[cfg(test)]
    pub(super) fn of(health: Value) -> Self {
        Self {
            health: Some(health),
            ..Self::default()
        }
    }
}
