//! Handlers made of async functions.
//!
//! A function takes the job's arguments first, as any type that serde reads from an object, and then whatever it needs
//! of the delivery: [`Context`], `Data<T>`, and the other extractors of apalis. So a task function written for an apalis
//! worker is a handler as it stands. What it returns is the job's result, and its error says what becomes of the job:
//! see [`super::JobError`].
//!
//! Owns: the way from a delivery to such a function and back. Must not know the runner, nor which kind runs it.

use super::failure::outcome_of;
use super::{Context, Handler};
use crate::job::Outcome;
use apalis_core::backend::queue::Queue;
use apalis_core::error::BoxDynError;
use apalis_core::task::Task;
use apalis_core::task::builder::TaskBuilder;
use apalis_core::task::data::MissingDataError;
use apalis_core::task::extensions::Extensions;
use apalis_core::task::from_request::FromRequest;
use apalis_core::task::into_response::IntoResponse;
use apalis_core::task::task_fn::{TaskFn, task_fn};
use apalis_core::task::task_id::TaskId;
use futures::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::marker::PhantomData;
use std::sync::Arc;
use tower::Service;

/// An async function that can run jobs. `Args` is the type of its first argument, `Rest` that of the others; both are
/// found by the compiler.
pub trait JobFn<Args, Rest>: Clone + Send + Sync + 'static {
    /// Runs it on one task.
    fn run(&self, task: Task<Args>) -> BoxFuture<'static, Outcome>;
}

impl<F, Args, Rest, Answer> JobFn<Args, Rest> for F
where
    F: Clone + Send + Sync + 'static,
    TaskFn<F, Args, Rest>: Service<Task<Args>, Response = Answer, Error = BoxDynError>,
    <TaskFn<F, Args, Rest> as Service<Task<Args>>>::Future: Send + 'static,
    Answer: Answers,
{
    fn run(&self, task: Task<Args>) -> BoxFuture<'static, Outcome> {
        let running = task_fn::<F, Args, Rest>(self.clone()).call(task);
        Box::pin(async move {
            match running.await {
                Ok(answer) => answer.outcome(),
                Err(error) => outcome_of(&error),
            }
        })
    }
}

/// What a function may return: anything that can be JSON, or an [`Outcome`] itself; or a `Result` of these.
pub trait Answers {
    /// What it means for the job.
    fn outcome(self) -> Outcome;
}

impl<T: Serialize> Answers for T {
    fn outcome(self) -> Outcome {
        match serde_json::to_value(self) {
            Ok(Value::Null) => Outcome::Done(None),
            Ok(result) => Outcome::Done(Some(result)),
            Err(error) => {
                // The work is done: it must not be done again because its result can't be kept.
                tracing::warn!(%error, "a result that can't be JSON is not kept");
                Outcome::Done(None)
            }
        }
    }
}

impl Answers for Outcome {
    fn outcome(self) -> Outcome {
        self
    }
}

impl IntoResponse for Outcome {
    type Output = Self;

    fn into_response(self) -> Result<Self, BoxDynError> {
        Ok(self)
    }
}

impl<Args: Sync> FromRequest<Task<Args>> for Context {
    type Error = MissingDataError;

    async fn from_request(task: &Task<Args>) -> Result<Self, Self::Error> {
        task.data().get_checked().cloned()
    }
}

/// Checks arguments by reading them as a function does.
pub(super) fn check_args<Args: DeserializeOwned>(args: &Map<String, Value>) -> Result<(), String> {
    read_args::<Args>(args).map(|_| ())
}

fn read_args<Args: DeserializeOwned>(args: &Map<String, Value>) -> Result<Args, String> {
    Args::deserialize(args).map_err(|e| format!("args: {e}"))
}

/// A function with the data that its extractors find.
pub(super) struct Function<F, Args, Rest> {
    function: F,
    data: Arc<Extensions>,
    signature: PhantomData<fn() -> (Args, Rest)>,
}

impl<F, Args, Rest> Function<F, Args, Rest> {
    pub(super) const fn new(function: F, data: Arc<Extensions>) -> Self {
        Self {
            function,
            data,
            signature: PhantomData,
        }
    }
}

impl<F, Args, Rest> Handler for Function<F, Args, Rest>
where
    F: JobFn<Args, Rest>,
    Args: DeserializeOwned + 'static,
    Rest: 'static,
{
    fn run<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Outcome> {
        match read_args(&ctx.job.args) {
            Ok(args) => self.function.run(task_of(args, ctx, &self.data)),
            Err(message) => Box::pin(std::future::ready(Outcome::fatal(message))),
        }
    }
}

/// A delivery as apalis has it.
fn task_of<Args>(args: Args, ctx: &Context, data: &Extensions) -> Task<Args> {
    let job = &ctx.job;
    let count = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
    TaskBuilder::new(args)
        .task_id(TaskId::from_string(job.id.as_str()))
        .attempt(count(job.attempt))
        .max_attempts(count(job.max_attempts))
        .queue(Queue::from(&*job.queue))
        .with_data(data.clone())
        .data(ctx.clone())
        .build()
}
