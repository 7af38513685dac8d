//! What happened second by second, as CSV: one file for each plant and policy, of the first seed
//! and the first operation.

use crate::Runs;
use crate::scenario::Scenario;

/// Writes all of them into a folder.
pub fn write(folder: &str, scenarios: &[Scenario], runs: &[Runs]) {
    std::fs::create_dir_all(folder).unwrap();
    for run in runs {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let plant: String = scenarios[run.scenario].name.chars().map(plain).collect();
        let mut lines = String::from("second,capacity,limit,load,latency_ms\n");
        for (second, at) in run.outcomes[0].trace[0].iter().enumerate() {
            let ms = |seconds: f64| format!("{:.1}", seconds * 1_000.0);
            lines += &format!(
                "{second},{:.1},{:.0},{:.2},{}\n",
                at.capacity,
                at.limit,
                at.load,
                at.latency.map_or(String::new(), ms)
            );
        }
        let path = format!("{folder}/{plant}.{}.csv", run.who.name());
        std::fs::write(path, lines).unwrap();
    }
}
