//! Walking through all jobs of a queue in bounded steps, and moving many of them at once.

use super::reply::Reply;
use super::script::SHELVE;
use super::{Queue, QueueError};
use crate::job::{Event, History};
use std::fmt;

/// The most jobs in one step of a walk, and in one call that shelves.
pub const SCAN_STEP: usize = 100;
/// Ids of a sorted set read at once.
const IDS_STEP: usize = 1_000;
/// The most ids of a sorted set that one walk takes.
pub const IDS_MAX: usize = 1_000_000;

/// Where a job that is not finished stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// In a flow.
    Pending,
    /// Until its time.
    Delayed,
    /// Under a token.
    Running,
    /// Given up.
    Dead,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Delayed, Self::Running, Self::Dead];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delayed => "delayed",
            Self::Running => "running",
            Self::Dead => "dead",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A job as a walk finds it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its id.
    pub id: String,
    /// Its envelope.
    pub raw: Vec<u8>,
    /// Its troubles.
    pub history: History,
    /// Where it stands.
    pub state: State,
    /// When it is due, if delayed, or died, if dead, ms.
    pub at_ms: Option<u64>,
}

/// What became of a job that was to be put among the dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shelved {
    /// It is there.
    Taken,
    /// It is in another state by now.
    Changed,
    /// It belongs to a group or workflow, or others were merged into it: it stays as it was.
    Bound,
}

/// A step of a walk through the stored jobs.
#[derive(Debug)]
pub struct Step {
    /// Where the next step begins; 0 when the walk is through.
    pub cursor: u64,
    /// Jobs, those that were there all the time at least once.
    pub jobs: Vec<Seen>,
}

impl Queue {
    /// How many jobs are stored, and Redis time, ms.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn stored_count(&self) -> Result<(u64, u64), QueueError> {
        let mut conn = self.conn.clone();
        let (count, time): (u64, (u64, u64)) = redis::pipe()
            .cmd("HLEN")
            .arg(&self.keys.jobs)
            .cmd("TIME")
            .query_async(&mut conn)
            .await?;
        Ok((count, time.0 * 1_000 + time.1 / 1_000))
    }

    /// One bounded step through all stored jobs, in no order; `cursor` is 0 at first.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn scan(&self, cursor: u64) -> Result<Step, QueueError> {
        let mut conn = self.conn.clone();
        type Pairs = Vec<(Vec<u8>, Vec<u8>)>;
        let (cursor, pairs): (u64, Pairs) = redis::cmd("HSCAN")
            .arg(&self.keys.jobs)
            .arg(cursor)
            .arg("COUNT")
            .arg(SCAN_STEP)
            .query_async(&mut conn)
            .await?;
        let lossy = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let jobs = pairs
            .into_iter()
            .map(|(id, raw)| (lossy(id), raw))
            .collect();
        Ok(Step {
            cursor,
            jobs: self.states_of(jobs).await?,
        })
    }

    /// The given jobs as they stand now, without those that are gone.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn seen(&self, ids: &[String]) -> Result<Vec<Seen>, QueueError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut conn = self.conn.clone();
        let raws: Vec<Option<Vec<u8>>> = redis::cmd("HMGET")
            .arg(&self.keys.jobs)
            .arg(ids)
            .query_async(&mut conn)
            .await?;
        let there = ids.iter().cloned().zip(raws);
        let there = there.filter_map(|(id, raw)| Some((id, raw?))).collect();
        self.states_of(there).await
    }

    async fn states_of(&self, jobs: Vec<(String, Vec<u8>)>) -> Result<Vec<Seen>, QueueError> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let k = &self.keys;
        let ids: Vec<&str> = jobs.iter().map(|(id, _)| id.as_str()).collect();
        let mut conn = self.conn.clone();
        type Found = (
            Vec<Option<String>>,
            Vec<Option<f64>>,
            Vec<Option<f64>>,
            Vec<Option<Vec<u8>>>,
        );
        let (running, delayed, dead, metas): Found = redis::pipe()
            .atomic()
            .cmd("HMGET")
            .arg(&k.running)
            .arg(&ids)
            .cmd("ZMSCORE")
            .arg(&k.delayed)
            .arg(&ids)
            .cmd("ZMSCORE")
            .arg(&k.dead)
            .arg(&ids)
            .cmd("HMGET")
            .arg(&k.meta)
            .arg(&ids)
            .query_async(&mut conn)
            .await?;
        let history = |meta: &Option<Vec<u8>>| {
            let read = |bytes: &Vec<u8>| History::parse(bytes);
            meta.as_ref().and_then(read).unwrap_or_default()
        };
        let each = jobs.into_iter().enumerate().map(|(n, (id, raw))| {
            let (state, at) = match (&running[n], delayed[n], dead[n]) {
                (Some(_), ..) => (State::Running, None),
                (_, Some(due), _) => (State::Delayed, Some(due)),
                (_, _, Some(died)) => (State::Dead, Some(died)),
                _ => (State::Pending, None),
            };
            Seen {
                id,
                raw,
                history: history(&metas[n]),
                state,
                at_ms: at.map(|score| score as u64),
            }
        });
        Ok(each.collect())
    }

    /// Ids of the delayed or the dead jobs, the first due or the first dead first, at most [`IDS_MAX`].
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn ids_in(&self, state: State) -> Result<Vec<String>, QueueError> {
        let key = match state {
            State::Delayed => &self.keys.delayed,
            State::Dead => &self.keys.dead,
            State::Pending | State::Running => return Ok(Vec::new()),
        };
        let mut conn = self.conn.clone();
        let (mut ids, mut score, mut passed) = (Vec::new(), "-inf".to_owned(), 0);
        while ids.len() < IDS_MAX {
            let page: Vec<(String, String)> = redis::cmd("ZRANGE")
                .arg(key)
                .arg(&score)
                .arg("+inf")
                .arg(&["BYSCORE", "LIMIT"])
                .arg(passed)
                .arg(IDS_STEP)
                .arg("WITHSCORES")
                .query_async(&mut conn)
                .await?;
            let Some((_, last)) = page.last().cloned() else {
                break;
            };
            // Others add and remove meanwhile, so the walk goes by scores; those of the same score are counted.
            let of_last = page.iter().filter(|(_, score)| *score == last).count();
            passed = if last == score {
                passed + page.len()
            } else {
                of_last
            };
            score = last;
            ids.extend(page.into_iter().map(|(id, _)| id));
        }
        ids.truncate(IDS_MAX);
        Ok(ids)
    }

    /// Puts jobs among the dead, each with an event, if they are still in `state` and nobody depends on them; tells what
    /// became of each. At most [`SCAN_STEP`]: id, the history of a job that has none, event.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn shelve(
        &self,
        state: State,
        jobs: &[(&str, History, Event)],
    ) -> Result<Vec<Shelved>, QueueError> {
        debug_assert!(jobs.len() <= SCAN_STEP);
        let k = &self.keys;
        let own = [
            &k.jobs, &k.running, &k.delayed, &k.dead, &k.tomb, &k.meta, &k.stats,
        ];
        let keys: Vec<&String> = k.of_ties().into_iter().chain(own).collect();
        let mut cmd = SHELVE.call(keys.into_iter());
        cmd.arg(state.as_str());
        for (id, fresh, event) in jobs {
            cmd.arg(*id).arg(fresh.encode()).arg(event.encode());
        }
        let mut reply = Reply::new(SHELVE.send(self, &cmd).await?)?;
        let mut shelved = Vec::with_capacity(jobs.len());
        while !reply.is_empty() {
            shelved.push(match reply.int()? {
                1 => Shelved::Taken,
                2 => Shelved::Bound,
                _ => Shelved::Changed,
            });
        }
        Ok(shelved)
    }

    /// Which of these ids the queue knows: as jobs, or as ids that are reserved or remembered.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn knows(&self, ids: &[&str]) -> Result<Vec<bool>, QueueError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut conn = self.conn.clone();
        let mut pipe = redis::pipe();
        pipe.cmd("TIME").cmd("ZMSCORE").arg(&self.keys.ids).arg(ids);
        let (time, scores): ((u64, u64), Vec<Option<f64>>) = pipe.query_async(&mut conn).await?;
        let mut pipe = redis::pipe();
        for id in ids {
            pipe.cmd("HEXISTS").arg(&self.keys.jobs).arg(*id);
        }
        let jobs: Vec<bool> = pipe.query_async(&mut conn).await?;
        let now_ms = (time.0 * 1_000 + time.1 / 1_000) as f64;
        // Score 1 is a reservation, any other the time until which it is remembered.
        let known = |score: f64| score <= 1.0 || score > now_ms;
        let each = jobs.into_iter().zip(scores);
        Ok(each
            .map(|(job, score)| job || score.is_some_and(known))
            .collect())
    }
}
