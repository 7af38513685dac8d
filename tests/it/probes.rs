//! Signals from real servers: what Redis and Postgres tell of themselves, and what users ask for.

mod custom;
mod postgres;
mod redis;

use std::time::Duration;

use tidegate::config::{Config, Secret, Sources, load};
use tidegate::db::Database;

const LIMIT: Duration = Duration::from_secs(5);

fn config(redis_url: &str) -> Config {
    let mut config = load(&Sources::default()).unwrap();
    config.redis.url = Secret::new(redis_url);
    config.gate.sample = Duration::from_millis(100);
    config
}

fn database(url: &str) -> Database {
    let mut config = config("redis://127.0.0.1:1/0").database;
    config.url = Secret::new(url);
    config.max_connections = 1;
    Database::open(&config).unwrap()
}
