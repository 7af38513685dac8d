//! Listens to the bells of this daemon's queues and passes each ring on to its claim loop. Whenever it begins to listen,
//! all of them look once: what was rung before was not heard.

use crate::config::RedisConfig;
use crate::queue::Queue;
use crate::queue::bell::Bell;
use crate::runner::QueueContext;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

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
    queues.iter().for_each(|context| context.nudge());
    loop {
        match bell.rung().await {
            Ok(rung) => {
                if let Some(context) = rung.and_then(|index| queues.get(index)) {
                    context.nudge();
                }
            }
            Err(e) => return e.to_string(),
        }
    }
}
