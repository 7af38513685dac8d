//! Finding one job, wherever it is.

use super::{Queue, QueueError};
use crate::job::{History, Priority, Progress};

/// Records of finished jobs read per step when one is looked for.
const RING_STEP: isize = 1_000;

/// Where a job is.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// One of pending, delayed, running, done, dead, expired, cancelled; once it is no job any more: quarantined,
    /// deleted by an operator, dropped because it was kept long enough or others needed the room.
    pub state: String,
    /// Its envelope; empty when it is finished.
    pub raw: Vec<u8>,
    /// What happened to it, as far as that is kept.
    pub history: History,
    /// The token under which it runs.
    pub token: Option<String>,
    /// How far it says it has come, while it runs.
    pub progress: Option<Progress>,
    /// What it is tied to besides its flow, as it is stored; empty for most.
    pub ties: String,
    /// When it is due (delayed), died, or finished, ms.
    pub at_ms: Option<u64>,
    /// Of a finished job: kind, class, attempts made and run time in ms.
    pub finished: Option<Finished>,
}

/// A finished job from the ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Its kind.
    pub kind: String,
    /// Its class.
    pub priority: Priority,
    /// Attempts made.
    pub attempts: u32,
    /// How long the last run took, ms.
    pub duration_ms: u64,
}

impl Queue {
    /// Finds a job by id, finished ones included as long as the archive or the ring holds them.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn find(&self, id: &str) -> Result<Option<Found>, QueueError> {
        let k = &self.keys;
        let mut conn = self.conn.clone();
        type Places = (
            Option<Vec<u8>>,
            Option<Vec<u8>>,
            Option<String>,
            Option<f64>,
            Option<f64>,
            Option<Vec<u8>>,
            Option<Vec<u8>>,
            Option<String>,
        );
        let (raw, meta, token, due, died, progress, archived, ties): Places = redis::pipe()
            .atomic()
            .cmd("HGET")
            .arg(&k.jobs)
            .arg(id)
            .cmd("HGET")
            .arg(&k.meta)
            .arg(id)
            .cmd("HGET")
            .arg(&k.running)
            .arg(id)
            .cmd("ZSCORE")
            .arg(&k.delayed)
            .arg(id)
            .cmd("ZSCORE")
            .arg(&k.dead)
            .arg(id)
            .cmd("HGET")
            .arg(&k.progress)
            .arg(id)
            .cmd("HGET")
            .arg(&k.archive)
            .arg(id)
            .cmd("HGET")
            .arg(&k.ties)
            .arg(id)
            .query_async(&mut conn)
            .await?;
        let Some(raw) = raw else {
            let archived = archived.and_then(|kept| decode(&kept));
            let finished = self.find_finished(id).await?;
            // An id may have been used again since its history was kept.
            return Ok(match (archived, finished) {
                (Some(archived), Some(ring)) if ring.at_ms > archived.at_ms => Some(ring),
                (archived, ring) => archived.or(ring),
            });
        };
        let (state, at) = match (&token, due, died) {
            (Some(_), _, _) => ("running", None),
            (_, Some(due), _) => ("delayed", Some(due)),
            (_, _, Some(died)) => ("dead", Some(died)),
            _ => ("pending", None),
        };
        Ok(Some(Found {
            state: state.to_owned(),
            raw,
            history: meta.and_then(|m| History::parse(&m)).unwrap_or_default(),
            token,
            progress: progress.and_then(|p| serde_json::from_slice(&p).ok()),
            ties: ties.unwrap_or_default(),
            at_ms: at.map(|score| score as u64),
            finished: None,
        }))
    }

    async fn find_finished(&self, id: &str) -> Result<Option<Found>, QueueError> {
        let mut conn = self.conn.clone();
        let kept = isize::try_from(self.bounds.recent_max).unwrap_or(isize::MAX);
        let mut from = 0;
        while from < kept {
            let step: Vec<String> = redis::cmd("LRANGE")
                .arg(&self.keys.recent)
                .arg(from)
                .arg(from + RING_STEP - 1)
                .query_async(&mut conn)
                .await?;
            let found = step
                .iter()
                .find(|record| record.strip_prefix(id).is_some_and(|r| r.starts_with('\t')));
            if let Some(record) = found {
                return Ok(decode(record.as_bytes()));
            }
            if step.len() < RING_STEP.unsigned_abs() {
                break;
            }
            from += RING_STEP;
        }
        Ok(None)
    }
}

/// The reverse of [`super::settle::Record::encode`], with the history after another tab where there is one. A script that
/// ended a job knows neither kind nor class: then they are those of its history.
fn decode(kept: &[u8]) -> Option<Found> {
    let mut parts = kept.splitn(8, |b| *b == b'\t');
    let mut next = || parts.next();
    let fields: Vec<&str> = (0..7)
        .map_while(|_| std::str::from_utf8(next()?).ok())
        .collect();
    let history = next().and_then(History::parse).unwrap_or_default();
    let [_id, state, kind, priority, attempts, at_ms, duration_ms] = fields[..] else {
        return None;
    };
    let own = history.kind.as_deref().unwrap_or_default();
    let (kind, priority, attempts) = if kind.is_empty() {
        let class = history.priority.unwrap_or_default();
        (own.to_owned(), class, history.attempts)
    } else {
        (
            kind.to_owned(),
            priority.parse().ok()?,
            attempts.parse().ok()?,
        )
    };
    Some(Found {
        state: state.to_owned(),
        raw: Vec::new(),
        token: None,
        progress: None,
        ties: String::new(),
        at_ms: Some(at_ms.parse().ok()?),
        finished: Some(Finished {
            kind,
            priority,
            attempts,
            duration_ms: duration_ms.parse().ok()?,
        }),
        history,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::settle::Record;
    use super::*;
    use crate::job::{Event, What};

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let mut history = History::default();
        history.fail(7, "no\tluck\n");
        let record = Record {
            id: "a-1",
            kind: "app.x",
            priority: Priority::Bulk,
            state: "done",
            attempts: 2,
            at_ms: 1_700_000_000_000,
            duration_ms: 12,
        };
        let bare = decode(record.encode().as_bytes()).unwrap();
        assert_eq!(bare.history, History::default());
        let added = Event::new(9, What::Cancelled).by("ann");
        let kept = [record.encode(), history.encode(), added.encode()].join("\t");
        let found = decode(kept.as_bytes()).unwrap();
        assert_eq!(found.state, "done");
        assert_eq!(found.history.errors, history.errors);
        assert_eq!(found.history.events.last(), Some(&added));
        assert_eq!(found.finished.unwrap().attempts, 2);
    }

    #[test]
    fn what_a_script_ended_has_kind_and_class_by_its_history() {
        let history = History::of(&"app.x".into(), Priority::Low);
        let kept = format!("a-1\tdropped\t\t\t0\t7\t0\t{}", history.encode());
        let found = decode(kept.as_bytes()).unwrap();
        let finished = found.finished.unwrap();
        assert_eq!(
            (finished.kind.as_str(), finished.priority),
            ("app.x", Priority::Low)
        );
        assert_eq!(decode(b"a-1\tdone"), None);
    }
}
