//! Breakers as they are usually made.

use std::collections::VecDeque;

/// How long both stay open, seconds.
const OPEN_S: f64 = 60.0;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Closed,
    Open {
        until: f64,
    },
    /// Trials begun, ended, and ended badly.
    HalfOpen {
        begun: u32,
        ended: u32,
        bad: u32,
    },
}

/// The part both have: states, and a generation so that results from before a change say nothing.
#[derive(Debug)]
struct Gate {
    phase: Phase,
    generation: u64,
    trials: u32,
}

impl Gate {
    fn with_trials(trials: u32) -> Self {
        Self {
            phase: Phase::Closed,
            generation: 0,
            trials,
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.generation += 1;
    }

    fn open(&mut self, now: f64) -> bool {
        self.enter(Phase::Open {
            until: now + OPEN_S,
        });
        true
    }

    fn admit(&mut self, now: f64) -> Option<u64> {
        if matches!(self.phase, Phase::Open { until } if now >= until) {
            self.enter(Phase::HalfOpen {
                begun: 0,
                ended: 0,
                bad: 0,
            });
        }
        match &mut self.phase {
            Phase::Closed => {}
            Phase::HalfOpen { begun, .. } if *begun < self.trials => *begun += 1,
            Phase::HalfOpen { .. } | Phase::Open { .. } => return None,
        }
        Some(self.generation)
    }

    /// A trial ended; what is decided when all have: some half of them bad is too many.
    fn trial(&mut self, now: f64, failed: bool) -> bool {
        let Phase::HalfOpen { ended, bad, .. } = &mut self.phase else {
            return false;
        };
        *ended += 1;
        *bad += u32::from(failed);
        if *ended < self.trials {
            return false;
        }
        if *bad * 2 >= self.trials {
            return self.open(now);
        }
        self.enter(Phase::Closed);
        false
    }

    fn retry_at(&self, now: f64) -> Option<f64> {
        match self.phase {
            Phase::Open { until } if now < until => Some(until),
            _ => None,
        }
    }
}

/// Opens after six failures in a row; one trial decides.
#[derive(Debug)]
pub struct Row {
    gate: Gate,
    failures: u32,
}

impl Default for Row {
    fn default() -> Self {
        Self {
            gate: Gate::with_trials(1),
            failures: 0,
        }
    }
}

impl Row {
    pub fn admit(&mut self, now: f64) -> Option<u64> {
        self.gate.admit(now)
    }

    pub fn record(&mut self, now: f64, ticket: u64, failed: bool) -> bool {
        if ticket != self.gate.generation {
            return false;
        }
        if self.gate.phase != Phase::Closed {
            self.failures = 0;
            return self.gate.trial(now, failed);
        }
        self.failures = if failed { self.failures + 1 } else { 0 };
        if self.failures <= 5 {
            return false;
        }
        self.failures = 0;
        self.gate.open(now)
    }

    pub fn retry_at(&self, now: f64) -> Option<f64> {
        self.gate.retry_at(now)
    }

    pub fn is_closed(&self) -> bool {
        self.gate.phase == Phase::Closed
    }
}

/// Opens when half of the last calls failed, once there are so many; ten trials decide.
#[derive(Debug)]
pub struct Share {
    gate: Gate,
    size: usize,
    last: VecDeque<bool>,
    failures: usize,
}

impl Share {
    pub fn of(size: usize) -> Self {
        Self {
            gate: Gate::with_trials(10),
            size,
            last: VecDeque::new(),
            failures: 0,
        }
    }

    pub fn admit(&mut self, now: f64) -> Option<u64> {
        self.gate.admit(now)
    }

    pub fn record(&mut self, now: f64, ticket: u64, failed: bool) -> bool {
        if ticket != self.gate.generation {
            return false;
        }
        if self.gate.phase != Phase::Closed {
            return self.gate.trial(now, failed);
        }
        self.last.push_back(failed);
        self.failures += usize::from(failed);
        if self.last.len() > self.size {
            let oldest = self.last.pop_front().unwrap();
            self.failures -= usize::from(oldest);
        }
        if self.last.len() < self.size || self.failures * 2 < self.size {
            return false;
        }
        self.last.clear();
        self.failures = 0;
        self.gate.open(now)
    }

    pub fn retry_at(&self, now: f64) -> Option<f64> {
        self.gate.retry_at(now)
    }

    pub fn is_closed(&self) -> bool {
        self.gate.phase == Phase::Closed
    }
}
