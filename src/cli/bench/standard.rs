//! The standard measurement: rates beside the raw loop, pickup, and what a daemon costs.

use super::bed::Bed;
use super::figures::Figures;
use super::process::DaemonProcess;
use super::{ROUNDS, idle, load, median, pickup, raw, say, scene};
use crate::cli::CliError;
use std::time::Duration;

/// How long a daemon is left alone before its idle memory is read.
const IDLE: Duration = Duration::from_secs(2);
/// Pickups measured for each way in.
const PICKUPS: usize = 1_000;

/// Rates and memory of one round.
struct Round {
    raw: f64,
    push: f64,
    drain: f64,
    inbox: f64,
    overhead: f64,
}

/// One measurement after the other, each on an empty queue. What a busy neighbour can spoil is measured in rounds, so
/// that raw loop and daemon meet the same neighbours, and the median counts.
pub(super) async fn measure(jobs: u64, concurrency: u64, bed: &Bed) -> Result<Figures, CliError> {
    say("enqueue script, 1,000 a call");
    let enqueue = load::enqueue_rate(bed, jobs).await?;
    bed.clear().await?;

    let mut daemon = DaemonProcess::start(bed, concurrency, &[scene::plain_kind()]).await?;
    tokio::time::sleep(IDLE).await;
    let rss_idle = daemon.memory()?;
    say("what an idle daemon costs");
    let idle = idle::measure(bed, &daemon).await?;
    say("pickup by an idle daemon");
    let by_inbox = pickup::by_inbox(bed, &mut daemon, PICKUPS).await?;
    let by_script = pickup::by_script(bed, &mut daemon, PICKUPS).await?;

    let mut rounds = Vec::with_capacity(ROUNDS);
    for number in 1..=ROUNDS {
        say(&format!(
            "raw loop, drain, full inbox: round {number} of {ROUNDS}"
        ));
        rounds.push(round(bed, &mut daemon, jobs).await?);
    }
    let rss_peak = daemon.peak_memory()?;
    daemon.stop().await?;
    let median = |of: fn(&Round) -> f64| median(rounds.iter().map(of));
    Ok(Figures {
        concurrency,
        raw_jobs_per_s: median(|r| r.raw),
        enqueue_jobs_per_s: enqueue,
        inbox_push_per_s: median(|r| r.push),
        drain_jobs_per_s: median(|r| r.drain),
        inbox_jobs_per_s: median(|r| r.inbox),
        pickup_inbox_p50_ms: by_inbox.p50_ms,
        pickup_inbox_p99_ms: by_inbox.p99_ms,
        pickup_script_p50_ms: by_script.p50_ms,
        pickup_script_p99_ms: by_script.p99_ms,
        overhead_bytes_per_job: median(|r| r.overhead),
        idle_round_trips_per_s: idle.round_trips_per_s,
        idle_core_percent: idle.core_percent,
        rss_idle_mb: rss_idle,
        rss_peak_mb: rss_peak,
    })
}

async fn round(bed: &Bed, daemon: &mut DaemonProcess, jobs: u64) -> Result<Round, CliError> {
    let raw = raw::run(bed, jobs).await?;

    // Admitted, but not claimed: then from there to settled.
    daemon.quiet().await?;
    let before = load::memory(bed).await?;
    load::push(bed, load::Into::Inbox, jobs, load::plain).await?;
    load::until_admitted(bed, jobs).await?;
    let overhead = load::overhead_per_job(bed, before, jobs).await?;
    let goal = load::settled(bed).await? + jobs;
    daemon.go().await?;
    let drain = load::rate_until_settled(bed, jobs, goal).await?;

    // All in the inbox at once: from there to settled.
    let push = load::push(bed, load::Into::Aside, jobs, load::plain).await?;
    let goal = goal + jobs;
    load::fill_inbox_at_once(bed).await?;
    let inbox = load::rate_until_settled(bed, jobs, goal).await?;
    Ok(Round {
        raw,
        push,
        drain,
        inbox,
        overhead,
    })
}
