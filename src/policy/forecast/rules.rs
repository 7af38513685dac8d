//! The constants of the forecast, each with its source.

use super::{DAY, SLOT_MS, WEEK};
use crate::config::ForecastConfig;
use std::time::Duration;

/// What a forecast goes by.
///
/// Sources: *notes* are our notes on the gate; *seasons* are the synthetic ones of the tests, whose figures stand in
/// `docs/GATE.md`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// Weeks whose same slot is looked at. (notes: 4)
    pub weeks: u64,
    /// Fewer of them than this say nothing.
    pub least_weeks: usize,
    /// History after which a week counts as the season, in slots; a day before that. (notes: 14 days)
    pub weekly_after: u64,
    /// Days whose same slot is looked at while a day is the season.
    pub days: u64,
    /// Fewer of them than this say nothing: of three, one odd day is outvoted.
    pub least_days: usize,
    /// Slots over which the actual load is held against the forecast. (notes: 30 min)
    pub level_slots: u64,
    /// The least that the forecast is corrected to. (notes: half)
    pub level_min: f64,
    /// The most. (notes: twice)
    pub level_max: f64,
    /// So much of a day's mean load is added to both sides of that comparison, so that a few stray jobs of a quiet night
    /// do not double the forecast of the morning. (seasons)
    pub quiet: f64,
    /// The correction fades with the distance of what is forecast: half of it is left after so many slots. (seasons)
    pub fade: f64,
    /// The share of slots whose load stays below the upper bound. (notes: 0.8)
    pub quantile: f64,
    /// How many past forecasts of about the same load the bound is taken from: what is large errs by more. (seasons)
    pub near: usize,
    /// With fewer past forecasts than this there is no bound.
    pub least_near: usize,
    /// Slots of past forecasts that the bound is taken from, and the error is told of.
    pub judged: u64,
    /// What counts as a peak.
    pub peaks: PeakRules,
}

/// When a stretch of the day is a peak. (ours: an office's two halves of the day stand out, an even load does not)
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PeakRules {
    /// How many times the typical load of the day its highest must be for there to be a peak at all.
    pub above: f64,
    /// A peak is what lies above this part of the way from the typical load to the highest.
    pub part: f64,
    /// The least a peak is, in jobs at once: less is no load worth preparing for.
    pub least: f64,
}

impl Default for PeakRules {
    fn default() -> Self {
        Self {
            above: 2.0,
            part: 0.5,
            least: 0.5,
        }
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            weeks: 4,
            least_weeks: 2,
            weekly_after: 2 * WEEK,
            days: 14,
            least_days: 3,
            level_slots: 6,
            level_min: 0.5,
            level_max: 2.0,
            quiet: 0.25,
            fade: 48.0,
            quantile: 0.8,
            near: 200,
            least_near: 100,
            judged: 7 * DAY,
            peaks: PeakRules::default(),
        }
    }
}

impl From<&ForecastConfig> for Rules {
    /// What is not a setting is structure: fewer weeks, days and past forecasts than these say nothing, and a week is
    /// judged because five are kept.
    fn from(given: &ForecastConfig) -> Self {
        let (model, peaks) = (&given.model, &given.peaks);
        let [level_min, level_max] = model.level;
        Self {
            weeks: model.weeks,
            weekly_after: slots(model.weekly_after),
            days: model.days,
            level_slots: slots(model.level_over),
            level_min,
            level_max,
            quiet: model.quiet,
            fade: model.fade.as_secs_f64() * 1_000.0 / SLOT_MS as f64,
            quantile: model.quantile,
            peaks: PeakRules {
                above: peaks.above,
                part: peaks.part,
                least: peaks.least,
            },
            ..Self::default()
        }
    }
}

/// Whole slots, rounded up.
fn slots(time: Duration) -> u64 {
    let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    ms.div_ceil(SLOT_MS)
}
