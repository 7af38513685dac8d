//! Reading a queue for people: the place of a job, the dead, the quarantined.

pub use super::around::LockState;
pub use super::counts::Counts;
pub use super::find::{Finished, Found};

use super::{Flow, Queue, QueueError};
use std::collections::BTreeMap;

/// Entries of a flow read per step, and in all, when the place of a job is looked for.
const FLOW_STEP: usize = 1_000;
const FLOW_MAX: usize = 100_000;

/// A quarantined entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// Its id in the quarantine.
    pub id: String,
    /// When it came there, ms.
    pub at_ms: u64,
    /// The class of the fault.
    pub code: String,
    /// What was wrong.
    pub reason: String,
    /// The entry.
    pub raw: Vec<u8>,
}

impl Queue {
    /// How many jobs stand before `id` in its flow; none if it is not among the first 100,000.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn ahead_of(&self, flow: &Flow, id: &str) -> Result<Option<usize>, QueueError> {
        let mut conn = self.conn.clone();
        let key = self.keys.flow(flow);
        for from in (0..FLOW_MAX).step_by(FLOW_STEP) {
            let step: Vec<String> = redis::cmd("LRANGE")
                .arg(&key)
                .arg(from)
                .arg(from + FLOW_STEP - 1)
                .query_async(&mut conn)
                .await?;
            let here = |entry: &String| entry.split_once(':').is_some_and(|(_, of)| of == id);
            if let Some(place) = step.iter().position(here) {
                return Ok(Some(from + place));
            }
            if step.len() < FLOW_STEP {
                break;
            }
        }
        Ok(None)
    }

    /// Ids of dead jobs, the latest first, with the time they died, ms.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn dead(&self, from: usize, count: usize) -> Result<Vec<(String, u64)>, QueueError> {
        let mut conn = self.conn.clone();
        let found: Vec<(String, f64)> = redis::cmd("ZREVRANGE")
            .arg(&self.keys.dead)
            .arg(from)
            .arg(from.saturating_add(count).saturating_sub(1))
            .arg("WITHSCORES")
            .query_async(&mut conn)
            .await?;
        Ok(found.into_iter().map(|(id, at)| (id, at as u64)).collect())
    }

    /// Ids of jobs that died before `before_ms`, at most `count`, the oldest first.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn dead_before(
        &self,
        before_ms: u64,
        count: usize,
    ) -> Result<Vec<String>, QueueError> {
        let mut conn = self.conn.clone();
        Ok(redis::cmd("ZRANGE")
            .arg(&self.keys.dead)
            .arg("-inf")
            .arg(format!("({before_ms}"))
            .arg(&["BYSCORE", "LIMIT", "0"])
            .arg(count)
            .query_async(&mut conn)
            .await?)
    }

    /// Quarantined entries after `after` (exclusive; empty for the start), the oldest first.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn quarantined(
        &self,
        after: &str,
        count: usize,
    ) -> Result<Vec<Quarantined>, QueueError> {
        let mut conn = self.conn.clone();
        let start = if after.is_empty() {
            "-".to_owned()
        } else {
            format!("({after}")
        };
        type Entry = (String, BTreeMap<String, Vec<u8>>);
        let found: Vec<Entry> = redis::cmd("XRANGE")
            .arg(&self.keys.quarantine)
            .arg(start)
            .arg("+")
            .arg("COUNT")
            .arg(count)
            .query_async(&mut conn)
            .await?;
        Ok(found.into_iter().map(quarantined).collect())
    }
}

fn quarantined((id, mut fields): (String, BTreeMap<String, Vec<u8>>)) -> Quarantined {
    let mut text = |name: &str| {
        let bytes = fields.remove(name).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    Quarantined {
        id,
        at_ms: text("at").parse().unwrap_or(0),
        code: text("code"),
        reason: text("reason"),
        raw: fields.remove("raw").unwrap_or_default(),
    }
}
