//! The flat pipeline around a handler, as tower layers: settle → deadline and operations → panic → handler.

use super::load::LATE;
use super::operations::Passage;
use super::registry::Kind;
use super::settler::{Begun, SettlerHandle};
use super::slots::{Holds, Slots};
use super::stop::{Stop, StopReason};
use crate::clock;
use crate::handlers::progress::Board;
use crate::handlers::{Adviser, Context};
use crate::job::Outcome;
use crate::queue::Delivery;
use crate::telemetry::events;
use apalis::layers::catch_panic::CatchPanicLayer;
use apalis_core::error::{AbortError, BoxDynError};
use apalis_core::task::Task;
use futures::future::BoxFuture;
use std::any::Any;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;
use tower::{Layer, Service};

/// How long a handler that was asked to stop may take to end by itself before it is dropped.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// A delivery on its way through the layers.
pub struct Run {
    /// The job and its circumstances.
    pub delivery: Arc<Delivery>,
    /// Its kind, with the handler.
    pub kind: Arc<Kind>,
    /// Stops it from outside.
    pub stop: Stop,
    /// Where it tells how far it has come.
    pub told: Arc<Board>,
    /// What it owes its operations.
    pub passage: Option<Passage>,
    /// What it holds besides a slot.
    pub holds: Holds,
}

type RunFuture = BoxFuture<'static, Result<Outcome, BoxDynError>>;

/// The innermost service: calls the handler of the kind.
#[derive(Clone)]
pub struct Dispatch {
    /// Whom jobs ask between two batches.
    pub adviser: Arc<dyn Adviser>,
}

impl Service<Task<Run>> for Dispatch {
    type Response = Outcome;
    type Error = BoxDynError;
    type Future = RunFuture;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, task: Task<Run>) -> Self::Future {
        let run = task.args;
        let adviser = Arc::clone(&self.adviser);
        Box::pin(async move {
            events::job_started(&*run.delivery.job);
            let job = Arc::clone(&run.delivery.job);
            let context = Context::new(job, run.stop.token().clone(), run.told).advised_by(adviser);
            let outcome = run.kind.handler.run(&context).await;
            Ok(outcome.blaming_only(&run.kind.spec.resources))
        })
    }
}

/// Makes an error of a panic.
pub type OnPanic = fn(&Box<dyn Any + Send>) -> AbortError;

/// A panicking handler is a failed attempt.
#[must_use]
pub fn catch_panic() -> CatchPanicLayer<OnPanic, AbortError> {
    CatchPanicLayer::with_panic_handler(panicked)
}

#[allow(clippy::borrowed_box, reason = "the signature apalis asks for")]
fn panicked(panic: &Box<dyn Any + Send>) -> AbortError {
    let text = panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    AbortError::new(format!("handler panicked: {text}"))
}

/// Ends a run at its timeout, or when it is stopped from outside, and tells its operations how the call went. What hangs
/// until it is dropped is evidence too, so both stand in one layer.
#[derive(Debug, Clone, Copy)]
pub struct DeadlineLayer;

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Deadline { inner }
    }
}

/// See [`DeadlineLayer`].
#[derive(Debug, Clone)]
pub struct Deadline<S> {
    inner: S,
}

impl<S> Service<Task<Run>> for Deadline<S>
where
    S: Service<Task<Run>, Response = Outcome, Error = BoxDynError>,
    S::Future: Send + 'static,
{
    type Response = Outcome;
    type Error = BoxDynError;
    type Future = RunFuture;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut task: Task<Run>) -> Self::Future {
        let stop = task.args.stop.clone();
        let timeout = task.args.delivery.timeout;
        let passage = task.args.passage.take();
        let started = passage.is_some().then(clock::monotonic);
        let (told, job) = (
            Arc::clone(&task.args.told),
            Arc::clone(&task.args.delivery.job),
        );
        let inner = self.inner.call(task);
        Box::pin(async move {
            let rested = || told.rested(&job);
            let ended = within(inner, &stop, timeout, rested).await;
            if let (Some(passage), Some(started), Ok(outcome)) = (passage, started, &ended) {
                // What it rested for the gate's sake is not the resource's time.
                let took = clock::since(started).saturating_sub(told.rested(&job));
                passage.record(outcome, took, timeout);
            }
            ended
        })
    }
}

/// Runs to the end, to the timeout, or until it is stopped. What the job rested when the gate asked for it is not of its
/// own time.
async fn within<F>(
    inner: F,
    stop: &Stop,
    timeout: Duration,
    rested: impl Fn() -> Duration,
) -> Result<Outcome, BoxDynError>
where
    F: Future<Output = Result<Outcome, BoxDynError>>,
{
    let mut inner = std::pin::pin!(inner);
    let (mut left, mut granted) = (timeout, Duration::ZERO);
    loop {
        // The handler first: one that is done at once costs neither a timer nor a registration.
        tokio::select! {
            biased;
            ended = &mut inner => return ended,
            () = stop.token().cancelled() => break,
            () = tokio::time::sleep(left) => {}
        }
        left = rested().saturating_sub(granted);
        if left.is_zero() {
            return Ok(Outcome::failed(format!("timed out after {timeout:?}")));
        }
        granted += left;
    }
    if stop.reason() != Some(StopReason::LeaseLost)
        && let Ok(ended) = tokio::time::timeout(STOP_GRACE, inner).await
    {
        return ended;
    }
    Ok(stopped(stop.reason()))
}

fn stopped(reason: Option<StopReason>) -> Outcome {
    let reason = match reason {
        Some(StopReason::Cancelled) => return Outcome::Cancelled,
        Some(StopReason::LeaseLost) => "the lease was lost",
        Some(StopReason::Shutdown) | None => "the daemon stops",
    };
    Outcome::Interrupted {
        reason: reason.to_owned(),
    }
}

/// The outermost layer: whatever came of a run, its slot comes free and its end is handed to the settler.
#[derive(Clone)]
pub struct SettleLayer {
    /// Where the end goes.
    pub settler: SettlerHandle,
    /// Where the slot came from.
    pub slots: Arc<Slots>,
}

impl<S> Layer<S> for SettleLayer {
    type Service = Settle<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Settle {
            inner,
            to: self.clone(),
        }
    }
}

/// See [`SettleLayer`].
#[derive(Clone)]
pub struct Settle<S> {
    inner: S,
    to: SettleLayer,
}

impl<S> Service<Task<Run>> for Settle<S>
where
    S: Service<Task<Run>, Response = Outcome, Error = BoxDynError>,
    S::Future: Send + 'static,
{
    type Response = ();
    type Error = BoxDynError;
    type Future = BoxFuture<'static, Result<(), BoxDynError>>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut task: Task<Run>) -> Self::Future {
        let to = self.to.clone();
        let holds = std::mem::take(&mut task.args.holds);
        let stop = task.args.stop.clone();
        let begun = Begun::now(&task.args.delivery);
        let inner = self.inner.call(task);
        #[cfg(feature = "broken")]
        if crate::queue::broken::has(crate::queue::broken::Flaw::SettledFirst) {
            let job = Arc::clone(&begun.delivery.job);
            to.settler.send(begun.ended(Outcome::Done(None)));
            return Box::pin(async move {
                let ended = inner.await;
                to.slots
                    .release(&job.queue, &job.kind, job.priority, &holds);
                ended.map(drop)
            });
        }
        Box::pin(async move {
            let outcome = match inner.await {
                // A job that was cancelled and gave up is over, whatever it called its end.
                Ok(Outcome::Interrupted { .. } | Outcome::Yielded { .. })
                    if stop.reason() == Some(StopReason::Cancelled) =>
                {
                    Outcome::Cancelled
                }
                Ok(outcome) => outcome,
                Err(e) => Outcome::failed(message_of(&e)),
            };
            let job = &begun.delivery.job;
            let waited = begun.delivery.waited();
            if waited >= LATE {
                to.slots.note_late(job.priority, waited, begun.ran_for());
            }
            to.slots
                .release(&job.queue, &job.kind, job.priority, &holds);
            to.settler.send(begun.ended(outcome));
            Ok(())
        })
    }
}

/// The cause inside apalis' wrapper.
fn message_of(e: &BoxDynError) -> String {
    std::error::Error::source(&**e).map_or_else(|| e.to_string(), ToString::to_string)
}
