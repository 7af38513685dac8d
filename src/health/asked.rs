//! A source whose answers come from a closure that asks somebody, and are then read as signals.

use std::future::Future;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::probe::{Reading, Source};

/// Asks with `ask` and reads the answer with `read`: one reading per signal. An error is a lost sample of all of them; it
/// must carry no secret.
pub(super) struct Asked<F, R> {
    signals: usize,
    ask: F,
    read: R,
}

impl<F, R> Asked<F, R> {
    /// A source of so many signals.
    pub(super) const fn new(signals: usize, ask: F, read: R) -> Self {
        Self { signals, ask, read }
    }
}

impl<F, A, T, R> Source for Asked<F, R>
where
    F: FnMut() -> A + Send,
    A: Future<Output = Result<T, String>> + Send + 'static,
    R: FnMut(T) -> Vec<Reading> + Send,
{
    fn sample(&mut self) -> BoxFuture<'_, Vec<Reading>> {
        async {
            match (self.ask)().await {
                Ok(answer) => (self.read)(answer),
                Err(error) => vec![Err(error); self.signals],
            }
        }
        .boxed()
    }
}
