//! Who decides how many jobs run: our gate, a rival, or the oracle that knows the capacity.

use std::sync::OnceLock;
use std::time::Duration;

use tidegate::config::{Config, Sources, load};
use tidegate::job::Priority;
use tidegate::policy::breaker::{Breaker, BreakerConfig, CallResult, Verdict};
use tidegate::policy::gate::{ResourceGauge, Rules, Signal, Tuning};
use tidegate::policy::limiter::{Ended, Limiter, LimiterConfig};

use crate::plant::Death;
use crate::rivals::{Kind, Rival};
use crate::scenario::Scenario;

/// Slots of the daemon, as many as anyone's limit may be.
pub const SLOTS: usize = 200;
const PING: &str = "ping_p95_ms";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Ours,
    Rival(Kind),
    Oracle,
}

impl Who {
    pub const RIVALS: [Who; 4] = [
        Who::Rival(Kind::Fixed),
        Who::Rival(Kind::Aimd),
        Who::Rival(Kind::Vegas),
        Who::Rival(Kind::Gradient2),
    ];

    pub fn name(self) -> &'static str {
        match self {
            Who::Ours => "tidegate",
            Who::Oracle => "oracle",
            Who::Rival(Kind::Fixed) => "fixed",
            Who::Rival(Kind::Aimd) => "aimd",
            Who::Rival(Kind::Vegas) => "vegas",
            Who::Rival(Kind::Gradient2) => "gradient2",
        }
    }
}

/// The parts of our gate for one operation.
struct Gate {
    limiter: Limiter,
    breaker: Breaker,
    gauge: ResourceGauge,
    rules: Rules,
    ramp: Option<f64>,
    refuses: bool,
}

enum Inner {
    Gate(Box<Gate>),
    Rival(Box<Rival>),
    Oracle,
}

/// The policy of one operation on its resource.
pub struct Policy {
    inner: Inner,
    inflight: usize,
}

/// The default configuration, read once.
fn defaults() -> &'static Config {
    static DEFAULTS: OnceLock<Config> = OnceLock::new();
    DEFAULTS.get_or_init(|| load(&Sources::default()).expect("defaults are valid"))
}

fn ms(seconds: f64) -> u64 {
    (seconds * 1_000.0).round() as u64
}

impl Policy {
    pub fn new(who: Who, scenario: &Scenario, op: usize) -> Self {
        let undisturbed = scenario.ops[op].work.mean();
        let config = defaults();
        let inner = match who {
            Who::Oracle => Inner::Oracle,
            Who::Rival(kind) => Inner::Rival(Box::new(Rival::new(kind, undisturbed))),
            Who::Ours => Inner::Gate(Box::new(Gate {
                limiter: Limiter::new(LimiterConfig::default(), 0),
                breaker: Breaker::new(BreakerConfig::default()),
                gauge: ResourceGauge::new(
                    0,
                    Tuning::from(&config.gate),
                    [Signal::new(PING, 25.0, 250.0)],
                ),
                rules: Rules::from(&config.gate),
                ramp: None,
                refuses: scenario.death == Death::Refuses,
            })),
        };
        Self { inner, inflight: 0 }
    }

    /// Jobs of a class that may run at once now. `capacity` is for the oracle alone.
    pub fn limit(&self, class: Priority, capacity: usize) -> usize {
        match &self.inner {
            Inner::Oracle => capacity,
            Inner::Rival(rival) => rival.limit(),
            Inner::Gate(gate) => {
                let limit = gate.limiter.limit();
                let ramp = gate
                    .ramp
                    .map_or(limit, |share| ((limit as f64 * share) as usize).max(1));
                limit
                    .min(ramp)
                    .min(gate.rules.shares.limit(SLOTS, class, gate.gauge.state()))
            }
        }
    }

    /// Asks for leave to start a job; the ticket to report its end with.
    pub fn admit(&mut self, now: f64, class: Priority, capacity: usize) -> Option<u64> {
        if self.inflight >= self.limit(class, capacity) {
            return None;
        }
        let ticket = match &mut self.inner {
            Inner::Gate(gate) => {
                let verdict = gate.breaker.admit(ms(now)).0;
                let epoch = match verdict {
                    Verdict::Allow { epoch, limit } => {
                        gate.ramp = limit;
                        epoch
                    }
                    Verdict::Trial(permit) => permit.epoch,
                    Verdict::Refuse { .. } => return None,
                };
                gate.limiter.started(ms(now));
                epoch
            }
            _ => 0,
        };
        self.inflight += 1;
        Some(ticket)
    }

    pub fn finished(&mut self, now: f64, ticket: u64, took: f64, good: bool, jitter: f64) {
        match &mut self.inner {
            Inner::Gate(gate) => {
                // What failed is the breaker's to judge, as in the daemon.
                let ended = if good { Ended::Done } else { Ended::Void };
                gate.limiter
                    .finished(ms(now), Duration::from_secs_f64(took), ended);
                let result = match good {
                    true => CallResult::Success { slow: false },
                    false => CallResult::DependencyFailure {
                        connect: gate.refuses,
                    },
                };
                gate.breaker.record(ms(now), ticket, result, jitter);
                gate.ramp = gate.breaker.snapshot(ms(now)).limit;
            }
            Inner::Rival(rival) => rival.finished(now, self.inflight, took, good),
            Inner::Oracle => {}
        }
        self.inflight -= 1;
    }

    /// A few times a second.
    pub fn tick(&mut self, now: f64, jitter: f64) {
        if let Inner::Gate(gate) = &mut self.inner {
            let may_grow = gate.ramp.is_none() && !gate.gauge.growth_frozen(ms(now));
            gate.limiter.tick(ms(now), may_grow, jitter);
        }
    }

    /// Once a second: the probe of the resource.
    pub fn probe(&mut self, now: f64, ping: Option<f64>) {
        if let Inner::Gate(gate) = &mut self.inner {
            gate.gauge
                .sample(ms(now), PING, ping.map(|seconds| seconds * 1_000.0));
            gate.gauge.tick(ms(now));
        }
    }
}
