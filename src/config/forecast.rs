//! `[forecast]`: what is done about load that is known to come.

use super::validate::{DAY, Problems, SECOND};
use super::{Config, GateMode, duration};
use serde::{Deserialize, Serialize};
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const MOST_SLOTS: usize = 100_000;

/// Whether the forecast acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ForecastMode {
    /// It raises slots for what is forecast, and opens connections and warms caches before a known peak.
    On,
    /// It records, forecasts and tells its error, and changes nothing.
    Shadow,
    /// Nothing is recorded.
    Off,
}

/// `[forecast]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForecastConfig {
    /// Whether it acts.
    pub mode: ForecastMode,
    /// How long before a peak it prepares.
    #[serde(with = "duration")]
    pub lead: Duration,
    /// The most slots it may raise this daemon to; 0 for `daemon.concurrency`.
    pub max_concurrency: usize,
    /// How long a job that prepares for a peak may wait.
    #[serde(with = "duration")]
    pub warm_ttl: Duration,
    /// How the forecast is made.
    pub model: ModelConfig,
    /// What counts as a peak.
    pub peaks: PeaksConfig,
    /// How slots are raised and come back.
    pub slots: SlotsConfig,
}

/// `[forecast.model]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Weeks whose same slot is looked at.
    pub weeks: u64,
    /// Days whose same slot is looked at while there are too few weeks.
    pub days: u64,
    /// History after which a week counts as the season.
    #[serde(with = "duration")]
    pub weekly_after: Duration,
    /// How long the load is held against what is usual, to correct the forecast.
    #[serde(with = "duration")]
    pub level_over: Duration,
    /// The least and the most that it is corrected to.
    pub level: [f64; 2],
    /// The share of a day's mean load that is added to both sides of that comparison.
    pub quiet: f64,
    /// After so long half of the correction is left.
    #[serde(with = "duration")]
    pub fade: Duration,
    /// The share of slots whose load stays below the upper bound.
    pub quantile: f64,
}

/// `[forecast.peaks]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeaksConfig {
    /// How many times the typical load of a day its highest must be.
    pub above: f64,
    /// A peak is what lies above this part of the way from the typical load to the highest.
    pub part: f64,
    /// The least a peak is, jobs at once.
    pub least: f64,
}

/// `[forecast.slots]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotsConfig {
    /// How long all must have been well after a return for the sake of health.
    #[serde(with = "duration")]
    pub rest: Duration,
    /// How long slots stay after a peak.
    #[serde(with = "duration")]
    pub linger: Duration,
    /// The same while all of them are in use.
    #[serde(with = "duration")]
    pub linger_busy: Duration,
    /// How often some of what is too many goes after that.
    #[serde(with = "duration")]
    pub step: Duration,
    /// The share of it that goes.
    pub step_share: f64,
}

impl ForecastConfig {
    /// The most slots there may be where there are `base` without a forecast.
    #[must_use]
    pub fn max_slots(&self, base: usize) -> usize {
        self.max_concurrency.max(base)
    }
}

/// Adds what is out of range.
pub(super) fn check(c: &Config, found: &mut Problems) {
    let own = &c.forecast;
    found.lasting("forecast.lead", own.lead, 5 * MINUTE, HOUR);
    let (most, base) = (own.max_concurrency, c.daemon.concurrency);
    found.within("forecast.max_concurrency", most, 0, MOST_SLOTS);
    if most != 0 && most < base {
        let problem = format!(
            "{most} is less than daemon.concurrency, {base}: a forecast only raises; give 0 for no more than that"
        );
        found.add("forecast.max_concurrency", problem);
    }
    if own.mode == ForecastMode::On && c.gate.mode == GateMode::Off {
        let problem = "\"on\" needs to know how things are: set [gate] mode to on or shadow";
        found.add("forecast.mode", problem);
    }
    found.lasting("forecast.warm_ttl", own.warm_ttl, MINUTE, DAY);
    own.model.check(found);
    let peaks = &own.peaks;
    found.within("forecast.peaks.above", peaks.above, 1.0, 100.0);
    found.within("forecast.peaks.part", peaks.part, 0.1, 0.9);
    found.within("forecast.peaks.least", peaks.least, 0.0, MOST_SLOTS as f64);
    own.slots.check(found);
}

impl ModelConfig {
    fn check(&self, found: &mut Problems) {
        // Five weeks are kept, of which the last one is what forecasts are judged by.
        found.within("forecast.model.weeks", self.weeks, 2, 4);
        found.within("forecast.model.days", self.days, 3, 28);
        let key = "forecast.model.weekly_after";
        found.lasting(key, self.weekly_after, 14 * DAY, 28 * DAY);
        let key = "forecast.model.level_over";
        found.lasting(key, self.level_over, 5 * MINUTE, 6 * HOUR);
        let [least, most] = self.level;
        // NaN is within nothing.
        if !((0.05..=1.0).contains(&least) && (1.0..=20.0).contains(&most)) {
            let problem =
                format!("[{least}, {most}] is not one number of 0.05 to 1 and one of 1 to 20");
            found.add("forecast.model.level", problem);
        }
        found.within("forecast.model.quiet", self.quiet, 0.0, 10.0);
        found.lasting("forecast.model.fade", self.fade, 5 * MINUTE, 7 * DAY);
        found.within("forecast.model.quantile", self.quantile, 0.5, 0.99);
    }
}

impl SlotsConfig {
    fn check(&self, found: &mut Problems) {
        let none = Duration::ZERO;
        found.lasting("forecast.slots.rest", self.rest, none, DAY);
        found.lasting("forecast.slots.linger", self.linger, none, DAY);
        found.lasting("forecast.slots.linger_busy", self.linger_busy, none, DAY);
        if self.linger_busy < self.linger {
            let problem = "must not be less than forecast.slots.linger";
            found.add("forecast.slots.linger_busy", problem);
        }
        found.lasting("forecast.slots.step", self.step, SECOND, HOUR);
        found.within("forecast.slots.step_share", self.step_share, 0.05, 1.0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::config::{Config, ConfigError, Sources, load};
    use crate::policy::forecast::{Rules, StanceRules};

    fn with_file(text: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tidegate.toml");
        std::fs::write(&path, text).unwrap();
        load(&Sources { path: Some(path) })
    }

    #[test]
    fn the_policy_and_the_file_have_the_same_defaults() {
        let config = load(&Sources::default()).unwrap();
        assert_eq!(Rules::from(&config.forecast), Rules::default());
        let stance = StanceRules::from(&config.forecast.slots);
        assert_eq!(stance, StanceRules::default());
    }

    #[test]
    fn each_setting_out_of_range_is_named_with_its_range() {
        for (section, text, parts) in [
            ("", "lead = \"1m\"", &["lead", "5m", "1h"][..]),
            (
                "",
                "max_concurrency = 1",
                &["max_concurrency", "daemon.concurrency"],
            ),
            (
                "",
                "max_concurrency = 100001",
                &["max_concurrency", "100000"],
            ),
            ("", "warm_ttl = \"1s\"", &["warm_ttl", "1m"]),
            (".model", "weeks = 5", &["weeks", "2 to 4"]),
            (".model", "days = 2", &["days", "3 to 28"]),
            (
                ".model",
                "weekly_after = \"7days\"",
                &["weekly_after", "14days"],
            ),
            (".model", "level_over = \"1m\"", &["level_over", "5m"]),
            (".model", "level = [1.5, 2.0]", &["level", "0.05 to 1"]),
            (".model", "level = [nan, 2.0]", &["level", "0.05 to 1"]),
            (".model", "quiet = -1.0", &["quiet", "0 to 10"]),
            (".model", "fade = \"8days\"", &["fade", "7days"]),
            (".model", "quantile = 1.0", &["quantile", "0.99"]),
            (".peaks", "above = 0.5", &["above", "1 to 100"]),
            (".peaks", "part = 1.0", &["part", "0.9"]),
            (".peaks", "least = nan", &["least", "100000"]),
            (".slots", "rest = \"2days\"", &["rest", "1day"]),
            (
                ".slots",
                "linger = \"1h\"",
                &["linger_busy", "forecast.slots.linger"],
            ),
            (".slots", "step = \"0s\"", &["step", "1s"]),
            (".slots", "step_share = 0.0", &["step_share", "0.05"]),
            (".slots", "stepp = 0.0", &["stepp", "step"]),
        ] {
            let error = with_file(&format!("[forecast{section}]\n{text}\n"));
            let error = error.unwrap_err().to_string();
            for part in parts {
                assert!(error.contains(part), "{text}: {error}, without {part:?}");
            }
        }
        let blind = with_file("[forecast]\nmode = \"on\"\n[gate]\nmode = \"off\"\n");
        assert!(blind.unwrap_err().to_string().contains("forecast.mode"));
    }
}
