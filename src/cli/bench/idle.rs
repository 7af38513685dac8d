//! What a daemon with nothing to do costs: round trips to Redis, and processor time.

use super::bed::Bed;
use super::failed;
use super::process::DaemonProcess;
use crate::cli::CliError;
use crate::clock;
use futures::StreamExt;
use std::time::Duration;

/// How long it is watched: several of its slower rhythms.
const WATCH: Duration = Duration::from_secs(10);

/// What it costs.
pub(super) struct Idle {
    pub(super) round_trips_per_s: f64,
    pub(super) core_percent: f64,
}

/// Watches the server's own record of commands. What scripts call inside themselves is no round trip; ours is the only
/// other client, and says nothing meanwhile.
pub(super) async fn measure(bed: &Bed, daemon: &DaemonProcess) -> Result<Idle, CliError> {
    let client = redis::Client::open(bed.config.redis.url.reveal()).map_err(failed)?;
    let monitor = client.get_async_monitor().await.map_err(failed)?;
    let mut commands = monitor.into_on_message::<String>();
    let (start, cpu) = (clock::monotonic(), daemon.cpu()?);
    let end = tokio::time::sleep(WATCH);
    tokio::pin!(end);
    let mut count = 0_u32;
    loop {
        tokio::select! {
            () = &mut end => break,
            command = commands.next() => {
                let command = command.ok_or_else(|| failed("Redis ended the record of its commands"))?;
                // Time, then the caller in brackets: `[0 lua]` for a script.
                count += u32::from(!command.contains(" lua]"));
            }
        }
    }
    let seconds = clock::since(start).as_secs_f64();
    let used = daemon.cpu()?.saturating_sub(cpu);
    Ok(Idle {
        round_trips_per_s: f64::from(count) / seconds,
        core_percent: 100.0 * used.as_secs_f64() / seconds,
    })
}
