//! The apalis backend of one queue: deliveries that were claimed, handed to the apalis worker one by one.
//!
//! Claiming itself goes on elsewhere, in batches; this end only buffers. It ends when the sender is dropped, and the
//! worker then finishes what it holds.

use apalis_core::backend::finalize::Ephemeral;
use apalis_core::backend::{Backend, BackendConfig};
use apalis_core::task::Task;
use apalis_core::task::task_id::RandomId;
use apalis_core::worker::context::WorkerContext;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::task::{Context, Poll, ready};
use tokio::sync::mpsc;
use tower::layer::util::Identity;

/// Claimed batches that may wait for the worker: one that it empties, one that comes next.
const BATCHES: usize = 2;

/// The receiving end, as apalis polls it.
#[derive(Debug)]
pub struct ClaimedBackend<T> {
    batches: mpsc::Receiver<Vec<T>>,
    buffer: VecDeque<T>,
}

/// A channel of claimed batches and the backend that hands them out.
#[must_use]
pub fn channel<T>() -> (mpsc::Sender<Vec<T>>, ClaimedBackend<T>) {
    let (sender, batches) = mpsc::channel(BATCHES);
    let backend = ClaimedBackend {
        batches,
        buffer: VecDeque::new(),
    };
    (sender, backend)
}

impl<T: Unpin> Backend for ClaimedBackend<T> {
    type Task = Task<T>;
    type Error = Infallible;

    fn poll_ready(
        &mut self,
        _: &mut Context<'_>,
        _: &WorkerContext,
    ) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        worker: &WorkerContext,
    ) -> Poll<Option<Result<Self::Task, Self::Error>>> {
        loop {
            if let Some(delivery) = self.buffer.pop_front() {
                return Poll::Ready(Some(Ok(Task::new(delivery))));
            }
            match ready!(self.batches.poll_recv(cx)) {
                Some(batch) => self.buffer.extend(batch),
                None => {
                    // Without this the worker would wait to be stopped after its last job. It is started, so it can be.
                    let _ = worker.stop();
                    return Poll::Ready(None);
                }
            }
        }
    }

    fn poll_close(
        &mut self,
        _: &mut Context<'_>,
        _: &WorkerContext,
    ) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }
}

impl<T> BackendConfig for ClaimedBackend<T> {
    type Args = T;
    type Id = RandomId;
    type Kind = Ephemeral;
    type Config = ();
    type Layer = Identity;

    fn config(&self) -> &Self::Config {
        &()
    }

    fn middleware(&mut self, _: &mut WorkerContext) -> Self::Layer {
        Identity::new()
    }
}
