//! The one place where connections to Redis are built.
//!
//! Every connection reconnects by itself with backoff, and every command on it has a deadline.

use crate::config::RedisConfig;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, RedisError};
use std::time::Duration;

/// A shared, reconnecting connection. Cheap to clone; commands of all clones are pipelined over one socket.
pub type Connection = ConnectionManager;

/// Attempts to reconnect within one command, before the command fails. The caller's own loop goes on after that.
const RECONNECT_TRIES: usize = 2;
const RECONNECT_MIN: Duration = Duration::from_millis(20);
const RECONNECT_MAX: Duration = Duration::from_millis(500);

/// Opens a connection whose commands take at most `config.command_timeout`.
///
/// # Errors
/// The URL can't be used, or the server can't be reached within `config.connect_timeout`.
pub async fn connect(config: &RedisConfig) -> Result<Connection, RedisError> {
    connect_with(config, config.command_timeout).await
}

/// Opens a connection of its own for a call that blocks in Redis for up to `blocks_for`.
///
/// # Errors
/// As [`connect`].
pub async fn connect_blocking(
    config: &RedisConfig,
    blocks_for: Duration,
) -> Result<Connection, RedisError> {
    connect_with(config, blocks_for + config.command_timeout).await
}

async fn connect_with(
    config: &RedisConfig,
    response_timeout: Duration,
) -> Result<Connection, RedisError> {
    let client = Client::open(config.url.reveal())?;
    let options = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(config.connect_timeout))
        .set_response_timeout(Some(response_timeout))
        .set_number_of_retries(RECONNECT_TRIES)
        .set_min_delay(RECONNECT_MIN)
        .set_max_delay(RECONNECT_MAX);
    ConnectionManager::new_with_config(client, options).await
}
