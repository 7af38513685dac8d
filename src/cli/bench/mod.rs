//! `tidegate bench`: what this machine does, measured in one run, beside a bare loop on the same Redis.
//!
//! Owns: what is measured, in which order, and the words for it. The daemon runs in a process of its own, as it would
//! be deployed: gate on, leases, default logs (to a file) and default history.

mod bed;
mod figures;
mod flat;
mod gate;
mod idle;
mod load;
mod outbox;
mod pickup;
mod process;
mod raw;
mod scene;
mod standard;
mod worker;

use super::{CliError, Global, Report};
use bed::Bed;
use futures::StreamExt;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook_tokio::Signals;
use std::io::Write;
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// Rounds of whatever a busy neighbour can spoil; an odd number.
const ROUNDS: usize = 3;

/// Jobs per measurement, unless told otherwise, and the range of it.
const DEFAULT_JOBS: u64 = 200_000;
const JOBS: RangeInclusive<u64> = 1_000..=10_000_000;

const EXAMPLES: &str = "\
Examples:
  tidegate bench                               on a Redis of its own, under a minute
  tidegate bench --jobs 1000000 --json         more jobs, for programs
  tidegate bench --appendonly                  with an append-only file, synced every second
  tidegate bench --flat                        the same jobs with millions more in the queue, a few minutes
  tidegate bench --flat=tenants                one part of that
  tidegate bench --gate                        what the gate costs, with it and without in turns, some four minutes
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
    /// Measure how fast jobs drain with much else in the queue, each time beside a drain without it: 50 times as many
    /// jobs waiting as are drained (beside 5 times as many), 5 times as many delayed, half as many parked, jobs of 10,000
    /// tenants that take turns (beside 100), jobs of 1,000 kinds (beside 10); all of these, or the one that is named
    #[arg(long, value_name = "WHAT", conflicts_with = "outbox", num_args = 0..=1, require_equals = true, default_missing_value = "all")]
    flat: Option<flat::Part>,
    /// Measure what the gate costs: drains with gate, breakers and limiters and without, in turns, of jobs that declare a
    /// resource and of jobs that do not; and daemons with nothing to do, with a Postgres of their own
    #[arg(long, conflicts_with_all = ["outbox", "flat"])]
    gate: bool,
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
    let measured = tokio::select! {
        measured = measure(&args, jobs, &bed) => measured,
        _ = signals.next() => Err(failed("interrupted")),
    };
    bed.clear().await?;
    measured
}

async fn measure(args: &Args, jobs: u64, bed: &Bed) -> Result<Report, CliError> {
    if args.outbox {
        outbox::measure(jobs, bed).await
    } else if args.gate {
        let figures = gate::measure(jobs, args.concurrency, bed).await?;
        figures.report()
    } else if let Some(part) = args.flat {
        let figures = flat::measure(part, jobs, args.concurrency, bed).await?;
        figures.report()
    } else {
        let figures = standard::measure(jobs, args.concurrency, bed).await?;
        figures.report()
    }
}

/// The middle one of an odd number of values.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut all: Vec<f64> = values.collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
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

/// Progress, for whoever watches.
fn say(what: &str) {
    // With nobody to tell, the figures still count.
    let _ = writeln!(std::io::stderr(), "bench: {what}");
}

fn failed(error: impl std::fmt::Display) -> CliError {
    CliError::failed("bench", error.to_string())
}
