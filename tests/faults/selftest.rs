//! Whether the suite finds anything: builds with a deliberate defect, each of which a row must catch.

use crate::bed::Program;
use crate::build;
use crate::row::{Broken, Failure, Plan, with_program};
use crate::rows;
use tokio::sync::Semaphore;

/// A defect, and the row that catches it.
pub struct Flaw {
    /// As the broken build knows it.
    pub name: &'static str,
    row: u8,
    /// The invariants that may be what fails.
    by: &'static [&'static str],
}

pub const FLAWS: &[Flaw] = &[
    Flaw {
        name: "no-token-check",
        row: 3,
        by: &["I1", "I3", "I4", "I7"],
    },
    Flaw {
        name: "settled-first",
        row: 1,
        by: &["I1"],
    },
    Flaw {
        name: "own-clock",
        row: 17,
        by: &["I5"],
    },
    Flaw {
        name: "no-rescue",
        row: 1,
        by: &["I6"],
    },
];

/// Trials in which a flaw must show: not every one hits the moment at which it matters.
const TRIALS: u64 = 8;

impl Flaw {
    /// Runs trials of its row until one fails for the right reason; says which.
    pub async fn is_caught(&self, plan: Plan, places: &Semaphore) -> Result<String, String> {
        let path = build::broken().await.map_err(|e| format!("{e:?}"))?;
        let program = Program {
            path: path.display().to_string(),
            env: vec![("BROKEN_DAEMON".to_owned(), self.name.to_owned())],
        };
        let row = rows::row(self.row);
        let mut seen = Vec::new();
        for seed in (0..TRIALS).map(|n| plan.seed.wrapping_add(n)) {
            let _place = places.acquire().await;
            match with_program(program.clone(), row.draw(seed)).await {
                Err(Failure::Broken(Broken(problems))) => {
                    let caught = problems
                        .iter()
                        .find(|p| self.by.iter().any(|i| p.starts_with(i)));
                    if let Some(problem) = caught {
                        return Ok(format!(
                            "caught by row {}, seed {seed}: {problem}",
                            self.row
                        ));
                    }
                    seen.push(problems.join("; "));
                }
                Err(Failure::NotRun(why)) => {
                    return Err(format!("row {} can't run here: {why}", self.row));
                }
                Err(Failure::NotFired(what)) => seen.push(format!("not fired: {what}")),
                Ok(_) => seen.push("nothing wrong was found".to_owned()),
            }
        }
        Err(format!(
            "{} was not caught by row {} in {TRIALS} trials: {}",
            self.name,
            self.row,
            seen.join(" | ")
        ))
    }
}

/// The program under test was built without the defects.
pub fn holds_no_flaw() -> Result<(), String> {
    let word = b"BROKEN_DAEMON";
    let program = std::fs::read(Program::current().path).map_err(|e| e.to_string())?;
    if program.windows(word.len()).any(|w| w == word) {
        return Err("the program under test was built with the feature `broken`".to_owned());
    }
    Ok(())
}
