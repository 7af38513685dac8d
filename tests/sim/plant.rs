//! A dependency of known capacity. Two kinds: one serves so many jobs at once and lets the others
//! stand in line; the other serves all at once, and beyond its capacity they disturb each other.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};

/// How jobs share it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sharing {
    /// So many at once, the others in line.
    Line,
    /// All at once, each slower beyond the capacity; each job too many also takes this share of
    /// the whole rate away: contention.
    Contention(f64),
}

/// What happens to a job while the dependency is dead (its capacity is zero).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Death {
    /// It fails after 20 ms: nobody listens.
    Refuses,
    /// It fails after this many seconds: nobody answers.
    Hangs(f64),
}

/// Resources a job may hold at once.
pub const MOST_RESOURCES: usize = 2;
/// The seconds a refused call takes.
const REFUSED_S: f64 = 0.02;

/// A job on its way through the plant.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    pub class: usize,
    /// Seconds of undisturbed service.
    pub work: f64,
    pub started: f64,
    /// Those of its policies.
    pub tickets: [u64; MOST_RESOURCES],
    /// It was started while the dependency was dead.
    pub doomed: bool,
}

#[derive(Debug, Clone, Copy)]
struct Due {
    at: f64,
    order: u64,
    job: Job,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    /// The earliest is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        let by_time = other.at.total_cmp(&self.at);
        by_time.then(other.order.cmp(&self.order))
    }
}

/// The dependency at one moment.
pub struct Plant {
    sharing: Sharing,
    death: Death,
    pub capacity: usize,
    now: f64,
    /// Undisturbed seconds of service each job has had since the beginning, for [`Sharing::Contention`].
    served: f64,
    order: u64,
    /// In service: by the time of their end, or by `served` at their end.
    serving: BinaryHeap<Due>,
    failing: BinaryHeap<Due>,
    line: VecDeque<Job>,
}

impl Plant {
    pub fn new(sharing: Sharing, death: Death, capacity: usize) -> Self {
        Self {
            sharing,
            death,
            capacity,
            now: 0.0,
            served: 0.0,
            order: 0,
            serving: BinaryHeap::new(),
            failing: BinaryHeap::new(),
            line: VecDeque::new(),
        }
    }

    pub fn inflight(&self) -> usize {
        self.serving.len() + self.failing.len() + self.line.len()
    }

    /// Seconds a trivial request takes: 2 ms, and more as the square of the overload; none if dead.
    pub fn ping(&self) -> Option<f64> {
        (self.capacity > 0).then(|| 0.002 * (self.crowd() / self.capacity as f64).max(1.0).powi(2))
    }

    /// When the next job ends, if nothing happens before.
    pub fn next_end(&self) -> Option<f64> {
        let failing = self.failing.peek().map(|due| due.at);
        let serving = self.serving.peek().map(|due| match self.sharing {
            Sharing::Line => due.at,
            Sharing::Contention(_) => self.now + (due.at - self.served).max(0.0) / self.speed(),
        });
        [failing, serving]
            .into_iter()
            .flatten()
            .min_by(f64::total_cmp)
    }

    /// Time passes; nothing ends meanwhile.
    pub fn pass(&mut self, now: f64) {
        self.served += (now - self.now) * self.speed();
        self.now = now;
    }

    pub fn start(&mut self, mut job: Job) {
        if self.capacity == 0 {
            job.doomed = true;
            let after = match self.death {
                Death::Refuses => REFUSED_S,
                Death::Hangs(seconds) => seconds,
            };
            let due = self.due(self.now + after, job);
            self.failing.push(due);
        } else if matches!(self.sharing, Sharing::Contention(_)) {
            let due = self.due(self.served + job.work, job);
            self.serving.push(due);
        } else {
            self.line.push_back(job);
        }
        self.advance_line();
    }

    /// The job that ends now, and whether it did its work.
    pub fn end(&mut self) -> Option<(Job, bool)> {
        let slack = 1e-9;
        if self
            .failing
            .peek()
            .is_some_and(|due| due.at <= self.now + slack)
        {
            return self.failing.pop().map(|due| (due.job, false));
        }
        let reached = match self.sharing {
            Sharing::Line => self.now,
            Sharing::Contention(_) => self.served,
        };
        if self
            .serving
            .peek()
            .is_none_or(|due| due.at > reached + slack)
        {
            return None;
        }
        let ended = self.serving.pop()?;
        self.advance_line();
        Some((ended.job, self.capacity > 0))
    }

    /// Sets the capacity. Death fails what stands in line or is disturbed.
    pub fn set_capacity(&mut self, capacity: usize) {
        if capacity == 0 && self.capacity > 0 {
            let after = match self.death {
                Death::Refuses => REFUSED_S,
                Death::Hangs(seconds) => seconds,
            };
            let serving: Vec<Job> = self.serving.drain().map(|due| due.job).collect();
            for job in serving.into_iter().chain(std::mem::take(&mut self.line)) {
                let due = self.due(self.now + after, job);
                self.failing.push(due);
            }
        }
        self.capacity = capacity;
        self.advance_line();
    }

    fn advance_line(&mut self) {
        if self.sharing != Sharing::Line {
            return;
        }
        while self.serving.len() < self.capacity
            && let Some(job) = self.line.pop_front()
        {
            let due = self.due(self.now + job.work, job);
            self.serving.push(due);
        }
    }

    fn due(&mut self, at: f64, job: Job) -> Due {
        self.order += 1;
        Due {
            at,
            order: self.order,
            job,
        }
    }

    fn crowd(&self) -> f64 {
        (self.serving.len() + self.line.len()) as f64
    }

    /// Undisturbed seconds of service per second, for each job.
    fn speed(&self) -> f64 {
        let Sharing::Contention(cost) = self.sharing else {
            return 1.0;
        };
        let (crowd, capacity) = (self.crowd(), self.capacity as f64);
        let over = (crowd - capacity).max(0.0);
        if over == 0.0 {
            return 1.0;
        }
        (capacity / crowd / (1.0 + cost * over)).max(1e-6)
    }
}
