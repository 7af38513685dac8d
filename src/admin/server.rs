//! The accept loop: how many connections at once, how long each may take, how much it may send.
//!
//! Must not know what is served. One request per connection: with no idle connections there is nothing to bound but
//! the time of one exchange, and nothing to smuggle a second request into.

use super::guard::Guard;
use super::{AdminState, router};
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections at once; others wait to be accepted. Our choice: scrapers and probes are few.
const MAX_CONNECTIONS: usize = 64;
/// How long a client may take to send its request line and headers.
const HEADER_DEADLINE: Duration = Duration::from_secs(5);
/// How long a whole exchange may take.
const EXCHANGE_DEADLINE: Duration = Duration::from_secs(15);
/// How long exchanges under way may go on after the stop.
const STOP_DEADLINE: Duration = Duration::from_secs(2);
/// Bytes of request line and headers; beyond them the answer is 431.
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Header lines; beyond them the answer is 431.
const MAX_HEADERS: usize = 64;
/// Wait after a failed accept, which out of file descriptors would else spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the endpoints could not be served.
#[derive(Debug, Error)]
pub enum AdminError {
    /// The listener has no address.
    #[error("admin listener: {0}")]
    Listener(#[from] io::Error),
    /// Others could reach it, and nothing would keep them out.
    #[error("{0} is not loopback: set admin.token, or listen on 127.0.0.1")]
    Exposed(SocketAddr),
}

/// Serves the endpoints until `stop`, then lets exchanges under way end.
///
/// # Errors
/// If the listener is open to others without a token. Errors of single connections are theirs alone.
pub async fn serve(
    listener: TcpListener,
    state: AdminState,
    stop: CancellationToken,
) -> Result<(), AdminError> {
    let address = listener.local_addr()?;
    if state.token.is_empty() && !address.ip().is_loopback() {
        return Err(AdminError::Exposed(address));
    }
    let guard = Guard::new(&state.token, Arc::clone(&state.metrics));
    let app = router(state, guard);
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let exchanges = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        match accepted {
            Ok((stream, slot)) => {
                let exchange = exchange(stream, app.clone(), stop.clone());
                exchanges.spawn(async move {
                    exchange.await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(event = "admin_accept_failed", %error, "cannot accept");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    exchanges.close();
    exchanges.wait().await;
    Ok(())
}

type Slot = tokio::sync::OwnedSemaphorePermit;

/// The next connection, once there is a slot for it.
async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> io::Result<(TcpStream, Slot)> {
    let slot = Arc::clone(slots)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, slot))
}

/// One request and its answer.
async fn exchange(stream: TcpStream, app: Router, stop: CancellationToken) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_DEADLINE)
        .max_buf_size(MAX_HEADER_BYTES)
        .max_headers(MAX_HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = timeout(EXCHANGE_DEADLINE, connection.as_mut()) => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            timeout(STOP_DEADLINE, connection).await
        }
    };
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(event = "admin_connection", %error, "ended badly"),
        Err(_) => tracing::debug!(event = "admin_connection", "took too long"),
    }
}
