//! Waiting for the end of a job without asking again and again: a blocking call on the list where it is told.

use super::connection::{self, Connection};
use super::reply::Reply;
use super::script::ASK;
use super::{Queue, QueueError, code_of, millis};
use crate::config::RedisConfig;
use redis::Value;
use std::time::Duration;

/// The longest one call blocks in Redis. Then it is made anew, so that a dead connection is noticed.
const BLOCK_MAX: Duration = Duration::from_secs(10);
/// How often the list is looked at while Redis is out of memory: it refuses the blocking call then.
const OUT_OF_MEMORY_POLL: Duration = Duration::from_millis(250);

/// Whether a job will tell its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// It will.
    Yes,
    /// It is dead.
    Dead,
    /// There is no such job in the queue: it is over, or not admitted yet.
    Unknown,
}

/// A connection of its own that waits for results.
#[derive(Debug)]
pub struct ResultWaiter {
    queue: Queue,
    conn: Connection,
}

impl ResultWaiter {
    /// Opens the connection.
    ///
    /// # Errors
    /// Redis can't be reached.
    pub async fn connect(queue: Queue, config: &RedisConfig) -> Result<Self, QueueError> {
        let conn = connection::connect_blocking(config, BLOCK_MAX).await?;
        Ok(Self { queue, conn })
    }

    /// Waits until the end of a job is told, at most `limit` and never longer than ten seconds; none if it was not. The
    /// list stays as it is, for others that wait: `BLMOVE` from its head to its head changes nothing.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn wait(&mut self, id: &str, limit: Duration) -> Result<Option<String>, QueueError> {
        let key = self.queue.keys.result(id);
        // 0 would wait for ever.
        let seconds = limit.min(BLOCK_MAX).as_secs_f64().max(0.001);
        let answer: Result<Option<String>, _> = redis::cmd("BLMOVE")
            .arg(&key)
            .arg(&key)
            .arg(&["LEFT", "LEFT"])
            .arg(seconds)
            .query_async(&mut self.conn)
            .await;
        match answer {
            Err(e) if code_of(&e).as_deref() == Some("OOM") => {
                tokio::time::sleep(OUT_OF_MEMORY_POLL.min(limit)).await;
                self.queue.result(id).await
            }
            other => Ok(other?),
        }
    }
}

impl Queue {
    /// What was told of the end of a job, as long as that is kept.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn result(&self, id: &str) -> Result<Option<String>, QueueError> {
        let mut conn = self.conn.clone();
        Ok(redis::cmd("LINDEX")
            .arg(self.keys.result(id))
            .arg(0)
            .query_async(&mut conn)
            .await?)
    }

    /// Asks a job that waits or runs to tell its end, and to keep that for `ttl`.
    ///
    /// # Errors
    /// Redis failed or refused the write, or a key has the wrong type.
    pub async fn ask_result(&self, id: &str, ttl: Duration) -> Result<Asked, QueueError> {
        let k = &self.keys;
        let mut cmd = ASK.call([&k.jobs, &k.dead, &k.ties].into_iter());
        cmd.arg(id).arg(millis(ttl));
        let answer = ASK.send(self, &cmd).await?;
        let word = Reply::new(Value::Array(vec![answer]))?.text()?;
        Ok(match word.as_str() {
            "asked" => Asked::Yes,
            "dead" => Asked::Dead,
            _ => Asked::Unknown,
        })
    }
}
