//! How far the results spread: many draws of plants, for the gate alone. One draw is one sample
//! of what may come; this tells how often a goal is missed on others.

use std::ops::RangeInclusive;

use crate::policy::Who;
use crate::score::{self, Row};
use crate::{SEEDS, plants};

/// What is wanted: throughput at least, reversals and settling at most.
const WANTED: (f64, f64, f64) = (0.9, 2.0, 30.0);

/// Runs the draws and prints a line for each kind of plant.
pub fn print(draws: RangeInclusive<u64>) {
    let plants: Vec<_> = draws.map(plants::draw).collect();
    let kinds = plants.first().map_or(0, Vec::len);
    println!(
        "| kind (first of {}) | throughput: mean, worst | below 90% | reversals/min: mean, worst | above 2 | settle s: mean, worst | above 30 | starved |",
        plants.len()
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|");
    let mut missed = [0; 4];
    for kind in 0..kinds {
        let scenarios: Vec<_> = plants.iter().map(|draw| draw[kind].clone()).collect();
        let runs = crate::run(&scenarios, &SEEDS, &[Who::Oracle, Who::Ours]);
        let rows: Vec<Row> = (0..scenarios.len())
            .map(|index| {
                let of = |who| crate::outcomes(&runs, index, who);
                score::row(&scenarios[index], Who::Ours, of(Who::Ours), of(Who::Oracle))
            })
            .collect();
        let low = rows.iter().filter(|row| row.throughput < WANTED.0).count();
        let reversals = Column::of(rows.iter().map(|row| row.reversals_per_min), WANTED.1);
        let settle = Column::of(rows.iter().map(|row| row.settle_s), WANTED.2);
        let starved = rows.iter().filter(|row| row.starved > 0).count();
        let throughput = rows.iter().map(|row| row.throughput);
        println!(
            "| {} | {:.3}, {:.3} | {low} | {} | {} | {} | {} | {starved} |",
            rows[0].scenario,
            throughput.clone().sum::<f64>() / rows.len() as f64,
            throughput.fold(f64::INFINITY, f64::min),
            reversals.text,
            reversals.missed,
            settle.text,
            settle.missed,
        );
        let more = [low, reversals.missed, settle.missed, starved];
        missed
            .iter_mut()
            .zip(more)
            .for_each(|(all, one)| *all += one);
    }
    let count = kinds * plants.len();
    println!(
        "\nOf {count} plants: {} below in throughput, {} above in reversals, {} in settling, {} with a starved job.",
        missed[0], missed[1], missed[2], missed[3]
    );
}

/// A number that not every kind of plant has.
struct Column {
    text: String,
    missed: usize,
}

impl Column {
    fn of(values: impl Iterator<Item = Option<f64>>, most: f64) -> Self {
        let values: Vec<f64> = values.flatten().collect();
        if values.is_empty() {
            return Self {
                text: "–".to_owned(),
                missed: 0,
            };
        }
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let worst = values.iter().copied().fold(0.0, f64::max);
        Self {
            text: format!("{mean:.1}, {worst:.1}"),
            missed: values.iter().filter(|value| **value > most).count(),
        }
    }
}
