//! What daemons, apps and operators do, as values: proptest makes sequences of them and shrinks those that fail. Whom or
//! what an operation is about is an index, taken modulo what there is, so that any part of a sequence is one too.

use super::limits::{HIGHEST, KEYS, KINDS_IN_ALL, LIMITED, RATED};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

/// Daemons in a case.
pub const DAEMONS: usize = 3;
/// Ids that apps give.
const IDS: u8 = 8;

/// One case.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Case {
    /// Whether given ids are remembered.
    pub remember: bool,
    pub ops: Vec<Op>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Op {
    /// An app pushes to the inbox.
    Push(Vec<Entry>),
    /// An app calls the enqueue script.
    Enqueue(Vec<Entry>),
    /// A daemon looks at the inbox, and may act on it much later.
    Peek(u8),
    /// A daemon admits what it peeked.
    Admit(u8),
    /// A daemon claims, from all flows but those of one kind; perhaps the reply is lost.
    Claim {
        who: u8,
        limit: u8,
        closed: Option<u8>,
        lost: bool,
    },
    /// A daemon settles some of what it holds; perhaps it asks again, because replies were lost.
    Settle {
        who: u8,
        ends: Vec<(u8, End)>,
        asked: u8,
    },
    /// A daemon settles what is not its own any more.
    SettlePast(u8),
    /// A running job tells how far it has come; so does one that lost its delivery.
    Tell {
        who: u8,
        pick: u8,
    },
    /// A daemon hands back what it claimed without hearing of it.
    Sweep(u8),
    Promote(u8),
    /// The same, where retries are told to wait for long.
    PromoteBut(u8),
    /// The time of a delayed job comes.
    ComesDue(u8),
    /// The time for which an id is remembered is over.
    Forget(u8),
    Cancel(u8),
    Requeue(u8),
    Bury(u8),
    /// An operator puts a job among the dead, on its way to another queue.
    Shelve(u8),
    /// An operator puts a quarantined entry back into the inbox.
    Release(u8),
    /// An operator pauses a kind or, by the number after the last kind, the queue; or lets it go on.
    Pause(u8),
    /// An operator changes the limits of a kind that has some, of a key and of all keys, or gives them back.
    Limit {
        kind: u8,
        limits: Option<(u8, u8)>,
    },
    /// An operator changes the rate of a kind that has one, or gives it back.
    Pace {
        kind: u8,
        starts: Option<u8>,
    },
    /// The time passes that a rate is for.
    Refill(u8),
    /// A daemon serves the next tick of a schedule, by what it knew of it last; perhaps before its time.
    Tick {
        who: u8,
        early: bool,
    },
    /// An operator pauses the schedule, or lets it go on.
    PauseSchedule,
    /// The auditor goes through everything, and finds nothing to put right.
    Audit,
    /// A daemon dies; the one that takes its place fences it and returns its jobs.
    Die(u8),
}

/// What an app sends.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    /// Number of its kind.
    pub kind: u8,
    /// The number of its key, if its kind has keys.
    #[serde(default)]
    pub key: u8,
    /// Its class, as an index.
    pub class: u8,
    /// The number in its id, if it gives one.
    pub id: Option<u8>,
    pub form: Form,
    /// What it is tied to.
    #[serde(default)]
    pub bond: Option<Bond>,
    /// Whether its result is kept.
    #[serde(default)]
    pub result: bool,
    /// How many steps follow it.
    #[serde(default)]
    pub then: u8,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Bond {
    /// It must hold a lock.
    Unique { lock: u8, rule: Rule },
    /// It is a member of a group, and may say what follows that.
    Group { group: u8, then: bool },
}

/// Until when a lock is held, and what becomes of who finds it held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rule {
    Skip,
    SkipClaimed,
    Replace,
    Merge,
    /// Skipped until long after.
    Timed,
    /// The same, but for one that waits.
    TimedReplace,
    Debounce,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Form {
    Now,
    Later,
    /// What can't be a job.
    Broken,
}

/// How a delivery ends.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum End {
    Done,
    Expired,
    Cancelled,
    /// Again, at once.
    Retry,
    /// Again, long after.
    Snooze,
    Dead,
    HandBack,
    Quarantine,
}

pub fn case() -> impl Strategy<Value = Case> {
    (prop::bool::weighted(0.8), vec(op(), 1..40)).prop_map(|(remember, ops)| Case { remember, ops })
}

fn op() -> impl Strategy<Value = Op> {
    let who = || 0..DAEMONS as u8;
    let entries = || vec(entry(), 1..6);
    prop_oneof![
        10 => entries().prop_map(Op::Push),
        5 => rush().prop_map(Op::Push),
        8 => entries().prop_map(Op::Enqueue),
        2 => who().prop_map(Op::Peek),
        16 => who().prop_map(Op::Admit),
        18 => (who(), 1..8_u8, option::weighted(0.2, 0..KINDS_IN_ALL), prop::bool::weighted(0.1))
            .prop_map(|(who, limit, closed, lost)| Op::Claim { who, limit, closed, lost }),
        18 => (who(), vec((any::<u8>(), end()), 1..5), 1..3_u8)
            .prop_map(|(who, ends, asked)| Op::Settle { who, ends, asked }),
        3 => who().prop_map(Op::SettlePast),
        3 => (who(), any::<u8>()).prop_map(|(who, pick)| Op::Tell { who, pick }),
        3 => who().prop_map(Op::Sweep),
        6 => who().prop_map(Op::Promote),
        3 => who().prop_map(Op::PromoteBut),
        4 => any::<u8>().prop_map(Op::ComesDue),
        2 => any::<u8>().prop_map(Op::Forget),
        6 => any::<u8>().prop_map(Op::Cancel),
        5 => any::<u8>().prop_map(Op::Requeue),
        3 => any::<u8>().prop_map(Op::Bury),
        2 => any::<u8>().prop_map(Op::Shelve),
        2 => any::<u8>().prop_map(Op::Release),
        2 => (0..=KINDS_IN_ALL).prop_map(Op::Pause),
        4 => (0..LIMITED, option::weighted(0.7, (1..=HIGHEST, 1..=HIGHEST)))
            .prop_map(|(kind, limits)| Op::Limit { kind, limits }),
        3 => (0..RATED, option::weighted(0.7, 1..=HIGHEST))
            .prop_map(|(kind, starts)| Op::Pace { kind, starts }),
        3 => any::<u8>().prop_map(Op::Refill),
        3 => (who(), prop::bool::weighted(0.2)).prop_map(|(who, early)| Op::Tick { who, early }),
        1 => Just(Op::PauseSchedule),
        1 => Just(Op::Audit),
        3 => who().prop_map(Op::Die),
    ]
}

/// Jobs of one kind with rules, and of a few keys: so that they wait for each other.
fn rush() -> impl Strategy<Value = Vec<Entry>> {
    (3..KINDS_IN_ALL, vec(0..2_u8, 3..8)).prop_map(|(kind, keys)| {
        let of_key = |key| Entry {
            kind,
            key,
            ..Entry::plain()
        };
        keys.into_iter().map(of_key).collect()
    })
}

fn entry() -> impl Strategy<Value = Entry> {
    let form = prop_oneof![
        12 => Just(Form::Now),
        3 => Just(Form::Later),
        1 => Just(Form::Broken),
    ];
    let kind = prop_oneof![3 => 0..3_u8, 2 => 3..KINDS_IN_ALL];
    let flow = (kind, 0..KEYS, 0..5_u8);
    let plain = (flow, option::weighted(0.6, 0..IDS), form);
    let ties = (
        option::weighted(0.5, bond()),
        prop::bool::weighted(0.2),
        steps(),
    );
    (plain, ties).prop_map(
        |(((kind, key, class), id, form), (bond, result, then))| Entry {
            kind,
            key,
            class,
            id,
            form,
            bond,
            result,
            then,
        },
    )
}

fn bond() -> impl Strategy<Value = Bond> {
    let rule = prop_oneof![
        3 => Just(Rule::Skip),
        1 => Just(Rule::SkipClaimed),
        2 => Just(Rule::Replace),
        2 => Just(Rule::Merge),
        1 => Just(Rule::Timed),
        1 => Just(Rule::TimedReplace),
        2 => Just(Rule::Debounce),
    ];
    prop_oneof![
        3 => (0..2_u8, rule).prop_map(|(lock, rule)| Bond::Unique { lock, rule }),
        2 => (0..4_u8, any::<bool>()).prop_map(|(group, then)| Bond::Group { group, then }),
    ]
}

fn steps() -> impl Strategy<Value = u8> {
    prop_oneof![6 => Just(0), 1 => 1..3_u8]
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        8 => Just(End::Done),
        1 => Just(End::Expired),
        1 => Just(End::Cancelled),
        3 => Just(End::Retry),
        2 => Just(End::Snooze),
        2 => Just(End::Dead),
        3 => Just(End::HandBack),
        1 => Just(End::Quarantine),
    ]
}

impl Entry {
    /// One with nothing special about it.
    pub fn plain() -> Self {
        Self {
            kind: 0,
            key: 0,
            class: 2,
            id: None,
            form: Form::Now,
            bond: None,
            result: false,
            then: 0,
        }
    }

    pub fn given(&self) -> Option<String> {
        self.id.map(|n| format!("id-{n}"))
    }
}
