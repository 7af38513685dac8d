//! What an operation takes when nothing is in its way: the baseline a latency is held against.
//!
//! An anchor is a distribution, not a number. A wait in a queue *adds* to every job, so with the
//! whole distribution one may ask which added wait explains the latencies seen. Asked of the mean
//! of the logarithms, short jobs testify most loudly, and a heavy tail hardly matters: the same
//! wait is found with a fraction of the jobs that a comparison of means takes.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

/// Quantiles kept of a distribution.
const POINTS: usize = 32;
/// An anchor counts as this many jobs at most, so that it goes on learning.
const FULL_WEIGHT: f64 = 2_000.0;
/// The largest factor a configuration may allow for one raise.
pub(super) const MAX_RAISE: f64 = 3.0;
/// Latencies below this count as this, milliseconds: a logarithm needs something.
const SHORTEST_MS: f64 = 0.001;
/// No run of a job lasts longer, milliseconds: three years. What is stored by others is not taken on trust.
const LONGEST_MS: f64 = 1e11;
/// Newton's method gains digits quickly; it is cut off here if a distribution is unusual.
const STEPS: u32 = 30;

/// The distribution of undisturbed latencies, in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Anchor {
    /// Mid-quantiles, ascending.
    quantiles: Vec<f64>,
    /// Mean latency, and its variance.
    mean: f64,
    variance: f64,
    /// Mean of the logarithms.
    mean_ln: f64,
    /// Variance of the logarithms.
    var_ln: f64,
    /// How many jobs it stands for.
    jobs: f64,
}

/// The latency as it is counted.
pub(super) fn counted_ms(latency_ms: f64) -> f64 {
    latency_ms.max(SHORTEST_MS)
}

impl Anchor {
    /// The anchor that these latencies make; none of fewer than two.
    pub(super) fn of(latencies: &[f64]) -> Option<Self> {
        if latencies.len() < 2 {
            return None;
        }
        let mut sorted: Vec<f64> = latencies.iter().copied().map(counted_ms).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let jobs = float(sorted.len());
        let mean_ln = sorted.iter().map(|x| x.ln()).sum::<f64>() / jobs;
        let squares = sorted.iter().map(|x| (x.ln() - mean_ln).powi(2));
        let mean = sorted.iter().sum::<f64>() / jobs;
        let anchor = Self {
            mean,
            variance: sorted.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (jobs - 1.0),
            mean_ln,
            var_ln: squares.sum::<f64>() / (jobs - 1.0),
            quantiles: (0..POINTS).map(|i| quantile(&sorted, i)).collect(),
            jobs,
        };
        Some(anchor)
    }

    /// Whether it can be used: what was stored by others is not taken on trust.
    pub(super) fn is_sound(&self) -> bool {
        let numbers = [
            self.mean,
            self.variance,
            self.mean_ln,
            self.var_ln,
            self.jobs,
        ];
        self.quantiles.len() == POINTS
            && self.quantiles.is_sorted()
            && self
                .quantiles
                .iter()
                .all(|x| x.is_finite() && *x >= SHORTEST_MS)
            && numbers.iter().all(|x| x.is_finite())
            && self.mean <= LONGEST_MS
            && self.mean > 0.0
            && self.variance >= 0.0
            && self.var_ln >= 0.0
            && self.jobs >= 1.0
    }

    /// The mean, milliseconds.
    pub(super) fn mean_ms(&self) -> f64 {
        self.mean
    }

    /// The standard error of the mean, milliseconds.
    pub(super) fn mean_error_ms(&self) -> f64 {
        (self.variance / self.jobs).sqrt()
    }

    /// The usual time, milliseconds.
    pub(super) fn median_ms(&self) -> f64 {
        self.quantiles.get(POINTS / 2).copied().unwrap_or(self.mean)
    }

    /// A time few jobs exceed, milliseconds.
    pub(super) fn long_ms(&self) -> f64 {
        self.quantiles.last().copied().unwrap_or(self.mean)
    }

    /// How many jobs it stands for.
    pub(super) fn jobs(&self) -> f64 {
        self.jobs
    }

    /// The wait that, added to every job, makes the mean logarithm `mean_ln`, milliseconds; below
    /// zero if jobs were faster than the anchor.
    pub(super) fn wait_ms(&self, mean_ln: f64) -> f64 {
        let shift = mean_ln - self.mean_ln;
        if shift <= 0.0 {
            return shift * self.wait_per_ln(0.0);
        }
        // The mean logarithm grows ever more slowly with the wait, so from below Newton's method
        // comes closer with every step and never goes past.
        let base = self.quantiles.iter().map(|x| x.ln()).sum::<f64>();
        let target = base + shift * float(self.quantiles.len());
        let mut wait = 0.0;
        for _ in 0..STEPS {
            let reached: f64 = self.quantiles.iter().map(|x| (x + wait).ln()).sum();
            let slope: f64 = self.quantiles.iter().map(|x| 1.0 / (x + wait)).sum();
            let step = (target - reached) / slope;
            wait += step;
            if step < wait * 1e-4 {
                break;
            }
        }
        wait
    }

    /// By how much a mean logarithm is above its own.
    pub(super) fn shift(&self, mean_ln: f64) -> f64 {
        mean_ln - self.mean_ln
    }

    /// How much more wait one unit of mean logarithm stands for, about `wait_ms`.
    pub(super) fn wait_per_ln(&self, wait_ms: f64) -> f64 {
        let wait = wait_ms.max(0.0);
        let slope: f64 = self.quantiles.iter().map(|x| 1.0 / (x + wait)).sum();
        float(self.quantiles.len()) / slope
    }

    /// How a later measurement compares, beyond chance.
    pub(super) fn compare(&self, later: &Anchor, sure: f64) -> Ordering {
        let shift = later.mean_ln - self.mean_ln;
        let noise = (self.var_ln / self.jobs + later.var_ln / later.jobs).sqrt();
        match shift.abs() <= sure * noise {
            true => Ordering::Equal,
            false => shift.total_cmp(&0.0),
        }
    }

    /// Rises to a later measurement, by `most` times at most. It then stands for no more jobs than
    /// that one, so that it is soon corrected if that was a mistake.
    pub(super) fn rise(&mut self, later: &Anchor, most: f64) {
        let times = (later.mean_ln - self.mean_ln).exp();
        if times <= most {
            *self = later.clone();
            return;
        }
        self.scale(most);
        self.jobs = self.jobs.min(later.jobs);
    }

    /// Adds measurements of the same thing: quantiles are averaged by weight.
    pub(super) fn pool(&mut self, other: &Anchor) {
        let share = other.jobs / (self.jobs + other.jobs);
        let blend = |mine: &mut f64, theirs: f64| *mine += share * (theirs - *mine);
        for (mine, theirs) in self.quantiles.iter_mut().zip(&other.quantiles) {
            blend(mine, *theirs);
        }
        blend(&mut self.mean, other.mean);
        blend(&mut self.variance, other.variance);
        blend(&mut self.mean_ln, other.mean_ln);
        blend(&mut self.var_ln, other.var_ln);
        self.jobs = (self.jobs + other.jobs).min(FULL_WEIGHT);
    }

    fn scale(&mut self, factor: f64) {
        for x in &mut self.quantiles {
            *x *= factor;
        }
        self.mean *= factor;
        self.variance *= factor * factor;
        self.mean_ln += factor.ln();
    }
}

/// The middle of the `i`-th of [`POINTS`] equal parts, between neighbours.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::indexing_slicing
)] // within 0..len
fn quantile(sorted: &[f64], i: usize) -> f64 {
    let last = sorted.len() - 1;
    let place =
        ((float(i) + 0.5) / float(POINTS) * float(sorted.len()) - 0.5).clamp(0.0, float(last));
    let below = place.floor() as usize;
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * place.fract()
}

/// Counts stay far below 2^53, where every whole number is a float.
#[allow(clippy::cast_precision_loss)]
pub(super) fn float(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Evenly spread over 10 to 100 ms.
    fn spread() -> Vec<f64> {
        (0..=900).map(|i| 10.0 + f64::from(i) / 10.0).collect()
    }

    fn mean_ln(latencies: impl Iterator<Item = f64>) -> f64 {
        let all: Vec<f64> = latencies.map(f64::ln).collect();
        all.iter().sum::<f64>() / float(all.len())
    }

    #[test]
    fn finds_the_wait_that_was_added() {
        let anchor = Anchor::of(&spread()).expect("many");
        for wait in [0.0, 0.5, 5.0, 50.0, 5_000.0] {
            let found = anchor.wait_ms(mean_ln(spread().iter().map(|x| x + wait)));
            assert!((found - wait).abs() <= 0.1 + wait * 0.02, "{wait}: {found}");
        }
        let half = anchor.wait_ms(mean_ln(spread().iter().map(|x| x / 2.0)));
        assert!((-30.0..-20.0).contains(&half), "{half}");
    }

    #[test]
    fn a_tail_of_giants_hides_no_wait() {
        let giants = |wait: f64| {
            spread()
                .into_iter()
                .chain([60_000.0; 90])
                .map(move |x| x + wait)
        };
        let anchor = Anchor::of(&giants(0.0).collect::<Vec<_>>()).expect("many");
        let found = anchor.wait_ms(mean_ln(giants(20.0)));
        assert!((found - 20.0).abs() < 1.0, "{found}");
    }

    #[test]
    fn rises_only_so_far() {
        let of = |factor: f64| {
            let all: Vec<f64> = spread().iter().map(|x| x * factor).collect();
            Anchor::of(&all).expect("many")
        };
        let after = |factor: f64| {
            let mut anchor = of(1.0);
            anchor.rise(&of(factor), 1.5);
            anchor.mean_ms() / of(1.0).mean_ms()
        };
        assert!((after(4.0) - 1.5).abs() < 1e-6);
        assert!((after(1.3) - 1.3).abs() < 1e-6);
        let compared = [0.5, 0.99, 1.01, 2.0].map(|factor| of(1.0).compare(&of(factor), 3.0));
        assert_eq!(
            compared,
            [
                Ordering::Less,
                Ordering::Equal,
                Ordering::Equal,
                Ordering::Greater
            ]
        );
    }

    #[test]
    fn too_little_makes_none_and_nonsense_is_noticed() {
        assert_eq!(Anchor::of(&[]), None);
        assert_eq!(Anchor::of(&[1.0]), None);
        let zeros = Anchor::of(&[0.0; 10]).expect("enough");
        assert!(zeros.is_sound());
        assert!(zeros.wait_ms(0.0) > 0.9);
        let mut bad = zeros.clone();
        bad.quantiles.pop();
        assert!(!bad.is_sound());
        let nan = Anchor {
            mean: f64::NAN,
            ..zeros
        };
        assert!(!nan.is_sound());
    }
}
