//! What the daemons published, and what operators ordered: read together, for `gate` and `explain`.

use super::CliError;
use super::store::Store;
use crate::policy::gate::{Orders, Rules};
use crate::queue::orders::OrderBook;
use crate::queue::{board, pages};
use crate::services::merge::merged;
use serde::Deserialize;
use serde_json::{Value, json};

/// Lists of health that tell what each daemon does; the rest of it tells how the world is.
const OF_DAEMONS: [&str; 3] = ["breakers", "limiters", "budgets"];

/// The gate as it stands in Redis.
#[derive(Debug, Clone, Default)]
pub(super) struct Fleet {
    /// What the daemons together told last; none if none did lately.
    pub(super) health: Option<Value>,
    /// Each daemon's page, with its `age_ms`.
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
        let page = |told: &pages::Published| {
            let mut page: Value = serde_json::from_str(&told.page).ok()?;
            page["age_ms"] = now_ms.saturating_sub(told.at_ms).into();
            Some(page)
        };
        Ok(Self {
            health: health.and_then(|text| serde_json::from_str(&text).ok()),
            pages: pages.iter().filter_map(page).collect(),
            orders,
            now_ms,
        })
    }

    /// The same by the daemons alone that serve a queue: what others do holds none of its jobs back. Of how the world is
    /// what all tell stays, if nobody serves it.
    pub(super) fn serving(&self, queue: &str) -> Self {
        let serves = |page: &&Value| {
            let queues = page["queues"].as_array().into_iter().flatten();
            queues.into_iter().any(|name| name == queue)
        };
        let pages: Vec<Value> = self.pages.iter().filter(serves).cloned().collect();
        let health = match pages.split_first() {
            Some((first, others)) => Some(merged(first, others)),
            None => self.health.clone().map(|mut health| {
                for list in OF_DAEMONS {
                    health[list] = json!([]);
                }
                health
            }),
        };
        Self {
            health,
            pages,
            orders: self.orders.clone(),
            now_ms: self.now_ms,
        }
    }

    /// What the gate goes by in the daemon that told of health for all; by the configuration here, if none did.
    pub(super) fn rules(&self, store: &Store) -> Rules {
        let told = self.health.as_ref().map(|health| &health["gate"]);
        let told = told.and_then(|gate| Rules::deserialize(gate).ok());
        told.unwrap_or_else(|| Rules::from(&store.config.gate))
    }

    /// How old what a daemon told is, ms; none if it has no page any more.
    pub(super) fn age_of(&self, instance: &Value) -> Option<u64> {
        let page = self.pages.iter().find(|p| p["instance"] == *instance)?;
        page["age_ms"].as_u64()
    }

    /// For how long what an entry of a list tells of has been as it is, ms: since its last change, else since its daemon
    /// started.
    pub(super) fn since(&self, entry: &Value) -> Option<u64> {
        let of_daemon = || {
            let instance = &entry["instance"];
            let page = self.pages.iter().find(|p| p["instance"] == *instance)?;
            page["started_at"].as_u64()
        };
        let since = entry["since"].as_u64().or_else(of_daemon)?;
        Some(self.now_ms.saturating_sub(since))
    }

    /// How old the oldest page is, ms: what is added up of all of them is no newer.
    pub(super) fn oldest_page(&self) -> Option<u64> {
        let ages = self.pages.iter().filter_map(|p| p["age_ms"].as_u64());
        ages.max()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn page(instance: &str, queues: &[&str], postgres: &str, limit: u64) -> Value {
        json!({"v": 1, "instance": instance, "queues": queues, "age_ms": limit,
            "resources": {"postgres:primary": {"state": postgres, "pressure": 0.5}},
            "limiters": [{"handler": "http", "resource": "http:a:1", "limit": limit, "limiter": {"inflight": 2}}]})
    }

    #[test]
    fn a_queue_is_explained_by_those_who_serve_it() {
        let fleet = Fleet {
            health: Some(
                json!({"resources": {"postgres:primary": {"state": "critical"}},
                "limiters": [{"handler": "http", "resource": "http:a:1", "all": {"limit": 60, "inflight": 6}}]}),
            ),
            pages: vec![
                page("a", &["default", "mail"], "ok", 10),
                page("b", &["mail"], "critical", 20),
                page("c", &["default"], "elevated", 30),
            ],
            ..Fleet::default()
        };
        let own = fleet.serving("default");
        let limiter = own.each("limiters").next();
        assert_eq!(
            limiter.map(|l| l["all"].clone()),
            Some(json!({"limit": 40, "inflight": 4}))
        );
        let state = own.resource("postgres:primary").map(|r| &r["state"]);
        assert_eq!(state, Some(&json!("elevated")));
        assert_eq!((own.pages.len(), own.oldest_page()), (2, Some(30)));
        assert_eq!(own.age_of(&json!("b")), None);
        let mut later = own.clone();
        later.now_ms = 9_000;
        later.pages[0]["started_at"] = 2_000.into();
        let mut entry = json!({"instance": "a"});
        assert_eq!(later.since(&entry), Some(7_000));
        entry["since"] = 8_000.into();
        assert_eq!(later.since(&entry), Some(1_000));
        assert_eq!(later.since(&json!({"instance": "b"})), None);

        let nobody = fleet.serving("other");
        assert_eq!(nobody.each("limiters").count(), 0);
        let state = nobody.resource("postgres:primary").map(|r| &r["state"]);
        assert_eq!(state, Some(&json!("critical")));
    }
}
