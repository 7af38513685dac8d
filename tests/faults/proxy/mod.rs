//! A proxy that knows where messages of Redis begin and end, so that it can cut a connection between a request and its
//! reply, and do to the bytes in between what networks do.

mod resp;
pub mod tests;

use parking_lot::Mutex;
use rand::RngExt;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// What is done to the connections.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Harm {
    Nothing,
    /// With this chance a request is not passed on, and its connection cut.
    CutRequest(f64),
    /// With this chance a request is passed on, and its connection cut instead of its reply.
    CutReply(f64),
    /// With this chance only the first part of several requests sent at once is passed on, and the connection cut.
    Split(f64),
    /// Each piece waits so long, in either direction.
    Delay(Duration, Duration),
    /// Requests of the connections that are open now vanish.
    SwallowRequests,
    /// Replies on the connections that are open now vanish.
    SwallowReplies,
    /// Nobody gets through.
    Cut,
}

struct Shared {
    upstream: Mutex<SocketAddr>,
    harm: Mutex<(Harm, CancellationToken)>,
    /// Connections accepted before this number are the ones that [`Harm::SwallowRequests`] and its twin hit.
    hit_below: AtomicU64,
    accepted: AtomicU64,
    hits: AtomicU64,
}

/// The proxy. It ends when dropped.
pub struct Proxy {
    shared: Arc<Shared>,
    port: u16,
    end: CancellationToken,
}

impl Proxy {
    /// Listens on a port of its own, in front of this one.
    pub async fn start(upstream: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            upstream: Mutex::new(address(upstream)),
            harm: Mutex::new((Harm::Nothing, CancellationToken::new())),
            hit_below: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            hits: AtomicU64::new(0),
        });
        let end = CancellationToken::new();
        let accept = accept(listener, Arc::clone(&shared), end.clone());
        let stopped = end.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = accept => {}
                () = stopped.cancelled() => {}
            }
        });
        Self { shared, port, end }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// From now on this is done.
    pub fn set(&self, harm: Harm) {
        let accepted = self.shared.accepted.load(Ordering::Acquire);
        self.shared.hit_below.store(accepted, Ordering::Release);
        let mut current = self.shared.harm.lock();
        current.0 = harm;
        if harm == Harm::Cut {
            std::mem::take(&mut current.1).cancel();
        }
    }

    /// New connections go to this port from now on; those that are open stay.
    pub fn retarget(&self, upstream: u16) {
        *self.shared.upstream.lock() = address(upstream);
    }

    /// How often harm was done.
    pub fn hits(&self) -> u64 {
        self.shared.hits.load(Ordering::Acquire)
    }

    /// Connections so far.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Acquire)
    }
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

impl Shared {
    fn harm(&self) -> Harm {
        self.harm.lock().0
    }

    fn hit(&self) {
        self.hits.fetch_add(1, Ordering::AcqRel);
    }

    /// Waits as long as pieces wait now.
    async fn delay(&self) {
        if let Harm::Delay(from, to) = self.harm() {
            self.hit();
            let share = rand::rng().random_range(0.0..1.0);
            tokio::time::sleep(from + (to - from).mul_f64(share)).await;
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, end: CancellationToken) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        if shared.harm() == Harm::Cut {
            shared.hit();
            continue;
        }
        let number = shared.accepted.fetch_add(1, Ordering::AcqRel);
        let shared = Arc::clone(&shared);
        let end = end.clone();
        tokio::spawn(async move {
            let upstream = *shared.upstream.lock();
            let Ok(server) = TcpStream::connect(upstream).await else {
                return;
            };
            let cut = shared.harm.lock().1.clone();
            let _ = client.set_nodelay(true);
            let _ = server.set_nodelay(true);
            let ((from_client, to_client), (from_server, to_server)) =
                (client.into_split(), server.into_split());
            let owed = Arc::new(Mutex::new(VecDeque::new()));
            // Whichever ends first takes the other with it: both sockets are closed.
            tokio::select! {
                () = requests(from_client, to_server, &shared, &owed, number) => {}
                () = replies(from_server, to_client, &shared, &owed, number) => {}
                () = cut.cancelled() => shared.hit(),
                () = end.cancelled() => {}
            }
        });
    }
}

/// For each request under way, whether its reply is to be cut.
type Owed = Arc<Mutex<VecDeque<bool>>>;

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
    owed: &Owed,
    number: u64,
) {
    let mut buffer = Vec::new();
    while read(&mut from, &mut buffer).await {
        shared.delay().await;
        let messages = take_messages(&mut buffer);
        let harm = shared.harm();
        if harm == Harm::SwallowRequests && number < shared.hit_below.load(Ordering::Acquire) {
            shared.hit();
            continue;
        }
        let chance = |p: f64| rand::rng().random_bool(p);
        let split = matches!(harm, Harm::Split(p) if messages.len() > 1 && chance(p));
        let passed = if split {
            messages.len() / 2
        } else {
            messages.len()
        };
        for message in &messages[..passed] {
            if matches!(harm, Harm::CutRequest(p) if chance(p)) {
                shared.hit();
                return;
            }
            let cut = matches!(harm, Harm::CutReply(p) if chance(p));
            owed.lock().push_back(cut);
            if to.write_all(message).await.is_err() {
                return;
            }
        }
        if split {
            shared.hit();
            return;
        }
    }
}

async fn replies(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
    owed: &Owed,
    number: u64,
) {
    let mut buffer = Vec::new();
    while read(&mut from, &mut buffer).await {
        shared.delay().await;
        let swallow = shared.harm() == Harm::SwallowReplies
            && number < shared.hit_below.load(Ordering::Acquire);
        for message in take_messages(&mut buffer) {
            let cut = !resp::is_push(&message) && owed.lock().pop_front() == Some(true);
            if cut || swallow {
                shared.hit();
            }
            if cut {
                return;
            }
            if !swallow && to.write_all(&message).await.is_err() {
                return;
            }
        }
    }
}

/// Reads what there is; false at the end of the connection.
async fn read(from: &mut OwnedReadHalf, buffer: &mut Vec<u8>) -> bool {
    matches!(from.read_buf(buffer).await, Ok(1..))
}

/// The whole messages at the start of a buffer, taken out of it.
fn take_messages(buffer: &mut Vec<u8>) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while let Some(length) = resp::length(buffer) {
        messages.push(buffer.drain(..length).collect());
    }
    messages
}
