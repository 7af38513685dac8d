//! How good the forecasts of a stretch of time were, beside those that anybody could have made.

use serde::Serialize;

/// The error of forecasts. All errors are the sum of what they were off by ÷ the sum of the load: 0 is perfect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Accuracy {
    /// Slots that were forecast and looked at.
    pub slots: u64,
    /// Of the forecast; none if there was no load.
    pub error: Option<f64>,
    /// Of "as in the last slot that was known".
    pub error_last_slot: Option<f64>,
    /// Of "as in the same slot last week".
    pub error_last_week: Option<f64>,
    /// The share of slots in which the load exceeded the upper bound: should be one in five. None without bounds.
    pub exceeded: Option<f64>,
}

/// One forecast that was held against the load.
#[derive(Debug, Clone, Copy)]
pub(super) struct Judged {
    pub actual: f64,
    pub forecast: f64,
    pub upper: Option<f64>,
    pub last_slot: Option<f64>,
    pub last_week: Option<f64>,
}

impl Accuracy {
    pub(super) fn of(judged: &[Judged]) -> Self {
        let bounded: Vec<bool> = judged
            .iter()
            .filter_map(|j| Some(j.actual > j.upper?))
            .collect();
        let exceeded = bounded.iter().filter(|over| **over).count() as f64;
        Self {
            slots: judged.len() as u64,
            error: error(judged, |j| Some(j.forecast)),
            error_last_slot: error(judged, |j| j.last_slot),
            error_last_week: error(judged, |j| j.last_week),
            exceeded: (!bounded.is_empty()).then(|| exceeded / bounded.len() as f64),
        }
    }
}

fn error(judged: &[Judged], of: impl Fn(&Judged) -> Option<f64>) -> Option<f64> {
    let (mut off, mut load) = (0.0, 0.0);
    for j in judged {
        if let Some(forecast) = of(j) {
            off += (j.actual - forecast).abs();
            load += j.actual;
        }
    }
    (load > 0.0).then(|| off / load)
}
