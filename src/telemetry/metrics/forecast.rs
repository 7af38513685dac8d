//! What is measured of the forecast.

use super::labels::{ClassOf, Of};
use super::{FloatGauge, add};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The gauges of the forecast. NaN is not known.
#[derive(Debug)]
pub struct ForecastMetrics {
    demand: Family<ClassOf, FloatGauge>,
    error: Family<ClassOf, FloatGauge>,
    slots: Family<Of, Gauge>,
}

impl ForecastMetrics {
    pub(super) fn register(r: &mut Registry) -> Self {
        Self {
            demand: add(
                r,
                "forecast_demand",
                "Jobs at once in five minutes on average, all daemons: actual (the last ones), expected, upper",
            ),
            error: add(
                r,
                "forecast_error",
                "Error of the forecasts of a week, in parts of the load: of the forecast, of last_slot and last_week in \
                 its place; exceeded is the share of slots above the upper bound",
            ),
            slots: add(
                r,
                "forecast_slots",
                "Slots of this daemon: base as configured, now, wanted by the forecast",
            ),
        }
    }

    /// The load of a class: `actual`, `expected` or `upper`.
    pub fn demand(&self, class: &'static str, of: &'static str, jobs: Option<f64>) {
        self.demand
            .get_or_create(&ClassOf { class, of })
            .set(jobs.unwrap_or(f64::NAN));
    }

    /// An error over a week: `forecast`, `last_slot`, `last_week`, `exceeded`.
    pub fn error(&self, class: &'static str, of: &'static str, error: Option<f64>) {
        self.error
            .get_or_create(&ClassOf { class, of })
            .set(error.unwrap_or(f64::NAN));
    }

    /// Slots: `base`, `now` or `wanted`.
    pub fn slots(&self, of: &'static str, slots: usize) {
        self.slots
            .get_or_create(&Of { of })
            .set(super::signed(slots as u64));
    }
}
