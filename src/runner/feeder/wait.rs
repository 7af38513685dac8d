//! Waiting for something to happen, without asking for it over and over.

use super::Feeder;
use crate::clock;
use crate::config::RedisConfig;
use crate::queue::wake::Waker;
use crate::queue::{Peeked, Queue, QueueError};
use crate::telemetry::events;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::time::Duration;

/// A wait for the inbox, with the connection it is made over. It is kept from round to round: an answer must not be
/// thrown away with the wait for it.
pub(super) type Waiting = BoxFuture<'static, Answer>;

/// What came, and the connection, if it can be used again.
type Answer = (Option<Waker>, Result<Peeked, QueueError>);

impl Feeder {
    /// Begins to wait for the inbox, unless that wait is under way, or its last answer is still to be admitted: then the
    /// same entries would wake us again.
    pub(super) fn watch_inbox(&mut self) -> Result<(), QueueError> {
        if self.inbox.is_some() {
            return Ok(());
        }
        let waiting = self.waiting.get_or_insert_with(|| match self.waker.take() {
            Some(waker) => wait_with(waker),
            None => connect_and_wait(self.context.queue.clone(), self.redis.clone()),
        });
        match waiting.now_or_never() {
            Some(answer) => self.woken(answer),
            None => Ok(()),
        }
    }

    fn woken(&mut self, (waker, peeked): Answer) -> Result<(), QueueError> {
        self.waiting = None;
        self.waker = waker;
        let peeked = peeked?;
        self.notice_rollback(peeked.taken);
        self.inbox = (!peeked.entries.is_empty()).then_some(peeked);
        Ok(())
    }

    /// What was ever taken in is counted: a server that counts less than it did has lost more than that count.
    fn notice_rollback(&mut self, taken: u64) {
        let known = std::mem::replace(&mut self.taken, taken);
        if taken < known {
            let alert = events::redis_rolled_back(&self.context.queue.name, known, taken);
            self.context.shared.alerts.raise(alert);
        }
    }

    /// Waits until something happens: an entry in the inbox, a free slot, a due job, a nudge, a change of phase.
    pub(super) async fn wait(&mut self) -> Result<(), QueueError> {
        let now = clock::monotonic();
        let due = self.next_due_ms.map(|due| {
            let in_ms = due.saturating_sub(self.redis_clock.now_ms());
            now + Duration::from_millis(in_ms)
        });
        let wake_at = due.map_or(self.next_look, |due| due.min(self.next_look));
        let inbox = async {
            match self.waiting.as_mut() {
                Some(waiting) => waiting.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            answer = inbox => self.woken(answer),
            () = self.slots_freed.notified(), if !self.heads.is_empty() => Ok(()),
            () = self.context.nudged() => Ok(()),
            () = tokio::time::sleep_until(wake_at.into()) => Ok(()),
            _ = self.phase.changed() => Ok(()),
        }
    }
}

fn connect_and_wait(queue: Queue, redis: RedisConfig) -> Waiting {
    Box::pin(async move {
        match Waker::connect(queue, &redis).await {
            Ok(waker) => wait_with(waker).await,
            Err(e) => (None, Err(e)),
        }
    })
}

fn wait_with(mut waker: Waker) -> Waiting {
    Box::pin(async move {
        let peeked = waker.wait().await;
        // A connection that failed is not used again.
        let waker = peeked.is_ok().then_some(waker);
        (waker, peeked)
    })
}
