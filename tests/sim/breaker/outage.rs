//! A dependency that dies for ten minutes and comes back slowly, under a queue of jobs that come at random. A job that
//! failed comes again after fifteen seconds.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::call::{Any, Call, Ticket, Who};
use super::exponential;

const DIES_AT: f64 = 300.0;
const BACK_AT: f64 = DIES_AT + 600.0;
const ENDS_AT: f64 = BACK_AT + 900.0;
const SLOTS: usize = 16;
/// A call of the dependency while it is well.
const MEAN_S: f64 = 0.1;
const REFUSED_S: f64 = 0.02;
const TIMEOUT_S: f64 = 10.0;
const AGAIN_S: f64 = 15.0;
/// When it comes back it bears two calls at once, and all after this long; it turns away those beyond.
const SLOWLY_S: f64 = 60.0;

/// How it is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    Refuses,
    Fails,
    MostFail,
    Hangs,
}

impl Death {
    pub const ALL: [Death; 4] = [Death::Refuses, Death::Fails, Death::MostFail, Death::Hangs];

    pub fn name(self) -> &'static str {
        match self {
            Death::Refuses => "nobody listens",
            Death::Fails => "all calls fail",
            Death::MostFail => "80% fail",
            Death::Hangs => "all calls hang",
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outage {
    /// Seconds until it opened; none if it never did.
    pub noticed: Option<f64>,
    /// Calls that failed from the outage on.
    pub wasted: f64,
    /// How often it opened after the dependency was back, but for the trials of the last cool-down.
    pub relapses: f64,
    /// Seconds after that until it was closed for good and nothing waited.
    pub well: f64,
}

/// The mean over some runs; not noticed if it was not in one of them.
pub fn mean(death: Death, rate: f64, who: Who, seeds: &[u64]) -> Outage {
    let runs: Vec<Outage> = seeds.iter().map(|s| run(death, rate, who, *s)).collect();
    let n = runs.len() as f64;
    let of = |what: fn(&Outage) -> f64| runs.iter().map(what).sum::<f64>() / n;
    let noticed: Option<Vec<f64>> = runs.iter().map(|run| run.noticed).collect();
    Outage {
        noticed: noticed.map(|all| all.iter().sum::<f64>() / n),
        wasted: of(|run| run.wasted),
        relapses: of(|run| run.relapses),
        well: of(|run| run.well),
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum What {
    Arrives,
    /// A job that failed comes again.
    Again,
    Ends {
        ticket: Ticket,
        call: Call,
    },
    Looks,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Event(f64, What);

impl Eq for Event {}
impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Event {
    /// The earliest is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        other.0.total_cmp(&self.0)
    }
}

struct World {
    rng: StdRng,
    breaker: Any,
    death: Death,
    events: BinaryHeap<Event>,
    waiting: usize,
    running: usize,
    /// Of these, those that the dependency works on.
    served: usize,
    looks_at: f64,
    outcome: Outage,
}

fn run(death: Death, rate: f64, who: Who, seed: u64) -> Outage {
    let mut world = World {
        rng: StdRng::seed_from_u64(seed),
        breaker: Any::new(who),
        death,
        events: BinaryHeap::from([Event(0.0, What::Arrives)]),
        waiting: 0,
        running: 0,
        served: 0,
        looks_at: 0.0,
        outcome: Outage::default(),
    };
    let mut last_trouble: f64 = BACK_AT;
    while let Some(Event(now, what)) = world.events.pop() {
        if now > ENDS_AT {
            break;
        }
        match what {
            What::Arrives => {
                world.waiting += 1;
                let next = now + exponential(&mut world.rng, rate / 60.0);
                world.events.push(Event(next, What::Arrives));
            }
            What::Again => world.waiting += 1,
            What::Ends { ticket, call } => world.end(now, ticket, call),
            What::Looks => {}
        }
        world.breaker.tick(now, world.running > 0);
        world.start(now);
        if now >= BACK_AT && (!world.breaker.is_closed(now) || world.waiting > 4 * SLOTS) {
            last_trouble = now;
        }
    }
    world.outcome.well = last_trouble - BACK_AT;
    world.outcome
}

impl World {
    fn start(&mut self, now: f64) {
        while self.waiting > 0 && self.running < self.breaker.limit(now, SLOTS).min(SLOTS) {
            let Some(ticket) = self.breaker.admit(now) else {
                if let Some(at) = self.breaker.retry_at(now)
                    && (self.looks_at <= now || at < self.looks_at)
                {
                    self.looks_at = at + 0.001;
                    self.events.push(Event(self.looks_at, What::Looks));
                }
                return;
            };
            self.waiting -= 1;
            self.running += 1;
            let (call, took) = self.call(now);
            self.served += usize::from(call == Call::Good);
            self.events
                .push(Event(now + took, What::Ends { ticket, call }));
        }
    }

    fn end(&mut self, now: f64, ticket: Ticket, call: Call) {
        self.running -= 1;
        self.served -= usize::from(call == Call::Good);
        if call != Call::Good {
            self.outcome.wasted += f64::from(now >= DIES_AT);
            self.events.push(Event(now + AGAIN_S, What::Again));
        }
        let was_closed = self.breaker.is_closed(now);
        if self.breaker.record(now, ticket, call, self.rng.random()) {
            if now >= DIES_AT && self.outcome.noticed.is_none() {
                self.outcome.noticed = Some(now - DIES_AT);
            }
            // A trial of the outage may end after it.
            let began_after = now >= BACK_AT + TIMEOUT_S;
            self.outcome.relapses += f64::from(began_after || (now >= BACK_AT && was_closed));
        }
    }

    /// How a call ends that begins now, and how long it takes.
    fn call(&mut self, now: f64) -> (Call, f64) {
        let well = (Call::Good, exponential(&mut self.rng, 1.0 / MEAN_S));
        let failed = (Call::Failed, well.1);
        if now >= BACK_AT {
            let bears = 2.0 + (SLOTS as f64 - 2.0) * ((now - BACK_AT) / SLOWLY_S);
            return if self.served as f64 + 1.0 > bears {
                (Call::Failed, REFUSED_S)
            } else {
                well
            };
        }
        if now < DIES_AT {
            return well;
        }
        match self.death {
            Death::Refuses => (Call::Refused, REFUSED_S),
            Death::Fails => failed,
            Death::MostFail if self.rng.random_bool(0.8) => failed,
            Death::MostFail => well,
            Death::Hangs => (Call::Hung, TIMEOUT_S),
        }
    }
}
