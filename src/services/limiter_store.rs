//! Keeps what limiters have learnt in Redis, so that a restart does not begin at nothing.

use crate::clock;
use crate::policy::limiter::Saved;
use crate::queue::connection::Connection;
use crate::queue::limiters::{field, read, tidy, write};
use crate::runner::operations::{Operation, Operations, Resumed};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How often what changed is written.
const INTERVAL: Duration = Duration::from_secs(10);
/// How long reading may take at the start: a daemon that knows nothing works too.
const DEADLINE: Duration = Duration::from_secs(2);
/// What is in use is written anew at least this often, so that it does not look forgotten; entries are tidied as often.
const REFRESH: Duration = Duration::from_secs(86_400);

/// Where it is kept.
pub struct Store {
    conn: Connection,
    prefix: String,
    operations: Arc<Operations>,
    written: HashMap<String, (Saved, Instant)>,
    tidied: Option<Instant>,
    /// Whether it was told that nothing could be read.
    told: bool,
}

impl Store {
    /// Kept under `prefix`.
    #[must_use]
    pub fn new(conn: Connection, prefix: &str, operations: Arc<Operations>) -> Self {
        Self {
            conn,
            prefix: prefix.to_owned(),
            operations,
            written: HashMap::new(),
            tidied: None,
            told: false,
        }
    }

    /// Has limiters that nobody asked for yet go on from what was kept for them. What is missing or makes no sense is
    /// learnt anew.
    pub async fn resume(&mut self) {
        let fresh = self.operations.unasked();
        let fields: Vec<String> = fresh.iter().map(|of| name(of)).collect();
        let reading = read(&self.conn, &self.prefix, &fields);
        let kept = match tokio::time::timeout(DEADLINE, reading).await {
            Ok(Ok(kept)) => kept,
            Ok(Err(e)) => return self.unread(&e.to_string()),
            Err(_) => return self.unread("Redis did not answer in time"),
        };
        for ((operation, field), kept) in fresh.iter().zip(fields).zip(kept) {
            let saved = kept.as_deref().map(serde_json::from_str::<Saved>);
            let resumed = match saved {
                None => None,
                Some(Ok(saved)) => {
                    let resumed = self.operations.resume(operation, saved.clone());
                    self.written.insert(field, (saved, clock::monotonic()));
                    Some(resumed)
                }
                Some(Err(_)) => Some(Resumed::Nonsense),
            };
            told(operation, resumed);
            self.operations.was_asked(operation);
        }
    }

    /// Writes what changed at every interval and at the end.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let last = tokio::select! {
                () = stop.cancelled() => true,
                () = tokio::time::sleep(INTERVAL) => false,
            };
            if let Err(e) = self.write().await {
                tracing::debug!(error = %e, "what limiters learnt is not kept");
            }
            if last {
                return;
            }
            self.resume().await;
            self.tidy().await;
        }
    }

    async fn write(&mut self) -> Result<(), crate::queue::QueueError> {
        let now = clock::monotonic();
        let mut changed = Vec::new();
        for (operation, saved) in self.operations.learnt() {
            let field = name(&operation);
            let known = self.written.get(&field);
            let same = known.is_some_and(|(before, at)| {
                *before == saved && now.saturating_duration_since(*at) < REFRESH
            });
            if !same && let Ok(text) = serde_json::to_string(&saved) {
                changed.push((field, text, saved));
            }
        }
        let entries: Vec<(String, String)> = changed
            .iter()
            .map(|(field, text, _)| (field.clone(), text.clone()))
            .collect();
        write(&self.conn, &self.prefix, &entries).await?;
        let written = changed.into_iter();
        self.written
            .extend(written.map(|(field, _, saved)| (field, (saved, now))));
        Ok(())
    }

    /// Told once; it is tried again at every interval, for those that have learnt nothing by then.
    fn unread(&mut self, error: &str) {
        if !std::mem::replace(&mut self.told, true) {
            tracing::warn!(
                event = "limiter_kept",
                error,
                "what limiters learnt before can't be read: they begin afresh"
            );
        }
    }

    async fn tidy(&mut self) {
        if self.tidied.is_some_and(|at| clock::since(at) < REFRESH) {
            return;
        }
        self.tidied = Some(clock::monotonic());
        match tidy(&self.conn, &self.prefix).await {
            Ok(0) => {}
            Ok(gone) => tracing::info!(event = "limiter_kept", gone, "forgotten limiters removed"),
            Err(e) => tracing::debug!(error = %e, "what limiters learnt is not tidied"),
        }
    }
}

fn name(operation: &Operation) -> String {
    field(&operation.handler, &operation.resource)
}

fn told(operation: &Operation, resumed: Option<Resumed>) {
    let (handler, resource) = (&*operation.handler, &*operation.resource);
    match resumed {
        None | Some(Resumed::TooLate) => {}
        Some(Resumed::Used) => tracing::debug!(
            event = "limiter_kept",
            handler,
            resource,
            "the limiter goes on from what was kept"
        ),
        Some(Resumed::Nonsense) => tracing::warn!(
            event = "limiter_kept",
            handler,
            resource,
            "what was kept of the limiter can't be used: it begins afresh"
        ),
    }
}
