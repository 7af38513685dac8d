//! What the gate costs: the same jobs drained with it and without, in turns, and daemons with nothing to do.
//!
//! Without it means all of it off: no samples, no breakers, no limiters. Both daemons have a Postgres, which the one with the gate samples.

use super::bed::Bed;
use super::load::{self, Into};
use super::process::DaemonProcess;
use super::{failed, say};
use crate::cli::{CliError, Report, output};
use crate::clock;
use crate::stack::{PostgresOptions, PrivatePostgres};
use serde::Serialize;
use std::time::Duration;

/// Turns of each drain; in one each daemon drains twice: with, without, without, with.
const TURNS: usize = 5;
/// Drains before what is counted: a limiter begins with few jobs at once, and takes some seconds of work to find that all
/// slots are well used.
const WARM_UPS: usize = 12;
/// How long an idle daemon is watched, in each of its two turns.
const WATCH: Duration = Duration::from_secs(15);
/// How long it is left alone before that.
const SETTLE: Duration = Duration::from_secs(3);
/// The configuration without.
const OFF: &str = "[gate]\nmode = \"off\"\n[gate.reserve]\nshare = 0.0\n[breaker]\nmode = \"off\"\n\
    [limiter]\nmode = \"off\"\n[retry_budget]\nmode = \"off\"\n[forecast]\nmode = \"off\"\n";

/// What one run measures. The names are those of `--json`.
#[derive(Debug, Serialize)]
pub(super) struct GateFigures {
    jobs: u64,
    concurrency: u64,
    drains: Vec<Drains>,
    idle: Idle,
}

/// Drains of the same number of jobs with the gate and without.
#[derive(Debug, Serialize)]
struct Drains {
    what: &'static str,
    gate_jobs_per_s: f64,
    off_jobs_per_s: f64,
    /// Of the pairs: the middle one, the worst, the best.
    ratio: f64,
    ratio_least: f64,
    ratio_most: f64,
    /// Processor time of the daemon for each job, over all drains.
    gate_cpu_us: f64,
    off_cpu_us: f64,
}

/// One drain.
#[derive(Debug, Clone, Copy)]
struct Drain {
    jobs_per_s: f64,
    cpu: Duration,
}

/// Percent of a core.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Cores {
    daemon: f64,
    redis: f64,
    postgres: f64,
}

/// Nothing to do.
#[derive(Debug, Serialize)]
struct Idle {
    watched_s: f64,
    gate: Cores,
    off: Cores,
}

impl GateFigures {
    pub(super) fn report(&self) -> Result<Report, CliError> {
        let json = serde_json::to_value(self).map_err(failed)?;
        let drains = self.drains.iter().map(|d| {
            let text = format!(
                "{:.0} jobs/s with the gate, {:.0} without: {:.3} of it ({:.3} to {:.3}); {:.2} and {:.2} µs of the daemon a job",
                d.gate_jobs_per_s,
                d.off_jobs_per_s,
                d.ratio,
                d.ratio_least,
                d.ratio_most,
                d.gate_cpu_us,
                d.off_cpu_us
            );
            (d.what, text)
        });
        let core = |of: fn(&Cores) -> f64| {
            let (gate, off) = (of(&self.idle.gate), of(&self.idle.off));
            format!(
                "{gate:.2}% of a core with the gate, {off:.2}% without: {:+.2}",
                gate - off
            )
        };
        let idle = [
            ("daemon, idle", core(|c| c.daemon)),
            ("its Redis meanwhile", core(|c| c.redis)),
            ("its Postgres meanwhile", core(|c| c.postgres)),
        ];
        let lines: Vec<(&str, String)> = drains.chain(idle).collect();
        Ok(Report::new(json, output::pairs(&lines)))
    }
}

/// The drains of jobs that need nothing, those of jobs that declare a resource, then the idle daemons.
pub(super) async fn measure(
    jobs: u64,
    concurrency: u64,
    bed: &Bed,
) -> Result<GateFigures, CliError> {
    say("a Postgres of our own");
    let postgres = start_postgres(bed).await?;
    let database = format!("[database]\nurl = \"{}\"\n", postgres.url("app"));
    let with = database.clone();
    let without = format!("{database}{OFF}");
    let mut drains = Vec::new();
    for kind in [Kind::Plain, Kind::OnPostgres] {
        let on = Side::set(bed.beside("on"), concurrency, kind, &with).await?;
        let off = Side::set(bed.beside("off"), concurrency, kind, &without).await?;
        drains.push(in_turns(jobs, kind, on, off).await?);
    }
    let idle = idle(bed, concurrency, &postgres, &with, &without).await?;
    Ok(GateFigures {
        jobs,
        concurrency,
        drains,
        idle,
    })
}

async fn start_postgres(bed: &Bed) -> Result<PrivatePostgres, CliError> {
    let options = PostgresOptions::new(bed.dir().join("postgres"));
    let start = move || {
        let server = PrivatePostgres::start(options)?;
        server.create_database("app")?;
        Ok::<_, crate::stack::StackError>(server)
    };
    let started = tokio::task::spawn_blocking(start).await;
    started.map_err(failed)?.map_err(failed)
}

/// What is drained.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Plain,
    OnPostgres,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Plain => "jobs without resources",
            Self::OnPostgres => "jobs on postgres:primary",
        }
    }

    fn definition(self) -> String {
        let resources = match self {
            Self::Plain => "",
            Self::OnPostgres => "resources = [\"postgres:primary\"]\n",
        };
        format!(
            "kind = \"bench.noop\"\nhandler = \"noop\"\n{resources}\n[args]\nn = {{ type = \"integer\" }}\n"
        )
    }
}

/// One of the two daemons. It claims nothing between drains.
struct Side {
    bed: Bed,
    daemon: DaemonProcess,
}

impl Side {
    async fn set(bed: Bed, concurrency: u64, kind: Kind, settings: &str) -> Result<Self, CliError> {
        let definitions = [kind.definition()];
        let mut daemon =
            DaemonProcess::start_with(&bed, concurrency, &definitions, settings).await?;
        daemon.quiet().await?;
        Ok(Self { bed, daemon })
    }

    /// From "go" until all have ended that were admitted before. The other daemon stands still meanwhile.
    async fn drain(&mut self, jobs: u64, other: &Self) -> Result<Drain, CliError> {
        load::push(&self.bed, Into::Inbox, jobs, load::plain).await?;
        load::until_admitted(&self.bed, jobs).await?;
        let goal = load::settled(&self.bed).await? + jobs;
        other.daemon.freeze()?;
        let before = self.daemon.cpu()?;
        self.daemon.go().await?;
        let rate = load::rate_until_settled(&self.bed, jobs, goal).await;
        let cpu = self.daemon.cpu()?.saturating_sub(before);
        other.daemon.thaw()?;
        self.daemon.quiet().await?;
        rate.map(|jobs_per_s| Drain { jobs_per_s, cpu })
    }
}

async fn in_turns(jobs: u64, kind: Kind, mut on: Side, mut off: Side) -> Result<Drains, CliError> {
    for number in 1..=WARM_UPS {
        say(&format!(
            "{}: warming up, {number} of {WARM_UPS}",
            kind.name()
        ));
        on.drain(jobs, &off).await?;
        off.drain(jobs, &on).await?;
    }
    let mut pairs = Vec::with_capacity(2 * TURNS);
    for number in 1..=TURNS {
        say(&format!("{}: turn {number} of {TURNS}", kind.name()));
        let first = on.drain(jobs, &off).await?;
        pairs.push((first, off.drain(jobs, &on).await?));
        let first = off.drain(jobs, &on).await?;
        pairs.push((on.drain(jobs, &off).await?, first));
    }
    on.daemon.stop().await?;
    off.daemon.stop().await?;
    on.bed.clear().await?;
    off.bed.clear().await?;
    summed_up(jobs, kind, &pairs)
}

fn summed_up(jobs: u64, kind: Kind, pairs: &[(Drain, Drain)]) -> Result<Drains, CliError> {
    let sorted = |of: fn(&(Drain, Drain)) -> f64| {
        let mut all: Vec<f64> = pairs.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all
    };
    let ratios = sorted(|(on, off)| on.jobs_per_s / off.jobs_per_s);
    let [least, .., most] = ratios[..] else {
        return Err(failed("too few drains"));
    };
    let jobs = jobs as f64 * pairs.len() as f64;
    let cpu_us = |of: fn(&(Drain, Drain)) -> Duration| {
        let used: Duration = pairs.iter().map(of).sum();
        used.as_secs_f64() * 1e6 / jobs
    };
    Ok(Drains {
        what: kind.name(),
        gate_jobs_per_s: middle(&sorted(|(on, _)| on.jobs_per_s)),
        off_jobs_per_s: middle(&sorted(|(_, off)| off.jobs_per_s)),
        ratio: middle(&ratios),
        ratio_least: least,
        ratio_most: most,
        gate_cpu_us: cpu_us(|(on, _)| on.cpu),
        off_cpu_us: cpu_us(|(_, off)| off.cpu),
    })
}

/// The middle of sorted values; of an even number the mean of the two in the middle.
fn middle(sorted: &[f64]) -> f64 {
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    let half = sorted.len() / 2;
    match sorted.len() % 2 {
        0 => f64::midpoint(at(half.saturating_sub(1)), at(half)),
        _ => at(half),
    }
}

/// Daemons that have nothing to do, one at a time: with, without, without, with.
async fn idle(
    bed: &Bed,
    concurrency: u64,
    postgres: &PrivatePostgres,
    with: &str,
    without: &str,
) -> Result<Idle, CliError> {
    let servers = Servers {
        redis: bed.redis_pid(),
        postgres: postgres.pid(),
    };
    let (mut gate, mut off) = (Cores::default(), Cores::default());
    let turns = [(true, 1), (false, 2), (false, 3), (true, 4)];
    for (has_gate, number) in turns {
        say(&format!(
            "a daemon with nothing to do: {number} of {}",
            turns.len()
        ));
        let settings = if has_gate { with } else { without };
        let bed = bed.beside("idle");
        let definitions = [Kind::OnPostgres.definition()];
        let daemon = DaemonProcess::start_with(&bed, concurrency, &definitions, settings).await?;
        let used = servers.watch(&daemon).await?;
        let sum = if has_gate { &mut gate } else { &mut off };
        sum.daemon += used.daemon / 2.0;
        sum.redis += used.redis / 2.0;
        sum.postgres += used.postgres / 2.0;
        daemon.stop().await?;
        bed.clear().await?;
    }
    Ok(Idle {
        watched_s: 2.0 * WATCH.as_secs_f64(),
        gate,
        off,
    })
}

/// The process ids of the servers that are ours.
struct Servers {
    redis: Option<u32>,
    postgres: Option<u32>,
}

impl Servers {
    /// What daemon and servers use while nothing is to be done.
    async fn watch(&self, daemon: &DaemonProcess) -> Result<Cores, CliError> {
        tokio::time::sleep(SETTLE).await;
        let (start, before) = (clock::monotonic(), self.used(daemon)?);
        tokio::time::sleep(WATCH).await;
        let (took, after) = (clock::since(start), self.used(daemon)?);
        let [daemon, redis, postgres] = [0, 1, 2].map(|n| {
            let used = after[n].saturating_sub(before[n]);
            100.0 * used.div_duration_f64(took)
        });
        Ok(Cores {
            daemon,
            redis,
            postgres,
        })
    }

    fn used(&self, daemon: &DaemonProcess) -> Result<[Duration; 3], CliError> {
        let of =
            |pid: Option<u32>| pid.map_or(Ok(Duration::ZERO), super::process::cpu_with_children);
        Ok([daemon.cpu()?, of(self.redis)?, of(self.postgres)?])
    }
}
