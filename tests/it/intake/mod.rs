//! Jobs that come by other ways than an inbox: the outbox in Postgres, and what apps push with apalis-redis.

mod bridge;
mod cli;
mod daemon;
mod killed;
mod outbox;
mod relay;

use crate::queue::rig::Rig;
use crate::support::fresh_database;
use sqlx::{AssertSqlSafe, PgPool};
use std::sync::Arc;
use tidegate::config::{Config, Secret};
use tidegate::db::{self, Database};
use tidegate::services::outbox::Relay;
use tidegate::services::outbox::aside::Aside;
use tidegate::telemetry::{Alerts, Metrics};

/// A queue and a database with an outbox.
pub struct Harbour {
    pub rig: Rig,
    pub url: String,
    pub sql: PgPool,
}

impl Harbour {
    pub async fn new() -> Self {
        Self::with(Rig::new().await, fresh_database()).await
    }

    pub async fn with(rig: Rig, url: String) -> Self {
        let mut config = rig.config.clone();
        config.database.url = Secret::new(&url);
        let database = Database::open(&config.database).unwrap();
        db::migrate(&database).await.unwrap();
        let sql = PgPool::connect(&url).await.unwrap();
        Self { rig, url, sql }
    }

    pub fn relay(&self) -> Relay {
        relay(&self.rig.config, &self.url, self.rig.conn.clone())
    }

    /// Relays until nothing is left.
    pub async fn relay_all(&self) {
        let relay = self.relay();
        while relay.step().await.unwrap() {}
    }

    pub async fn execute(&self, sql: &str) {
        self.try_execute(sql).await.unwrap();
    }

    pub async fn try_execute(&self, sql: &str) -> sqlx::Result<()> {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
            .execute(&self.sql)
            .await
            .map(|_| ())
    }

    pub async fn number(&self, sql: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
            .fetch_one(&self.sql)
            .await
            .unwrap()
    }

    pub async fn rows(&self) -> i64 {
        self.number("select count(*) from tidegate.outbox").await
    }

    /// What stands in the inbox of a queue, in order.
    pub async fn inbox(&self, queue: &str) -> Vec<serde_json::Value> {
        let key = format!("{}:{{{queue}}}:inbox", self.rig.config.redis.prefix);
        let entries: Vec<String> = self.rig.redis("LRANGE", &[&key, "0", "-1"]).await;
        let parse = |entry: &String| serde_json::from_str(entry).unwrap();
        entries.iter().map(parse).collect()
    }
}

/// A relay of its own, as each daemon has one.
pub fn relay(
    config: &Config,
    database_url: &str,
    conn: tidegate::queue::connection::Connection,
) -> Relay {
    let mut config = config.clone();
    config.database.url = Secret::new(database_url);
    config.outbox.enabled = true;
    Relay {
        database: Database::open(&config.database).unwrap(),
        conn,
        metrics: Arc::new(Metrics::new()),
        alerts: Alerts::default(),
        aside: Aside::default(),
        config: Arc::new(config),
    }
}
