//! Reading a queue for people: counts, one job, the dead, the quarantined.

use super::claim::{LOOK_FLOWS, Look};
use super::{Control, Flow, Queue, QueueError};
use crate::job::{History, Priority, Progress};
use std::collections::{BTreeMap, BTreeSet};

/// Records of finished jobs read per step when one is looked for.
const RING_STEP: isize = 1_000;

/// Entries of a flow read per step, and in all, when the place of a job is looked for.
const FLOW_STEP: usize = 1_000;
const FLOW_MAX: usize = 100_000;
/// Looks further down a class when its flows are counted: beyond that, what is counted is less than there is.
const FLOW_PAGES: usize = 25;

/// A queue in numbers.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Entries not yet admitted.
    pub inbox: u64,
    /// Waiting jobs per class, the parked ones among them.
    pub lanes: [u64; 5],
    /// Jobs that wait for a slot or the rate of their key.
    pub parked: u64,
    /// What operators changed live.
    pub control: Control,
    /// Jobs that wait for their time.
    pub delayed: u64,
    /// Jobs that run.
    pub running: u64,
    /// Dead jobs.
    pub dead: u64,
    /// Quarantined entries.
    pub quarantine: u64,
    /// Histories of jobs that ended.
    pub archived: u64,
    /// Ids that are remembered or reserved.
    pub ids: u64,
    /// Ready time of the job that waits longest, ms.
    pub oldest_ready_ms: Option<u64>,
    /// Redis time, ms.
    pub now_ms: u64,
    /// Counters since ever.
    pub stats: BTreeMap<String, u64>,
}

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
    /// Counts everything. The lanes cost one command per flow.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn counts(&self) -> Result<Counts, QueueError> {
        let k = &self.keys;
        let mut conn = self.conn.clone();
        type Sizes = (
            u64,
            u64,
            u64,
            u64,
            u64,
            u64,
            u64,
            BTreeMap<String, String>,
            (u64, u64),
        );
        let sizes: Sizes = redis::pipe()
            .cmd("LLEN")
            .arg(&k.inbox)
            .cmd("ZCARD")
            .arg(&k.delayed)
            .cmd("HLEN")
            .arg(&k.running)
            .cmd("ZCARD")
            .arg(&k.dead)
            .cmd("XLEN")
            .arg(&k.quarantine)
            .cmd("ZCARD")
            .arg(&k.archived)
            .cmd("ZCARD")
            .arg(&k.ids)
            .cmd("HGETALL")
            .arg(&k.stats)
            .cmd("TIME")
            .query_async(&mut conn)
            .await?;
        let (inbox, delayed, running, dead, quarantine, archived, ids, stats, time) = sizes;
        // A counter that somebody made unusable counts for nothing.
        let stats = stats
            .into_iter()
            .filter_map(|(name, n)| Some((name, n.parse().ok()?)))
            .collect();
        let mut look = self.look().await?;
        let mut counts = Counts {
            inbox,
            delayed,
            running,
            dead,
            quarantine,
            archived,
            ids,
            stats,
            now_ms: time.0 * 1_000 + time.1 / 1_000,
            oldest_ready_ms: look.heads.iter().map(|(_, ready)| *ready).min(),
            control: std::mem::take(&mut look.control),
            ..Counts::default()
        };
        let waiting = self.flows_in_line(look).await?;
        let parked = self.parked_flows().await?;
        let others: Vec<Flow> = parked.difference(&waiting).cloned().collect();
        for (flow, length) in self.lengths(waiting.into_iter().collect()).await? {
            counts.lanes[flow.priority.index()] += length;
        }
        for (flow, length) in self.lengths(others).await? {
            counts.lanes[flow.priority.index()] += length;
            counts.parked += length;
        }
        Ok(counts)
    }

    /// All flows that may be claimed from, of a look and beyond it.
    async fn flows_in_line(&self, look: Look) -> Result<BTreeSet<Flow>, QueueError> {
        let mut flows: BTreeSet<Flow> = look.heads.into_iter().map(|(flow, _)| flow).collect();
        for class in Priority::ALL {
            let mut horizon = look.horizon[class.index()];
            for _ in 0..FLOW_PAGES {
                let Some(from) = horizon else { break };
                let next = self.look_further(class, from).await?;
                let last = next.last().map(|(_, place)| *place);
                horizon = last
                    .filter(|_| next.len() >= LOOK_FLOWS)
                    .map(|last| last.max(from + 1));
                flows.extend(next.into_iter().map(|(flow, _)| flow));
            }
        }
        Ok(flows)
    }

    /// Flows that wait for a slot or the rate of their key.
    pub(super) async fn parked_flows(&self) -> Result<BTreeSet<Flow>, QueueError> {
        let mut flows = BTreeSet::new();
        let mut cursor = Some(0);
        while let Some(from) = cursor {
            let (next, page) = self.page(&self.keys.parked, from).await?;
            let lines = page.iter().flat_map(|(_, lines)| lines.lines());
            flows.extend(lines.filter_map(|line| Flow::named(line.rsplit_once(':')?.0)));
            cursor = next;
        }
        let mut conn = self.conn.clone();
        let resumes: Vec<Vec<u8>> = redis::cmd("ZRANGE")
            .arg(&self.keys.resume)
            .arg(0)
            .arg(FLOW_PAGES * LOOK_FLOWS)
            .query_async(&mut conn)
            .await?;
        let named = |bytes: &Vec<u8>| Flow::named(&String::from_utf8_lossy(bytes));
        flows.extend(resumes.iter().filter_map(named));
        Ok(flows)
    }

    async fn lengths(&self, flows: Vec<Flow>) -> Result<Vec<(Flow, u64)>, QueueError> {
        let mut conn = self.conn.clone();
        let mut lengths: Vec<u64> = Vec::with_capacity(flows.len());
        for step in flows.chunks(FLOW_STEP) {
            let mut pipe = redis::pipe();
            for flow in step {
                pipe.cmd("LLEN").arg(self.keys.flow(flow));
            }
            lengths.extend(pipe.query_async::<Vec<u64>>(&mut conn).await?);
        }
        Ok(flows.into_iter().zip(lengths).collect())
    }

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
