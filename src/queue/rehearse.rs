//! What only tests do to a queue: ask whether anything is left to do, and let time pass without waiting.

use super::{Queue, QueueError, millis};
use std::time::Duration;

/// Delayed jobs moved per step.
const STEP: usize = 500;

impl Queue {
    /// Whether nothing is left to do now: the inbox is empty, and every job is dead, or delayed and not yet due.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn is_idle(&self) -> Result<bool, QueueError> {
        let k = &self.keys;
        let mut conn = self.conn.clone();
        type Sizes = (u64, u64, u64, u64, Vec<(String, f64)>, (u64, u64));
        let (inbox, jobs, delayed, dead, first, time): Sizes = redis::pipe()
            .atomic()
            .cmd("LLEN")
            .arg(&k.inbox)
            .cmd("HLEN")
            .arg(&k.jobs)
            .cmd("ZCARD")
            .arg(&k.delayed)
            .cmd("ZCARD")
            .arg(&k.dead)
            .cmd("ZRANGE")
            .arg(&k.delayed)
            .arg(&["0", "0", "WITHSCORES"])
            .cmd("TIME")
            .query_async(&mut conn)
            .await?;
        let now_ms = time.0 * 1_000 + time.1 / 1_000;
        let due = first.iter().any(|(_, at)| *at as u64 <= now_ms);
        Ok(inbox == 0 && jobs == delayed + dead && !due)
    }

    /// Makes every delayed job due earlier by this much. Nothing else of the queue knows that time has passed.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn advance(&self, by: Duration) -> Result<(), QueueError> {
        let mut conn = self.conn.clone();
        // Their order stays the same, so that steps by rank meet each of them once.
        for from in (0..).step_by(STEP) {
            let step: Vec<(String, f64)> = redis::cmd("ZRANGE")
                .arg(&self.keys.delayed)
                .arg(from)
                .arg(from + STEP - 1)
                .arg("WITHSCORES")
                .query_async(&mut conn)
                .await?;
            if step.is_empty() {
                break;
            }
            let mut pipe = redis::pipe();
            for (id, at) in &step {
                // Only if it is still there: it may be promoted meanwhile.
                pipe.cmd("ZADD")
                    .arg(&self.keys.delayed)
                    .arg("XX")
                    .arg((*at as u64).saturating_sub(millis(by)))
                    .arg(id)
                    .ignore();
            }
            pipe.query_async::<()>(&mut conn).await?;
        }
        Ok(())
    }
}
