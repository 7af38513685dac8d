//! `[forecast]`: what is done about load that is known to come.

use super::{Config, GateMode, duration};
use serde::{Deserialize, Serialize};
use std::time::Duration;

const LEAST_LEAD: Duration = Duration::from_secs(300);
const LONGEST_LEAD: Duration = Duration::from_secs(3_600);
const MOST_SLOTS: usize = 100_000;

/// Whether the forecast acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ForecastMode {
    /// It raises slots, opens connections and warms caches before a known peak.
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
}

impl ForecastConfig {
    /// The most slots there may be where there are `base` without a forecast.
    #[must_use]
    pub fn max_slots(&self, base: usize) -> usize {
        self.max_concurrency.max(base)
    }
}

/// What is out of range: the setting and what is wrong with it.
pub(super) fn problems(c: &Config) -> Vec<(&'static str, String)> {
    let own = &c.forecast;
    let mut found = Vec::new();
    if own.lead < LEAST_LEAD || own.lead > LONGEST_LEAD {
        let given = duration::format(own.lead);
        found.push((
            "forecast.lead",
            format!("\"{given}\" is not within \"5m\" to \"1h\""),
        ));
    }
    if own.max_concurrency > MOST_SLOTS {
        let given = own.max_concurrency;
        found.push((
            "forecast.max_concurrency",
            format!("{given} is not within 0 to {MOST_SLOTS}"),
        ));
    } else if own.max_concurrency != 0 && own.max_concurrency < c.daemon.concurrency {
        found.push((
            "forecast.max_concurrency",
            format!(
                "{} is less than daemon.concurrency, {}: a forecast only raises; give 0 for no more than that",
                own.max_concurrency, c.daemon.concurrency
            ),
        ));
    }
    if own.mode == ForecastMode::On && c.gate.mode == GateMode::Off {
        found.push((
            "forecast.mode",
            "\"on\" needs to know how things are: set [gate] mode to on or shadow".to_owned(),
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Sources, load};
    use super::*;

    #[test]
    fn each_setting_out_of_range_is_named() {
        let good = load(&Sources::default()).unwrap();
        assert!(problems(&good).is_empty());
        let problem = |change: fn(&mut Config)| {
            let mut config = good.clone();
            change(&mut config);
            let found = problems(&config);
            assert_eq!(found.len(), 1, "{found:?}");
            found[0].0
        };
        let short = |c: &mut Config| c.forecast.lead = Duration::from_secs(60);
        assert_eq!(problem(short), "forecast.lead");
        let lower = |c: &mut Config| c.forecast.max_concurrency = 8;
        assert_eq!(problem(lower), "forecast.max_concurrency");
        let many = |c: &mut Config| c.forecast.max_concurrency = 100_001;
        assert_eq!(problem(many), "forecast.max_concurrency");
        let blind = |c: &mut Config| {
            c.forecast.mode = ForecastMode::On;
            c.gate.mode = GateMode::Off;
        };
        assert_eq!(problem(blind), "forecast.mode");
    }
}
