//! Three daemons that share their breakers, each with its own clock, a turn at the store every second.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use tidegate::policy::breaker::fleet::{Change, Decision, Pool, Record, Report, View};
use tidegate::policy::breaker::{Breaker, BreakerConfig, CallResult, State, Verdict};

use super::DAY_S;

const DAEMONS: usize = 3;
/// Calls of each daemon in a second.
const RATE: usize = 2;

/// What became of a time.
pub struct Told {
    /// Openings of the fleet.
    pub opened: f64,
    /// Openings of daemons that were well.
    pub opened_well: u32,
    /// Calls that the sick one wasted.
    pub wasted: u32,
    /// Openings of the sick one.
    pub opened_sick: u32,
}

struct Daemon {
    name: String,
    breaker: Breaker,
    pool: Pool,
    record: Option<Record>,
    heard: u64,
}

struct Fleet {
    config: BreakerConfig,
    record: Option<Record>,
    news: Vec<(usize, u64, Report)>,
    daemons: Vec<Daemon>,
    rng: StdRng,
    now: u64,
    opened: u32,
}

impl Fleet {
    fn new() -> Self {
        let config = BreakerConfig::default();
        let daemon = |n: usize| Daemon {
            name: format!("d{n}"),
            breaker: Breaker::new(config.clone()),
            pool: Pool::default(),
            record: None,
            heard: 0,
        };
        Self {
            daemons: (0..DAEMONS).map(daemon).collect(),
            config,
            record: None,
            news: Vec::new(),
            rng: StdRng::seed_from_u64(5),
            now: 1_000_000,
            opened: 0,
        }
    }

    /// Calls of a daemon, each of which fails with this chance: how many failed, and how often it opened.
    fn call(&mut self, n: usize, share: f64) -> (u32, u32) {
        let (mut failed, mut opened) = (0, 0);
        for _ in 0..RATE {
            let breaker = &mut self.daemons[n].breaker;
            let epoch = match breaker.admit(self.now).0 {
                Verdict::Allow { epoch, .. } => epoch,
                Verdict::Trial(permit) => permit.epoch,
                Verdict::Refuse { .. } => {
                    breaker.want(self.now);
                    continue;
                }
            };
            let bad = self.rng.random_bool(share);
            failed += u32::from(bad);
            let result = match bad {
                true => CallResult::DependencyFailure { connect: false },
                false => CallResult::Success { slow: false },
            };
            let change = breaker.record(self.now, epoch, result, self.rng.random());
            opened += u32::from(change.is_some_and(|change| change.to == State::Open));
        }
        (failed, opened)
    }

    fn turn(&mut self, n: usize) {
        let daemon = &mut self.daemons[n];
        let stand = daemon.breaker.stand(self.now);
        let view = View {
            config: &self.config,
            record: daemon.record.as_ref(),
            pool: &daemon.pool,
            stand: stand.as_ref(),
            me: &daemon.name,
            now_ms: self.now,
            jitter: self.rng.random(),
        };
        let (report, next) = (view.news().cloned(), view.next());
        if daemon.record == self.record {
            match next {
                Some(Change::Put(record)) => {
                    self.opened += u32::from(matches!(record.decision, Decision::Open { .. }));
                    self.record = Some(record);
                }
                Some(Change::Forget) => self.record = None,
                None => {}
            }
        }
        if let Some(report) = report {
            self.news.retain(|(who, ..)| *who != n);
            self.news.push((n, self.now, report));
        }
        for (who, at, report) in &self.news {
            if *at >= daemon.heard {
                daemon.pool.hear(&format!("d{who}"), *at, report);
            }
        }
        daemon.heard = self.now;
        daemon.record.clone_from(&self.record);
        let record = daemon.record.as_ref();
        daemon
            .breaker
            .follow(self.now, record, &daemon.name, self.now);
    }

    fn second(&mut self, shares: [f64; DAEMONS]) -> [(u32, u32); DAEMONS] {
        // While something is about to be decided daemons take several turns a second.
        for _ in 0..4 {
            self.now += 250;
            (0..DAEMONS).for_each(|n| self.turn(n));
        }
        [0, 1, 2].map(|n| self.call(n, shares[n]))
    }
}

/// One of three can't reach the dependency, the others have a failure in a hundred calls.
pub fn one_sick(days: f64) -> Told {
    let mut fleet = Fleet::new();
    let mut told = Told {
        opened: 0.0,
        opened_well: 0,
        wasted: 0,
        opened_sick: 0,
    };
    for _ in 0..(days * DAY_S) as u64 {
        let [(wasted, opened_sick), (_, first), (_, second)] = fleet.second([1.0, 0.01, 0.01]);
        told.wasted += wasted;
        told.opened_sick += opened_sick;
        told.opened_well += first + second;
    }
    told.opened = f64::from(fleet.opened);
    told
}

/// Seconds from the death of the dependency until all three are open.
pub fn all_die() -> f64 {
    let mut fleet = Fleet::new();
    for _ in 0..60 {
        fleet.second([0.01; DAEMONS]);
    }
    let mut seconds = 0;
    while fleet
        .daemons
        .iter()
        .any(|d| d.breaker.state(fleet.now) != State::Open)
        || fleet.record.is_none()
    {
        fleet.second([1.0; DAEMONS]);
        seconds += 1;
        assert!(seconds < 120, "never open");
    }
    f64::from(seconds)
}

pub fn print() {
    let told = one_sick(1.0);
    println!("\nA fleet of three daemons with {RATE} calls a second each, one day\n");
    println!("| | |\n|---|---:|");
    println!(
        "| one of them sick alone: openings of the fleet | {:.0} |",
        told.opened
    );
    println!("| openings of the other two | {} |", told.opened_well);
    println!("| openings of the sick one | {} |", told.opened_sick);
    println!(
        "| calls it wasted, of {:.0} | {} |",
        DAY_S * RATE as f64,
        told.wasted
    );
    println!(
        "| all of them: seconds until the fleet is open | {:.0} |",
        all_die()
    );
}
