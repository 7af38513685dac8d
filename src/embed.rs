//! Tidegate inside your own program: everything for it under one roof.
//!
//! Register functions with [`Daemon::builder`], say more of a kind with [`Kind`], enqueue with [`Client`], and try it all
//! out with [`crate::testing`]. A function takes its arguments first, then what it needs:
//!
//! | parameter | what it is |
//! |---|---|
//! | [`Context`] | the delivery: job, cancel token, progress, fencing token, attempt, the pace the gate asks for |
//! | [`Data<T>`](Data) | the value of that type given with [`Builder::data`] |
//! | [`TaskId`], [`Attempt`], [`Queue`] | the same as in apalis |
//! | `Option<..>` of any of these | none if it is not there |
//!
//! Functions written for an apalis 1.0 worker are taken as they are, and so are the errors `AbortError`,
//! `RetryAfterError` and `DeferredError`. What can't be had here, because it belongs to an apalis worker: `WorkerContext`,
//! `TaskContext`, `TaskRunner`, the worker's own layers. And arguments are always an object: a function whose
//! argument is a bare string or number needs a struct around it.
//!
//! `examples/embedded.rs` shows all of it at work.

pub use crate::client::{Client, ClientError, Enqueued, Job};
pub use crate::config::Config;
pub use crate::daemon::{Builder, Daemon, DaemonError};
pub use crate::handlers::{Advice, Answers, Context, Handler, JobError, JobFn, Kind, Reporter};
pub use crate::job::{Failure, Outcome, Priority, Progress};
pub use apalis_core::backend::queue::Queue;
pub use apalis_core::error::{AbortError, BoxDynError, DeferredError, RetryAfterError};
pub use apalis_core::task::attempt::Attempt;
pub use apalis_core::task::data::Data;
pub use apalis_core::task::from_request::FromRequest;
pub use apalis_core::task::task_id::TaskId;
