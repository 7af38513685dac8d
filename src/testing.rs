//! For the tests of programs that embed Tidegate.
//!
//! Three things are worth testing. **What a function does with a job**: run it inline, no server needed, with
//! [`Inline`]. **What becomes of jobs in the end**: put them into a [`Sandbox`], a private Redis that is gone with the
//! value, and [drain](Sandbox::drain) it. **What happens later**: [advance](Sandbox::advance) instead of waiting for it.
//!
//! There is no clock to fake. A function that wants the time reads a clock of its own; Tidegate goes by the time of Redis,
//! which a test can't turn. What a test wants of a fake clock is that what waits comes due, and that is what `advance`
//! does: to the jobs that wait for a time (delays, retries, snoozes). Expiry, remembered ids, rates and leases still go by
//! the real clock.
//!
//! A function, alone:
//!
//! ```
//! use tidegate::embed::{Context, JobError, Kind, Outcome};
//! use tidegate::testing::Inline;
//!
//! #[derive(serde::Deserialize)]
//! struct Mail { to: String }
//!
//! async fn send_mail(mail: Mail, ctx: Context) -> Result<(), JobError> {
//!     if !mail.to.contains('@') {
//!         return Err(JobError::abort("that is no address"));
//!     }
//!     ctx.progress.percent(100.0);
//!     Ok(())
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mail = || Inline::new(Kind::new("mail.send", send_mail));
//! let ran = mail().run(serde_json::json!({"to": "ada@example.org"})).await?;
//! assert_eq!(ran.outcome, Outcome::Done(None));
//! assert_eq!(ran.progress.percent, Some(100.0));
//! let ran = mail().run(serde_json::json!({"to": "ada"})).await?;
//! assert_eq!(ran.outcome, Outcome::fatal("that is no address"));
//! # Ok(())
//! # }
//! ```
//!
//! All of it, on a real Redis (`redis-server` must be installed):
//!
//! ```no_run
//! use std::time::Duration;
//! use tidegate::embed::{Attempt, Job};
//! use tidegate::testing::Sandbox;
//!
//! async fn second_time_lucky(_: serde_json::Value, attempt: Attempt) -> Result<(), String> {
//!     (attempt.current() > 1).then_some(()).ok_or_else(|| "not yet".to_owned())
//! }
//!
//! # async fn test() -> Result<(), Box<dyn std::error::Error>> {
//! let sandbox = Sandbox::start().await?;
//! sandbox.client().await?.enqueue(Job::new("app.lucky", ())).await?;
//! let daemon = || sandbox.builder().handler("app.lucky", second_time_lucky);
//! let drained = sandbox.drain(daemon()).await?;
//! assert_eq!((drained.completed, drained.retried), (0, 1));
//! sandbox.advance("default", Duration::from_secs(86_400)).await?;
//! assert_eq!(sandbox.drain(daemon()).await?.completed, 1);
//! # Ok(())
//! # }
//! ```

use crate::catalog::Problem;
use crate::client::{Client, ClientError};
use crate::clock;
use crate::config::{self, Config, Secret, Sources};
use crate::daemon::{Builder, Daemon, DaemonError};
use crate::handlers::progress::Board;
use crate::handlers::{Advice, Adviser, Context, Kind};
use crate::job::{self, JobId, Outcome, Progress};
use crate::queue::{Queue, QueueError};
use crate::stack::{Listen, PrivateRedis, RedisOptions, Scratch, StackError};
use apalis_core::task::extensions::Extensions;
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long a drain may take unless it is told otherwise.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);
/// Between two looks whether anything is left to do.
const LOOK: Duration = Duration::from_millis(5);

/// Why a test could not do what it wanted.
#[derive(Debug, thiserror::Error)]
pub enum TestError {
    /// The queue would not take such a job: it would go to quarantine.
    #[error("{0}")]
    Refused(String),
    /// What is said of the kind is wrong.
    #[error("{}", .0.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))]
    Definition(Vec<Problem>),
    /// The private Redis could not be started.
    #[error("{0}")]
    Stack(String),
    /// The daemon could not be started.
    #[error("{0}")]
    Daemon(#[from] DaemonError),
    /// The client failed.
    #[error("{0}")]
    Client(#[from] ClientError),
    /// Redis failed.
    #[error("{0}")]
    Queue(#[from] QueueError),
    /// After this long there was still something to do.
    #[error("not drained within {0:?}; jobs still wait or run in {1}")]
    NotDrained(Duration, String),
}

impl From<StackError> for TestError {
    fn from(e: StackError) -> Self {
        Self::Stack(e.to_string())
    }
}

/// One delivery of a job, run here and now, without a queue. A panic of the function is the test's.
#[must_use]
pub struct Inline {
    kind: Kind,
    data: Extensions,
    id: String,
    attempt: u32,
    stop: CancellationToken,
    advice: Advice,
}

/// Says the same to whoever asks.
struct Always(Advice);

impl Adviser for Always {
    fn advise(&self, _: &job::Job) -> Advice {
        self.0.clone()
    }
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Ran {
    /// What the function said. Whether a failed attempt is tried again is the retry policy's to say.
    pub outcome: Outcome,
    /// What it told last of how far it had come.
    pub progress: Progress,
}

impl Inline {
    /// A first attempt of a job of this kind.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            data: Extensions::default(),
            id: "job-1".to_owned(),
            attempt: 1,
            stop: CancellationToken::new(),
            advice: Advice::Go,
        }
    }

    /// A value that the function asks for as `Data<T>`.
    pub fn data<T: Clone + Send + Sync + 'static>(mut self, value: T) -> Self {
        self.data.insert(value);
        self
    }

    /// Another id than `job-1`.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = id.into();
        self
    }

    /// Another attempt than the first.
    pub const fn attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }

    /// The cancel token that the function sees: the test may cancel it.
    pub fn stopped_by(mut self, stop: CancellationToken) -> Self {
        self.stop = stop;
        self
    }

    /// What the gate says whenever the function asks; without this, to go on.
    pub fn advised(mut self, advice: Advice) -> Self {
        self.advice = advice;
        self
    }

    /// Runs it with these arguments, for at most the kind's timeout.
    ///
    /// # Errors
    /// The queue would not take the job, or what is said of the kind is wrong.
    pub async fn run(self, args: impl Serialize) -> Result<Ran, TestError> {
        let (definition, handler) = self.kind.open(Arc::new(self.data));
        let spec = definition.check().map_err(TestError::Definition)?;
        let args = serde_json::to_value(args).map_err(|e| TestError::Refused(e.to_string()))?;
        let Value::Object(mut args) = args else {
            return Err(TestError::Refused("args: must be an object".to_owned()));
        };
        spec.bind(&mut args).map_err(TestError::Refused)?;
        let id = JobId::parse(&self.id).map_err(|e| TestError::Refused(format!("id: {e}")))?;
        let job = Arc::new(job::Job {
            token: format!("inline:{}", clock::unix_us()).into(),
            id,
            kind: Arc::clone(&spec.kind),
            queue: Arc::clone(&spec.queue),
            priority: spec.priority,
            args,
            attempt: self.attempt,
            max_attempts: spec.retry.max_attempts,
            traceparent: None,
            parents: Vec::new(),
        });
        let board = Arc::new(Board::default());
        let adviser = Arc::new(Always(self.advice));
        let context = Context::new(job, self.stop, Arc::clone(&board)).advised_by(adviser);
        let ended = tokio::time::timeout(spec.timeout, handler.run(&context)).await;
        let timed_out = |_| Outcome::failed(format!("timed out after {:?}", spec.timeout));
        let told = board.take_news().pop();
        Ok(Ran {
            outcome: ended
                .unwrap_or_else(timed_out)
                .blaming_only(&spec.resources),
            progress: told.map(|news| news.progress).unwrap_or_default(),
        })
    }
}

/// A private Redis with nothing in it, and daemons to work on it. Gone with this value.
pub struct Sandbox {
    config: Config,
    limit: Duration,
    // Before the folder it lives in.
    _redis: PrivateRedis,
    _folder: Scratch,
}

/// What a drain did, over all queues of the daemon.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drained {
    /// Jobs done.
    pub completed: u64,
    /// Failed attempts that wait for another one.
    pub retried: u64,
    /// Runs that put themselves off.
    pub snoozed: u64,
    /// Jobs given up.
    pub dead: u64,
    /// Jobs cancelled.
    pub cancelled: u64,
    /// Jobs that came too late to start.
    pub expired: u64,
    /// Entries that are no job a kind takes.
    pub quarantined: u64,
}

impl Sandbox {
    /// Starts the server.
    ///
    /// # Errors
    /// `redis-server` is not installed, or does not come up.
    pub async fn start() -> Result<Self, TestError> {
        let start = || {
            let folder = Scratch::new()?;
            let mut options = RedisOptions::new(folder.path().join("redis"));
            options.listen = Listen::Unix;
            Ok::<_, StackError>((PrivateRedis::start(options)?, folder))
        };
        let started = tokio::task::spawn_blocking(start).await;
        let (redis, folder) = started.map_err(|e| TestError::Stack(e.to_string()))??;
        let mut config = config::load(&Sources::default()).map_err(DaemonError::from)?;
        config.redis.move_to(Secret::new(redis.url()));
        // How busy a machine is that runs tests says nothing about them.
        config.gate.mode = config::GateMode::Off;
        Ok(Self {
            config,
            limit: DRAIN_LIMIT,
            _redis: redis,
            _folder: folder,
        })
    }

    /// How long a drain may take; a minute unless said.
    #[must_use]
    pub const fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The configuration of everything that works on it, with the gate off. Change what differs and hand it to a builder.
    #[must_use]
    pub fn config(&self) -> Config {
        self.config.clone()
    }

    /// A daemon on it, to be put together.
    pub fn builder(&self) -> Builder {
        Daemon::builder().config(self.config())
    }

    /// A client of it.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn client(&self) -> Result<Client, TestError> {
        Ok(Client::open(&self.config).await?)
    }

    /// Runs a daemon until nothing is left to do now in its queues: what is delayed, or waits for a retry, stays.
    ///
    /// # Errors
    /// The daemon can't be started, or it is not done in time.
    pub async fn drain(&self, builder: Builder) -> Result<Drained, TestError> {
        let daemon = builder.start().await?;
        let queues = daemon.queues();
        let before = counted(&queues).await;
        let drained = tokio::time::timeout(self.limit, idle(&queues)).await;
        let after = counted(&queues).await;
        daemon.stop(Duration::ZERO, CancellationToken::new()).await;
        match drained {
            Ok(result) => result?,
            Err(_) => {
                let names: Vec<&str> = queues.iter().map(|q| &*q.name).collect();
                return Err(TestError::NotDrained(self.limit, names.join(", ")));
            }
        }
        Ok(after?.since(&before?))
    }

    /// Makes every delayed job of a queue due earlier by this much, as if that time had passed.
    ///
    /// # Errors
    /// Redis failed.
    pub async fn advance(&self, queue: &str, by: Duration) -> Result<(), TestError> {
        let client = self.client().await?;
        Ok(client.queue(queue).advance(by).await?)
    }
}

async fn idle(queues: &[Queue]) -> Result<(), QueueError> {
    for queue in queues {
        while !queue.is_idle().await? {
            tokio::time::sleep(LOOK).await;
        }
    }
    Ok(())
}

async fn counted(queues: &[Queue]) -> Result<Drained, QueueError> {
    let mut sum = Drained::default();
    for queue in queues {
        let stats = queue.counts().await?.sizes.stats;
        let of = |name: &str| stats.get(name).copied().unwrap_or(0);
        sum.completed += of("completed");
        sum.retried += of("retried");
        sum.snoozed += of("snoozed");
        sum.dead += of("dead");
        sum.cancelled += of("cancelled");
        sum.expired += of("expired");
        sum.quarantined += of("quarantined");
    }
    Ok(sum)
}

impl Drained {
    const fn since(self, before: &Self) -> Self {
        Self {
            completed: self.completed - before.completed,
            retried: self.retried - before.retried,
            snoozed: self.snoozed - before.snoozed,
            dead: self.dead - before.dead,
            cancelled: self.cancelled - before.cancelled,
            expired: self.expired - before.expired,
            quarantined: self.quarantined - before.quarantined,
        }
    }
}
