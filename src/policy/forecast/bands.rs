//! The upper bound of a forecast, from how past forecasts of about the same load erred.

use super::Rules;

/// Past forecasts and by how much the load exceeded them.
pub(super) struct Bands {
    /// In order of the forecast.
    known: Vec<(f64, f64)>,
}

impl Bands {
    /// From pairs of forecast and actual load.
    pub(super) fn of(pairs: impl Iterator<Item = (f64, f64)>) -> Self {
        let mut known: Vec<(f64, f64)> = pairs.map(|(p, a)| (p, a - p)).collect();
        known.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        Self { known }
    }

    /// The load that is exceeded in the share of slots that the rules leave over. None while too little is known.
    pub(super) fn upper(&self, forecast: f64, rules: &Rules) -> Option<f64> {
        let n = self.known.len();
        if n < rules.least_near {
            return None;
        }
        let width = rules.near.min(n);
        let at = self.known.partition_point(|(p, _)| *p < forecast);
        let from = at.saturating_sub(width / 2).min(n - width);
        let mut errors: Vec<f64> = self.known[from..from + width].iter().map(|k| k.1).collect();
        let rank = ((width as f64 * rules.quantile).ceil() as usize).clamp(1, width) - 1;
        let (_, bound, _) = errors.select_nth_unstable_by(rank, f64::total_cmp);
        Some((forecast + *bound).max(0.0))
    }
}
