//! The gate against plants of known capacity, beside the limiters others use: a simulation of
//! discrete events, the same for the same seeds. `docs/GATE.md` explains it and has its table.
//!
//! `cargo test --test sim` runs a short form, the plants the constants were chosen on with one
//! seed, and fails if something became worse. `make sim` runs the plants they were not chosen on
//! (`--long`), prints the tables, writes what happened second by second (`--csv DIR`), and ends
//! with one line of JSON. `--tune` shows the other plants in full, `--breakers` the breakers alone.

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
mod policy;
mod rivals;
mod scenario;
mod score;
mod world;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use policy::Who;
use scenario::Scenario;
use score::{Row, Verdict};
use world::{Outcome, Second};

/// Seeds of a long run; a short one takes the first.
const SEEDS: [u64; 3] = [11, 23, 47];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if has("--long") || has("--tune") {
        let scenarios = if has("--tune") {
            scenario::tuning()
        } else {
            scenario::held_out()
        };
        let runs = run_all(&scenarios, &SEEDS);
        if let Some(place) = arguments.iter().position(|argument| argument == "--csv") {
            write_traces(&arguments[place + 1], &scenarios, &runs);
        }
        let rows = rows(&scenarios, &runs);
        print_table(&rows);
        if has("--long") {
            breaker::print();
        }
        let (verdict, best) = score::verdict(&rows);
        println!("\nBest of the others: {}\n", best.name());
        println!("{}", serde_json::to_string(&verdict).unwrap());
        return ExitCode::SUCCESS;
    }
    if has("--breakers") {
        breaker::print();
        return ExitCode::SUCCESS;
    }
    let filters: Vec<_> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    if !filters.is_empty() && !filters.iter().any(|filter| "sim".contains(filter.as_str())) {
        return ExitCode::SUCCESS;
    }
    short()
}

/// The tuning plants with one seed.
fn short() -> ExitCode {
    let scenarios = scenario::tuning();
    let runs = run_all(&scenarios, &SEEDS[..1]);
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

/// What has become worse on the tuning plants. The bounds are what is promised or, where that is
/// not reached yet, what is reached and a little more; `docs/GATE.md` says which.
fn worse(verdict: &Verdict) -> Vec<&'static str> {
    let bounds = [
        ("throughput", verdict.throughput_ratio >= 0.85),
        ("excess", verdict.excess_ratio <= 0.3),
        ("reversals", verdict.reversals_per_min <= 2.0),
        ("settling", verdict.settle_s <= 60.0),
        ("starvation of critical", verdict.critical_starved == 0),
    ];
    let worse = bounds.into_iter().filter(|(_, kept)| !kept);
    worse.map(|(what, _)| what).collect()
}

/// One file per plant and policy, of the first seed and the first operation.
fn write_traces(folder: &str, scenarios: &[Scenario], runs: &[Runs]) {
    std::fs::create_dir_all(folder).unwrap();
    for run in runs {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let plant: String = scenarios[run.scenario].name.chars().map(plain).collect();
        let mut lines = String::from("second,capacity,limit,load,latency_ms\n");
        for (second, at) in run.outcomes[0].trace[0].iter().enumerate() {
            let latency = at
                .latency
                .map_or(String::new(), |x| format!("{:.1}", x * 1_000.0));
            let Second {
                capacity,
                limit,
                load,
                ..
            } = at;
            lines += &format!("{second},{capacity:.1},{limit:.0},{load:.2},{latency}\n");
        }
        let path = format!("{folder}/{plant}.{}.csv", run.who.name());
        std::fs::write(path, lines).unwrap();
    }
}

/// The runs of one scenario and policy, by seed.
struct Runs {
    scenario: usize,
    who: Who,
    outcomes: Vec<Outcome>,
}

fn run_all(scenarios: &[Scenario], seeds: &[u64]) -> Vec<Runs> {
    let everyone = [Who::Oracle, Who::Ours].into_iter().chain(Who::RIVALS);
    let jobs: Vec<(usize, Who)> = everyone
        .flat_map(|who| (0..scenarios.len()).map(move |scenario| (scenario, who)))
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

/// Scenario by scenario, ours first.
fn rows(scenarios: &[Scenario], runs: &[Runs]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (index, scenario) in scenarios.iter().enumerate() {
        let of = |who: Who| {
            runs.iter()
                .find(|run| run.scenario == index && run.who == who)
                .unwrap()
        };
        let oracle = &of(Who::Oracle).outcomes;
        for who in [Who::Ours].into_iter().chain(Who::RIVALS) {
            rows.push(score::row(scenario, who, &of(who).outcomes, oracle));
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
