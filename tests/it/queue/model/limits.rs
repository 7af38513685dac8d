//! The model of limits across daemons: which slots a job holds while it runs, and which flows wait for one. Knows nothing of
//! Redis.

use super::expected::{Job, Model, Place};
use super::op::Entry;
use super::snapshot::Snapshot;
use crate::queue::rig::{KINDS, catalog_of};
use std::collections::{BTreeMap, BTreeSet};
use tidegate::catalog::Catalog;
use tidegate::job::Priority;

/// Kinds with keys, numbered on from the plain ones, and how many jobs of one key may run at once.
const KEYED: [(&str, usize); 2] = [("app.k", 1), ("app.l", 2)];
/// How many jobs of a kind with keys may run at once.
const TOTAL: usize = 3;
/// How many kinds there are.
pub const KINDS_IN_ALL: u8 = (KINDS.len() + KEYED.len()) as u8;
/// Keys of a kind.
pub const KEYS: u8 = 4;

/// The name of a kind.
pub fn kind(number: u8) -> &'static str {
    let number = usize::from(number);
    let keyed = || KEYED[number - KINDS.len()].0;
    KINDS.get(number).copied().unwrap_or_else(keyed)
}

/// The definitions of all kinds.
pub fn catalog() -> Catalog {
    let n = "n = { type = \"integer\" }\n";
    let plain = KINDS.map(|kind| (kind, format!("[args]\n{n}")));
    let keyed = KEYED.map(|(kind, limit)| {
        let limits = format!("limit = {limit}\nkey = \"args.t\"\ntotal = {TOTAL}\n");
        let t = "t = { type = \"string\", default = \"\" }\n";
        (kind, format!("[concurrency]\n{limits}[args]\n{n}{t}"))
    });
    let all: Vec<(&str, &str)> = plain
        .iter()
        .chain(&keyed)
        .map(|(k, more)| (*k, &**more))
        .collect();
    catalog_of(&all)
}

/// How many jobs may hold a slot of this name at once.
fn limit(slot: &str) -> usize {
    let of_key = |kind: &str| KEYED.iter().find(|(k, _)| *k == kind).map(|(_, n)| *n);
    slot.split_once('@')
        .map_or(TOTAL, |(kind, _)| of_key(kind).expect("it has keys"))
}

impl Entry {
    /// What it is told apart by among those of its kind.
    pub fn partition(&self) -> Option<String> {
        let keyed = usize::from(self.kind) >= KINDS.len();
        keyed.then(|| self.key.to_string())
    }

    /// How its flow is listed.
    pub fn member(&self) -> String {
        let key = self.partition().map(|key| format!("@{key}"));
        format!("{}{}", kind(self.kind), key.unwrap_or_default())
    }

    /// What it holds while it runs.
    fn slots(&self) -> Vec<String> {
        let of_both = |_| vec![self.member(), kind(self.kind).to_owned()];
        self.partition().map_or_else(Vec::new, of_both)
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
        // Which of one class come first makes no difference to how many there is room for.
        waiting.retain(|entry| {
            let slots = entry.slots();
            let full = |slot: &String| held.get(slot).is_some_and(|n| *n >= limit(slot));
            let fits = !slots.iter().any(full);
            if fits {
                slots
                    .into_iter()
                    .for_each(|s| *held.entry(s).or_default() += 1);
            }
            fits
        });
        waiting.into_iter().map(|entry| entry.class).collect()
    }
}

/// Slots are held by those who run, by no more than there are, and whoever waits for one is in line once it is free.
pub fn check_limits(model: &Model, found: &Snapshot, what: &str) {
    let held = found.slots();
    assert_eq!(held, model.holders(), "holders of slots after {what}");
    for (slot, ids) in &held {
        assert!(ids.len() <= limit(slot), "{slot} has {ids:?} after {what}");
    }
    let paused = model.paused.iter().map(String::as_str);
    assert_eq!(
        found.members("control"),
        paused.collect(),
        "control after {what}"
    );
    let holds = model.running().filter_map(|(id, job)| {
        let slots = job.sent.entry.slots();
        (!slots.is_empty()).then(|| (&**id, slots.join("\n")))
    });
    let written = found.pairs("holds").into_iter();
    let written: BTreeMap<_, _> = written.map(|(id, slots)| (id, slots.to_owned())).collect();
    assert_eq!(written, holds.collect(), "holds after {what}");
    for (slot, flows) in found.pairs("parked") {
        let full = held.get(slot).is_some_and(|ids| ids.len() >= limit(slot));
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

/// The flows that wait for a slot: class and name. All of them are of kinds with keys.
pub fn parked(found: &Snapshot) -> BTreeSet<(&'static str, &str)> {
    let slots = found.pairs("parked").into_values();
    slots.flat_map(str::lines).map(parked_flow).collect()
}
