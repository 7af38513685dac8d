//! What is measured of a run.

use serde::Serialize;

use crate::policy::Who;
use crate::scenario::Scenario;
use crate::world::{Outcome, Second};

/// The load has settled once its mean over so many seconds …
const SETTLED_S: usize = 10;
/// … is no less than this share of the capacity, and no more than that (and one job).
const SETTLED: (f64, f64) = (0.8, 1.25);

/// One row: a scenario, a policy, all seeds.
#[derive(Debug, Clone)]
pub struct Row {
    pub who: Who,
    pub scenario: String,
    pub throughput: f64,
    pub excess: f64,
    pub reversals_per_min: Option<f64>,
    pub settle_s: Option<f64>,
    pub starved: u64,
    pub failed: u64,
}

/// The last line.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// Done ÷ done by the oracle, on the worst plant.
    pub throughput_ratio: f64,
    /// Job-seconds beyond the capacity over all plants ÷ those of the best other.
    pub excess_ratio: f64,
    /// Changes of direction in steady state, on the worst plant.
    pub reversals_per_min: f64,
    /// Seconds from a step to the new load, the worst of all.
    pub settle_s: f64,
    /// `critical` jobs that waited too long, all together.
    pub critical_starved: u64,
}

pub fn row(scenario: &Scenario, who: Who, runs: &[Outcome], oracle: &[Outcome]) -> Row {
    let done = |runs: &[Outcome]| runs.iter().map(|run| run.done).sum::<u64>() as f64;
    let count = runs.len() as f64;
    let worst = |values: Vec<f64>| values.into_iter().max_by(f64::total_cmp);
    Row {
        who,
        scenario: scenario.name.clone(),
        throughput: done(runs) / done(oracle),
        excess: runs.iter().map(|run| run.excess).sum::<f64>() / count,
        reversals_per_min: scenario.steady.and_then(|span| {
            worst(
                runs.iter()
                    .map(|run| reversals(run, scenario, span))
                    .collect(),
            )
        }),
        settle_s: worst(runs.iter().flat_map(|run| settles(run, scenario)).collect()),
        starved: runs.iter().map(|run| run.starved).sum(),
        failed: runs.iter().map(|run| run.failed).sum(),
    }
}

/// Changes of direction of the limit per minute.
fn reversals(run: &Outcome, scenario: &Scenario, (from, to): (f64, f64)) -> f64 {
    let per_second = run.limits.len() as f64 / scenario.seconds;
    let range = (from * per_second) as usize..((to * per_second) as usize).min(run.limits.len());
    let limits = &run.limits[range];
    let moves: Vec<bool> = limits
        .windows(2)
        .filter(|pair| pair[0] != pair[1])
        .map(|pair| pair[1] > pair[0])
        .collect();
    let turns = moves.windows(2).filter(|pair| pair[0] != pair[1]).count();
    turns as f64 / ((to - from) / 60.0)
}

/// Seconds each step took; up to the next step or the end if it never settled.
fn settles(run: &Outcome, scenario: &Scenario) -> Vec<f64> {
    let trace = &run.trace[0];
    let ends = scenario
        .steps
        .iter()
        .skip(1)
        .copied()
        .chain([scenario.seconds]);
    let settle = |(step, end): (&f64, f64)| {
        let (from, to) = (*step as usize + 1, (end as usize).min(trace.len()));
        let settled =
            (from..to.saturating_sub(SETTLED_S)).find(|at| is_settled(&trace[*at..at + SETTLED_S]));
        settled.unwrap_or(to) as f64 - step
    };
    scenario.steps.iter().zip(ends).map(settle).collect()
}

fn is_settled(seconds: &[Second]) -> bool {
    let count = seconds.len() as f64;
    let load = seconds.iter().map(|s| s.load).sum::<f64>() / count;
    let capacity = seconds[0].capacity;
    (capacity * SETTLED.0..=capacity * SETTLED.1 + 1.0).contains(&load)
}

/// The last line, and which other was the best: the one with the least excess of those that did
/// their work, 80% of the oracle's on the whole. (Whoever runs one job at a time is never in
/// excess.)
pub fn verdict(rows: &[Row]) -> (Verdict, Who) {
    let of = |who: Who| rows.iter().filter(move |row| row.who == who);
    let excess = |who: Who| of(who).map(|row| row.excess).sum::<f64>();
    let mean = |who: Who| of(who).map(|row| row.throughput).sum::<f64>() / of(who).count() as f64;
    let best = Who::RIVALS
        .into_iter()
        .filter(|who| mean(*who) >= 0.8)
        .min_by(|a, b| excess(*a).total_cmp(&excess(*b)))
        .unwrap_or(Who::RIVALS[0]);
    let ours = || of(Who::Ours);
    let worst = |values: Vec<Option<f64>>| values.into_iter().flatten().fold(0.0, f64::max);
    let verdict = Verdict {
        throughput_ratio: rounded(
            ours()
                .map(|row| row.throughput)
                .fold(f64::INFINITY, f64::min),
        ),
        excess_ratio: rounded(excess(Who::Ours) / excess(best)),
        reversals_per_min: rounded(worst(ours().map(|row| row.reversals_per_min).collect())),
        settle_s: rounded(worst(ours().map(|row| row.settle_s).collect())),
        critical_starved: ours().map(|row| row.starved).sum(),
    };
    (verdict, best)
}

fn rounded(x: f64) -> f64 {
    (x * 1_000.0).round() / 1_000.0
}
