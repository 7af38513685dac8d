//! The model: what is usual for the slot of the week, corrected by the last half hour, with an upper bound.

use super::accuracy::{Accuracy, Judged};
use super::bands::Bands;
use super::season::{Season, faded, usual};
use super::{DAY, Rules, Series, WEEK};
use serde::Serialize;

/// What repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cycle {
    /// Each day is like the last ones: before there are two weeks of history.
    Day,
    /// Each weekday is like the same one of the last weeks.
    Week,
}

/// What is forecast for one slot.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Predicted {
    /// What is usual for it.
    pub usual: f64,
    /// What is expected now.
    pub expected: f64,
    /// What is not exceeded in four of five slots; none while too few forecasts could be judged.
    pub upper: Option<f64>,
}

/// A series as it will go on, as far as it is known.
#[derive(Debug, Clone)]
pub struct Model {
    /// The slot that runs: the first that is not known.
    pub now: u64,
    /// What repeats; none while there is too little history to say anything.
    pub cycle: Option<Cycle>,
    /// The correction by the last half hour: 1 is as usual.
    pub level: f64,
    /// For the slot that runs and those of a day behind it.
    pub ahead: Vec<Option<Predicted>>,
    /// The error over the last day.
    pub day: Accuracy,
    /// The error over the last week.
    pub week: Accuracy,
}

impl Model {
    /// The model of a series at the slot `now`, from the slots before it. What happened is held against forecasts made
    /// `lead` slots before, each from no more than was known by then.
    #[must_use]
    pub fn fit(series: &Series, rules: &Rules, now: u64, lead: u64) -> Self {
        let tested = now.saturating_sub(2 * rules.judged);
        let season = Season::of(series, rules, tested.saturating_sub(lead + DAY), now);
        let past = Past {
            series,
            rules,
            season: &season,
            lead,
        };
        let level = season.level(series, rules, now);
        let recent = Bands::of(past.pairs(now.saturating_sub(rules.judged), now));
        let mut cycle = None;
        let ahead = (0..=DAY).map(|ahead| {
            let (usual, found) = usual(series, rules, now + ahead, now)?;
            cycle = cycle.or(Some(found));
            let expected = usual * faded(level, rules, ahead);
            let upper = recent.upper(expected, rules);
            Some(Predicted {
                usual,
                expected,
                upper,
            })
        });
        let ahead = ahead.collect();
        let judged = past.judge(now);
        let of_day = judged.partition_point(|(slot, _)| *slot + DAY < now);
        let judged: Vec<Judged> = judged.into_iter().map(|(_, j)| j).collect();
        Self {
            now,
            cycle,
            level,
            ahead,
            day: Accuracy::of(&judged[of_day..]),
            week: Accuracy::of(&judged),
        }
    }

    /// What is forecast for a slot between now and a day from now.
    #[must_use]
    pub fn at(&self, slot: u64) -> Option<Predicted> {
        let index = usize::try_from(slot.checked_sub(self.now)?).ok()?;
        *self.ahead.get(index)?
    }
}

/// What is expected of a series in the slot that runs, without all else.
pub(super) fn expected_jobs(series: &Series, rules: &Rules, now: u64) -> Option<f64> {
    let season = Season::of(series, rules, now.saturating_sub(DAY), now);
    let level = season.level(series, rules, now);
    Some(usual(series, rules, now, now)?.0 * level)
}

/// Forecasts that would have been made.
struct Past<'a> {
    series: &'a Series,
    rules: &'a Rules,
    season: &'a Season,
    lead: u64,
}

impl Past<'_> {
    fn forecast(&self, slot: u64) -> Option<f64> {
        let usual = self.season.get(slot)?;
        let origin = slot.checked_sub(self.lead)?;
        let level = self.season.level(self.series, self.rules, origin);
        Some(usual * faded(level, self.rules, self.lead))
    }

    fn pairs(&self, from: u64, to: u64) -> impl Iterator<Item = (f64, f64)> {
        (from..to).filter_map(|slot| Some((self.forecast(slot)?, self.series.get(slot)?)))
    }

    /// The forecasts of the last days, day by day, each day with the bounds that were known at its beginning.
    fn judge(&self, now: u64) -> Vec<(u64, Judged)> {
        let days = self.rules.judged / DAY;
        let day_starts = (1..=days).rev().filter_map(|k| now.checked_sub(k * DAY));
        let mut judged = Vec::new();
        for start in day_starts {
            // What was not known yet when the first forecast of the day was made is no ground for its bound.
            let known = start.saturating_sub(self.lead);
            let bands = Bands::of(self.pairs(known.saturating_sub(self.rules.judged), known));
            for slot in start..start + DAY {
                let (Some(forecast), Some(actual)) = (self.forecast(slot), self.series.get(slot))
                else {
                    continue;
                };
                let before = |slots: u64| self.series.get(slot.checked_sub(slots)?);
                let one = Judged {
                    actual,
                    forecast,
                    upper: bands.upper(forecast, self.rules),
                    last_slot: before(self.lead + 1),
                    last_week: before(WEEK),
                };
                judged.push((slot, one));
            }
        }
        judged
    }
}
