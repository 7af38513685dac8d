//! What a queue takes up in Redis, as Redis estimates it: bounded, however large the queue is.

use super::{Queue, QueueError};

/// Flows that are measured one by one; more are taken to be like these.
const FLOWS: usize = 128;
/// Elements of a key that Redis looks at to estimate the whole.
const SAMPLES: usize = 5;

impl Queue {
    /// The memory of the queue, bytes, without results that wait for somebody. None if the server does not tell.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn memory(&self) -> Result<Option<u64>, QueueError> {
        let heads = self.look().await?.heads;
        let flows: Vec<String> = heads
            .iter()
            .take(FLOWS)
            .map(|(flow, _)| self.keys.flow(flow))
            .collect();
        let fixed = self.keys.typed().map(|(key, _)| key);
        let mut pipe = redis::pipe();
        for key in fixed.clone().chain(flows.iter().map(String::as_str)) {
            pipe.cmd("MEMORY")
                .arg("USAGE")
                .arg(key)
                .arg("SAMPLES")
                .arg(SAMPLES);
        }
        let mut conn = self.conn.clone();
        let sizes: Vec<Option<u64>> = match pipe.query_async(&mut conn).await {
            Ok(sizes) => sizes,
            // Not every server knows the command, and not every user may use it.
            Err(e) if e.is_io_error() || e.is_timeout() => return Err(e.into()),
            Err(_) => return Ok(None),
        };
        let (fixed, measured) = sizes.split_at(fixed.count());
        let sum = |sizes: &[Option<u64>]| sizes.iter().flatten().sum::<u64>();
        let (total, of) = (heads.len() as u64, flows.len().max(1) as u64);
        Ok(Some(sum(fixed) + sum(measured) * total.max(of) / of))
    }
}
