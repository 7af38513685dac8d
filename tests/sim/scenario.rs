//! The plants. The constants of the limiter were chosen on [`tuning`] and are judged on [`held_out`].

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
}

impl Op {
    pub fn new(work: Work, capacity: &[(f64, usize)]) -> Self {
        Self {
            work,
            load: Load::Backlog,
            capacity: capacity.to_vec(),
            slope: false,
            slower: None,
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
    pub name: &'static str,
    pub seconds: f64,
    pub sharing: Sharing,
    pub death: Death,
    pub ops: Vec<Op>,
    /// Where the limit ought to rest, for the count of reversals, seconds.
    pub steady: Option<(f64, f64)>,
    /// When the capacity of the first operation steps, seconds.
    pub steps: Vec<f64>,
}

impl Scenario {
    fn new(name: &'static str, seconds: f64, ops: Vec<Op>) -> Self {
        Self {
            name,
            seconds,
            sharing: Sharing::Line,
            death: Death::Refuses,
            ops,
            steady: None,
            steps: Vec::new(),
        }
    }

    fn steady(self, from: f64, to: f64) -> Self {
        Self {
            steady: Some((from, to)),
            ..self
        }
    }

    fn steps(self, steps: &[f64]) -> Self {
        Self {
            steps: steps.to_vec(),
            ..self
        }
    }

    fn contended(self, cost: f64) -> Self {
        Self {
            sharing: Sharing::Contention(cost),
            ..self
        }
    }
}

fn down_and_up(work: Work, many: usize, few: usize) -> Op {
    Op::new(work, &[(0.0, many), (300.0, few), (900.0, many)])
}

fn sloping(op: Op) -> Op {
    Op { slope: true, ..op }
}

/// The plants the constants were chosen on.
pub fn tuning() -> Vec<Scenario> {
    use Work::{Bimodal, Even, HeavyTail, LogNormal, Varied};
    let all = 1_200.0;
    let mut longer = Op::new(LogNormal(0.1, 0.7), &[(0.0, 15)]);
    longer.slower = Some((450.0, 1.5));
    vec![
        Scenario::new("longer by itself 15", all, vec![longer]),
        Scenario::new("steady 16", all, vec![Op::new(Varied(0.1), &[(0.0, 16)])])
            .steady(120.0, all),
        Scenario::new("steps 16-4-16", all, vec![down_and_up(Varied(0.1), 16, 4)])
            .steps(&[300.0, 900.0]),
        Scenario::new("even steps", all, vec![down_and_up(Even(0.05), 16, 4)])
            .steps(&[300.0, 900.0]),
        Scenario::new("collapse 16", all, vec![down_and_up(Varied(0.1), 16, 6)])
            .contended(0.05)
            .steps(&[300.0, 900.0]),
        Scenario::new(
            "bimodal 16",
            all,
            vec![Op::new(Bimodal(0.2, 0.02, 0.3), &[(0.0, 16)])],
        )
        .steady(120.0, all),
        Scenario::new(
            "heavy tail 16",
            all,
            vec![Op::new(HeavyTail(0.05), &[(0.0, 16)])],
        )
        .steady(120.0, all),
        Scenario::new(
            "disturbed 14",
            all,
            vec![down_and_up(LogNormal(0.08, 0.4), 14, 5)],
        )
        .contended(0.1)
        .steps(&[300.0, 900.0]),
        Scenario::new(
            "slow 16",
            all,
            vec![down_and_up(LogNormal(2.0, 0.3), 16, 6)],
        )
        .steps(&[300.0, 900.0]),
        Scenario::new("steady 50", all, vec![Op::new(Varied(0.2), &[(0.0, 50)])])
            .steady(120.0, all),
        Scenario::new(
            "steps 40-10-40",
            all,
            vec![down_and_up(LogNormal(0.05, 1.0), 40, 10)],
        )
        .steps(&[300.0, 900.0]),
    ]
}

/// The plants the limiter is judged on: other capacities, other times, other shapes. Two sets
/// before were looked at, and what they taught went into [`tuning`]; this one was drawn afterwards.
pub fn held_out() -> Vec<Scenario> {
    use Work::{Bimodal, Even, HeavyTail, LogNormal, Varied};
    let all = 1_200.0;
    let steady = |name, op| Scenario::new(name, all, vec![op]).steady(120.0, all);
    let stepping = |name, work, many, few| {
        let op = Op::new(work, &[(0.0, many), (330.0, few), (810.0, many)]);
        Scenario::new(name, all, vec![op]).steps(&[330.0, 810.0])
    };
    let mut few = Op::new(LogNormal(0.2, 0.6), &[(0.0, 9)]);
    few.load = Load::Rate(3.0);
    let mut drifting = Op::new(Varied(0.09), &[(0.0, 21)]);
    drifting.slower = Some((410.0, 1.45));
    let dropping = Op::new(Varied(0.07), &[(0.0, 15), (390.0, 5), (760.0, 15)]);
    let calm = Op::new(LogNormal(0.11, 0.8), &[(0.0, 28)]);
    let dying = |work, capacity| Op::new(work, &[(0.0, capacity), (460.0, 0), (515.0, capacity)]);
    let decay = [(0.0, 26), (220.0, 26), (1_020.0, 8), (all, 8)];
    vec![
        steady("steady 19", Op::new(LogNormal(0.09, 0.8), &[(0.0, 19)])),
        steady("steady 7", Op::new(Varied(0.08), &[(0.0, 7)])),
        steady("steady 55", Op::new(Varied(0.3), &[(0.0, 55)])),
        stepping("steps 28-9-28", LogNormal(0.07, 0.7), 28, 9),
        stepping("even, steps 11-5-11", Even(0.11), 11, 5),
        stepping("slow jobs, steps 15-6-15", LogNormal(1.6, 0.4), 15, 6),
        Scenario::new(
            "slow decay 26-8",
            all,
            vec![sloping(Op::new(LogNormal(0.1, 0.6), &decay))],
        ),
        stepping("contention collapse 22-8-22", LogNormal(0.11, 0.5), 22, 8).contended(0.06),
        steady("bimodal 21", Op::new(Bimodal(0.3, 0.02, 0.4), &[(0.0, 21)])),
        stepping("heavy tail, steps 18-6-18", HeavyTail(0.05), 18, 6),
        steady("low traffic", few),
        Scenario::new("slower by itself", all, vec![drifting]),
        Scenario::new("two resources, one drops", all, vec![dropping, calm]).steps(&[390.0, 760.0]),
        Scenario::new("dead and back", all, vec![dying(LogNormal(0.09, 0.6), 17)]),
        Scenario {
            death: Death::Hangs(12.0),
            ..Scenario::new("hanging and back", all, vec![dying(Varied(0.05), 13)])
        },
    ]
}
