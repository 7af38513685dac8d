//! Alerts: from the event that is logged to the webhook of the operator.
//!
//! Owns what is sent, how often and how hard it is tried. Raising an alert never waits: a bounded queue, whose oldest
//! alerts are dropped and counted when the webhook cannot keep up, and one task that delivers. The log has every
//! alert, sent or not. Must not know what made anybody raise one.

mod alert;
mod pace;
mod webhook;

pub use alert::{Alert, AlertName, Severity};

use crate::clock;
use crate::config::AlertsConfig;
use pace::Pace;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use webhook::Webhook;
pub use webhook::WebhookError;

/// Alerts waiting for delivery. Our choice: a minute of trouble in a large catalogue.
const QUEUE: usize = 256;

/// The way to raise alerts. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Alerts {
    /// None without a webhook: the log is all there is.
    shared: Option<Arc<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    raised: Notify,
    lost: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    pace: Pace,
    queue: VecDeque<Alert>,
}

/// The task that delivers; keep it to [`AlertsTask::shutdown`].
#[derive(Debug)]
pub struct AlertsTask {
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl Alerts {
    /// Starts delivery to the configured webhook, if there is one. Needs a running tokio.
    ///
    /// # Errors
    /// If the webhook's address cannot be used.
    pub fn start(config: &AlertsConfig) -> Result<(Self, AlertsTask), WebhookError> {
        let stop = CancellationToken::new();
        if config.webhook.is_empty() {
            return Ok((Self::default(), AlertsTask { stop, task: None }));
        }
        let webhook = Webhook::new(&config.webhook, config.timeout)?;
        let shared = Arc::new(Shared::default());
        let task = tokio::spawn(deliver_all(Arc::clone(&shared), webhook, stop.clone()));
        let alerts = Self {
            shared: Some(shared),
        };
        let task = AlertsTask {
            stop,
            task: Some(task),
        };
        Ok((alerts, task))
    }

    /// Sends an alert that was logged, unless one alike went out within the last minute: then it is counted.
    pub fn raise(&self, alert: Alert) {
        let Some(shared) = &self.shared else { return };
        let mut waiting = shared.waiting.lock();
        let Some(alert) = waiting.pace.offer(clock::monotonic(), alert) else {
            // Held back: the task must learn when it falls due.
            shared.raised.notify_one();
            return;
        };
        if waiting.queue.len() == QUEUE {
            waiting.queue.pop_front();
            shared.lost.fetch_add(1, Ordering::Relaxed);
        }
        waiting.queue.push_back(alert);
        shared.raised.notify_one();
    }

    /// Alerts that were not delivered, because the webhook refused them or could not keep up.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.shared
            .as_ref()
            .map_or(0, |shared| shared.lost.load(Ordering::Relaxed))
    }
}

impl AlertsTask {
    /// Delivers what is waiting and stops, within `deadline`. Whether all was tried.
    pub async fn shutdown(self, deadline: Duration) -> bool {
        self.stop.cancel();
        let Some(mut task) = self.task else {
            return true;
        };
        let finished = timeout(deadline, &mut task).await.is_ok();
        task.abort();
        finished
    }
}

/// Delivers one alert after the other until told to stop, then what is left and what was held back.
async fn deliver_all(shared: Arc<Shared>, webhook: Webhook, stop: CancellationToken) {
    while !stop.is_cancelled() {
        deliver_waiting(&shared, &webhook).await;
        tokio::select! {
            () = shared.raised.notified() => {}
            () = shared.held_back_is_due() => {}
            () = stop.cancelled() => {}
        }
    }
    shared.release_all();
    deliver_waiting(&shared, &webhook).await;
}

async fn deliver_waiting(shared: &Shared, webhook: &Webhook) {
    while let Some(alert) = shared.next() {
        deliver(shared, webhook, &alert).await;
    }
}

async fn deliver(shared: &Shared, webhook: &Webhook, alert: &Alert) {
    if let Err(error) = webhook.deliver(alert).await {
        shared.lost.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(
            event = "alert_lost",
            alert = alert.name().as_str(),
            subject = alert.subject(),
            error = %error,
            "the webhook did not take an alert"
        );
    }
}

impl Shared {
    /// The next alert to deliver.
    fn next(&self) -> Option<Alert> {
        let mut waiting = self.waiting.lock();
        let due = waiting.pace.due(clock::monotonic());
        waiting.queue.extend(due);
        waiting.queue.pop_front()
    }

    async fn held_back_is_due(&self) {
        let next = self.waiting.lock().pace.next_due();
        match next {
            Some(at) => tokio::time::sleep_until(at.into()).await,
            None => std::future::pending().await,
        }
    }

    fn release_all(&self) {
        let mut waiting = self.waiting.lock();
        let held = waiting.pace.take_all();
        waiting.queue.extend(held);
    }
}

#[cfg(test)]
mod tests;
