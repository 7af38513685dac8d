//! What went wrong with a job so far: kept from the first failure, snooze or crash on.

use serde::{Deserialize, Serialize};

/// The longest error text that is stored, in bytes.
pub const MAX_ERROR_BYTES: usize = 4096;
/// How many of the last errors are stored.
pub const MAX_ERRORS: usize = 10;

/// A job's troubles. A job that never had any has none stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Attempts that ended as failures.
    #[serde(default)]
    pub attempts: u32,
    /// Deliveries whose daemon died before it could say how they ended.
    #[serde(default)]
    pub crashes: u32,
    /// Times it was put off without burning an attempt.
    #[serde(default)]
    pub snoozes: u32,
    /// The last errors, the oldest first.
    #[serde(default)]
    pub errors: Vec<AttemptError>,
}

/// One stored error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptError {
    /// When, in milliseconds since the epoch.
    pub at: u64,
    /// Which attempt failed, from 1.
    pub attempt: u32,
    /// What it said, cut to 4 KiB.
    pub error: String,
}

impl History {
    /// Adds a failed attempt.
    pub fn fail(&mut self, at: u64, error: &str) {
        self.attempts = self.attempts.saturating_add(1);
        self.note(at, self.attempts, error);
    }

    /// Adds a delivery that ended with the death of its daemon.
    pub fn crash(&mut self, at: u64, error: &str) {
        self.crashes = self.crashes.saturating_add(1);
        self.note(at, self.attempts.saturating_add(1), error);
    }

    fn note(&mut self, at: u64, attempt: u32, error: &str) {
        self.errors.push(AttemptError {
            at,
            attempt,
            error: cut(error, MAX_ERROR_BYTES).to_owned(),
        });
        let excess = self.errors.len().saturating_sub(MAX_ERRORS);
        self.errors.drain(..excess);
    }
}

/// The longest prefix of `text` that fits in `max` bytes without splitting a character.
#[must_use]
pub fn cut(text: &str, max: usize) -> &str {
    if text.len() <= max {
        return text;
    }
    let mut end = max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_ten_errors_each_cut_to_four_kib() {
        let mut history = History::default();
        for n in 0..12_u64 {
            history.fail(n, &"é".repeat(10_000));
        }
        history.crash(99, "gone");
        assert_eq!(history.attempts, 12);
        assert_eq!(history.crashes, 1);
        assert_eq!(history.errors.len(), MAX_ERRORS);
        assert_eq!(history.errors[0].at, 3);
        assert_eq!(history.errors[0].error.len(), MAX_ERROR_BYTES);
        assert_eq!(history.errors[9].attempt, 13);
    }
}
