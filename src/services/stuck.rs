//! Whether the claim loops still turn: what liveness and the watchdog go by. A sick Redis does not stop them.

use crate::config::Config;
use crate::runner::QueueContext;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A loop that has not turned for this long is stuck: each turn waits for at most a poll and a few commands.
#[must_use]
pub fn limit(config: &Config) -> Duration {
    (config.daemon.poll + config.redis.command_timeout * 4) * 3
}

/// Looks for a claim loop that does not turn.
///
/// # Errors
/// Names the first one.
pub fn find(queues: &[Arc<QueueContext>], now: Instant, limit: Duration) -> Result<(), String> {
    for context in queues {
        let seen = context.progress.seen();
        let ago = now.saturating_duration_since(seen.ran.unwrap_or(now));
        if ago > limit {
            return Err(format!(
                "a handler has blocked all others for {} ms, the limit is {}",
                ago.as_millis(),
                limit.as_millis()
            ));
        }
        // A loop that has not begun yet was started a moment ago.
        let turned = seen.turned.unwrap_or(now);
        let ago = now.saturating_duration_since(turned);
        if ago > limit {
            return Err(format!(
                "the claim loop of queue {} last turned {} ms ago, the limit is {}",
                context.queue.name,
                ago.as_millis(),
                limit.as_millis()
            ));
        }
    }
    Ok(())
}
