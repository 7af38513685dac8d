//! `tidegate bench`: what this machine does, measured in one run, beside a bare loop on the same Redis.
//!
//! Owns: what is measured, in which order, and the words for it. The daemon runs in a process of its own, as it would
//! be deployed: gate on, leases, default logs (to a file) and default history.

mod bed;
mod figures;
mod load;
mod outbox;
mod pickup;
mod process;
mod raw;
mod worker;

use super::{CliError, Global, Report};
use bed::Bed;
use figures::Figures;
use futures::StreamExt;
use process::DaemonProcess;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook_tokio::Signals;
use std::io::Write;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

/// How long a daemon is left alone before its idle memory is read.
const IDLE: Duration = Duration::from_secs(2);
/// Pickups measured for each way in.
const PICKUPS: usize = 1_000;
/// Rounds of raw loop, drain and full inbox; an odd number.
const ROUNDS: usize = 3;

/// Jobs per measurement, unless told otherwise, and the range of it.
const DEFAULT_JOBS: u64 = 200_000;
const JOBS: RangeInclusive<u64> = 1_000..=10_000_000;

const EXAMPLES: &str = "\
Examples:
  tidegate bench                               on a Redis of its own, about half a minute
  tidegate bench --jobs 1000000 --json         more jobs, for programs
  tidegate bench --appendonly                  with an append-only file, synced every second
  tidegate bench --outbox                      only the relay of the outbox, with a Postgres of its own
  tidegate bench --redis redis://10.0.0.7/0    on a given server, under a prefix of its own

The handler does nothing, so that what is measured is Tidegate and Redis. Both run on this machine unless --redis says
otherwise, and share its cores.";

/// Flags of `tidegate bench`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    // The global flag of that name is a folder of definitions, and there is none here: the same id takes its place, and
    // so must have its type.
    /// Jobs per measurement [default: 200000]
    #[arg(long, value_name = "N")]
    jobs: Option<PathBuf>,
    /// Jobs the daemon may run at once
    #[arg(long, value_name = "N", default_value_t = 1_024, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    concurrency: u64,
    /// Use this server instead of a private one
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// Let the private server keep an append-only file, synced every second
    #[arg(long, conflicts_with = "redis")]
    appendonly: bool,
    /// Measure how fast one relay moves rows of the outbox, and nothing else; --jobs is the number of rows
    #[arg(long)]
    outbox: bool,
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
    let jobs = args.count()?;
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
    let bed = Bed::make(args.redis.clone(), args.appendonly).await?;
    let measured = async {
        if args.outbox {
            outbox::measure(jobs, &bed).await
        } else {
            measure(jobs, args.concurrency, &bed).await?.report()
        }
    };
    let measured = tokio::select! {
        measured = measured => measured,
        _ = signals.next() => Err(failed("interrupted")),
    };
    bed.clear().await?;
    measured
}

impl Args {
    /// Jobs per measurement.
    fn count(&self) -> Result<u64, CliError> {
        // From the environment it can only be the folder.
        let folder = std::env::var_os("TIDEGATE_JOBS").map(PathBuf::from);
        let Some(given) = self
            .jobs
            .as_ref()
            .filter(|given| folder.as_ref() != Some(*given))
        else {
            return Ok(DEFAULT_JOBS);
        };
        let count = given.to_str().and_then(|text| text.parse().ok());
        count.filter(|count| JOBS.contains(count)).ok_or_else(|| {
            let (least, most) = JOBS.into_inner();
            CliError::Usage(format!("--jobs is a number here, from {least} to {most}"))
        })
    }
}

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
async fn measure(jobs: u64, concurrency: u64, bed: &Bed) -> Result<Figures, CliError> {
    say("enqueue script, 1,000 a call");
    let enqueue = load::enqueue_rate(bed, jobs).await?;
    bed.clear().await?;

    let mut daemon = DaemonProcess::start(bed, concurrency).await?;
    tokio::time::sleep(IDLE).await;
    let rss_idle = daemon.memory()?;
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
    let median = |of: fn(&Round) -> f64| {
        let mut all: Vec<f64> = rounds.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
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
        rss_idle_mb: rss_idle,
        rss_peak_mb: rss_peak,
    })
}

async fn round(bed: &Bed, daemon: &mut DaemonProcess, jobs: u64) -> Result<Round, CliError> {
    let raw = raw::run(bed, jobs).await?;

    // Admitted, but not claimed: then from there to settled.
    daemon.quiet().await?;
    let before = load::memory(bed).await?;
    load::push(bed, load::Into::Inbox, jobs).await?;
    load::until_admitted(bed, jobs).await?;
    let overhead = load::overhead_per_job(bed, before, jobs).await?;
    let goal = load::settled(bed).await? + jobs;
    daemon.go().await?;
    let drain = load::rate_until_settled(bed, jobs, goal).await?;

    // All in the inbox at once: from there to settled.
    let push = load::push(bed, load::Into::Aside, jobs).await?;
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

/// Progress, for whoever watches.
fn say(what: &str) {
    // With nobody to tell, the figures still count.
    let _ = writeln!(std::io::stderr(), "bench: {what}");
}

fn failed(error: impl std::fmt::Display) -> CliError {
    CliError::failed("bench", error.to_string())
}
