//! What is usual for a slot, and how far the last half hour was above or below it.

use super::model::Cycle;
use super::{DAY, Rules, Series, WEEK};

/// What is usual for a slot, from what was known before the slot `limit`. None: there is too little to say anything.
pub(super) fn usual(series: &Series, rules: &Rules, slot: u64, limit: u64) -> Option<(f64, Cycle)> {
    let began = series.began()?;
    let known = |at: u64| (at < limit).then(|| series.get(at)).flatten();
    let same = |cycle: u64, times: u64| -> Vec<f64> {
        (1..=times)
            .filter_map(|k| known(slot.checked_sub(k * cycle)?))
            .collect()
    };
    if limit.min(slot).saturating_sub(began) >= rules.weekly_after {
        let weeks = same(WEEK, rules.weeks);
        if weeks.len() >= rules.least_weeks {
            return Some((median(weeks)?, Cycle::Week));
        }
    }
    let days = same(DAY, rules.days);
    let enough = days.len() >= rules.least_days;
    enough
        .then(|| median(days))
        .flatten()
        .map(|m| (m, Cycle::Day))
}

/// The middle one; the mean of the two in the middle of an even number. An odd week among four, or day among three,
/// moves it little.
pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// What is usual for each slot of a stretch of the past, from what was known before it.
pub(super) struct Season {
    first: u64,
    usual: Vec<Option<f64>>,
}

impl Season {
    pub(super) fn of(series: &Series, rules: &Rules, from: u64, to: u64) -> Self {
        let usual = (from..to).map(|slot| Some(usual(series, rules, slot, slot)?.0));
        Self {
            first: from,
            usual: usual.collect(),
        }
    }

    pub(super) fn get(&self, slot: u64) -> Option<f64> {
        let index = usize::try_from(slot.checked_sub(self.first)?).ok()?;
        *self.usual.get(index)?
    }

    /// How the slots before `origin` were against what is usual for them: 1 as usual, within the bounds of the rules.
    pub(super) fn level(&self, series: &Series, rules: &Rules, origin: u64) -> f64 {
        let pairs = (origin.saturating_sub(rules.level_slots)..origin)
            .filter_map(|slot| Some((series.get(slot)?, self.get(slot)?)));
        let (mut actual, mut usual, mut slots) = (0.0, 0.0, 0.0);
        for (a, u) in pairs {
            actual += a;
            usual += u;
            slots += 1.0;
        }
        let quiet = rules.quiet * slots * self.mean_of_day(origin);
        if usual + quiet <= 0.0 {
            return 1.0;
        }
        ((actual + quiet) / (usual + quiet)).clamp(rules.level_min, rules.level_max)
    }

    fn mean_of_day(&self, origin: u64) -> f64 {
        // Every hour is enough to know it.
        let day = (origin.saturating_sub(DAY)..origin).step_by(12);
        let known: Vec<f64> = day.filter_map(|slot| self.get(slot)).collect();
        if known.is_empty() {
            return 0.0;
        }
        known.iter().sum::<f64>() / known.len() as f64
    }
}

/// What of a correction is left for a slot so far ahead.
pub(super) fn faded(level: f64, rules: &Rules, ahead: u64) -> f64 {
    level.powf(0.5_f64.powf(ahead as f64 / rules.fade))
}
