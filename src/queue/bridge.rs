//! The storage of apalis-redis 1.0, as far as a bridge needs it: a namespace's tasks, taken in order and taken out when
//! they were handed over.
//!
//! A namespace is one of its queues: `<namespace>:data` (id → payload), `:active` (list of ids), `:scheduled` (ids by the
//! second they are due; a plain push stands there too, due at once), `:meta:<id>`, `:dead`. Tasks first go to a line of
//! our own, `<namespace>:tidegate`, in one script, so that a stock worker that is still there never gets the same ones.
//! Must not know what the tasks become.

use super::QueueError;
use super::connection::Connection;
use super::reply::Reply;
use super::script::{BRIDGE_DONE, BRIDGE_TAKE};

/// Bytes of payloads looked at in one step.
const TAKE_BYTES: usize = 1 << 20;
/// Tasks that are due later than this stay where they are for now: no job may be put off for more than a year.
const AHEAD_SECONDS: u64 = 364 * 86_400;

/// Redis time; lengths of the line, of `active`, `scheduled` and `dead`; the head of the line; the first of `scheduled`.
type Counted = (
    (u64, u64),
    u64,
    u64,
    u64,
    u64,
    Option<Vec<u8>>,
    Vec<(Vec<u8>, f64)>,
);

/// A namespace of apalis-redis.
#[derive(Debug, Clone)]
pub struct Namespace {
    name: String,
    conn: Connection,
}

/// The head of a namespace's line.
#[derive(Debug)]
pub struct Taken {
    /// Redis time, ms.
    pub now_ms: u64,
    /// Tasks that wait in the namespace, these included.
    pub waiting: u64,
    /// The tasks, the next one first.
    pub tasks: Vec<Task>,
}

/// A namespace in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Tasks that wait in it, those that are due later included.
    pub waiting: u64,
    /// Tasks among its dead: set aside by a bridge, or given up by a stock worker.
    pub set_aside: u64,
    /// How long the next task has been due, ms; 0 if none is, or if it is not known since when.
    pub lag_ms: u64,
}

/// A task as apalis-redis stored it.
#[derive(Debug, Clone)]
pub struct Task {
    /// Its place in the line.
    entry: Vec<u8>,
    /// Its id.
    pub id: Vec<u8>,
    /// When it is due, s since the epoch; none if it came from the list of those that are due.
    pub due_s: Option<u64>,
    /// What the app pushed.
    pub payload: Payload,
}

/// What there is of a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// The bytes.
    Whole(Vec<u8>),
    /// It was left where it is; its size in bytes.
    TooLarge(u64),
    /// Somebody removed it.
    Missing,
}

/// What became of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is in its queue: the namespace forgets it.
    HandedOver,
    /// It can't be a job, for this reason: it goes to the namespace's dead, payload and all.
    SetAside(String),
    /// There was nothing to hand over.
    Gone,
}

impl Namespace {
    /// The namespace `name` on a connection.
    #[must_use]
    pub fn new(name: &str, conn: Connection) -> Self {
        Self {
            name: name.to_owned(),
            conn,
        }
    }

    fn key(&self, name: &str) -> String {
        format!("{}:{name}", self.name)
    }

    /// Looks at the next tasks: at most `max`, and none whose payload has more than `max_bytes`. Until [`Self::done`]
    /// they are the next ones for whoever asks.
    ///
    /// # Errors
    /// Redis failed or refused the write, or a key has the wrong type.
    pub async fn take(&self, max: usize, max_bytes: usize) -> Result<Taken, QueueError> {
        let keys = ["active", "scheduled", "data", "tidegate"].map(|name| self.key(name));
        let mut cmd = BRIDGE_TAKE.call(keys.iter());
        cmd.arg(max)
            .arg(TAKE_BYTES)
            .arg(max_bytes)
            .arg(AHEAD_SECONDS);
        let mut reply = Reply::new(BRIDGE_TAKE.ask(&self.conn, &cmd).await?)?;
        let (now_ms, waiting) = (reply.count()?, reply.count()?);
        let mut tasks = Vec::new();
        while !reply.is_empty() {
            let (entry, size, payload) = (reply.bytes()?, reply.maybe()?, reply.bytes()?);
            let payload = match size {
                None => Payload::Missing,
                Some(size) if size > max_bytes as u64 => Payload::TooLarge(size),
                Some(_) => Payload::Whole(payload),
            };
            tasks.push(Task::from_parts(entry, payload));
        }
        Ok(Taken {
            now_ms,
            waiting,
            tasks,
        })
    }

    /// Counts the namespace.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn standing(&self) -> Result<Standing, QueueError> {
        let mut conn = self.conn.clone();
        let (now, line, active, scheduled, dead, head, next): Counted = redis::pipe()
            .cmd("TIME")
            .llen(self.key("tidegate"))
            .llen(self.key("active"))
            .zcard(self.key("scheduled"))
            .scard(self.key("dead"))
            .lindex(self.key("tidegate"), 0)
            .zrange_withscores(self.key("scheduled"), 0, 0)
            .query_async(&mut conn)
            .await?;
        let in_line = head.map(|entry| Task::from_parts(entry, Payload::Missing).due_s);
        let due_s = in_line.unwrap_or_else(|| next.first().map(|(_, score)| *score as u64));
        let due_ms = due_s.map_or(u64::MAX, |s| s.saturating_mul(1_000));
        Ok(Standing {
            waiting: line + active + scheduled,
            set_aside: dead,
            lag_ms: (now.0 * 1_000 + now.1 / 1_000).saturating_sub(due_ms),
        })
    }

    /// Takes tasks out of the line, each to where its fate says. Safe to repeat; returns how many were still there.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn done(&self, tasks: &[(Task, Fate)]) -> Result<u64, QueueError> {
        let fixed = ["tidegate", "data", "dead"].map(|name| self.key(name));
        let meta = tasks.iter().map(|(task, _)| {
            let id = String::from_utf8_lossy(&task.id);
            format!("{}:{id}", self.key("meta"))
        });
        let keys: Vec<String> = fixed.into_iter().chain(meta).collect();
        let mut cmd = BRIDGE_DONE.call(keys.iter());
        for (task, fate) in tasks {
            let (verb, note) = match fate {
                Fate::HandedOver | Fate::Gone => ("done", String::new()),
                // As apalis-redis stores a result.
                Fate::SetAside(reason) => ("dead", serde_json::json!({"Err": reason}).to_string()),
            };
            cmd.arg(&task.entry).arg(&task.id).arg(verb).arg(note);
        }
        let answer = BRIDGE_DONE.ask(&self.conn, &cmd).await?;
        Reply::new(redis::Value::Array(vec![answer]))?.count()
    }
}

impl Task {
    /// A task from its entry in the line: `<seconds>:<id>`, 0 for a task that was due already.
    #[must_use]
    pub fn from_parts(entry: Vec<u8>, payload: Payload) -> Self {
        let colon = entry.iter().position(|b| *b == b':').unwrap_or(0);
        let (seconds, id) = entry.split_at(colon);
        let due_s = std::str::from_utf8(seconds)
            .ok()
            .and_then(|s| s.parse().ok());
        Self {
            id: id.strip_prefix(b":").unwrap_or(id).to_vec(),
            due_s: due_s.filter(|s| *s > 0),
            entry,
            payload,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_time_and_an_id() {
        let task = |entry: &[u8]| Task::from_parts(entry.to_vec(), Payload::Missing);
        let scheduled = task(b"1700000000:a:b");
        assert_eq!(
            (scheduled.due_s, &scheduled.id[..]),
            (Some(1_700_000_000), &b"a:b"[..])
        );
        assert_eq!(task(b"0:x").due_s, None);
        assert_eq!(task(b"garbage").id, b"garbage");
    }
}
