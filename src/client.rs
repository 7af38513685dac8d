//! Enqueueing from Rust, typed.
//!
//! Owns: how a program puts jobs into queues and asks what became of them. What it sends is the public envelope, through
//! the public enqueue script, so a program that has nothing but an inbox can do the same. Must not know handlers.
//!
//! ```no_run
//! use std::time::Duration;
//! use tidegate::client::{Client, Job};
//!
//! #[derive(serde::Serialize)]
//! struct Mail<'a> { to: &'a str }
//!
//! # async fn send() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect("redis://127.0.0.1:6379/0").await?;
//! let job = Job::new("mail.send", Mail { to: "ada@example.org" })
//!     .delay(Duration::from_secs(60))
//!     .id("welcome-17");
//! let enqueued = client.enqueue(job).await?;
//! println!("{} is {}", enqueued.id, enqueued.state);
//! # Ok(())
//! # }
//! ```

use crate::catalog::Catalog;
use crate::clock;
use crate::config::{self, Config, ConfigError, Secret, Sources};
use crate::job::{Envelope, JobId, Priority, Reject, id};
use crate::queue::admit::flow_of;
use crate::queue::connection::{self, Connection};
use crate::queue::inspect::Found;
use crate::queue::operate::{Cancelled, Enqueued as Answer};
use crate::queue::settle::Record;
use crate::queue::{Queue, QueueError};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The queue of a job that names none and whose kind is not known here.
const DEFAULT_QUEUE: &str = "default";

/// A job to be enqueued: its kind, its arguments, and what else an envelope can say.
#[derive(Debug, Clone)]
#[must_use]
pub struct Job {
    fields: Map<String, Value>,
    /// The first thing that could not be taken over.
    wrong: Option<String>,
}

impl Job {
    /// A job of a kind. The arguments are anything that serde makes an object of; `()` stands for none.
    pub fn new(kind: &str, args: impl Serialize) -> Self {
        let mut job = Self {
            fields: Map::from_iter([("kind".to_owned(), kind.into())]),
            wrong: None,
        };
        match serde_json::to_value(args) {
            Ok(Value::Null) => {}
            Ok(args) => {
                job.fields.insert("args".to_owned(), args);
            }
            Err(e) => job.wrong = Some(format!("args: {e}")),
        }
        job
    }

    /// Its id, 1 to 128 characters of `A-Z a-z 0-9 _ -`: the same id again is a duplicate, not a second job.
    pub fn id(self, id: impl Into<String>) -> Self {
        self.set("id", id.into())
    }

    /// The queue it goes to. Unless given: that of its definition, if the client knows it, else `default`.
    pub fn queue(self, queue: impl Into<String>) -> Self {
        self.set("queue", queue.into())
    }

    /// Its class, instead of its definition's.
    pub fn priority(self, priority: Priority) -> Self {
        self.set("priority", priority.as_str())
    }

    /// Not before this much time has passed; at most a year.
    pub fn delay(self, delay: Duration) -> Self {
        self.set("delay_ms", millis(delay))
    }

    /// Not before this time; at most a year ahead.
    pub fn run_at(self, at: SystemTime) -> Self {
        self.set("run_at", unix_ms(at))
    }

    /// Expired if it has not started within this much time.
    pub fn ttl(self, ttl: Duration) -> Self {
        self.set("ttl_ms", millis(ttl))
    }

    /// Expired if it has not started by this time.
    pub fn expires_at(self, at: SystemTime) -> Self {
        self.set("expires_at", unix_ms(at))
    }

    /// Attempts at most, instead of its definition's.
    pub fn max_attempts(self, attempts: u32) -> Self {
        self.set("max_attempts", attempts)
    }

    /// How long one attempt may take, instead of its definition's.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.set("timeout_ms", millis(timeout))
    }

    /// Keeps its result for this long after its end, for whoever waits for it.
    pub fn keep_result(self, ttl: Duration) -> Self {
        self.set("result_ttl_ms", millis(ttl))
    }

    /// A W3C trace context, passed on to the handler.
    pub fn traceparent(self, traceparent: impl Into<String>) -> Self {
        self.set("traceparent", traceparent.into())
    }

    /// A note of the app's own, shown by `job show`.
    pub fn note(mut self, name: &str, text: impl Into<String>) -> Self {
        let notes = self.fields.entry("meta").or_insert_with(|| json!({}));
        // What else was set there is refused when it is sent.
        if let Some(notes) = notes.as_object_mut() {
            notes.insert(name.to_owned(), text.into().into());
        }
        self
    }

    /// Any other field of the envelope, by its name there.
    pub fn set(mut self, field: &str, value: impl Serialize) -> Self {
        match serde_json::to_value(value) {
            Ok(value) => {
                self.fields.insert(field.to_owned(), value);
            }
            Err(e) => self.wrong = self.wrong.or_else(|| Some(format!("{field}: {e}"))),
        }
        self
    }
}

/// A job that was enqueued, or was there already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enqueued {
    /// Its id, or that of the one that was there.
    pub id: String,
    /// The queue it is in.
    pub queue: String,
    /// False if there was one of that id: nothing was added.
    pub created: bool,
    /// `pending` if it is new, else the state of the one that was there.
    pub state: String,
}

/// Why a client could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The job is not one that a queue takes; names the field.
    #[error("{0}")]
    Refused(Reject),
    /// The arguments, or another field, can't be JSON.
    #[error("{0}")]
    NotJson(String),
    /// The configuration is wrong.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// Redis failed or can't be reached.
    #[error("{0}")]
    Queue(#[from] QueueError),
}

/// A connection to the queues. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    conn: Connection,
    config: std::sync::Arc<Config>,
    catalog: Catalog,
}

impl Client {
    /// Connects to a Redis, with the configuration that defaults and environment give.
    ///
    /// # Errors
    /// The configuration is wrong, or Redis can't be reached.
    pub async fn connect(url: &str) -> Result<Self, ClientError> {
        let mut config = config::load(&Sources::default())?;
        config.redis.move_to(Secret::new(url));
        Self::open(&config).await
    }

    /// Connects as a configuration says.
    ///
    /// # Errors
    /// Redis can't be reached.
    pub async fn open(config: &Config) -> Result<Self, ClientError> {
        let conn = connection::connect(&config.redis).await;
        let conn = conn.map_err(QueueError::from)?;
        Ok(Self::of(conn, config, Catalog::default()))
    }

    /// A client on a connection, with definitions that say to which queue a kind goes.
    #[must_use]
    pub fn of(conn: Connection, config: &Config, catalog: Catalog) -> Self {
        Self {
            conn,
            config: std::sync::Arc::new(config.clone()),
            catalog,
        }
    }

    /// A queue by name.
    #[must_use]
    pub fn queue(&self, name: &str) -> Queue {
        Queue::new(name, self.conn.clone(), &self.config)
    }

    /// Enqueues a job.
    ///
    /// # Errors
    /// The job is refused, with the field named, or Redis failed or is out of memory: nothing was added then.
    pub async fn enqueue(&self, job: Job) -> Result<Enqueued, ClientError> {
        let mut all = self.enqueue_all([job]).await?;
        all.pop()
            .ok_or_else(|| QueueError::Reply("nothing".to_owned()).into())
    }

    /// Enqueues many jobs, those of one queue in calls of up to a thousand. Answers are in the order given.
    ///
    /// # Errors
    /// A job is refused: then none is added. Redis failed: then some may have been; ids make it safe to repeat.
    pub async fn enqueue_all(
        &self,
        jobs: impl IntoIterator<Item = Job>,
    ) -> Result<Vec<Enqueued>, ClientError> {
        let sealed = jobs.into_iter().map(|job| self.seal(job));
        let sealed: Vec<Sealed> = sealed.collect::<Result<_, _>>()?;
        let mut answers: Vec<Option<Enqueued>> = vec![None; sealed.len()];
        let mut queues: Vec<&str> = sealed.iter().map(|job| job.queue.as_str()).collect();
        queues.sort_unstable();
        queues.dedup();
        for name in queues {
            let its = || {
                sealed
                    .iter()
                    .enumerate()
                    .filter(|(_, job)| job.queue == name)
            };
            let batch: Vec<(&str, Vec<u8>)> = its()
                .map(|(_, job)| (job.id.as_str(), job.envelope.clone()))
                .collect();
            let told = self.queue(name).enqueue(&batch).await?;
            for ((index, job), answer) in its().zip(told) {
                answers[index] = Some(job.answered(answer));
            }
        }
        let missing = || QueueError::Reply("fewer answers than jobs".to_owned());
        let complete = answers.into_iter().collect::<Option<Vec<_>>>();
        Ok(complete.ok_or_else(missing)?)
    }

    /// Where a job is; none if it is not known: not admitted yet, or forgotten.
    ///
    /// # Errors
    /// Redis failed.
    pub async fn find(&self, queue: &str, id: &str) -> Result<Option<Found>, ClientError> {
        Ok(self.queue(queue).find(id).await?)
    }

    /// Cancels a job that waits, asks one that runs to end. Its history says `client` did it.
    ///
    /// # Errors
    /// Redis failed.
    pub async fn cancel(&self, queue: &str, id: &str) -> Result<Cancelled, ClientError> {
        let queue = self.queue(queue);
        let Some(found) = queue.find(id).await? else {
            return Ok(Cancelled::Unknown);
        };
        let envelope = Envelope::parse(&found.raw).unwrap_or_default();
        let record = Record {
            id,
            kind: &envelope.kind,
            priority: flow_of(&envelope, &self.catalog).priority,
            state: "cancelled",
            attempts: found.history.attempts,
            at_ms: clock::unix_ms(),
            duration_ms: 0,
        };
        let given = envelope.gives(id);
        let enqueued = envelope.enqueued_at;
        Ok(queue.cancel(&record, given, enqueued, "client").await?)
    }

    /// A job as it is sent, checked as admission will check it.
    fn seal(&self, job: Job) -> Result<Sealed, ClientError> {
        let Job { mut fields, wrong } = job;
        if let Some(wrong) = wrong {
            return Err(ClientError::NotJson(wrong));
        }
        let now_ms = clock::unix_ms();
        let kind = fields["kind"].as_str().unwrap_or_default();
        let spec = self.catalog.get(kind);
        let known = spec.map_or(DEFAULT_QUEUE, |spec| &*spec.queue).to_owned();
        fields.entry("queue").or_insert_with(|| known.into());
        fields
            .entry("id")
            .or_insert_with(|| JobId::mint(now_ms, rand::random()).as_str().into());
        fields.entry("enqueued_at").or_insert_with(|| now_ms.into());
        let text = |name: &str| fields[name].as_str().unwrap_or_default().to_owned();
        let (id, queue) = (text("id"), text("queue"));
        let malformed = |e: String| Reject::new(crate::job::RejectCode::Malformed, e);
        id::check_queue(&queue)
            .map_err(|e| ClientError::Refused(malformed(format!("queue: {e}"))))?;
        let envelope = Value::Object(fields).to_string().into_bytes();
        let mut parsed = Envelope::parse(&envelope).map_err(ClientError::Refused)?;
        if let Some(spec) = spec {
            spec.bind(&mut parsed.take_args())
                .map_err(|e| Reject::new(crate::job::RejectCode::BadArgs, e))
                .map_err(ClientError::Refused)?;
        }
        Ok(Sealed {
            id,
            queue,
            envelope,
        })
    }
}

/// A job ready to be sent.
struct Sealed {
    id: String,
    queue: String,
    envelope: Vec<u8>,
}

impl Sealed {
    fn answered(&self, answer: Answer) -> Enqueued {
        let (created, id, state) = match answer {
            Answer::Created => (true, self.id.clone(), "pending".to_owned()),
            Answer::Duplicate(state) => (false, self.id.clone(), state),
            Answer::Held { state, id } => (false, id, state),
        };
        Enqueued {
            id,
            queue: self.queue.clone(),
            created,
            state,
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn unix_ms(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, millis)
}
