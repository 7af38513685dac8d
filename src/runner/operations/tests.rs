#![allow(clippy::unwrap_used)]

use super::*;
use crate::config::{self, GateMode, Sources};
use crate::job::{Failure, Outcome, Priority};
use crate::runner::slots::Ask;

const SLOTS: usize = 100;
const TIMEOUT: Duration = Duration::from_secs(60);
const REST: Duration = Duration::from_millis(300);

struct Bed {
    operations: Arc<Operations>,
    slots: Arc<Slots>,
    http: Vec<Arc<Operation>>,
    told: Arc<Mutex<Vec<State>>>,
}

/// One operation, whose breaker tries again as soon as it is open.
fn bed() -> Bed {
    bed_with(GateMode::Off)
}

fn bed_with(mode: GateMode) -> Bed {
    let mut config = config::load(&Sources::default()).unwrap();
    config.breaker.open = Duration::ZERO;
    config.breaker.open_max = Duration::ZERO;
    config.breaker.ramp_step = Duration::ZERO;
    config.breaker.rest = REST;
    config.limiter.mode = mode;
    let settings = Settings {
        breaker: config.breaker,
        limiter: config.limiter,
        pool: 3,
    };
    let slots = Arc::new(Slots::new(SLOTS));
    let told: Arc<Mutex<Vec<State>>> = Arc::default();
    let hears = Arc::clone(&told);
    let operations = Arc::new(Operations::new(
        settings,
        Epoch::start(),
        Arc::clone(&slots),
        move |_, change| hears.lock().push(change.to),
    ));
    let http = operations.of(&"http".into(), &["http:a".into()]);
    Bed {
        operations,
        slots,
        http,
        told,
    }
}

impl Bed {
    /// A claim of up to `most` jobs of one flow; how many it may bring.
    fn claim(&self, most: usize) -> usize {
        let ask = self.ask();
        self.slots.reserve(&"q".into(), SLOTS, most, &[ask]).limit
    }

    fn ask(&self) -> Ask {
        Ask {
            kind: "k".into(),
            class: Priority::Normal,
            kind_limit: usize::MAX,
            class_limit: usize::MAX,
            flow_limit: usize::MAX,
            operations: self.operations.limits(&self.http),
            urgent: false,
            long: false,
            ages: true,
        }
    }

    fn pass(&self) -> Option<Passage> {
        self.operations.pass(&self.http)
    }

    fn end(&self, passage: Passage, outcome: &Outcome) {
        passage.record(outcome, Duration::from_millis(5), TIMEOUT);
        self.give_back();
    }

    fn give_back(&self) {
        let ask = self.ask();
        self.slots
            .release(&"q".into(), &ask.kind, ask.class, &ask.holds());
    }

    /// Runs jobs that end like this until none may be claimed, or `most`.
    fn run(&self, most: usize, outcome: &Outcome) -> usize {
        let mut ran = 0;
        while ran < most && self.claim(1) == 1 {
            match self.pass() {
                Some(passage) => self.end(passage, outcome),
                None => self.give_back(),
            }
            ran += 1;
        }
        ran
    }
}

fn refused() -> Outcome {
    Outcome::Failed(Failure::new("nobody there").blaming("http:a", true))
}

#[test]
fn ten_flows_claim_one_job_for_one_trial_even_while_others_hang() {
    let bed = bed();
    assert_eq!(bed.claim(3), 3);
    let hung: Vec<_> = (0..3).filter_map(|_| bed.pass()).collect();
    assert_eq!(hung.len(), 3);
    assert_eq!(bed.run(5, &refused()), 5);
    assert_eq!(*bed.told.lock(), [State::Open]);
    let asks = vec![bed.ask(); 10];
    let got = bed.slots.reserve(&"q".into(), SLOTS, SLOTS, &asks);
    assert_eq!((got.limit, got.allowances[0]), (1, 1));
    assert_eq!(bed.claim(1), 0, "claimed, though not let through yet");
    let trial = bed.pass().expect("the trial");
    assert_eq!(bed.claim(1), 0, "the trial runs");
    assert!(bed.pass().is_none());
    drop(trial);
    bed.give_back();
    assert_eq!(bed.claim(5), 1, "the permit came back");
}

#[test]
fn the_way_back_is_a_share_of_the_limit_before_beside_what_hangs_on() {
    let bed = bed();
    bed.slots.set_total(200);
    assert_eq!(bed.claim(3), 3);
    let hung: Vec<_> = (0..3).filter_map(|_| bed.pass()).collect();
    bed.run(5, &refused());
    bed.slots.set_total(50);
    // The trial, and five for each step of 1, 2, 4 and 8%.
    assert_eq!(bed.run(1 + 4 * 5, &Outcome::Done(None)), 21);
    let quarter = bed.claim(SLOTS);
    assert_eq!(
        quarter,
        50 / 4,
        "a quarter of what there is, the hung aside"
    );
    drop(hung);
    let limits = bed.operations.limits(&bed.http);
    assert_eq!(limits[0].limit, 50 / 4, "who hung is gone");
}

#[test]
fn orders_change_a_breaker_are_told_and_wake_who_waits() {
    let bed = bed();
    let operation = bed.operations.get("http", "http:a").expect("it is there");
    assert!(bed.operations.get("http", "http:b").is_none());
    bed.operations
        .force_open(&operation, Duration::from_secs(600));
    assert_eq!(bed.operations.limits(&bed.http)[0].limit, 0);
    assert!(bed.pass().is_none());
    bed.operations.set_mode(&operation, Mode::On);
    assert_eq!(bed.operations.limits(&bed.http)[0].limit, SLOTS);
    assert_eq!(*bed.told.lock(), [State::Open, State::Closed]);
}

#[test]
fn a_limiter_acts_on_all_but_invalidations_and_a_pool_has_its_connections() {
    let bed = bed_with(GateMode::On);
    let initial = bed.operations.limits(&bed.http)[0].limit;
    assert!(initial < SLOTS, "nothing is known yet: {initial}");
    let of = |handler: &str, resource: &str| {
        let made = bed.operations.of(&handler.into(), &[resource.into()]);
        bed.operations.limits(&made)[0].limit
    };
    assert_eq!(of("cache.invalidate", "redis:cache"), SLOTS);
    assert_eq!(of("db.purge", "postgres:primary"), 3);
    assert_eq!(
        of("exec", "postgres:primary"),
        initial,
        "has its own connections"
    );
    let shown = bed.operations.limiters();
    let shown: Vec<_> = shown
        .iter()
        .map(|l| serde_json::to_value(l).unwrap())
        .collect();
    assert_eq!(shown.len(), 3, "invalidations have none");
    assert_eq!(
        (&shown[0]["handler"], &shown[0]["by"]),
        (&"db.purge".into(), &"pool".into())
    );
    assert_eq!(
        (&shown[2]["handler"], &shown[2]["by"]),
        (&"http".into(), &"limiter".into())
    );
    assert_eq!(shown[2]["limiter"]["limit"], initial);
}

#[test]
fn a_reload_turns_limiters_on_and_off() {
    let bed = bed_with(GateMode::Shadow);
    let limit = || bed.operations.limits(&bed.http)[0].limit;
    assert_eq!((limit(), bed.operations.limiters().len()), (SLOTS, 1));
    let mut settings = config::load(&Sources::default()).unwrap().limiter;
    bed.operations.configure(&settings);
    assert_eq!(limit(), settings.initial);
    settings.mode = GateMode::Off;
    bed.operations.configure(&settings);
    assert_eq!((limit(), bed.operations.limiters().len()), (SLOTS, 0));
}

#[tokio::test]
async fn it_rests_while_nothing_runs_and_tells_when_a_trial_may_go() {
    let bed = bed();
    let deadline = Duration::from_secs(5);
    let idle = tokio::time::timeout(Duration::ZERO, bed.operations.in_use());
    assert!(idle.await.is_err(), "nothing to judge");
    bed.run(4, &refused());
    let used = tokio::time::timeout(deadline, bed.operations.in_use());
    used.await.expect("calls were let through");
    let operation = bed.operations.get("http", "http:a").unwrap();
    bed.operations
        .force_open(&operation, Duration::from_millis(50));
    bed.operations.tick(|_| true);
    let waiter = bed.slots.waiter();
    let trial = async {
        while bed.ask().operations[0].limit == 0 {
            bed.operations.in_use().await;
            bed.operations.tick(|_| true);
            tokio::task::yield_now().await;
        }
        bed.operations.tick(|_| true);
        waiter.notified().await;
    };
    let woken = tokio::time::timeout(deadline, trial).await;
    woken.expect("who waits is woken when the cool-down is over");
    // Nobody came: it is counted as closed in the end, and then there is nothing left to judge.
    let rested = async {
        while bed.told.lock().last() != Some(&State::Closed) {
            bed.operations.in_use().await;
            bed.operations.tick(|_| true);
            tokio::task::yield_now().await;
        }
    };
    let rested = tokio::time::timeout(deadline, rested).await;
    rested.expect("it ticks until then");
    assert_eq!(*bed.told.lock(), [State::Open, State::Closed]);
    bed.operations.tick(|_| true);
    let idle = tokio::time::timeout(Duration::ZERO, bed.operations.in_use());
    assert!(idle.await.is_err(), "it rests until somebody comes");
    assert_eq!(bed.claim(5), 1, "who is tried alone");
}

#[test]
fn what_no_kind_has_any_more_is_forgotten_when_its_last_call_is_over() {
    let mut bed = bed();
    let handler: Arc<str> = "http".into();
    let other = bed.operations.of(&handler, &["http:b".into()]);
    let passage = bed.operations.pass(&bed.http).unwrap();
    bed.http.clear();
    bed.operations.forget_unused();
    assert!(
        bed.operations.get("http", "http:a").is_some(),
        "a call runs"
    );
    drop(passage);
    bed.operations.forget_unused();
    assert!(bed.operations.get("http", "http:a").is_none());
    let again = bed.operations.of(&handler, &["http:a".into()]);
    assert_ne!(again[0].index, other[0].index, "each has its own slots");
}
