//! The limiters ours is held against, from their published definitions, in code of our own.
//!
//! Vegas, Gradient2 and AIMD are those of Netflix concurrency-limits (`VegasLimit`,
//! `Gradient2Limit`, `AIMDLimit`) with the defaults of that library, behind its `WindowedLimit`:
//! one update a second at most, of at least ten jobs, with the mean latency and the largest number
//! in flight. Two changes are in their favour: the least limit is 1, not 20, and the latency at
//! which AIMD backs off is not 5 s but twice what undisturbed jobs take on the plant at hand, as
//! somebody would set it who knows. Fixed is what everybody does: so many workers, 32 here.

/// The limit everyone begins with, and the most everyone may have.
const INITIAL: f64 = 20.0;
const MAX: f64 = 200.0;
const WINDOW_S: f64 = 1.0;
const WINDOW_JOBS: u32 = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Fixed,
    Aimd,
    Vegas,
    Gradient2,
}

/// One rival for one operation.
#[derive(Debug, Clone)]
pub struct Rival {
    kind: Kind,
    limit: f64,
    /// What undisturbed jobs take, seconds: for AIMD alone.
    undisturbed: f64,
    window: Window,
    no_load: f64,
    updates: f64,
    long: LongAverage,
}

#[derive(Debug, Clone, Copy, Default)]
struct Window {
    until: f64,
    jobs: u32,
    sum: f64,
    inflight: usize,
    dropped: bool,
}

/// Gradient2's average over 600 windows; a plain mean of the first ten.
#[derive(Debug, Clone, Copy, Default)]
struct LongAverage {
    value: f64,
    count: f64,
    sum: f64,
}

impl LongAverage {
    fn add(&mut self, sample: f64) -> f64 {
        if self.count < 10.0 {
            self.count += 1.0;
            self.sum += sample;
            self.value = self.sum / self.count;
        } else {
            let factor = 2.0 / (600.0 + 1.0);
            self.value = self.value * (1.0 - factor) + sample * factor;
        }
        self.value
    }
}

impl Rival {
    pub fn new(kind: Kind, undisturbed: f64) -> Self {
        Self {
            kind,
            limit: if kind == Kind::Fixed { 32.0 } else { INITIAL },
            undisturbed,
            window: Window::default(),
            no_load: 0.0,
            updates: 0.0,
            long: LongAverage::default(),
        }
    }

    pub fn limit(&self) -> usize {
        self.limit as usize
    }

    pub fn finished(&mut self, now: f64, inflight: usize, took: f64, good: bool) {
        let window = &mut self.window;
        window.jobs += 1;
        window.sum += took;
        window.inflight = window.inflight.max(inflight);
        window.dropped |= !good;
        if now < window.until || window.jobs < WINDOW_JOBS {
            return;
        }
        let full = std::mem::take(window);
        self.window.until = now + WINDOW_S;
        let rtt = full.sum / f64::from(full.jobs);
        match self.kind {
            Kind::Fixed => {}
            Kind::Aimd => self.aimd(rtt, &full),
            Kind::Vegas => self.vegas(rtt, &full),
            Kind::Gradient2 => self.gradient2(rtt, &full),
        }
        self.limit = self.limit.clamp(1.0, MAX);
    }

    fn aimd(&mut self, rtt: f64, window: &Window) {
        if window.dropped || rtt > 2.0 * self.undisturbed {
            self.limit *= 0.9;
        } else if window.inflight as f64 * 2.0 >= self.limit {
            self.limit += 1.0;
        }
    }

    fn vegas(&mut self, rtt: f64, window: &Window) {
        self.updates += 1.0;
        // The library draws its jitter from 0.5 to 1; this is its mean.
        if self.updates >= 0.75 * 30.0 * self.limit {
            self.updates = 0.0;
            self.no_load = rtt;
            return;
        }
        if self.no_load == 0.0 || rtt < self.no_load {
            self.no_load = rtt;
            return;
        }
        let log = self.limit.log10().max(1.0);
        let (alpha, beta) = (3.0 * log, 6.0 * log);
        let queue = (self.limit * (1.0 - self.no_load / rtt)).ceil();
        if window.dropped {
            self.limit -= log;
        } else if (window.inflight as f64) * 2.0 < self.limit {
        } else if queue <= log {
            self.limit += beta;
        } else if queue < alpha {
            self.limit += log;
        } else if queue > beta {
            self.limit -= log;
        }
    }

    fn gradient2(&mut self, rtt: f64, window: &Window) {
        let long = self.long.add(rtt);
        if long / rtt > 2.0 {
            self.long.value *= 0.95;
        }
        if (window.inflight as f64) < self.limit / 2.0 {
            return;
        }
        let gradient = (1.5 * long / rtt).clamp(0.5, 1.0);
        let next = self.limit * gradient + 4.0;
        self.limit = self.limit * 0.8 + next * 0.2;
    }
}
