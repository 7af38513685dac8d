//! What there is around one job, for people: who holds a lock or a slot, who is served before a flow, what an id stood for.

use super::{Flow, Queue, QueueError};

/// Holders of slots that are named.
const HOLDERS: usize = 5;

/// How the job of a remembered id ended, by the eighths in the fraction of its score: as `lua/lib/ends.lua` has them.
const ENDS: [&str; 7] = [
    "done",
    "cancelled",
    "expired",
    "dead",
    "skipped",
    "replaced",
    "merged",
];

/// Who holds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockState {
    /// The job; an entry of the inbox may hold it for a job to come.
    pub holder: String,
    /// `finished`, `claimed` or `ttl`.
    pub until: &'static str,
    /// When it is gone in any case, ms.
    pub gone_ms: Option<u64>,
    /// When the first job came under it, ms.
    pub first_ms: u64,
}

impl LockState {
    /// Reads what the scripts keep of a lock.
    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split('|');
        let holder = fields.next()?.to_owned();
        let until = match fields.next()? {
            "f" => "finished",
            "c" => "claimed",
            "t" => "ttl",
            _ => return None,
        };
        let gone: u64 = fields.next()?.parse().ok()?;
        Some(Self {
            holder,
            until,
            gone_ms: (gone > 0).then_some(gone),
            first_ms: fields.next()?.parse().ok()?,
        })
    }
}

impl Queue {
    /// Who holds a lock; none if nobody does.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn lock(&self, name: &str) -> Result<Option<LockState>, QueueError> {
        let held: Option<String> = redis::cmd("HGET")
            .arg(&self.keys.locks)
            .arg(name)
            .query_async(&mut self.conn.clone())
            .await?;
        Ok(held.as_deref().and_then(LockState::parse))
    }

    /// How many later jobs a waiting one has taken in.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn merged_into(&self, id: &str) -> Result<usize, QueueError> {
        let raws: Option<Vec<u8>> = redis::cmd("HGET")
            .arg(&self.keys.merges)
            .arg(id)
            .query_async(&mut self.conn.clone())
            .await?;
        Ok(raws.map_or(0, |raws| raws.split(|byte| *byte == 0).count()))
    }

    /// Some of those who hold the slots of a name.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn some_holders(&self, name: &str) -> Result<Vec<String>, QueueError> {
        let mut ids: Vec<String> = redis::cmd("SRANDMEMBER")
            .arg(self.keys.slots(name))
            .arg(HOLDERS)
            .query_async(&mut self.conn.clone())
            .await?;
        ids.sort();
        Ok(ids)
    }

    /// How many flows of its class stand before a flow; none if it is not in line: it waits for a slot or its rate, or
    /// holds nothing.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn place_in_line(&self, flow: &Flow) -> Result<Option<u64>, QueueError> {
        Ok(redis::cmd("ZRANK")
            .arg(&self.keys.ready[flow.priority.index()])
            .arg(&*flow.member())
            .query_async(&mut self.conn.clone())
            .await?)
    }

    /// How the job of an id ended that is remembered though nothing else is known of it; `pending` if it is reserved for an
    /// entry of the inbox.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn remembered(&self, id: &str) -> Result<Option<&'static str>, QueueError> {
        let (score, time): (Option<f64>, (u64, u64)) = redis::pipe()
            .cmd("ZSCORE")
            .arg(&self.keys.ids)
            .arg(id)
            .cmd("TIME")
            .query_async(&mut self.conn.clone())
            .await?;
        let now = (time.0 * 1_000 + time.1 / 1_000) as f64;
        Ok(match score {
            Some(1.0) => Some("pending"),
            Some(until) if until > now => ENDS.get((until.fract() * 8.0) as usize).copied(),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_read_as_the_scripts_keep_it() {
        let held = LockState::parse("a-1|t|1700000000000|1600000000000");
        let wanted = LockState {
            holder: "a-1".to_owned(),
            until: "ttl",
            gone_ms: Some(1_700_000_000_000),
            first_ms: 1_600_000_000_000,
        };
        assert_eq!(held, Some(wanted));
        let lasting = LockState::parse("a-1|c|0|7");
        assert_eq!(lasting.map(|lock| lock.gone_ms), Some(None));
        for garbage in ["", "a", "a|x|0|0", "a|f|x|0", "a|f|0"] {
            assert_eq!(LockState::parse(garbage), None, "{garbage}");
        }
    }

    #[test]
    fn ends_are_those_of_the_scripts() {
        let script = include_str!("lua/lib/ends.lua");
        let words: Vec<&str> = script.split('\'').skip(1).step_by(2).collect();
        assert_eq!(words, ENDS);
    }
}
