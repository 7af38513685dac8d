//! How soon an idle daemon starts a job: from just before the client's call to the first line of the handler.

use super::bed::Bed;
use super::failed;
use super::process::DaemonProcess;
use crate::cli::CliError;
use crate::clock;
use hdrhistogram::Histogram;
use std::time::Duration;
use uuid::Uuid;

/// Between two jobs at least, so that the daemon is idle again; the rest is random, so that no rhythm is met.
const PAUSE: Duration = Duration::from_millis(2);
/// The longest pickup that is told from a longer one, µs.
const LONGEST_US: u64 = 10_000_000;

/// Two of the quantiles, ms.
pub(super) struct Pickup {
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
}

/// By a plain `RPUSH`.
pub(super) async fn by_inbox(
    bed: &Bed,
    daemon: &mut DaemonProcess,
    samples: usize,
) -> Result<Pickup, CliError> {
    let mut conn = bed.conn.clone();
    let inbox = bed.queue.keys().inbox.clone();
    sample(daemon, samples, async || {
        let mut push = redis::cmd("RPUSH");
        push.arg(&inbox).arg(envelope(None));
        push.query_async::<()>(&mut conn).await.map_err(failed)
    })
    .await
}

/// By the enqueue script, with an id.
pub(super) async fn by_script(
    bed: &Bed,
    daemon: &mut DaemonProcess,
    samples: usize,
) -> Result<Pickup, CliError> {
    sample(daemon, samples, async || {
        let id = Uuid::now_v7().to_string();
        let job = [(id.as_str(), envelope(Some(&id)).into_bytes())];
        bed.queue.enqueue(&job).await?;
        Ok(())
    })
    .await
}

async fn sample(
    daemon: &mut DaemonProcess,
    samples: usize,
    mut enqueue: impl AsyncFnMut() -> Result<(), CliError>,
) -> Result<Pickup, CliError> {
    let mut seen = Histogram::<u64>::new_with_bounds(1, LONGEST_US, 3).map_err(failed)?;
    for _ in 0..samples {
        let rest = Duration::from_micros(rand::random_range(0..2_000));
        tokio::time::sleep(PAUSE + rest).await;
        enqueue().await?;
        seen.saturating_record(daemon.pickup_us().await?);
    }
    let ms = |quantile| seen.value_at_quantile(quantile) as f64 / 1_000.0;
    Ok(Pickup {
        p50_ms: ms(0.5),
        p99_ms: ms(0.99),
    })
}

/// A job that says when it was sent.
fn envelope(id: Option<&str>) -> String {
    let id = id.map(|id| format!(r#""id":"{id}","#)).unwrap_or_default();
    let now = clock::unix_us();
    format!(r#"{{{id}"kind":"bench.noop","args":{{"sent_us":{now}}}}}"#)
}
