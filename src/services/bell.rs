//! Listens to the bells of this daemon's queues and passes each ring on to its claim loop. Whenever it begins to listen,
//! all of them look once: what was rung before was not heard.

use crate::config::RedisConfig;
use crate::queue::Queue;
use crate::queue::bell::{Bell, Ring};
use crate::runner::QueueContext;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Rings within this time of the last one are passed on together: behind a limit every settlement may ring.
const GAP: Duration = Duration::from_millis(20);
/// Waits between tries to listen.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Listens until `stop`, over one connection at a time.
pub async fn run(queues: Vec<Arc<QueueContext>>, redis: RedisConfig, stop: CancellationToken) {
    let listen = async {
        let names: Vec<Queue> = queues.iter().map(|context| context.queue.clone()).collect();
        let mut wait = RETRY_MIN;
        loop {
            let lost = match Bell::connect(&redis, &names).await {
                Ok(bell) => {
                    wait = RETRY_MIN;
                    pass_on(&queues, bell).await
                }
                Err(e) => e.to_string(),
            };
            tracing::debug!(error = lost, "not listening to the bell; looks go on");
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = listen => {}
    }
}

/// Passes rings on until the connection is lost; says why it was.
async fn pass_on(queues: &[Arc<QueueContext>], mut bell: Bell) -> String {
    let mut rung: BTreeSet<usize> = (0..queues.len()).collect();
    loop {
        if rung.is_empty() {
            match bell.rung().await {
                Ok(ring) => rung.extend(ring.and_then(|ring| news(queues, &ring))),
                Err(e) => return e.to_string(),
            }
            continue;
        }
        let now = std::mem::take(&mut rung);
        now.iter()
            .filter_map(|index| queues.get(*index))
            .for_each(|context| context.nudge());
        let gather = async {
            loop {
                match bell.rung().await {
                    Ok(ring) => rung.extend(ring.and_then(|ring| news(queues, &ring))),
                    Err(e) => return e,
                }
            }
        };
        if let Ok(lost) = tokio::time::timeout(GAP, gather).await {
            return lost.to_string();
        }
    }
}

/// The queue of a ring; none if we rang ourselves: then we have looked already.
fn news(queues: &[Arc<QueueContext>], ring: &Ring) -> Option<usize> {
    let own = queues.get(ring.queue)?.lease.current();
    (own.as_deref() != Some(&*ring.by)).then_some(ring.queue)
}
