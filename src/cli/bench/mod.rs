//! `tidegate bench`: what this machine does, measured in one run, beside a bare loop on the same Redis.
//!
//! Owns: what is measured, in which order, and the words for it. The daemon runs in a process of its own, as it would
//! be deployed: gate on, leases, default logs (to a file) and default history.

mod bed;
mod figures;
mod load;
mod pickup;
mod process;
mod raw;
mod worker;

use super::{CliError, Global, Report};
use bed::Bed;
use figures::Figures;
use process::DaemonProcess;
use std::io::Write;
use std::time::Duration;

/// How long a daemon is left alone before its idle memory is read.
const IDLE: Duration = Duration::from_secs(2);
/// Pickups measured for each way in.
const PICKUPS: usize = 1_000;

const EXAMPLES: &str = "\
Examples:
  tidegate bench                               on a Redis of its own, about half a minute
  tidegate bench --jobs 1000000 --json         more jobs, for programs
  tidegate bench --appendonly                  with an append-only file, synced every second
  tidegate bench --redis redis://10.0.0.7/0    on a given server, under a prefix of its own

The handler does nothing, so that what is measured is Tidegate and Redis. Both run on this machine unless --redis says
otherwise, and share its cores.";

/// Flags of `tidegate bench`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Jobs per measurement
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    jobs: u64,
    /// Jobs the daemon may run at once
    #[arg(long, value_name = "N", default_value_t = 1_024, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    concurrency: u64,
    /// Use this server instead of a private one
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// Let the private server keep an append-only file, synced every second
    #[arg(long, conflicts_with = "redis")]
    appendonly: bool,
    /// The daemon that is measured; `bench` starts it itself
    #[arg(long, hide = true)]
    worker: bool,
}

/// Measures, and leaves nothing behind, interrupted or not.
///
/// # Errors
/// A server or the daemon could not be started, or Redis failed.
pub async fn run(args: Args, global: &Global) -> Result<Report, CliError> {
    if args.worker {
        return worker::run(global).await;
    }
    let bed = Bed::make(args.redis.clone(), args.appendonly).await?;
    let measured = tokio::select! {
        measured = measure(&args, &bed) => measured,
        _ = tokio::signal::ctrl_c() => Err(failed("interrupted")),
    };
    bed.clear().await?;
    measured?.report()
}

/// One measurement after the other, each on an empty queue.
async fn measure(args: &Args, bed: &Bed) -> Result<Figures, CliError> {
    let jobs = args.jobs;
    say("raw loop: payload hash, running hash, batches of 256, no daemon");
    let raw = raw::run(bed, jobs).await?;
    say("enqueue script, 1,000 a call");
    let enqueue = load::enqueue_rate(bed, jobs).await?;
    bed.clear().await?;

    let mut daemon = DaemonProcess::start(bed, args.concurrency).await?;
    tokio::time::sleep(IDLE).await;
    let rss_idle = daemon.memory()?;
    say("pickup by an idle daemon");
    let by_inbox = pickup::by_inbox(bed, &mut daemon, PICKUPS).await?;
    let by_script = pickup::by_script(bed, &mut daemon, PICKUPS).await?;

    say("drain: from admitted to settled");
    let before = load::memory(bed).await?;
    daemon.quiet().await?;
    load::push(bed, load::Into::Inbox, jobs).await?;
    load::until_admitted(bed, jobs).await?;
    let overhead = load::overhead_per_job(bed, before, jobs).await?;
    let goal = load::settled(bed).await? + jobs;
    daemon.go().await?;
    let drain = load::rate_until_settled(bed, jobs, goal).await?;

    say("inbox: from a full inbox to settled");
    let push = load::push(bed, load::Into::Aside, jobs).await?;
    let goal = load::settled(bed).await? + jobs;
    load::fill_inbox_at_once(bed).await?;
    let inbox = load::rate_until_settled(bed, jobs, goal).await?;

    let rss_peak = daemon.peak_memory()?;
    daemon.stop().await?;
    Ok(Figures {
        concurrency: args.concurrency,
        raw_jobs_per_s: raw,
        enqueue_jobs_per_s: enqueue,
        inbox_push_per_s: push,
        drain_jobs_per_s: drain,
        inbox_jobs_per_s: inbox,
        pickup_inbox_p50_ms: by_inbox.p50_ms,
        pickup_inbox_p99_ms: by_inbox.p99_ms,
        pickup_script_p50_ms: by_script.p50_ms,
        pickup_script_p99_ms: by_script.p99_ms,
        overhead_bytes_per_job: overhead,
        rss_idle_mb: rss_idle,
        rss_peak_mb: rss_peak,
    })
}

/// Progress, for whoever watches.
fn say(what: &str) {
    // With nobody to tell, the figures still count.
    let _ = writeln!(std::io::stderr(), "bench: {what}");
}

fn failed(error: impl std::fmt::Display) -> CliError {
    CliError::failed("bench", error.to_string())
}
