//! One run: a scenario, a policy, a seed. Events in the order of their time; the same seed, the
//! same run.

use std::collections::VecDeque;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tidegate::job::Priority;

use crate::plant::{Job, MOST_RESOURCES, Plant};
use crate::policy::{Policy, SLOTS, Who};
use crate::scenario::{Load, Scenario};

/// The gate is asked this often, seconds; also the step of the trace's limit.
const TICK_S: f64 = 0.25;
/// `critical` jobs come at this share of the first capacity.
const CRITICAL_SHARE: f64 = 0.05;
/// Of the backlog this share is `bulk`.
const BULK_SHARE: f64 = 0.2;
/// A `critical` job that waits longer than this for its start is starved, seconds …
const STARVED_S: f64 = 10.0;
/// … of the time in which the dependency is up and was for this long, seconds.
const GRACE_S: f64 = 30.0;

/// One second of one operation.
#[derive(Debug, Clone, Copy, Default)]
pub struct Second {
    pub capacity: f64,
    pub limit: f64,
    pub load: f64,
    /// Mean latency of what ended, seconds; none if nothing did.
    pub latency: Option<f64>,
}

/// What a run came to.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    pub done: u64,
    pub failed: u64,
    /// Job-seconds in flight beyond the capacity.
    pub excess: f64,
    pub starved: u64,
    /// By operation, by second.
    pub trace: Vec<Vec<Second>>,
    /// The limit of the first operation, by tick.
    pub limits: Vec<usize>,
}

struct Lane {
    plant: Plant,
    /// One for each resource its jobs hold.
    policies: Vec<Policy>,
    /// The dependency's fair uptime when they came.
    critical: VecDeque<f64>,
    waiting: u64,
    next_critical: f64,
    next_load: f64,
    uptime: f64,
    up_since: f64,
    second: Second,
    ended: u32,
    latency: f64,
}

impl Lane {
    /// Jobs of a class that may run at once: the least that any of its policies allows.
    fn limit(&self, class: Priority) -> usize {
        let limits = self
            .policies
            .iter()
            .map(|policy| policy.limit(class, self.plant.capacity));
        limits.min().unwrap_or(0)
    }

    /// Leave to start a job, from all of its policies. (None of two refuses after the other has
    /// allowed: that takes an open breaker, and a plant of two resources never dies.)
    fn admit(&mut self, now: f64, class: Priority) -> Option<[u64; MOST_RESOURCES]> {
        if self.plant.inflight() >= self.limit(class) {
            return None;
        }
        let mut tickets = [0; MOST_RESOURCES];
        for (policy, ticket) in self.policies.iter_mut().zip(&mut tickets) {
            *ticket = policy.admit(now, class, self.plant.capacity)?;
        }
        Some(tickets)
    }
}

struct World<'a> {
    scenario: &'a Scenario,
    rng: StdRng,
    now: f64,
    lanes: Vec<Lane>,
    outcome: Outcome,
}

/// Runs it to the end.
pub fn run(scenario: &Scenario, who: Who, seed: u64) -> Outcome {
    let mut world = World::new(scenario, who, seed);
    let mut ticks = 0_u32;
    while world.now < scenario.seconds {
        let tick = f64::from(ticks + 1) * TICK_S;
        let next = world.next_event().min(tick);
        world.pass(next);
        if next >= tick {
            ticks += 1;
            world.tick(ticks);
        }
        world.arrive();
        world.end();
        world.start();
    }
    world.leave()
}

fn exponential(rng: &mut StdRng, rate: f64) -> f64 {
    -(1.0 - rng.random::<f64>()).ln() / rate
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario, who: Who, seed: u64) -> Self {
        let lane = |op: usize| {
            let capacity = scenario.ops[op].capacity_at(0.0);
            Lane {
                plant: Plant::new(scenario.sharing, scenario.death, capacity),
                policies: (0..scenario.ops[op].resources)
                    .map(|_| Policy::new(who, scenario, op))
                    .collect(),
                critical: VecDeque::new(),
                waiting: 0,
                next_critical: 0.0,
                next_load: 0.0,
                uptime: 0.0,
                up_since: -GRACE_S,
                second: Second::default(),
                ended: 0,
                latency: 0.0,
            }
        };
        Self {
            scenario,
            rng: StdRng::seed_from_u64(seed),
            now: 0.0,
            lanes: (0..scenario.ops.len()).map(lane).collect(),
            outcome: Outcome {
                trace: vec![Vec::new(); scenario.ops.len()],
                ..Outcome::default()
            },
        }
    }

    fn next_event(&self) -> f64 {
        let of = |(lane, op): (&Lane, &crate::scenario::Op)| {
            let load = match op.load {
                Load::Rate(_) => lane.next_load,
                Load::Backlog => f64::INFINITY,
            };
            let end = lane.plant.next_end().unwrap_or(f64::INFINITY);
            lane.next_critical.min(load).min(end)
        };
        self.lanes
            .iter()
            .zip(&self.scenario.ops)
            .map(of)
            .fold(f64::INFINITY, f64::min)
            .max(self.now)
    }

    fn pass(&mut self, next: f64) {
        let passed = next - self.now;
        for lane in &mut self.lanes {
            let (load, capacity) = (lane.plant.inflight() as f64, lane.plant.capacity as f64);
            self.outcome.excess += (load - capacity).max(0.0) * passed;
            lane.second.load += load * passed;
            lane.second.capacity += capacity * passed;
            if lane.plant.capacity > 0 && next >= lane.up_since + GRACE_S {
                lane.uptime += passed;
            }
            lane.plant.pass(next);
        }
        self.now = next;
    }

    fn tick(&mut self, ticks: u32) {
        let whole_second = ticks.is_multiple_of((1.0 / TICK_S) as u32);
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            let capacity = self.scenario.ops[index].capacity_at(self.now);
            if lane.plant.capacity == 0 && capacity > 0 {
                lane.up_since = self.now;
            }
            if capacity != lane.plant.capacity {
                lane.plant.set_capacity(capacity);
            }
            for policy in &mut lane.policies {
                policy.tick(self.now, self.rng.random());
            }
            let limit = lane.limit(Priority::Normal);
            if index == 0 {
                self.outcome.limits.push(limit);
            }
            if whole_second {
                let ping = lane.plant.ping();
                lane.policies
                    .iter_mut()
                    .for_each(|policy| policy.probe(self.now, ping));
                lane.second.limit = limit as f64;
                lane.second.latency =
                    (lane.ended > 0).then(|| lane.latency / f64::from(lane.ended));
                (lane.ended, lane.latency) = (0, 0.0);
                self.outcome.trace[index].push(std::mem::take(&mut lane.second));
            }
        }
    }

    fn arrive(&mut self) {
        for (lane, op) in self.lanes.iter_mut().zip(&self.scenario.ops) {
            let usual = match op.load {
                Load::Backlog => op.capacity_at(0.0) as f64 / op.work.mean(),
                Load::Rate(rate) => rate,
            };
            while lane.next_critical <= self.now {
                if lane.next_critical > 0.0 {
                    lane.critical.push_back(lane.uptime);
                }
                lane.next_critical += exponential(&mut self.rng, usual * CRITICAL_SHARE);
            }
            while let Load::Rate(rate) = op.load
                && lane.next_load <= self.now
            {
                lane.waiting += u64::from(lane.next_load > 0.0);
                lane.next_load += exponential(&mut self.rng, rate);
            }
        }
    }

    fn end(&mut self) {
        for (lane, op) in self.lanes.iter_mut().zip(&self.scenario.ops) {
            while let Some((job, good)) = lane.plant.end() {
                let good = good && !job.doomed;
                let took = self.now - job.started;
                for (policy, ticket) in lane.policies.iter_mut().zip(job.tickets) {
                    policy.finished(self.now, ticket, took, good, self.rng.random());
                }
                if good {
                    self.outcome.done += 1;
                    lane.ended += 1;
                    lane.latency += took;
                    continue;
                }
                self.outcome.failed += 1;
                if job.class == Priority::Critical.index() {
                    lane.critical.push_back(lane.uptime);
                } else if matches!(op.load, Load::Rate(_)) {
                    lane.waiting += 1;
                }
            }
        }
    }

    fn start(&mut self) {
        for index in 0..self.lanes.len() {
            while self.start_one(index) {}
        }
    }

    /// Starts the next job of a lane if it may: `critical` first, as a claim does.
    fn start_one(&mut self, index: usize) -> bool {
        let busy: usize = self.lanes.iter().map(|lane| lane.plant.inflight()).sum();
        let (lane, op) = (&mut self.lanes[index], &self.scenario.ops[index]);
        if busy >= SLOTS {
            return false;
        }
        let classes = match (lane.critical.front(), op.load) {
            (Some(_), _) => [Priority::Critical; 2],
            (None, Load::Rate(_)) if lane.waiting == 0 => return false,
            (None, Load::Rate(_)) => [Priority::Normal; 2],
            (None, Load::Backlog) if self.rng.random::<f64>() < BULK_SHARE => {
                [Priority::Bulk, Priority::Normal]
            }
            (None, Load::Backlog) => [Priority::Normal, Priority::Bulk],
        };
        let admitted = classes
            .into_iter()
            .find_map(|class| Some((class, lane.admit(self.now, class)?)));
        let Some((class, tickets)) = admitted else {
            return false;
        };
        if class == Priority::Critical {
            let came = lane.critical.pop_front().expect("there is one");
            self.outcome.starved += u64::from(lane.uptime - came > STARVED_S);
        } else if matches!(op.load, Load::Rate(_)) {
            lane.waiting -= 1;
        }
        lane.plant.start(Job {
            class: class.index(),
            work: op.work.draw(&mut self.rng) * op.slowness_at(self.now),
            started: self.now,
            tickets,
            doomed: false,
        });
        true
    }

    fn leave(mut self) -> Outcome {
        for lane in &self.lanes {
            let starved = |came: &&f64| lane.uptime - **came > STARVED_S;
            self.outcome.starved += lane.critical.iter().filter(starved).count() as u64;
        }
        self.outcome
    }
}
