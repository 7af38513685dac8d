//! A row of the fault matrix: its trials, and what came of them.

use crate::bed::Program;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use std::time::Duration;
use tokio::sync::Semaphore;

/// How often a trial whose fault found nothing to hit is drawn anew.
const DRAWS: u64 = 3;

/// No trial takes longer, unless something hangs.
const LONGEST: Duration = Duration::from_secs(180);

/// One fault of the matrix.
pub struct Row {
    /// Its number in the matrix.
    pub number: u8,
    /// A word for filters.
    pub name: &'static str,
    /// What is done to the system.
    pub fault: &'static str,
    pub trial: fn(u64) -> BoxFuture<'static, Outcome>,
}

/// What one trial came to.
pub type Outcome = Result<Verdict, Failure>;

/// What was measured in a trial in which every invariant held.
#[derive(Debug, Clone, Copy, Default)]
pub struct Verdict {
    /// Acknowledged jobs that are gone: only in a row whose terms say that this is not promised.
    pub lost: usize,
    /// Runs of attempts that had run before.
    pub duplicated: u64,
    /// Settlements of daemons that had lost their lease, refused.
    pub stale: usize,
    /// From the fault until others had what the victim held.
    pub recovery: Option<Duration>,
    /// From the end of the fault until nothing was left to do.
    pub drain: Duration,
}

/// Why a trial gave no verdict.
#[derive(Debug)]
pub enum Failure {
    /// A guarantee did not hold.
    Broken(Broken),
    /// The fault found nothing to hit: nothing was proven.
    NotFired(String),
    /// This machine can't produce the fault.
    NotRun(String),
}

/// The guarantees that did not hold, in words.
#[derive(Debug)]
pub struct Broken(pub Vec<String>);

impl Broken {
    pub fn new(what: impl Into<String>) -> Self {
        Self(vec![what.into()])
    }
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

/// Fails a trial whose fault did not show.
pub fn fired(it_did: bool, what: &str) -> Result<(), Failure> {
    if it_did {
        Ok(())
    } else {
        Err(Failure::NotFired(what.to_owned()))
    }
}

/// What a row came to.
#[derive(Debug, Default)]
pub struct RowResult {
    pub verdicts: Vec<Verdict>,
    /// Seed and reasons of each trial that failed.
    pub failed: Vec<(u64, String)>,
    /// Why it can't run here.
    pub not_run: Option<String>,
}

/// How many trials, from which seed, how many at once.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub trials: u64,
    pub seed: u64,
    pub at_once: usize,
}

impl Row {
    /// Runs the trials of this row; those of all rows share `places`.
    pub async fn run(&self, plan: Plan, places: &Semaphore) -> RowResult {
        let each = (0..plan.trials).map(|n| plan.seed.wrapping_add(n));
        let outcomes: Vec<(u64, Outcome)> = stream::iter(each)
            .map(|seed| async move {
                let _place = places.acquire().await;
                (seed, self.draw(seed).await)
            })
            .buffer_unordered(plan.at_once)
            .collect()
            .await;
        let mut result = RowResult::default();
        for (seed, outcome) in outcomes {
            match outcome {
                Ok(verdict) => result.verdicts.push(verdict),
                Err(Failure::NotRun(why)) => result.not_run = Some(why),
                Err(Failure::NotFired(what)) => {
                    let why = format!("the fault did not fire: {what}");
                    result.failed.push((seed, why));
                }
                Err(Failure::Broken(Broken(what))) => result.failed.push((seed, what.join("\n  "))),
            }
        }
        result
    }

    /// One trial, drawn anew if its fault found nothing to hit.
    pub async fn draw(&self, seed: u64) -> Outcome {
        let mut outcome = self.once(seed).await;
        for draw in 1..DRAWS {
            if !matches!(outcome, Err(Failure::NotFired(_))) {
                break;
            }
            outcome = self.once(seed ^ (draw << 48)).await;
        }
        outcome
    }

    /// One trial, in a task of its own, so that a panic is a failure like any other.
    async fn once(&self, seed: u64) -> Outcome {
        // Rows draw different numbers from the same seed.
        let trial = with_program(
            program(),
            (self.trial)(seed ^ (u64::from(self.number) << 56)),
        );
        match tokio::spawn(tokio::time::timeout(LONGEST, trial)).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(Broken::new(format!("it was not over after {LONGEST:?}")).into()),
            Err(e) => {
                let text = match e.try_into_panic() {
                    Ok(panic) => panic_text(&*panic),
                    Err(e) => e.to_string(),
                };
                Err(Broken::new(text).into())
            }
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
        .unwrap_or_else(|| "a panic without words".to_owned())
}

tokio::task_local! {
    static PROGRAM: Program;
}

/// The daemon under test: this build, unless another one was chosen for the trial.
pub fn program() -> Program {
    PROGRAM
        .try_with(Clone::clone)
        .unwrap_or_else(|_| Program::current())
}

/// Runs trials with another program.
pub async fn with_program<T>(program: Program, trials: impl Future<Output = T>) -> T {
    PROGRAM.scope(program, trials).await
}
