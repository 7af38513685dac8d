//! The model of limits, rates and turns: which slots a job holds while it runs, how many may start, and which flows wait.
//! Knows nothing of Redis.

use super::expected::{Job, Model, Place};
use super::op::Entry;
use super::snapshot::Snapshot;
use crate::queue::rig::{KINDS, catalog_of};
use std::collections::{BTreeMap, BTreeSet};
use tidegate::catalog::Catalog;
use tidegate::job::Priority;

/// What holds for the jobs of a kind.
struct Rules {
    kind: &'static str,
    /// Whether it has keys.
    keyed: bool,
    /// How many of one key may run at once; of all keys, [`TOTAL`].
    limit: Option<usize>,
    /// How many may start in a time that does not pass: of one key, if it has keys.
    starts: Option<usize>,
    /// Whether its keys take turns.
    fair: bool,
}

const NO_RULES: Rules = Rules {
    kind: "",
    keyed: true,
    limit: None,
    starts: None,
    fair: false,
};

/// Kinds with rules, numbered on from the plain ones.
const RULED: [Rules; 5] = [
    Rules {
        kind: "app.k",
        limit: Some(1),
        ..NO_RULES
    },
    Rules {
        kind: "app.l",
        limit: Some(2),
        ..NO_RULES
    },
    Rules {
        kind: "app.f",
        fair: true,
        ..NO_RULES
    },
    Rules {
        kind: "app.r",
        starts: Some(2),
        ..NO_RULES
    },
    Rules {
        kind: "app.w",
        keyed: false,
        starts: Some(3),
        ..NO_RULES
    },
];
/// How many jobs of a kind with keys and limits may run at once.
const TOTAL: usize = 3;
/// The highest limits that operators set.
pub const HIGHEST: u8 = 4;
/// How many kinds have limits: the first ones with rules.
pub const LIMITED: u8 = 2;
/// How many kinds there are.
pub const KINDS_IN_ALL: u8 = (KINDS.len() + RULED.len()) as u8;
/// Keys of a kind.
pub const KEYS: u8 = 4;

fn rules(number: u8) -> &'static Rules {
    let ruled = usize::from(number).checked_sub(KINDS.len());
    ruled.map_or(
        &Rules {
            keyed: false,
            ..NO_RULES
        },
        |ruled| &RULED[ruled],
    )
}

fn rules_of(kind: &str) -> &'static Rules {
    let found = RULED.iter().find(|rules| rules.kind == kind);
    found.expect("it has rules")
}

/// The name of a kind.
pub fn kind(number: u8) -> &'static str {
    let plain = KINDS.get(usize::from(number)).copied();
    plain.unwrap_or_else(|| rules(number).kind)
}

/// How many kinds have rates: the last ones.
pub const RATED: u8 = 2;
/// What is used up of a rate is counted in these: any number of starts up to [`HIGHEST`] goes into them.
pub const TWELFTHS: usize = 12;

/// A kind with a rate, by its place among them.
pub fn rated(pick: u8) -> &'static str {
    kind(KINDS_IN_ALL - 1 - pick % RATED)
}

/// The number of a kind with limits, by its place among them.
pub fn limited(pick: u8) -> u8 {
    KINDS.len() as u8 + pick % LIMITED
}

/// The definitions of all kinds.
pub fn catalog() -> Catalog {
    let n = "n = { type = \"integer\" }\n";
    let plain = KINDS.map(|kind| (kind, format!("[args]\n{n}")));
    let ruled = RULED.map(|rules| {
        let mut text = String::new();
        if rules.fair {
            text += "fairness = \"args.t\"\n";
        }
        if let Some(limit) = rules.limit {
            text += &format!("[concurrency]\nlimit = {limit}\nkey = \"args.t\"\ntotal = {TOTAL}\n");
        }
        if let Some(starts) = rules.starts {
            let key = if rules.keyed {
                "key = \"args.t\"\n"
            } else {
                ""
            };
            text += &format!("[rate]\nlimit = {starts}\nper = \"30days\"\n{key}");
        }
        let t = "t = { type = \"string\", default = \"\" }\n";
        (rules.kind, format!("{text}[args]\n{n}{t}"))
    });
    let all: Vec<(&str, &str)> = plain
        .iter()
        .chain(&ruled)
        .map(|(k, more)| (*k, &**more))
        .collect();
    catalog_of(&all)
}

impl Entry {
    /// What it is told apart by among those of its kind.
    pub fn partition(&self) -> Option<String> {
        rules(self.kind).keyed.then(|| self.key.to_string())
    }

    /// How its flow is listed.
    pub fn member(&self) -> String {
        let key = self.partition().map(|key| format!("@{key}"));
        format!("{}{}", kind(self.kind), key.unwrap_or_default())
    }

    /// What it holds while it runs.
    fn slots(&self) -> Vec<String> {
        let of_both = |_| vec![self.member(), kind(self.kind).to_owned()];
        rules(self.kind).limit.map_or_else(Vec::new, of_both)
    }

    /// The rate it starts under.
    pub fn rate(&self) -> Option<String> {
        rules(self.kind).starts.map(|_| self.member())
    }

    /// Whether its key takes turns with others.
    pub fn is_fair(&self) -> bool {
        rules(self.kind).fair
    }
}

impl Model {
    fn running(&self) -> impl Iterator<Item = (&String, &Job)> {
        let runs = |job: &Job| matches!(job.place, Place::Running { .. });
        self.jobs.iter().filter(move |(_, job)| runs(job))
    }

    fn is_paused(&self, number: u8) -> bool {
        let field = format!("pause:{}", kind(number));
        self.paused.contains("pause") || self.paused.contains(&field)
    }

    /// How many jobs may hold a slot of this name at once by now.
    pub fn slot_limit(&self, slot: &str) -> usize {
        let kind = slot.split('@').next().unwrap_or_default();
        let (limit, total) = self.limits.get(kind).copied().unwrap_or_default();
        if slot.contains('@') {
            limit.or(rules_of(kind).limit).expect("it has a limit")
        } else {
            total.unwrap_or(TOTAL)
        }
    }

    /// How many jobs may start under a rate of which nothing is used up.
    pub fn pace(&self, rate: &str) -> usize {
        let kind = rate.split('@').next().unwrap_or_default();
        let changed = self.paces.get(kind).copied();
        changed.unwrap_or_else(|| rules_of(kind).starts.expect("it has a rate"))
    }

    /// How many jobs may still start under a rate.
    fn starts_left(&self, rate: &str) -> usize {
        let left = TWELFTHS - self.used.get(rate).copied().unwrap_or(0);
        self.pace(rate) * left / TWELFTHS
    }

    /// Who holds which slots.
    fn holders(&self) -> BTreeMap<String, BTreeSet<&str>> {
        let mut holders: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
        for (id, job) in self.running() {
            for slot in job.sent.entry.slots() {
                holders.entry(slot).or_default().insert(id);
            }
        }
        holders
    }

    /// The classes of the jobs that a claim brings from the kinds that are neither closed nor paused: of those that wait, in the order of
    /// their classes, as many as there are slots for.
    pub fn claimable(&self, closed: Option<u8>) -> Vec<u8> {
        let open = |job: &&Job| {
            let number = job.sent.entry.kind;
            job.place == Place::Waiting && Some(number) != closed && !self.is_paused(number)
        };
        let mut waiting: Vec<&Entry> = self
            .jobs
            .values()
            .filter(open)
            .map(|job| &job.sent.entry)
            .collect();
        waiting.sort_by_key(|entry| entry.class);
        let holders = self.holders().into_iter();
        let mut held: BTreeMap<String, usize> = holders.map(|(s, ids)| (s, ids.len())).collect();
        let mut started: BTreeMap<String, usize> = BTreeMap::new();
        // Which of one class come first makes no difference to how many there is room for.
        waiting.retain(|entry| {
            let (slots, rate) = (entry.slots(), entry.rate());
            let full = |slot: &String| held.get(slot).is_some_and(|n| *n >= self.slot_limit(slot));
            let used_up =
                |rate: &String| self.starts_left(rate) <= started.get(rate).copied().unwrap_or(0);
            let fits = !slots.iter().any(full) && !rate.iter().any(used_up);
            if fits {
                let count = |names: &mut BTreeMap<String, usize>, name| {
                    *names.entry(name).or_default() += 1;
                };
                slots.into_iter().for_each(|s| count(&mut held, s));
                rate.into_iter().for_each(|r| count(&mut started, r));
            }
            fits
        });
        waiting.into_iter().map(|entry| entry.class).collect()
    }

    /// A claim brought these, and passed over no entry that a cancelled job left behind: keys that take turns had as many
    /// as the others, give or take one, as long as they had any.
    pub fn check_turns(&self, claimed: &[String]) {
        let mut had: BTreeMap<(u8, u8, u8), usize> = BTreeMap::new();
        let flow = |entry: &Entry| (entry.kind, entry.class, entry.key);
        for id in claimed {
            let entry = &self.jobs[id].sent.entry;
            if entry.is_fair() {
                *had.entry(flow(entry)).or_default() += 1;
            }
        }
        let waits = |job: &&Job| job.place == Place::Waiting && job.sent.entry.is_fair();
        for job in self.jobs.values().filter(waits) {
            let (kind, class, key) = flow(&job.sent.entry);
            let own = had.get(&(kind, class, key)).copied().unwrap_or(0);
            let others = had
                .iter()
                .filter(|((k, c, _), _)| (*k, *c) == (kind, class));
            let most = others.map(|(_, n)| *n).max().unwrap_or(0);
            assert!(
                most <= own + 1,
                "key {key} had {own} turns, another one {most}"
            );
        }
    }
}

/// Slots are held by those who run, by no more than there are, and whoever waits for one is in line once it is free.
pub fn check_limits(model: &Model, found: &Snapshot, what: &str) {
    let held = found.slots();
    assert_eq!(held, model.holders(), "holders of slots after {what}");
    for (slot, ids) in &held {
        // A limit that was lowered stops nobody.
        let most = if model.lowered {
            usize::from(HIGHEST)
        } else {
            model.slot_limit(slot)
        };
        assert!(ids.len() <= most, "{slot} has {ids:?} after {what}");
    }
    let changed = model.limits.keys().chain(model.paces.keys());
    let changed = changed.map(|kind| format!("limit:{kind}"));
    let changed: BTreeSet<String> = changed.chain(model.paused.iter().cloned()).collect();
    let changed = changed.iter().map(String::as_str);
    assert_eq!(
        found.members("control"),
        changed.collect(),
        "control after {what}"
    );
    let started = model.used.keys().map(String::as_str);
    assert_eq!(
        found.members("rates"),
        started.collect(),
        "rates after {what}"
    );
    for flow in found.members("resume") {
        let (_, rate) = flow.split_once(':').unwrap();
        assert_eq!(
            model.starts_left(rate),
            0,
            "{flow} waits for its rate after {what}"
        );
    }
    let holds = model.running().filter_map(|(id, job)| {
        let slots = job.sent.entry.slots();
        (!slots.is_empty()).then(|| (&**id, slots.join("\n")))
    });
    let written = found.pairs("holds").into_iter();
    let written: BTreeMap<_, _> = written.map(|(id, slots)| (id, slots.to_owned())).collect();
    assert_eq!(written, holds.collect(), "holds after {what}");
    for (slot, flows) in found.pairs("parked") {
        let limit = model.slot_limit(slot);
        let full = held.get(slot).is_some_and(|ids| ids.len() >= limit);
        assert!(
            full,
            "somebody waits for a free slot of {slot} after {what}"
        );
        for (class, member) in flows.lines().map(parked_flow) {
            assert_eq!(member, slot, "{member} of {class} after {what}");
        }
    }
}

/// The class and the name of a flow that waits for a slot, as it is written down.
fn parked_flow(line: &str) -> (&'static str, &str) {
    let (class, rest) = line.split_once(':').unwrap();
    let (member, _) = rest.rsplit_once(':').unwrap();
    let number: usize = class.parse().unwrap();
    (Priority::ALL[number - 1].as_str(), member)
}

/// The flows that wait for a slot or for their rate: class and name. All of them are of kinds with keys.
pub fn parked(found: &Snapshot) -> BTreeSet<(&'static str, &str)> {
    let slots = found.pairs("parked").into_values();
    let for_slots = slots.flat_map(str::lines).map(parked_flow);
    let for_rates = found.members("resume").into_iter().map(|flow| {
        let (class, member) = flow.split_once(':').unwrap();
        let number: usize = class.parse().unwrap();
        (Priority::ALL[number - 1].as_str(), member)
    });
    for_slots.chain(for_rates).collect()
}
