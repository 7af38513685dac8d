//! What a plant is: the jobs, what comes in, the capacity over time. `plants.rs` has the plants.

use rand::RngExt;
use rand::rngs::StdRng;

use crate::plant::{Death, Sharing};

/// How long jobs take when nothing is in their way, seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Work {
    /// Always the same.
    Even(f64),
    /// Exponential: as varied as its mean.
    Varied(f64),
    /// Log-normal around a median, with this sigma.
    LogNormal(f64, f64),
    /// A share of long ones among short ones, each ± 20%: (share, short, long).
    Bimodal(f64, f64, f64),
    /// Exponential, and every tenth takes ten times as long.
    HeavyTail(f64),
}

impl Work {
    pub fn mean(self) -> f64 {
        match self {
            Work::Even(mean) | Work::Varied(mean) => mean,
            Work::LogNormal(median, sigma) => median * (sigma * sigma / 2.0).exp(),
            Work::Bimodal(share, short, long) => share * long + (1.0 - share) * short,
            Work::HeavyTail(mean) => mean * 1.9,
        }
    }

    pub fn draw(self, rng: &mut StdRng) -> f64 {
        let exponential = |rng: &mut StdRng| -(1.0 - rng.random::<f64>()).ln();
        match self {
            Work::Even(mean) => mean,
            Work::Varied(mean) => mean * exponential(rng),
            Work::LogNormal(median, sigma) => {
                let (u, v): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
                let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
                median * (sigma * normal).exp()
            }
            Work::Bimodal(share, short, long) => {
                let usual = if rng.random::<f64>() < share {
                    long
                } else {
                    short
                };
                usual * (0.8 + 0.4 * rng.random::<f64>())
            }
            Work::HeavyTail(mean) => {
                let times = if rng.random::<f64>() < 0.1 { 10.0 } else { 1.0 };
                mean * times * exponential(rng)
            }
        }
    }
}

/// What comes in besides a thin stream of `critical` jobs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Load {
    /// A backlog that never empties, `normal` and `bulk`.
    Backlog,
    /// So many `normal` jobs a second, by chance.
    Rate(f64),
}

/// Jobs of one kind, on one resource of its own.
#[derive(Debug, Clone)]
pub struct Op {
    pub work: Work,
    pub load: Load,
    /// Capacity from a time on, seconds, ascending; `Slope` goes on to the next point evenly.
    pub capacity: Vec<(f64, usize)>,
    pub slope: bool,
    /// From a time on, jobs take this many times as long by themselves.
    pub slower: Option<(f64, f64)>,
    /// How many resources each job holds from its start to its end, each with a limiter of its
    /// own. A job is served while it has a place in all, so `capacity` is that of the tightest.
    pub resources: usize,
}

impl Op {
    pub fn new(work: Work, capacity: &[(f64, usize)]) -> Self {
        Self {
            work,
            load: Load::Backlog,
            capacity: capacity.to_vec(),
            slope: false,
            slower: None,
            resources: 1,
        }
    }

    pub fn capacity_at(&self, now: f64) -> usize {
        let next = self.capacity.partition_point(|(from, _)| *from <= now);
        let (from, here) = self.capacity[next.max(1) - 1];
        match self.capacity.get(next) {
            Some((to, there)) if self.slope => {
                let part = (now - from) / (to - from);
                (here as f64 + part * (*there as f64 - here as f64)).round() as usize
            }
            _ => here,
        }
    }

    pub fn slowness_at(&self, now: f64) -> f64 {
        self.slower
            .map_or(1.0, |(from, times)| if now >= from { times } else { 1.0 })
    }
}

#[derive(Debug, Clone)]
pub struct Scenario {
    pub name: String,
    pub seconds: f64,
    pub sharing: Sharing,
    pub death: Death,
    pub ops: Vec<Op>,
    /// Where the limit ought to rest, for the count of reversals, seconds.
    pub steady: Option<(f64, f64)>,
    /// When the capacity of the first operation steps, seconds.
    pub steps: Vec<f64>,
    /// The name of its picture, if one is drawn.
    pub picture: Option<&'static str>,
}

impl Scenario {
    pub fn new(name: impl Into<String>, seconds: f64, ops: Vec<Op>) -> Self {
        Self {
            name: name.into(),
            seconds,
            sharing: Sharing::Line,
            death: Death::Refuses,
            ops,
            steady: None,
            steps: Vec::new(),
            picture: None,
        }
    }

    pub fn picture(self, name: &'static str) -> Self {
        Self {
            picture: Some(name),
            ..self
        }
    }

    pub fn steady(self, from: f64, to: f64) -> Self {
        Self {
            steady: Some((from, to)),
            ..self
        }
    }

    pub fn steps(self, steps: &[f64]) -> Self {
        Self {
            steps: steps.to_vec(),
            ..self
        }
    }
}
