//! Which peaks are known: stretches of the coming day in which the usual load stands out.

use super::{Model, PeakRules};
use serde::Serialize;

/// A dip of so many slots does not part a peak: half an hour.
const DIP: u64 = 6;

/// A known peak.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Peak {
    /// Its first slot.
    pub start: u64,
    /// The first slot after it.
    pub end: u64,
    /// The highest usual load in it, jobs at once.
    pub top: f64,
}

/// The peaks of the coming day, in order. What runs already began before: its start is not known, so it is left out.
/// They follow from what is usual alone, so that all daemons of a fleet find about the same ones.
#[must_use]
pub fn peaks(model: &Model, rules: &PeakRules) -> Vec<Peak> {
    let known = model.ahead.iter().flatten().map(|p| p.usual);
    let mut sorted: Vec<f64> = known.collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let (Some(top), Some(typical)) = (sorted.last().copied(), sorted.get(sorted.len() / 2)) else {
        return Vec::new();
    };
    if top <= 0.0 || top < rules.least || top < rules.above * typical {
        return Vec::new();
    }
    let bound = typical + rules.part * (top - typical);
    let mut found: Vec<Peak> = Vec::new();
    for (slot, predicted) in (model.now..).zip(&model.ahead) {
        let Some(usual) = predicted.map(|p| p.usual).filter(|u| *u >= bound) else {
            continue;
        };
        match found.last_mut() {
            Some(last) if slot <= last.end + DIP => {
                last.end = slot + 1;
                last.top = last.top.max(usual);
            }
            _ => found.push(Peak {
                start: slot,
                end: slot + 1,
                top: usual,
            }),
        }
    }
    found.retain(|peak| peak.start > model.now);
    found
}
