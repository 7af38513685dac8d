//! The constants of the forecast, each with its source.

use super::{DAY, WEEK};

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
        }
    }
}
