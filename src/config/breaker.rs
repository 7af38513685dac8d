//! `[breaker]`: the circuit breakers.

use super::validate::{DAY, MILLI, Problems, SECOND};
use super::{Switch, duration};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The most steps of a ramp.
const MOST_STEPS: usize = 16;

/// Whether breakers act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerMode {
    /// They do.
    On,
    /// They judge and tell, and hold nothing back.
    MetricsOnly,
    /// There are none.
    Off,
}

/// `[breaker]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakerConfig {
    /// Whether they act.
    pub mode: BreakerMode,
    /// Whether daemons decide together.
    pub fleet: Switch,
    /// A run slower than this is slow; for kinds with a longer timeout, half of that.
    #[serde(with = "duration")]
    pub slow_call: Duration,
    /// How far back calls count.
    #[serde(with = "duration")]
    pub window: Duration,
    /// How far back at most, where calls are rare.
    #[serde(with = "duration")]
    pub window_max: Duration,
    /// The window stretches until it holds this many calls.
    pub stretch_calls: u32,
    /// Fewer calls say nothing.
    pub least_calls: u32,
    /// How sure a breaker must be.
    pub sure: f64,
    /// The share of failed calls that is too large.
    pub failed_share: f64,
    /// The share of slow calls that is too large.
    pub slow_share: f64,
    /// The fewest connect errors in a row that open it.
    pub connect_errors: u32,
    /// First time open.
    #[serde(with = "duration")]
    pub open: Duration,
    /// Longest time open.
    #[serde(with = "duration")]
    pub open_max: Duration,
    /// By which share that varies.
    pub open_jitter: f64,
    /// How long a trial has the field for itself.
    #[serde(with = "duration")]
    pub trial_timeout: Duration,
    /// … and at most, after several that hang.
    #[serde(with = "duration")]
    pub trial_timeout_max: Duration,
    /// Shares of the limit on the way back.
    pub ramp: Vec<f64>,
    /// Results after which a step of the ramp is judged.
    pub ramp_calls: u32,
    /// The share of them that must be good.
    pub ramp_good: f64,
    /// How long a step lasts at least.
    #[serde(with = "duration")]
    pub ramp_step: Duration,
    /// … and at most, after steps down.
    #[serde(with = "duration")]
    pub ramp_step_max: Duration,
    /// How long a step waits for that many results, if none is bad.
    #[serde(with = "duration")]
    pub ramp_wait: Duration,
    /// A breaker that no job needed for so long rests.
    #[serde(with = "duration")]
    pub rest: Duration,
    /// Daemons that must see it fail before all open.
    pub quorum: u32,
    /// How long the right to try for all daemons lasts unless it is renewed.
    #[serde(with = "duration")]
    pub probe_lease: Duration,
    /// How long Redis may be silent before each daemon decides alone.
    #[serde(with = "duration")]
    pub alone_after: Duration,
}

impl BreakerConfig {
    /// The ranges. All problems are told at once.
    pub(super) fn check(&self, found: &mut Problems) {
        let (minute, hour) = (60 * SECOND, 3_600 * SECOND);
        found.lasting("breaker.slow_call", self.slow_call, 10 * MILLI, DAY);
        found.lasting("breaker.window", self.window, SECOND, 10 * minute);
        found.lasting("breaker.window_max", self.window_max, SECOND, hour);
        if self.window > self.window_max {
            found.add("breaker.window", "must not be more than breaker.window_max");
        }
        found.within("breaker.stretch_calls", self.stretch_calls, 1, 10_000);
        found.within("breaker.least_calls", self.least_calls, 2, 10_000);
        if self.stretch_calls < self.least_calls {
            let problem = "must not be less than breaker.least_calls";
            found.add("breaker.stretch_calls", problem);
        }
        found.within("breaker.sure", self.sure, 0.8, 0.999_999_999);
        found.within("breaker.failed_share", self.failed_share, 0.1, 0.9);
        found.within("breaker.slow_share", self.slow_share, 0.1, 0.9);
        for (name, share) in [
            ("breaker.failed_share", self.failed_share),
            ("breaker.slow_share", self.slow_share),
        ] {
            // Beta(1 + n, 1) of n calls that are all bad: P(p > share) = 1 - share^(n + 1).
            let calls = f64::from(self.stretch_calls) + 1.0;
            if 1.0 - share.powf(calls) < self.sure {
                let problem = "where calls are rare it could never open: lower it or breaker.sure, or raise breaker.stretch_calls";
                found.add(name, problem);
            }
        }
        found.within("breaker.connect_errors", self.connect_errors, 2, 1_000);
        found.lasting("breaker.open", self.open, 100 * MILLI, 300 * SECOND);
        found.lasting("breaker.open_max", self.open_max, SECOND, hour);
        if self.open > self.open_max {
            found.add("breaker.open", "must not be more than breaker.open_max");
        }
        found.within("breaker.open_jitter", self.open_jitter, 0.0, 0.5);
        found.lasting("breaker.trial_timeout", self.trial_timeout, SECOND, hour);
        found.lasting(
            "breaker.trial_timeout_max",
            self.trial_timeout_max,
            SECOND,
            DAY,
        );
        if self.trial_timeout > self.trial_timeout_max {
            let problem = "must not be more than breaker.trial_timeout_max";
            found.add("breaker.trial_timeout", problem);
        }
        self.check_ramp(found);
        found.lasting("breaker.rest", self.rest, SECOND, DAY);
        found.within("breaker.quorum", self.quorum, 2, 100);
        found.lasting("breaker.probe_lease", self.probe_lease, 2 * SECOND, minute);
        found.lasting("breaker.alone_after", self.alone_after, 2 * SECOND, minute);
    }

    fn check_ramp(&self, found: &mut Problems) {
        let shares = || self.ramp.iter().copied();
        let rises = shares().zip(shares().skip(1)).all(|(a, b)| a < b);
        let within = shares().all(|share| 0.0 < share && share < 1.0);
        if self.ramp.is_empty() || self.ramp.len() > MOST_STEPS || !rises || !within {
            let problem =
                format!("must be 1 to {MOST_STEPS} rising numbers between 0 and 1, without these");
            found.add("breaker.ramp", problem);
        }
        found.within("breaker.ramp_calls", self.ramp_calls, 1, 1_000);
        found.within("breaker.ramp_good", self.ramp_good, 0.5, 1.0);
        found.lasting(
            "breaker.ramp_step",
            self.ramp_step,
            Duration::ZERO,
            60 * SECOND,
        );
        let (longest, hour) = (self.ramp_step_max, 3_600 * SECOND);
        found.lasting("breaker.ramp_step_max", longest, Duration::ZERO, hour);
        if self.ramp_step > longest {
            let problem = "must not be more than breaker.ramp_step_max";
            found.add("breaker.ramp_step", problem);
        }
        found.lasting("breaker.ramp_wait", self.ramp_wait, SECOND, hour);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::config::{Config, ConfigError, Sources, load};
    use crate::policy::breaker as policy;

    fn with_file(text: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tidegate.toml");
        std::fs::write(&path, format!("[breaker]\n{text}")).unwrap();
        load(&Sources { path: Some(path) })
    }

    #[test]
    fn the_policy_and_the_file_have_the_same_defaults() {
        let config = load(&Sources::default()).unwrap();
        let from_file = policy::BreakerConfig::from(&config.breaker);
        assert_eq!(from_file, policy::BreakerConfig::default());
    }

    #[test]
    fn what_can_not_work_is_refused_with_the_reason() {
        for (text, parts) in [
            ("mode = \"half\"", &["breaker.mode", "metrics_only"][..]),
            ("window = \"20m\"", &["breaker.window", "20m", "10m"]),
            ("window = \"6m\"", &["breaker.window", "window_max"]),
            (
                "stretch_calls = 5",
                &["breaker.stretch_calls", "least_calls"],
            ),
            ("least_calls = 1", &["breaker.least_calls", "2"]),
            ("sure = 0.5", &["breaker.sure", "0.8"]),
            ("sure = nan", &["breaker.sure"]),
            ("failed_share = 1.0", &["breaker.failed_share", "0.9"]),
            (
                "failed_share = 0.9",
                &["breaker.failed_share", "never open", "stretch_calls"],
            ),
            ("slow_share = 0.0", &["breaker.slow_share", "0.1"]),
            ("connect_errors = 1", &["breaker.connect_errors", "2"]),
            ("open = \"6m\"", &["breaker.open", "5m"]),
            ("open_max = \"1s\"", &["breaker.open", "open_max"]),
            ("open_jitter = 0.9", &["breaker.open_jitter", "0.5"]),
            ("trial_timeout = \"10ms\"", &["breaker.trial_timeout", "1s"]),
            (
                "trial_timeout = \"10m\"",
                &["breaker.trial_timeout", "trial_timeout_max"],
            ),
            ("ramp = []", &["breaker.ramp", "16"]),
            ("ramp = [0.5, 0.1]", &["breaker.ramp", "rising"]),
            ("ramp = [0.5, 1.0]", &["breaker.ramp", "between"]),
            ("ramp_calls = 0", &["breaker.ramp_calls", "1"]),
            ("ramp_good = 0.2", &["breaker.ramp_good", "0.5"]),
            ("ramp_step = \"2m\"", &["breaker.ramp_step", "1m"]),
            (
                "ramp_step = \"50s\"",
                &["breaker.ramp_step", "ramp_step_max"],
            ),
            ("ramp_wait = \"0s\"", &["breaker.ramp_wait", "1s"]),
            ("rest = \"2d\"", &["breaker.rest", "1d"]),
            ("alone_after = \"1s\"", &["breaker.alone_after", "2s"]),
            ("quorum = 1", &["breaker.quorum", "2"]),
            ("probe_lease = \"1s\"", &["breaker.probe_lease", "2s"]),
        ] {
            let error = with_file(text).unwrap_err().to_string();
            for part in parts {
                assert!(
                    error.contains(part),
                    "{text:?} gave {error:?}, without {part:?}"
                );
            }
        }
    }
}
