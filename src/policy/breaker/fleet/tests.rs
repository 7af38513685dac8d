//! A fleet of breakers around a store that takes the first of two changes, second by second.

use std::time::Duration;

use proptest::prelude::*;

use super::super::{Breaker, CallResult, Mode, Outlook, Permit, State, Transition, Verdict};
use super::*;

mod rest;

const BAD: CallResult = CallResult::DependencyFailure { connect: false };
const GOOD: CallResult = CallResult::Success { slow: false };

/// The record all can reach, and the news of the last turn.
#[derive(Default)]
struct Store {
    record: Option<Record>,
    news: Vec<(String, u64, Report)>,
}

struct Daemon {
    name: String,
    breaker: Breaker,
    pool: Pool,
    record: Option<Record>,
    /// It has heard what was told until then.
    heard_ms: u64,
    /// Its clock is that of the store plus this.
    ahead_ms: u64,
    /// Cut off from the store.
    cut: bool,
    /// Whatever it calls fails, though the dependency is well.
    sick: bool,
    calls: u32,
    /// Trials that hang.
    hung: Vec<Permit>,
    log: Vec<Transition>,
}

struct Fleet {
    config: BreakerConfig,
    store: Store,
    daemons: Vec<Daemon>,
    now_ms: u64,
    dead: bool,
    hangs: bool,
    /// Calls a second of each daemon.
    rate: u32,
    /// Calls run that take long.
    busy: bool,
}

impl Fleet {
    fn of(count: usize) -> Self {
        let config = BreakerConfig::default();
        let daemon = |n: usize| Daemon {
            name: format!("d{n}"),
            breaker: Breaker::new(config.clone()),
            pool: Pool::default(),
            record: None,
            heard_ms: 0,
            ahead_ms: 7_000 * n as u64,
            cut: false,
            sick: false,
            calls: 0,
            hung: Vec::new(),
            log: Vec::new(),
        };
        Self {
            daemons: (0..count).map(daemon).collect(),
            store: Store::default(),
            now_ms: 1_700_000_000_000,
            dead: false,
            hangs: false,
            rate: 10,
            busy: false,
            config,
        }
    }

    fn second(&mut self) {
        self.now_ms += 500;
        (0..self.daemons.len()).for_each(|n| self.turn(n));
        self.now_ms += 500;
        for n in 0..self.daemons.len() {
            self.call(n);
            self.turn(n);
        }
    }

    fn seconds(&mut self, count: u32) {
        (0..count).for_each(|_| self.second());
    }

    /// Seconds until all daemons are in a state.
    fn until(&mut self, state: State, most: u32) -> u32 {
        for second in 0..most {
            if self.states().iter().all(|s| *s == state) {
                return second;
            }
            self.second();
        }
        unreachable!(
            "{:?} after {most} s, wanted {state}: {:?}",
            self.states(),
            self.store.record
        )
    }

    fn states(&self) -> Vec<State> {
        let state = |d: &Daemon| d.breaker.state(self.now_ms + d.ahead_ms);
        self.daemons.iter().map(state).collect()
    }

    /// What a daemon calls in a second.
    fn call(&mut self, n: usize) {
        let (dead, hangs, rate) = (self.dead, self.hangs, self.rate);
        let daemon = &mut self.daemons[n];
        let now = self.now_ms + daemon.ahead_ms;
        let result = if dead || daemon.sick { BAD } else { GOOD };
        for _ in 0..rate {
            if let Outlook::Refuse { .. } = daemon.breaker.peek(now) {
                daemon.breaker.want(now);
                return;
            }
            let (verdict, change) = daemon.breaker.admit(now);
            daemon.log.extend(change);
            daemon.calls += 1;
            let epoch = match verdict {
                Verdict::Allow { epoch, .. } => epoch,
                Verdict::Trial(permit) if hangs => {
                    daemon.hung.push(permit);
                    continue;
                }
                Verdict::Trial(permit) => permit.epoch,
                Verdict::Refuse { .. } => return,
            };
            daemon
                .log
                .extend(daemon.breaker.record(now, epoch, result, 0.5));
        }
    }

    /// A turn at the store.
    fn turn(&mut self, n: usize) {
        let daemon = &mut self.daemons[n];
        let now = self.now_ms + daemon.ahead_ms;
        daemon.log.extend(daemon.breaker.tick(now, self.busy));
        if daemon.cut {
            daemon.breaker.alone();
            daemon.pool = Pool::default();
            return;
        }
        let stand = daemon.breaker.stand(now);
        let view = View {
            config: &self.config,
            record: daemon.record.as_ref(),
            pool: &daemon.pool,
            stand: stand.as_ref(),
            me: &daemon.name,
            now_ms: self.now_ms,
            jitter: 0.5,
        };
        let report = view.news().cloned();
        let next = view.next();
        if let Some(change) = next
            && daemon.record == self.store.record
        {
            let before = self.store.record.as_ref().map_or(0, |r| r.epoch);
            self.store.record = match change {
                Change::Put(record) => {
                    assert!(record.epoch >= before, "epochs rise");
                    Some(record)
                }
                Change::Forget => None,
            };
        }
        if let Some(report) = report {
            self.store.news.retain(|(who, ..)| *who != daemon.name);
            self.store
                .news
                .push((daemon.name.clone(), self.now_ms, report));
        }
        for (who, at, report) in &self.store.news {
            if *at > daemon.heard_ms || who == &daemon.name {
                daemon.pool.hear(who, *at, report);
            }
        }
        // What is told at this very moment comes with the next turn.
        daemon.heard_ms = self.now_ms - 1;
        daemon.pool.forget(self.now_ms, &self.config);
        daemon.record.clone_from(&self.store.record);
        let record = daemon.record.as_ref();
        let change = daemon
            .breaker
            .follow(now, record, &daemon.name, self.now_ms);
        daemon.log.extend(change);
    }
}

fn is_open(fleet: &Fleet) -> bool {
    let record = fleet.store.record.as_ref();
    record.is_some_and(|r| !matches!(r.decision, Decision::Closed { .. }))
}

#[test]
fn a_healthy_fleet_says_nothing() {
    let mut fleet = Fleet::of(3);
    fleet.seconds(120);
    assert!(fleet.store.news.is_empty() && fleet.store.record.is_none());
}

#[test]
fn all_open_together_one_tries_and_all_recover_together() {
    let mut fleet = Fleet::of(3);
    fleet.seconds(60);
    fleet.dead = true;
    while !is_open(&fleet) {
        fleet.second();
    }
    assert!(fleet.now_ms < 1_700_000_068_000, "{:?}", fleet.store.record);
    fleet.until(State::Open, 3);
    let before: u32 = fleet.daemons.iter().map(|d| d.calls).sum();
    fleet.seconds(60);
    let after: u32 = fleet.daemons.iter().map(|d| d.calls).sum();
    assert!(
        (2..=5).contains(&(after - before)),
        "{} trials",
        after - before
    );
    fleet.dead = false;
    let took = fleet.until(State::Closed, 120);
    assert!(took < 90, "{took}");
    for daemon in &fleet.daemons {
        let last = daemon.log.last().map(|t| t.reason);
        assert_eq!(last, Some(crate::policy::breaker::Reason::FleetRecovered));
    }
    fleet.seconds(120);
    assert!(fleet.store.record.is_none(), "it is forgotten");
}

#[test]
fn one_sick_daemon_protects_itself_and_opens_nobody_else() {
    let mut fleet = Fleet::of(3);
    fleet.daemons[0].sick = true;
    for _ in 0..600 {
        fleet.second();
        assert!(!is_open(&fleet), "{:?}", fleet.store.record);
    }
    assert_ne!(fleet.states()[0], State::Closed);
    assert_eq!(fleet.states()[1..], [State::Closed, State::Closed]);
    assert!(fleet.daemons[0].calls < 200, "{}", fleet.daemons[0].calls);
    fleet.daemons[0].sick = false;
    fleet.until(State::Closed, 400);
}

#[test]
fn two_sick_ones_of_five_are_outvoted() {
    let mut fleet = Fleet::of(5);
    fleet.daemons[0].sick = true;
    fleet.daemons[1].sick = true;
    fleet.seconds(300);
    assert_eq!(fleet.states()[2..], [State::Closed; 3]);
}

#[test]
fn a_prober_that_dies_loses_its_lease_and_another_tries() {
    let mut fleet = Fleet::of(2);
    fleet.dead = true;
    fleet.until(State::Open, 20);
    fleet.dead = false;
    fleet.hangs = true;
    while !matches!(
        fleet.store.record.as_ref().map(|r| &r.decision),
        Some(Decision::Probing { .. })
    ) {
        fleet.second();
    }
    let Some(Decision::Probing { by, .. }) =
        fleet.store.record.as_ref().map(|r| r.decision.clone())
    else {
        unreachable!("just seen")
    };
    // It is killed: it neither calls nor takes its turn.
    let dead = fleet.daemons.iter().position(|d| d.name == by).unwrap_or(0);
    fleet.daemons.remove(dead);
    fleet.hangs = false;
    let took = fleet.until(State::Closed, 60);
    assert!(took < 30, "{took}");
}

#[test]
fn a_late_trial_says_nothing_under_the_lease_of_another() {
    let mut fleet = Fleet::of(2);
    fleet.dead = true;
    fleet.until(State::Open, 20);
    fleet.hangs = true;
    while fleet.daemons.iter().all(|d| d.hung.is_empty()) {
        fleet.second();
    }
    let slow = fleet
        .daemons
        .iter()
        .position(|d| !d.hung.is_empty())
        .unwrap_or(0);
    // Cut off while its trial hangs: its lease ends, and the other one tries.
    fleet.daemons[slow].cut = true;
    fleet.hangs = false;
    let epoch = fleet.store.record.as_ref().map_or(0, |r| r.epoch);
    while fleet
        .store
        .record
        .as_ref()
        .is_some_and(|r| r.epoch == epoch)
    {
        fleet.second();
    }
    let (now, hung) = (
        fleet.now_ms + fleet.daemons[slow].ahead_ms,
        fleet.daemons[slow].hung.first().copied(),
    );
    let late = hung.map(|permit| {
        fleet.daemons[slow]
            .breaker
            .record(now, permit.epoch, GOOD, 0.5)
    });
    assert!(late.is_some());
    fleet.daemons[slow].cut = false;
    let decided = fleet.store.record.clone();
    fleet.turn(slow);
    assert_eq!(fleet.store.record, decided, "its word came too late");
}

#[test]
fn cut_off_daemons_decide_alone_and_come_back_without_a_jump() {
    let mut fleet = Fleet::of(3);
    fleet.dead = true;
    fleet.until(State::Open, 20);
    for daemon in &mut fleet.daemons {
        daemon.cut = true;
    }
    fleet.dead = false;
    fleet.until(State::Closed, 60);
    for daemon in &mut fleet.daemons {
        daemon.cut = false;
        daemon.log.clear();
    }
    fleet.seconds(30);
    assert_eq!(fleet.states(), [State::Closed; 3]);
    assert!(fleet.daemons.iter().all(|d| d.log.is_empty()), "no jump");
    assert!(!is_open(&fleet));
}

#[test]
fn trials_that_hung_while_cut_off_do_not_hold_the_fleet_half_open() {
    let mut fleet = Fleet::of(3);
    fleet.dead = true;
    fleet.until(State::Open, 20);
    fleet.seconds(3);
    fleet.hangs = true;
    for daemon in &mut fleet.daemons {
        daemon.cut = true;
    }
    fleet.until(State::HalfOpen, 60);
    fleet.dead = false;
    fleet.hangs = false;
    for daemon in &mut fleet.daemons {
        daemon.cut = false;
    }
    fleet.until(State::Closed, 300);
}

#[test]
fn a_store_that_lost_everything_changes_nothing_at_once() {
    let mut fleet = Fleet::of(2);
    fleet.dead = true;
    fleet.until(State::Open, 20);
    fleet.store = Store::default();
    fleet.second();
    assert!(fleet.states().iter().all(|s| *s != State::Closed));
}

#[test]
fn orders_win_over_the_fleet() {
    let mut fleet = Fleet::of(3);
    let now = fleet.now_ms;
    let hour = Duration::from_secs(3_600);
    fleet.daemons[0].breaker.force_open(now, hour);
    fleet.seconds(60);
    assert_eq!(
        fleet.states()[1..],
        [State::Closed; 2],
        "an order is no evidence"
    );
    let ahead = fleet.now_ms + fleet.daemons[1].ahead_ms;
    fleet.daemons[1].breaker.set_mode(ahead, Mode::Disabled);
    fleet.dead = true;
    fleet.seconds(60);
    assert_eq!(fleet.states()[..2], [State::Open, State::Closed]);
    assert!(fleet.daemons[0].breaker.is_forced(fleet.now_ms));
}

#[test]
fn an_operator_who_closes_it_everywhere_ends_what_the_fleet_decided() {
    let mut fleet = Fleet::of(3);
    fleet.dead = true;
    fleet.until(State::Open, 20);
    fleet.dead = false;
    fleet.seconds(3);
    for daemon in &mut fleet.daemons {
        let now = fleet.now_ms + daemon.ahead_ms;
        daemon.breaker.set_mode(now, Mode::On);
        daemon.log.clear();
    }
    fleet.seconds(5);
    assert_eq!(fleet.states(), [State::Closed; 3]);
    assert!(fleet.daemons.iter().all(|d| d.log.is_empty()));
    assert!(!is_open(&fleet));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever daemons and the way to the store do: no two try at once under the same decision, and when all is well
    /// again all close.
    #[test]
    fn a_fleet_always_recovers(
        events in prop::collection::vec((0_usize..3, 0_u8..7, 1_u32..30), 0..30)
    ) {
        let mut fleet = Fleet::of(3);
        for (who, what, seconds) in events {
            match what {
                0 => fleet.dead = !fleet.dead,
                1 => fleet.daemons[who].cut = !fleet.daemons[who].cut,
                2 => fleet.daemons[who].sick = !fleet.daemons[who].sick,
                3 => fleet.hangs = !fleet.hangs,
                4 => fleet.store = Store::default(),
                5 => fleet.rate = if fleet.rate == 0 { 10 } else { 0 },
                _ => {
                    while let Some(permit) = fleet.daemons[who].hung.pop() {
                        fleet.daemons[who].breaker.release(permit);
                    }
                }
            }
            for _ in 0..seconds {
                fleet.second();
                let trying = fleet.daemons.iter().filter(|d| {
                    let now = fleet.now_ms + d.ahead_ms;
                    d.breaker.stand(now).is_some_and(|s| {
                        Some(s.trial.0) == fleet.store.record.as_ref().map(|r| r.epoch)
                            && s.trial.1 == Trial::Runs
                    })
                });
                prop_assert!(trying.count() <= 1);
            }
        }
        fleet.dead = false;
        fleet.hangs = false;
        for daemon in &mut fleet.daemons {
            daemon.cut = false;
            daemon.sick = false;
            // Without jobs that follow, what hangs ends by its timeout.
            while fleet.rate == 0 && let Some(permit) = daemon.hung.pop() {
                daemon.breaker.release(permit);
            }
        }
        // With jobs or without them: a trial that hung holds the field for five minutes, and a rest comes as late.
        fleet.until(State::Closed, 1_000);
    }
}
