//! What must hold after every operation: everything the model has is in Redis in its one place, and nothing else is there.

use super::expected::{Model, Place};
use super::snapshot::Snapshot;
use crate::queue::rig::KINDS;
use std::collections::{BTreeMap, BTreeSet};
use tidegate::job::{History, Priority};

/// Compares; `what` tells what was done last. Returns how many entries of cancelled jobs still stand in flows.
pub fn check(model: &Model, found: &Snapshot, what: &str) -> usize {
    let stored = found.pairs("jobs");
    let jobs = model.jobs.iter().map(|(id, job)| (&**id, &*job.raw));
    assert_eq!(stored, jobs.collect(), "stored jobs after {what}");
    let place = |wanted: fn(&Place) -> bool| -> BTreeSet<&str> {
        let there = model.jobs.iter().filter(|(_, job)| wanted(&job.place));
        there.map(|(id, _)| &**id).collect()
    };
    let delayed = place(|p| matches!(p, Place::Delayed { .. }));
    assert_eq!(found.members("delayed"), delayed, "delayed after {what}");
    let dead = place(|p| *p == Place::Dead);
    assert_eq!(found.members("dead"), dead, "dead after {what}");
    let running = model.jobs.iter().filter_map(|(id, job)| match &job.place {
        Place::Running { token } => Some((&**id, &**token)),
        _ => None,
    });
    let running: BTreeMap<_, _> = running.collect();
    assert_eq!(found.pairs("running"), running, "running after {what}");
    let told = model.jobs.iter();
    let told = told.filter_map(|(id, job)| Some((&**id, job.told.as_deref()?)));
    assert_eq!(
        found.pairs("progress"),
        told.collect(),
        "progress after {what}"
    );
    check_histories(model, found, what);
    check_ids(model, found, what);
    check_books(model, found, what);
    check_sizes(found, what);
    check_flows(model, found, what)
}

/// Whose troubles are kept, and that they are the right ones.
fn check_histories(model: &Model, found: &Snapshot, what: &str) {
    let kept = found.pairs("meta").into_iter().map(|(id, json)| {
        let history = History::parse(json.as_bytes()).unwrap();
        (id, (history.attempts, history.crashes))
    });
    let kept: BTreeMap<_, _> = kept.collect();
    let troubled = model.jobs.iter().filter(|(_, job)| job.troubled);
    let troubled = troubled.map(|(id, job)| (&**id, (job.attempts, job.crashes)));
    assert_eq!(kept, troubled.collect(), "histories after {what}");
}

/// Which ids are taken though no job has them.
fn check_ids(model: &Model, found: &Snapshot, what: &str) {
    let (mut reserved, mut remembered) = (BTreeSet::new(), BTreeSet::new());
    for (id, score) in found.pairs("ids") {
        if score == "1" {
            reserved.insert(id);
        } else if !model.forgotten.contains(id) {
            remembered.insert(id);
        }
    }
    let wanted = model.reserved.iter().map(String::as_str).collect();
    assert_eq!(reserved, wanted, "reserved ids after {what}");
    let wanted = model.remembered.keys().map(String::as_str).collect();
    assert_eq!(remembered, wanted, "remembered ids after {what}");
}

/// Inbox, quarantine, the ring, the counters.
fn check_books(model: &Model, found: &Snapshot, what: &str) {
    let inbox: Vec<&String> = model.inbox.iter().map(|(_, raw)| raw).collect();
    let there: Vec<&String> = found.list("inbox").iter().collect();
    assert_eq!(there, inbox, "inbox after {what}");
    let taken = found.list("taken").first().map_or("0", String::as_str);
    assert_eq!(taken, model.taken.to_string(), "taken after {what}");
    let quarantine = found.list("quarantine").chunks_exact(2);
    let quarantine: Vec<&String> = quarantine.map(|pair| &pair[1]).collect();
    let wanted: Vec<&String> = model.quarantine.iter().map(|(_, raw)| raw).collect();
    assert_eq!(quarantine, wanted, "quarantine after {what}");
    let ring = found.list("recent").iter().map(|record| {
        let mut fields = record.split('\t');
        (fields.next().unwrap(), fields.next().unwrap())
    });
    let ended = model.recent.iter().map(|(id, state)| (&**id, *state));
    assert_eq!(
        ring.collect::<Vec<_>>(),
        ended.collect::<Vec<_>>(),
        "the ring after {what}"
    );
    let asked = model.asked.iter().map(String::as_str).collect();
    assert_eq!(found.members("cancels"), asked, "cancels after {what}");
    let sizes = ["dead_bytes", "history_bytes", "quarantine_bytes"];
    let stats = found.pairs("stats").into_iter();
    let stats = stats.filter(|(name, _)| !sizes.contains(name));
    let counts = stats.map(|(name, n)| (name, n.parse::<u64>().unwrap()));
    let stats: BTreeMap<_, u64> = counts.filter(|(_, n)| *n > 0).collect();
    assert_eq!(stats, model.stats, "counters after {what}");
}

/// Sizes that are kept as jobs come and go are those of what is there.
fn check_sizes(found: &Snapshot, what: &str) {
    let size = |name: &str| -> usize {
        let stats = found.pairs("stats");
        stats.get(name).map_or(0, |n| n.parse().unwrap())
    };
    let (jobs, meta) = (found.pairs("jobs"), found.pairs("meta"));
    let length = |of: &BTreeMap<&str, &str>, id: &str| of.get(id).map_or(0, |text| text.len());
    let dead = found.members("dead").into_iter();
    let dead: usize = dead.map(|id| length(&jobs, id) + length(&meta, id)).sum();
    assert_eq!(size("dead_bytes"), dead, "dead_bytes after {what}");
    let archive = found.pairs("archive");
    let kept = archive.values().map(|text| text.len()).sum::<usize>();
    assert_eq!(size("history_bytes"), kept, "history_bytes after {what}");
    let listed: BTreeSet<&str> = archive.into_keys().collect();
    assert_eq!(found.members("archived"), listed, "archived after {what}");
}

/// Who waits stands once, in its flow, and the flow is listed by the ready time of its head.
fn check_flows(model: &Model, found: &Snapshot, what: &str) -> usize {
    let mut stones: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
    for (id, stone) in found.pairs("tomb") {
        let (count, until) = stone.split_once(':').unwrap();
        stones.insert(id, (count.parse().unwrap(), until));
    }
    let total = stones.values().map(|(count, _)| count).sum();
    let mut waiting = BTreeMap::new();
    let mut heads: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
    for (class, kind, entries) in found.flows() {
        let head = entries[0].split_once(':').unwrap().0.parse().unwrap();
        heads.entry(class).or_default().insert(kind, head);
        for entry in entries {
            let (at, id) = entry.split_once(':').unwrap();
            match stones.get_mut(id).filter(|(_, until)| at <= *until) {
                Some((count, _)) => *count = count.checked_sub(1).expect("a stone for each entry"),
                None => {
                    let before = waiting.insert(id, (class, kind));
                    assert_eq!(before, None, "{id} waits twice after {what}");
                }
            }
        }
    }
    for (id, (left, _)) in stones {
        assert_eq!(left, 0, "{id} has more stones than entries after {what}");
    }
    let wanted = model
        .jobs
        .iter()
        .filter(|(_, job)| job.place == Place::Waiting);
    let wanted: BTreeMap<&str, (&str, &str)> = wanted
        .map(|(id, job)| {
            let class = Priority::ALL[usize::from(job.entry.class)].as_str();
            (&**id, (class, KINDS[usize::from(job.entry.kind)]))
        })
        .collect();
    assert_eq!(waiting, wanted, "waiting after {what}");
    for class in Priority::ALL.map(Priority::as_str) {
        let listed = found.pairs(&format!("ready:{class}"));
        let listed: BTreeMap<_, u64> = listed
            .into_iter()
            .map(|(kind, head)| (kind, head.parse().unwrap()))
            .collect();
        let wanted = heads.remove(class).unwrap_or_default();
        assert_eq!(listed, wanted, "ready:{class} after {what}");
    }
    total
}
