//! The gate against plants of known capacity, beside the limiters others use: a simulation of
//! discrete events, the same for the same seeds. `docs/GATE.md` explains it and has its table.
//!
//! `cargo test --test sim` runs a short form, some of the plants the constants were chosen on, and
//! fails if something became worse. `make sim` runs the plants they were not chosen on (`--long`),
//! prints the tables, writes what happened second by second (`--csv DIR`), draws some of it
//! (`--plots DIR`), and ends with one line of JSON. `--tune` shows the other plants in full;
//! `--spread FIRST LAST` sums up as many draws of plants as one likes, for the gate alone; `--breakers` shows the breakers alone.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    missing_docs
)]

mod breaker;
mod plant;
mod plants;
mod plot;
mod policy;
mod rivals;
mod scenario;
mod score;
mod spread;
mod trace;
mod world;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use policy::Who;
use rivals::Kind;
use scenario::Scenario;
use score::{Row, Verdict};
use world::Outcome;

/// Seeds of a long run; a short one takes the first.
const SEEDS: [u64; 3] = [11, 23, 47];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let place = |flag: &str| arguments.iter().position(|argument| argument == flag);
    let after = |flag: &str, more: usize| place(flag).and_then(|at| arguments.get(at + more));
    if let (Some(first), Some(last)) = (after("--spread", 1), after("--spread", 2)) {
        spread::print(first.parse().unwrap()..=last.parse().unwrap());
        return ExitCode::SUCCESS;
    }
    if place("--long").is_some() || place("--tune").is_some() {
        let scenarios = match place("--tune") {
            Some(_) => plants::tuning(),
            None => plants::held_out(),
        };
        let runs = run_all(&scenarios, &SEEDS);
        if let Some(folder) = after("--csv", 1) {
            trace::write(folder, &scenarios, &runs);
        }
        if let Some(folder) = after("--plots", 1) {
            plot::draw(folder, &scenarios, &runs);
        }
        let rows = rows(&scenarios, &runs);
        print_table(&rows);
        if place("--long").is_some() {
            breaker::print();
        }
        let (verdict, best) = score::verdict(&rows);
        println!("\nBest of the others: {}\n", best.name());
        println!("{}", serde_json::to_string(&verdict).unwrap());
        return ExitCode::SUCCESS;
    }
    if place("--breakers").is_some() {
        breaker::print();
        return ExitCode::SUCCESS;
    }
    let filters: Vec<_> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    if !filters.is_empty() && !filters.iter().any(|filter| "sim".contains(filter.as_str())) {
        return ExitCode::SUCCESS;
    }
    short()
}

/// The first draw of the tuning plants, with one seed, beside the best of the others alone.
fn short() -> ExitCode {
    let scenarios = plants::short();
    let best = Who::Rival(Kind::Vegas);
    let runs = run(&scenarios, &SEEDS[..1], &[Who::Oracle, Who::Ours, best]);
    let rows = rows(&scenarios, &runs);
    let (verdict, _) = score::verdict(&rows);
    let mut worse: Vec<String> = worse(&verdict).into_iter().map(str::to_owned).collect();
    worse.extend(breaker::worse());
    if worse.is_empty() {
        println!("sim: ok {}", serde_json::to_string(&verdict).unwrap());
        return ExitCode::SUCCESS;
    }
    print_table(&rows);
    eprintln!("{verdict:?} is worse than it was: {}", worse.join(", "));
    ExitCode::FAILURE
}

/// What has become worse. The bounds are what is wanted; for the excess, which is not reached, what
/// is reached and a little more.
fn worse(verdict: &Verdict) -> Vec<&'static str> {
    let bounds = [
        ("throughput", verdict.throughput_ratio >= 0.9),
        ("excess", verdict.excess_ratio <= 0.42),
        ("reversals", verdict.reversals_per_min <= 2.0),
        ("settling", verdict.settle_s <= 30.0),
        ("starvation of critical", verdict.critical_starved == 0),
    ];
    let worse = bounds.into_iter().filter(|(_, kept)| !kept);
    worse.map(|(what, _)| what).collect()
}

/// The runs of one scenario and policy, by seed.
struct Runs {
    scenario: usize,
    who: Who,
    outcomes: Vec<Outcome>,
}

fn run_all(scenarios: &[Scenario], seeds: &[u64]) -> Vec<Runs> {
    let everyone = [Who::Oracle, Who::Ours].into_iter().chain(Who::RIVALS);
    run(scenarios, seeds, &everyone.collect::<Vec<_>>())
}

/// Runs all of them, on all processors.
fn run(scenarios: &[Scenario], seeds: &[u64], everyone: &[Who]) -> Vec<Runs> {
    let jobs: Vec<(usize, Who)> = everyone
        .iter()
        .flat_map(|who| (0..scenarios.len()).map(move |scenario| (scenario, *who)))
        .collect();
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some((scenario, who)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let run = |seed: &u64| world::run(&scenarios[*scenario], *who, *seed);
            let outcomes = seeds.iter().map(run).collect();
            let runs = Runs {
                scenario: *scenario,
                who: *who,
                outcomes,
            };
            done.lock().unwrap().push(runs);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    done.into_inner().unwrap()
}

/// What came of one scenario with one policy.
fn outcomes(runs: &[Runs], scenario: usize, who: Who) -> &[Outcome] {
    let found = runs
        .iter()
        .find(|run| run.scenario == scenario && run.who == who);
    &found.unwrap().outcomes
}

/// Scenario by scenario, ours first.
fn rows(scenarios: &[Scenario], runs: &[Runs]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (index, scenario) in scenarios.iter().enumerate() {
        let oracle = outcomes(runs, index, Who::Oracle);
        let here = |who: &Who| runs.iter().any(|run| run.who == *who);
        let rivals = Who::RIVALS.into_iter().filter(here);
        for who in [Who::Ours].into_iter().chain(rivals) {
            rows.push(score::row(
                scenario,
                who,
                outcomes(runs, index, who),
                oracle,
            ));
        }
    }
    rows
}

fn print_table(rows: &[Row]) {
    println!(
        "| plant | policy | throughput ÷ oracle | excess job-s | reversals/min | settle s | starved | failed calls |"
    );
    println!("|---|---|---:|---:|---:|---:|---:|---:|");
    let number = |value: Option<f64>| value.map_or("–".to_owned(), |x| format!("{x:.1}"));
    for row in rows {
        println!(
            "| {} | {} | {:.3} | {:.0} | {} | {} | {} | {} |",
            row.scenario,
            row.who.name(),
            row.throughput,
            row.excess,
            number(row.reversals_per_min),
            number(row.settle_s),
            row.starved,
            row.failed,
        );
    }
}
