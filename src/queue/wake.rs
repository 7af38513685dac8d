//! Waking an idle daemon: a blocking call that removes nothing.

use super::admit::{Peeked, read_peek};
use super::connection::{self, Connection};
use super::{Queue, QueueError, code_of};
use crate::config::RedisConfig;
use redis::Value;
use std::time::Duration;

/// How long one call blocks in Redis. Then it is made anew, so that a dead connection is noticed.
pub const BLOCK: Duration = Duration::from_secs(2);

/// How long an empty inbox is left alone while Redis is out of memory.
const OUT_OF_MEMORY_POLL: Duration = Duration::from_millis(250);

/// A connection of its own that waits for the inbox to fill.
#[derive(Debug)]
pub struct Waker {
    queue: Queue,
    conn: Connection,
}

impl Waker {
    /// Opens the connection.
    ///
    /// # Errors
    /// Redis can't be reached.
    pub async fn connect(queue: Queue, config: &RedisConfig) -> Result<Self, QueueError> {
        let conn = connection::connect_blocking(config, BLOCK).await?;
        Ok(Self { queue, conn })
    }

    /// Waits until the inbox holds an entry, at most [`BLOCK`]; returns its head, empty if nothing came.
    ///
    /// One round trip: the look at the inbox is sent along with the wait and runs as soon as that ends. `BLMOVE` from
    /// the tail of a list to its tail changes nothing, and wakes every daemon that waits.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn wait(&mut self) -> Result<Peeked, QueueError> {
        let inbox = &self.queue.keys().inbox;
        let mut pipe = redis::pipe();
        pipe.cmd("BLMOVE")
            .arg(inbox)
            .arg(inbox)
            .arg("RIGHT")
            .arg("RIGHT")
            .arg(BLOCK.as_secs());
        pipe.add_command(self.queue.peek_cmd());
        let answers: Result<Vec<Value>, _> = pipe.query_async(&mut self.conn).await;
        match answers {
            Ok(mut answers) => match answers.pop() {
                Some(peeked) => read_peek(peeked),
                None => Err(QueueError::Reply(
                    "no answer to a look at the inbox".to_owned(),
                )),
            },
            Err(e) => match code_of(&e).as_deref() {
                // The plain look gives the script to a server that lost it.
                Some("NOSCRIPT") => self.queue.peek().await,
                Some("OOM") => self.poll().await,
                _ => Err(e.into()),
            },
        }
    }

    /// A server that is out of memory refuses `BLMOVE`, though this one stores nothing. The looks go on, as the only way
    /// to free memory is to run the jobs.
    async fn poll(&self) -> Result<Peeked, QueueError> {
        let peeked = self.queue.peek().await?;
        if peeked.entries.is_empty() {
            tokio::time::sleep(OUT_OF_MEMORY_POLL).await;
        }
        Ok(peeked)
    }
}
