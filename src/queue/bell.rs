//! The bell: a word to every daemon that a queue is worth a look, now. It is pub/sub, so a ring that nobody hears is lost:
//! nothing relies on it, looks at `daemon.poll` find the same a little later. Scripts ring it only when somebody may wait
//! for what they did.

use super::{Queue, QueueError, connection};
use crate::config::RedisConfig;
use futures::StreamExt;
use redis::aio::{PubSubSink, PubSubStream};
use std::time::Duration;

/// How long it may be quiet before the connection is asked for a sign of life.
const QUIET: Duration = Duration::from_secs(5);

/// One ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ring {
    /// The index of the queue.
    pub queue: usize,
    /// The incarnation that rang, which knows of it anyway; another word if it was an operator.
    pub by: String,
}

/// An ear on the bells of some queues, over one connection of its own.
pub struct Bell {
    sink: PubSubSink,
    rings: PubSubStream,
    channels: Vec<String>,
    timeout: Duration,
}

impl Bell {
    /// Connects and listens to the bells of `queues`.
    ///
    /// # Errors
    /// Redis can't be reached, or does not allow it.
    pub async fn connect(config: &RedisConfig, queues: &[Queue]) -> Result<Self, QueueError> {
        let client = connection::client(config).await?;
        let opened = within(config.connect_timeout, client.get_async_pubsub());
        let (sink, rings) = opened.await?.split();
        let mut bell = Self {
            sink,
            rings,
            channels: queues.iter().map(|q| q.keys().bell.clone()).collect(),
            timeout: config.command_timeout,
        };
        within(bell.timeout, bell.sink.subscribe(&bell.channels)).await?;
        Ok(bell)
    }

    /// Waits for the next ring; none if it was for no queue of ours.
    ///
    /// # Errors
    /// The connection is gone, or gives no sign of life.
    pub async fn rung(&mut self) -> Result<Option<Ring>, QueueError> {
        loop {
            match tokio::time::timeout(QUIET, self.rings.next()).await {
                Ok(Some(ring)) => {
                    let channel = ring.get_channel_name();
                    let queue = self.channels.iter().position(|c| c == channel);
                    let by = String::from_utf8_lossy(ring.get_payload_bytes()).into_owned();
                    return Ok(queue.map(|queue| Ring { queue, by }));
                }
                Ok(None) => return Err(lost()),
                Err(_) => {
                    within(self.timeout, self.sink.ping::<redis::Value>()).await?;
                }
            }
        }
    }
}

async fn within<T>(
    limit: Duration,
    call: impl Future<Output = redis::RedisResult<T>>,
) -> Result<T, QueueError> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(lost()),
    }
}

fn lost() -> QueueError {
    let e = std::io::Error::from(std::io::ErrorKind::TimedOut);
    QueueError::Redis(e.into())
}
