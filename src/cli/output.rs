//! What a command answers, and how it is printed.
//!
//! Text from jobs is anybody's: it reaches a terminal only with its control characters escaped.

use super::error::{CliError, exit};
use crate::telemetry::escape;
use serde_json::Value;
use std::io::Write;
use std::time::Duration;

/// What a command answers, in both forms.
#[derive(Debug, Default)]
pub struct Report {
    /// For programs. Null: nothing is printed.
    pub json: Value,
    /// For people; escaped when it is printed, but for the ends of lines.
    pub text: String,
    /// Why the exit code is 1 though there is an answer.
    pub failure: Option<String>,
    /// The exit code where it is not the command's own but that of a program it ran.
    pub code: Option<u8>,
}

impl Report {
    /// An answer in both forms.
    pub fn new(json: Value, text: impl Into<String>) -> Self {
        Self {
            json,
            text: text.into(),
            failure: None,
            code: None,
        }
    }

    /// A command that has nothing to say at its end.
    #[must_use]
    pub fn silent() -> Self {
        Self::default()
    }

    /// The same, but the command failed, for this reason.
    #[must_use]
    pub fn failing(self, failure: Option<String>) -> Self {
        Self { failure, ..self }
    }

    /// The same, with the exit code of a program that was run.
    #[must_use]
    pub fn exiting(self, code: u8) -> Self {
        Self {
            code: Some(code),
            ..self
        }
    }

    /// The exit code.
    #[must_use]
    pub const fn exit(&self) -> u8 {
        match (self.code, &self.failure) {
            (Some(code), _) => code,
            (None, None) => exit::OK,
            (None, Some(_)) => exit::FAILED,
        }
    }
}

/// Prints an answer: to standard output what was asked for, to standard error what went wrong.
pub(super) fn print(answer: &Result<Report, CliError>, json: bool) {
    let failure = match answer {
        Ok(report) => {
            if json && !report.json.is_null() {
                print_json(&report.json);
            } else if !json && !report.text.is_empty() {
                print_lines(std::io::stdout(), "", &report.text);
            }
            report.failure.clone()
        }
        Err(error) => {
            if json {
                print_json(&error.to_json());
            }
            Some(error.to_string())
        }
    };
    if let Some(failure) = failure {
        print_lines(std::io::stderr(), "error: ", &failure);
    }
}

/// One object on one line.
pub(super) fn print_json(json: &Value) {
    // A reader that went away (`| head`) is no error of ours.
    let _ = writeln!(std::io::stdout(), "{json}");
}

fn print_lines(mut to: impl Write, prefix: &str, text: &str) {
    for line in text.lines() {
        if writeln!(to, "{prefix}{}", escape(line)).is_err() {
            return;
        }
    }
}

/// How far long work is, for whoever watches: to standard error.
pub(super) fn progress(text: &str) {
    print_lines(std::io::stderr(), "", text);
}

/// Rows under their headings, each column as wide as its widest cell. Numbers stand to the right.
pub(super) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let headings: Vec<String> = headings.iter().map(|h| (*h).to_owned()).collect();
    // Escaped here already, so that the widths are those of what is printed; escaping again changes nothing.
    let cell = |cell: &String| escape(cell).into_owned();
    let mut lines: Vec<Vec<String>> = vec![headings];
    lines.extend(rows.iter().map(|row| row.iter().map(cell).collect()));
    let columns = lines[0].len();
    let width = |c: usize| {
        lines
            .iter()
            .filter_map(|l| l.get(c))
            .map(|x| x.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns).map(|c| width(c).unwrap_or(0)).collect();
    let numeric = |c: usize| {
        rows.iter().all(|row| {
            row.get(c)
                .is_some_and(|x| x == "-" || x.parse::<u64>().is_ok())
        })
    };
    let numeric: Vec<bool> = (0..columns).map(numeric).collect();
    let mut text = String::new();
    for line in &lines {
        let mut printed = String::new();
        for ((cell, width), numeric) in line.iter().zip(&widths).zip(&numeric) {
            let pad = " ".repeat(width.saturating_sub(cell.chars().count()));
            let (before, after) = if *numeric {
                (pad.as_str(), "")
            } else {
                ("", pad.as_str())
            };
            printed.push_str(&format!("{before}{cell}{after}  "));
        }
        text.push_str(printed.trim_end());
        text.push('\n');
    }
    text
}

/// Names and values, one pair a line, the values aligned.
pub(super) fn pairs(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    pairs
        .iter()
        .map(|(name, value)| format!("{name:width$}  {}\n", escape(value)))
        .collect()
}

/// How long something took or lasts, in at most two units: `3m 20s`, `250ms`.
pub(super) fn age(ms: u64) -> String {
    if ms < 1_000 {
        return format!("{ms}ms");
    }
    let whole = humantime::format_duration(Duration::from_secs(ms / 1_000)).to_string();
    let units: Vec<&str> = whole.split(' ').take(2).collect();
    units.join(" ")
}

/// An amount of memory: `512B`, `3.4MiB`.
pub(super) fn bytes(n: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if n < 1_024 {
        return format!("{n}B");
    }
    let (mut amount, mut unit) = (n as f64 / 1_024.0, 0);
    while amount >= 1_024.0 && unit + 1 < UNITS.len() {
        amount /= 1_024.0;
        unit += 1;
    }
    format!("{amount:.1}{}", UNITS[unit])
}

/// The beginning of a text that is too long for a table.
pub(super) fn brief(text: &str, max: usize) -> String {
    let mut cut: String = text.chars().take(max).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told_in_the_largest_unit() {
        assert_eq!(bytes(1_023), "1023B");
        assert_eq!(bytes(3_565_158), "3.4MiB");
        assert_eq!(bytes(u64::MAX), "16777216.0TiB");
    }

    #[test]
    fn ages_have_two_units_at_most() {
        assert_eq!(age(250), "250ms");
        assert_eq!(age(200_999), "3m 20s");
        assert_eq!(age(90_061_000), "1day 1h");
    }

    #[test]
    fn a_table_is_aligned_and_hostile_cells_are_escaped() {
        let rows = [
            vec!["a".to_owned(), "7".to_owned()],
            vec!["b\u{1b}[2J\n".to_owned(), "1000".to_owned()],
        ];
        assert_eq!(
            table(&["name", "n"], &rows),
            "name                 n\n\
             a                    7\n\
             b\\u001b[2J\\u000a  1000\n"
        );
    }
}
