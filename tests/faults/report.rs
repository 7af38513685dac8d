//! The table of a run, for people and for programs.

use crate::row::{Plan, Row, RowResult};
use serde_json::{Value, json};
use std::fmt::Write;
use std::time::Duration;

/// One row as it is told.
pub struct Line {
    pub number: u8,
    pub fault: &'static str,
    pub result: RowResult,
}

impl Line {
    pub fn of(row: &Row, result: RowResult) -> Self {
        Self {
            number: row.number,
            fault: row.fault,
            result,
        }
    }

    fn sums(&self) -> (usize, u64, usize) {
        let verdicts = &self.result.verdicts;
        (
            verdicts.iter().map(|v| v.lost).sum(),
            verdicts.iter().map(|v| v.duplicated).sum(),
            verdicts.iter().map(|v| v.stale).sum(),
        )
    }

    fn slowest_recovery(&self) -> Option<Duration> {
        self.result.verdicts.iter().filter_map(|v| v.recovery).max()
    }

    fn slowest_drain(&self) -> Option<Duration> {
        self.result.verdicts.iter().map(|v| v.drain).max()
    }

    fn row(&self) -> String {
        if let Some(why) = &self.result.not_run {
            return format!(
                "| {} | {} | not run: {why} | | | | | |",
                self.number, self.fault
            );
        }
        let (lost, duplicated, stale) = self.sums();
        let seconds = |d: Option<Duration>| {
            d.map_or_else(|| "-".to_owned(), |d| format!("{:.1} s", d.as_secs_f64()))
        };
        format!(
            "| {} | {} | {} | {} | {lost} | {duplicated} | {stale} | {} | {} |",
            self.number,
            self.fault,
            self.result.verdicts.len() + self.result.failed.len(),
            self.result.failed.len(),
            seconds(self.slowest_recovery()),
            seconds(self.slowest_drain()),
        )
    }

    fn json(&self) -> Value {
        let (lost, duplicated, stale) = self.sums();
        let ms = |d: Option<Duration>| d.map(|d| d.as_millis() as u64);
        json!({
            "row": self.number,
            "fault": self.fault,
            "not_run": self.result.not_run,
            "trials": self.result.verdicts.len() + self.result.failed.len(),
            "failed": self.result.failed.iter().map(|(seed, why)| json!({"seed": seed, "why": why})).collect::<Vec<_>>(),
            "lost": lost,
            "duplicated": duplicated,
            "stale_refused": stale,
            "slowest_recovery_ms": ms(self.slowest_recovery()),
            "slowest_drain_ms": ms(self.slowest_drain()),
        })
    }
}

/// The table as it stands in the documentation.
pub fn table(lines: &[Line]) -> String {
    let mut text = "| row | fault | trials | failed | lost | duplicated | stale refused | slowest recovery | slowest drain |\n|---|---|---|---|---|---|---|---|---|\n".to_owned();
    for line in lines {
        writeln!(text, "{}", line.row()).unwrap();
    }
    text
}

/// The same for programs.
pub fn json(lines: &[Line], plan: Plan, seconds: u64) -> Value {
    json!({
        "seed": plan.seed,
        "trials_per_row": plan.trials,
        "seconds": seconds,
        "rows": lines.iter().map(Line::json).collect::<Vec<_>>(),
    })
}
