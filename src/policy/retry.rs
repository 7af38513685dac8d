//! When a failed job is tried again, and when it is given up.
//!
//! Owns the `[retry]` section of a job definition: its form, ranges and formulas. It must not know
//! handlers or the queue. How many attempts failed, the error's text and the random number are
//! handed in.

use std::time::Duration;

use regex::Regex;
use serde::{Deserialize, Deserializer};

use crate::config::duration;

/// The most attempts a job may be given; also the envelope's limit.
pub const MAX_ATTEMPTS: u32 = 1_000;
/// The longest wait a policy may ask for.
pub const MAX_DELAY: Duration = Duration::from_secs(365 * 86_400);
/// The longest wait a *handler* may ask for, a `Retry-After` for instance: another party wrote
/// that number, so it is trusted less than the definition. A larger `max` raises it.
pub const MAX_ASKED_DELAY: Duration = Duration::from_secs(86_400);

const BASE_RANGE: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(86_400);
const FACTOR_RANGE: std::ops::RangeInclusive<f64> = 1.0..=100.0;
const MAX_LISTED_DELAYS: usize = 100;
const MAX_PATTERNS: usize = 100;
const MAX_PATTERN_BYTES: usize = 1_000;

/// How the wait grows from attempt to attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// `base × factor^(n-1)` after the n-th failure.
    #[default]
    Exponential,
    /// `base × n`.
    Linear,
    /// `base`.
    Fixed,
    /// The n-th of `delays`; the last repeats.
    Delays,
}

/// How much of the wait is left to chance, so that jobs that failed together do not return together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Jitter {
    /// Anywhere between zero and the wait: spreads best.
    #[default]
    Full,
    /// At least half of the wait.
    Equal,
    /// The wait exactly.
    None,
}

/// The `[retry]` section of a job definition. What it leaves out has the defaults of
/// [`RetryPolicy::default`]; call [`RetryPolicy::validate`] after reading one.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryPolicy {
    /// Attempts in all, the first included: 1 to [`MAX_ATTEMPTS`].
    pub max_attempts: u32,
    /// How the wait grows.
    pub strategy: Strategy,
    /// The first wait: 1 ms to one day.
    #[serde(with = "duration")]
    pub base: Duration,
    /// Growth per attempt of the exponential strategy: 1 to 100.
    pub factor: f64,
    /// No computed wait is longer: `base` to [`MAX_DELAY`].
    #[serde(with = "duration")]
    pub max: Duration,
    /// How much of the wait is left to chance.
    pub jitter: Jitter,
    /// The waits of the `delays` strategy, 1 to 100, none above `max`; empty for the others.
    #[serde(with = "duration::list")]
    pub delays: Vec<Duration>,
    /// If given, only errors that match one of these regular expressions are tried again.
    #[serde(deserialize_with = "retry_on")]
    pub retry_on: Option<Vec<Regex>>,
    /// Errors that match one of these end the job at once; stronger than `retry_on`.
    #[serde(deserialize_with = "fatal_on")]
    pub fatal_on: Vec<Regex>,
}

impl Default for RetryPolicy {
    /// 20 attempts (as Oban; Sidekiq, Asynq and River have 25), 15 s doubling up to 4 h, full
    /// jitter: an outage of a day and more is ridden out, on average.
    fn default() -> Self {
        Self {
            max_attempts: 20,
            strategy: Strategy::Exponential,
            base: Duration::from_secs(15),
            factor: 2.0,
            max: Duration::from_secs(4 * 3_600),
            jitter: Jitter::Full,
            delays: Vec::new(),
            retry_on: None,
            fatal_on: Vec::new(),
        }
    }
}

/// What to do with a job whose attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Try again after this wait.
    RetryIn(Duration),
    /// Give it up.
    Dead {
        /// Why, for the log and the dead set; without the error's own text.
        reason: String,
    },
}

impl RetryPolicy {
    /// Checks all ranges.
    ///
    /// # Errors
    /// One sentence per bad field, each beginning with the field's name.
    pub fn validate(&self) -> Result<(), Vec<String>> {
        let mut errors = Vec::new();
        let mut check = |holds: bool, error: &str| {
            if !holds {
                errors.push(error.to_owned());
            }
        };
        check(
            (1..=MAX_ATTEMPTS).contains(&self.max_attempts),
            "max_attempts: want 1 to 1000, the first attempt included",
        );
        check(BASE_RANGE.contains(&self.base), "base: want 1ms to 1day");
        check(FACTOR_RANGE.contains(&self.factor), "factor: want 1 to 100");
        check(self.max <= MAX_DELAY, "max: want at most 365days");
        if self.strategy == Strategy::Delays {
            let count = self.delays.len();
            check(
                (1..=MAX_LISTED_DELAYS).contains(&count),
                "delays: want 1 to 100 entries",
            );
            let fits = self.delays.iter().all(|delay| *delay <= self.max);
            check(fits, "delays: an entry is longer than max; raise max");
        } else {
            check(self.base <= self.max, "max: is shorter than base");
            check(
                self.delays.is_empty(),
                "delays: only with strategy = \"delays\"",
            );
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(errors)
        }
    }

    /// The wait after `failed_attempt` (1 for the first). `unit` is random in `[0, 1)`.
    ///
    /// Full jitter: `d × unit`; equal: `d/2 + d/2 × unit`; with d as [`Strategy`] says, never
    /// above `max`. Total for every argument: nothing overflows.
    pub fn delay(&self, failed_attempt: u32, unit: f64) -> Duration {
        let wait = self.wait(failed_attempt.max(1)).min(self.max);
        let unit = unit.clamp(0.0, 1.0);
        match self.jitter {
            Jitter::Full => part(wait, unit),
            Jitter::Equal => wait / 2 + part(wait / 2, unit),
            Jitter::None => wait,
        }
    }

    /// The wait before `max` and jitter.
    fn wait(&self, n: u32) -> Duration {
        match self.strategy {
            Strategy::Exponential => {
                let growth = self.factor.powf(f64::from(n - 1));
                // Infinite, NaN or beyond what a Duration holds: as long as it may be.
                Duration::try_from_secs_f64(self.base.as_secs_f64() * growth).unwrap_or(self.max)
            }
            Strategy::Linear => self.base.saturating_mul(n),
            Strategy::Fixed => self.base,
            Strategy::Delays => {
                let index = usize::try_from(n - 1).unwrap_or(usize::MAX);
                self.delays
                    .get(index)
                    .or(self.delays.last())
                    .copied()
                    .unwrap_or(self.base)
            }
        }
    }

    /// What becomes of a job whose `failed_attempt`-th attempt (from 1) ended in `error`.
    ///
    /// `max_attempts` is the envelope's own, if it has one. `asked_delay` is the wait the handler
    /// asked for; it replaces the computed one, bounded by [`MAX_ASKED_DELAY`] or `max`, whichever
    /// is longer. `unit` is random in `[0, 1)`.
    pub fn decide(
        &self,
        failed_attempt: u32,
        max_attempts: Option<u32>,
        error: &str,
        asked_delay: Option<Duration>,
        unit: f64,
    ) -> Decision {
        let matching = |patterns: &[Regex]| {
            patterns
                .iter()
                .find(|pattern| pattern.is_match(error))
                .map(Regex::to_string)
        };
        if let Some(pattern) = matching(&self.fatal_on) {
            return Decision::Dead {
                reason: format!("fatal: error matches fatal_on {pattern:?}"),
            };
        }
        if let Some(patterns) = &self.retry_on
            && matching(patterns).is_none()
        {
            return Decision::Dead {
                reason: "fatal: error matches nothing in retry_on".into(),
            };
        }
        let allowed = max_attempts.unwrap_or(self.max_attempts);
        if failed_attempt >= allowed {
            return Decision::Dead {
                reason: format!("attempt {failed_attempt} of {allowed} failed"),
            };
        }
        Decision::RetryIn(match asked_delay {
            Some(asked) => asked.min(self.max.max(MAX_ASKED_DELAY)),
            None => self.delay(failed_attempt, unit),
        })
    }
}

/// `unit` of a wait; never longer than the whole, which rounding and a NaN would allow.
fn part(wait: Duration, unit: f64) -> Duration {
    Duration::try_from_secs_f64(wait.as_secs_f64() * unit).map_or(wait, |part| part.min(wait))
}

fn retry_on<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Regex>>, D::Error> {
    patterns("retry_on", deserializer).map(Some)
}

fn fatal_on<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Regex>, D::Error> {
    patterns("fatal_on", deserializer)
}

/// Reads and compiles a list of patterns; the error names the field and the entry.
fn patterns<'de, D: Deserializer<'de>>(field: &str, from: D) -> Result<Vec<Regex>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    let error = |text: String| serde::de::Error::custom(format!("{field}: {text}"));
    if texts.len() > MAX_PATTERNS {
        return Err(error(format!("want at most {MAX_PATTERNS} patterns")));
    }
    let compile = |text: &String| {
        if text.len() > MAX_PATTERN_BYTES {
            return Err(error(format!(
                "a pattern is longer than {MAX_PATTERN_BYTES} bytes"
            )));
        }
        Regex::new(text)
            .map_err(|bad| error(format!("{text:?} is not a regular expression: {bad}")))
    };
    texts.iter().map(compile).collect()
}

#[cfg(test)]
mod tests;
