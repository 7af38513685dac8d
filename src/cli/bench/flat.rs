//! How fast the same jobs drain with much else in the queue, each time beside a drain without it.

use super::bed::Bed;
use super::load::{self, Into};
use super::process::DaemonProcess;
use super::scene::Scene;
use super::{ROUNDS, failed, median, say};
use crate::cli::{CliError, Report, output};
use serde::Serialize;

/// Which of the scenes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Part {
    All,
    Delayed,
    Parked,
    Tenants,
    Kinds,
    Waiting,
}

/// What one run measures. The names are those of `--json`.
#[derive(Debug, Serialize)]
pub(super) struct FlatFigures {
    jobs: u64,
    concurrency: u64,
    scenes: Vec<Pair>,
}

/// Two drains of the same number of jobs, in turn.
#[derive(Debug, Serialize)]
struct Pair {
    scene: String,
    jobs_per_s: f64,
    beside: String,
    beside_jobs_per_s: f64,
    ratio: f64,
}

impl FlatFigures {
    pub(super) fn report(&self) -> Result<Report, CliError> {
        let json = serde_json::to_value(self).map_err(failed)?;
        let lines = self.scenes.iter().map(|pair| {
            let text = format!(
                "{:.0} jobs/s, {:.2} of the {:.0} with {}",
                pair.jobs_per_s, pair.ratio, pair.beside_jobs_per_s, pair.beside
            );
            (pair.scene.as_str(), text)
        });
        Ok(Report::new(json, output::pairs(&lines.collect::<Vec<_>>())))
    }
}

/// One pair of scenes after the other.
pub(super) async fn measure(
    part: Part,
    jobs: u64,
    concurrency: u64,
    bed: &Bed,
) -> Result<FlatFigures, CliError> {
    let pairs = [
        (Part::Delayed, Scene::Delayed(5 * jobs), Scene::Plain),
        (Part::Parked, Scene::Parked(jobs / 2), Scene::Plain),
        (Part::Tenants, Scene::Tenants(100), Scene::Plain),
        (Part::Tenants, Scene::Tenants(10_000), Scene::Tenants(100)),
        (Part::Kinds, Scene::Kinds(10), Scene::Plain),
        (Part::Kinds, Scene::Kinds(1_000), Scene::Kinds(10)),
        (
            Part::Waiting,
            Scene::Waiting(50 * jobs),
            Scene::Waiting(5 * jobs),
        ),
    ];
    let mut scenes = Vec::with_capacity(pairs.len());
    for (_, scene, beside) in pairs
        .into_iter()
        .filter(|(of, ..)| part == Part::All || part == *of)
    {
        say(&format!("{}, beside {}", scene.name(), beside.name()));
        scenes.push(in_turn(jobs, concurrency, bed, scene, beside).await?);
    }
    Ok(FlatFigures {
        jobs,
        concurrency,
        scenes,
    })
}

/// Both scenes at once, each under a prefix and with a daemon of its own, of which one at a time has work: so both meet
/// the same neighbours.
async fn in_turn(
    jobs: u64,
    concurrency: u64,
    bed: &Bed,
    scene: Scene,
    beside: Scene,
) -> Result<Pair, CliError> {
    let mut first = Stage::set(bed.beside("first"), concurrency, beside).await?;
    let mut second = Stage::set(bed.beside("second"), concurrency, scene).await?;
    let mut rates = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        rates.push((first.drain(jobs).await?, second.drain(jobs).await?));
    }
    first.strike().await?;
    second.strike().await?;
    let beside_jobs_per_s = median(rates.iter().map(|(first, _)| *first));
    let jobs_per_s = median(rates.iter().map(|(_, second)| *second));
    Ok(Pair {
        scene: scene.name(),
        jobs_per_s,
        beside: beside.name(),
        beside_jobs_per_s,
        ratio: jobs_per_s / beside_jobs_per_s,
    })
}

/// A scene that is set, with its daemon, which claims nothing between drains.
struct Stage {
    scene: Scene,
    bed: Bed,
    daemon: DaemonProcess,
}

impl Stage {
    async fn set(bed: Bed, concurrency: u64, scene: Scene) -> Result<Self, CliError> {
        let mut daemon = DaemonProcess::start(&bed, concurrency, &scene.definitions()).await?;
        if scene.held() == 0 {
            daemon.quiet().await?;
        }
        scene.prepare(&bed).await?;
        daemon.quiet().await?;
        Ok(Self { scene, bed, daemon })
    }

    /// Jobs per second, from "go" until so many jobs have ended that were admitted before.
    async fn drain(&mut self, jobs: u64) -> Result<f64, CliError> {
        let standing = load::admitted(&self.bed).await?;
        load::push(&self.bed, Into::Inbox, jobs, |n| self.scene.job(n)).await?;
        load::until_admitted(&self.bed, standing + jobs).await?;
        let goal = load::settled(&self.bed).await? + jobs;
        self.daemon.go().await?;
        let rate = load::rate_until_settled(&self.bed, jobs, goal).await?;
        self.daemon.quiet().await?;
        load::until_running(&self.bed, self.scene.held()).await?;
        Ok(rate)
    }

    async fn strike(self) -> Result<(), CliError> {
        // What holds slots would be waited for.
        drop(self.daemon);
        self.bed.clear().await
    }
}
