//! The one place where connections to Redis are built.
//!
//! Every connection reconnects by itself with backoff, and every command on it has a deadline. A connection on which a
//! command missed its deadline is given up for a new one: it may be half open, and would never answer again. So is one to
//! a server that was demoted; with Sentinels, the new one goes to the server that they name by then.

use crate::clock;
use crate::config::RedisConfig;
use arc_swap::ArcSwap;
use redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig};
use redis::sentinel::{Sentinel, SentinelNodeConnectionInfo};
use redis::{
    Client, Cmd, ConnectionAddr, IntoConnectionInfo, Pipeline, RedisError, RedisFuture,
    RedisResult, TlsMode, Value,
};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// Attempts to reconnect within one command, before the command fails. The caller's own loop goes on after that.
const RECONNECT_TRIES: usize = 2;
const RECONNECT_MIN: Duration = Duration::from_millis(20);
const RECONNECT_MAX: Duration = Duration::from_millis(500);
/// A connection younger than this is kept although the server says that it is no primary: it was just asked for.
const YOUNG: Duration = Duration::from_secs(1);

/// A shared, reconnecting connection. Cheap to clone; commands of all clones are pipelined over one socket.
#[derive(Clone)]
pub struct Connection(Arc<Shared>);

struct Shared {
    config: RedisConfig,
    response_timeout: Duration,
    live: ArcSwap<Live>,
    /// Held by the one caller that connects anew.
    connecting: Mutex<()>,
    /// How often that failed.
    failed: AtomicU64,
}

/// One connection to one server.
struct Live {
    manager: ConnectionManager,
    opened: Instant,
    given_up: AtomicBool,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

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
    let live = open(config, response_timeout).await?;
    Ok(Connection(Arc::new(Shared {
        config: config.clone(),
        response_timeout,
        live: ArcSwap::from_pointee(live),
        connecting: Mutex::new(()),
        failed: AtomicU64::new(0),
    })))
}

async fn open(config: &RedisConfig, response_timeout: Duration) -> RedisResult<Live> {
    let options = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(config.connect_timeout))
        .set_response_timeout(Some(response_timeout))
        .set_number_of_retries(RECONNECT_TRIES)
        .set_min_delay(RECONNECT_MIN)
        .set_max_delay(RECONNECT_MAX);
    let manager = ConnectionManager::new_with_config(client(config).await?, options).await?;
    Ok(Live {
        manager,
        opened: clock::monotonic(),
        given_up: AtomicBool::new(false),
    })
}

/// A client of the server: the one of the URL, or the one that the first Sentinel which answers names.
///
/// # Errors
/// A URL can't be used, or no Sentinel knows a primary.
pub async fn client(config: &RedisConfig) -> RedisResult<Client> {
    let url = config.url.reveal();
    if config.sentinels.is_empty() {
        return Client::open(url);
    }
    let info = url.into_connection_info()?;
    let mut node = SentinelNodeConnectionInfo::default()
        .set_redis_connection_info(info.redis_settings().clone());
    if let ConnectionAddr::TcpTls { insecure, .. } = info.addr() {
        node = node.set_tls_mode(match insecure {
            true => TlsMode::Insecure,
            false => TlsMode::Secure,
        });
    }
    let mut failed = late();
    for sentinel in &config.sentinels {
        let mut asked = Sentinel::build(vec![sentinel.reveal()])?;
        let answer = asked.async_master_for(&config.sentinel_name, Some(&node));
        // One that hangs must not keep us from the next.
        match tokio::time::timeout(config.connect_timeout, answer).await {
            Ok(Ok(client)) => return Ok(client),
            Ok(Err(e)) => failed = e,
            Err(_) => failed = late(),
        }
    }
    Err(failed)
}

fn late() -> RedisError {
    io::Error::from(io::ErrorKind::TimedOut).into()
}

impl Connection {
    /// The connection to use now: a new one, if the last was given up.
    async fn live(&self) -> RedisResult<Arc<Live>> {
        let shared = &self.0;
        let live = shared.live.load_full();
        if !live.is_given_up() {
            return Ok(live);
        }
        let failed = shared.failed.load(Ordering::Acquire);
        let _turn = shared.connecting.lock().await;
        let live = shared.live.load_full();
        if !live.is_given_up() {
            return Ok(live);
        }
        // Who waited while another one failed does not make its own callers wait as long again.
        if shared.failed.load(Ordering::Acquire) != failed {
            return Err(io::Error::from(io::ErrorKind::NotConnected).into());
        }
        let limit = shared.config.connect_timeout.min(shared.response_timeout);
        let opened = tokio::time::timeout(limit, open(&shared.config, shared.response_timeout));
        match opened.await.unwrap_or_else(|_| Err(late())) {
            Ok(fresh) => {
                let fresh = Arc::new(fresh);
                shared.live.store(Arc::clone(&fresh));
                Ok(fresh)
            }
            Err(e) => {
                shared.failed.fetch_add(1, Ordering::AcqRel);
                Err(e)
            }
        }
    }

    /// Gives a connection up whose answer says that it is of no use any more.
    fn judge<'a>(
        &self,
        live: &Live,
        failure: Option<&RedisError>,
        answers: impl IntoIterator<Item = &'a Value>,
    ) {
        let is_lost = |e: &RedisError| {
            e.is_timeout() || !self.0.config.sentinels.is_empty() && e.is_unrecoverable_error()
        };
        let demoted = |code: Option<&str>| matches!(code, Some("READONLY" | "MASTERDOWN"));
        let says_so = answers
            .into_iter()
            .any(|answer| matches!(answer, Value::ServerError(e) if demoted(Some(e.code()))))
            || failure.is_some_and(|e| demoted(e.code()));
        let useless = failure.is_some_and(is_lost) || says_so && clock::since(live.opened) >= YOUNG;
        if useless {
            live.given_up.store(true, Ordering::Release);
        }
    }
}

impl Live {
    fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let live = self.live().await?;
            let answer = live.manager.clone().req_packed_command(cmd).await;
            self.judge(&live, answer.as_ref().err(), answer.as_ref().ok());
            answer
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            let live = self.live().await?;
            let mut manager = live.manager.clone();
            let answers = manager.req_packed_commands(pipeline, offset, count).await;
            let each = answers.as_ref().ok().into_iter().flatten();
            self.judge(&live, answers.as_ref().err(), each);
            answers
        })
    }

    fn get_db(&self) -> i64 {
        self.0.live.load().manager.get_db()
    }
}
