//! What must hold after every operation: everything the model has is in Redis in its one place, and nothing else is there.

use super::bonds::Group;
use super::expected::{Model, Place, Sent};
use super::limits::{check_limits, parked};
use super::schedules::check_ticks;
use super::snapshot::Snapshot;
use std::collections::{BTreeMap, BTreeSet};
use tidegate::job::{History, Priority};

/// Compares; `what` tells what was done last. Returns how many entries of cancelled jobs still stand in flows.
pub fn check(model: &Model, found: &Snapshot, what: &str) -> usize {
    let stored = found.pairs("jobs");
    let jobs = model.jobs.iter();
    let jobs = jobs.map(|(id, job)| (&**id, job.sent.raw.as_deref().unwrap()));
    assert_eq!(stored, jobs.collect(), "stored jobs after {what}");
    check_ties(model, found, what);
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
    check_limits(model, found, what);
    check_ticks(model, found, what);
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
    let mut members = BTreeMap::new();
    for (id, score) in found.pairs("ids") {
        if let Some((group, id)) = id.split_once(':') {
            let refused = score.ends_with(".875");
            members.insert((group.to_owned(), id.to_owned()), refused);
        } else if score == "1" {
            reserved.insert(id);
        } else if !model.forgotten.contains(id) {
            remembered.insert(id);
        }
    }
    assert_eq!(members, model.bonds.members, "members after {what}");
    let wanted = model.reserved.iter().map(String::as_str).collect();
    assert_eq!(reserved, wanted, "reserved ids after {what}");
    let wanted = model.remembered.keys().map(String::as_str).collect();
    assert_eq!(remembered, wanted, "remembered ids after {what}");
}

/// Locks, groups, what is to be united, what is told.
fn check_ties(model: &Model, found: &Snapshot, what: &str) {
    let bonds = &model.bonds;
    let tied = model.jobs.iter().filter(|(_, job)| !job.ties.is_none());
    let tied: BTreeSet<&str> = tied.map(|(id, _)| &**id).collect();
    assert_eq!(found.members("ties"), tied, "ties after {what}");
    let locks = found.pairs("locks").into_iter().map(|(name, text)| {
        let mut fields = text.split('|');
        (
            name,
            (
                fields.next().unwrap(),
                fields.next().unwrap().chars().next().unwrap(),
            ),
        )
    });
    let wanted = bonds.locks.iter();
    let wanted = wanted.map(|(name, lock)| (&**name, (&*lock.holder, lock.letter)));
    assert_eq!(
        locks.collect::<BTreeMap<_, _>>(),
        wanted.collect(),
        "locks after {what}"
    );
    // A lock is somebody's, or it is held until its time is over. The reservation of an id may be gone before that of the
    // lock, if another entry came with the same id.
    for (name, lock) in &bonds.locks {
        let comes = |sent: &Sent| {
            sent.id.as_ref() == Some(&lock.holder) && sent.entry.reserves().as_ref() == Some(name)
        };
        let held = model.jobs.contains_key(&lock.holder)
            || model.reserved.contains(&lock.holder)
            || model.inbox.iter().any(comes);
        assert!(
            held || lock.letter == 't',
            "{name} is an orphan after {what}"
        );
    }
    let timed = bonds.locks.iter().filter(|(_, lock)| lock.letter == 't');
    let timed: BTreeSet<&str> = timed.map(|(name, _)| &**name).collect();
    // Others may be listed that were held for a time and are reserved anew: they go when that time is over.
    let listed = found.members("lock_ends");
    assert!(timed.is_subset(&listed), "lock_ends after {what}");
    let merged = model.jobs.iter().filter(|(_, job)| !job.merged.is_empty());
    let merged: BTreeMap<&str, String> = merged
        .map(|(id, job)| (&**id, job.merged.join("\0")))
        .collect();
    let merges = found.pairs("merges").into_iter();
    let merges: BTreeMap<_, _> = merges.map(|(id, raws)| (id, raws.to_owned())).collect();
    assert_eq!(merges, merged, "merges after {what}");
    let groups = bonds.groups.iter().map(|(name, g)| {
        let when = if g.always { 'a' } else { 's' };
        let text = format!(
            "{}|{when}|{}|{}|{}|{}",
            g.size, g.members, g.done, g.failed, g.state
        );
        (&**name, text)
    });
    let there = found.pairs("groups").into_iter();
    let there: BTreeMap<_, _> = there.map(|(name, text)| (name, text.to_owned())).collect();
    assert_eq!(there, groups.collect(), "groups after {what}");
    let all: BTreeSet<&str> = bonds.groups.keys().map(String::as_str).collect();
    assert_eq!(
        found.members("group_times"),
        all,
        "group_times after {what}"
    );
    let open = |(_, g): &(&String, &Group)| g.state == 'o';
    let follows = bonds.groups.iter().filter(open).filter(|(_, g)| g.then);
    let follows: BTreeSet<&str> = follows.map(|(name, _)| &**name).collect();
    assert_eq!(
        found.members("group_then"),
        follows,
        "group_then after {what}"
    );
    let told = bonds.groups.iter().filter(open).filter(|(_, g)| g.done > 0);
    let told: BTreeSet<&str> = told.map(|(name, _)| &**name).collect();
    // Of one that failed there may be nothing to tell, or it came back since.
    let there = found.members("group_results");
    assert!(told.is_subset(&there), "group_results after {what}");
    for name in there {
        assert_eq!(
            bonds.groups[name].state, 'o',
            "results of {name} after {what}"
        );
    }
    let results = found.results();
    let wanted: BTreeMap<&str, &str> = bonds.results.iter().map(|(id, s)| (&**id, *s)).collect();
    let results = results.iter().map(|(id, s)| (&**id, &**s)).collect();
    assert_eq!(wanted, results, "results after {what}");
}

/// Inbox, quarantine, the ring, the counters.
fn check_books(model: &Model, found: &Snapshot, what: &str) {
    let inbox: Vec<Option<&String>> = model.inbox.iter().map(|sent| sent.raw.as_ref()).collect();
    let there: Vec<Option<&String>> = found.list("inbox").iter().map(Some).collect();
    assert_eq!(there, inbox, "inbox after {what}");
    let taken = found.list("taken").first().map_or("0", String::as_str);
    assert_eq!(taken, model.taken.to_string(), "taken after {what}");
    let quarantine = found.list("quarantine").chunks_exact(2);
    let quarantine: Vec<&String> = quarantine.map(|pair| &pair[1]).collect();
    let wanted: Vec<&String> = model
        .quarantine
        .iter()
        .map(|(s, _)| s.raw.as_ref().unwrap())
        .collect();
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

/// Who waits stands once, in its flow, and the flow is listed by the ready time of its head, or waits for a slot.
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
                    let home = (class.to_owned(), kind.to_owned());
                    let before = waiting.insert(id.to_owned(), home);
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
    let wanted: BTreeMap<String, (String, String)> = wanted
        .map(|(id, job)| {
            let class = Priority::ALL[usize::from(job.sent.entry.class)].as_str();
            (id.clone(), (class.to_owned(), job.sent.entry.member()))
        })
        .collect();
    assert_eq!(waiting, wanted, "waiting after {what}");
    let parked = parked(found);
    for class in Priority::ALL.map(Priority::as_str) {
        let listed = found.pairs(&format!("ready:{class}"));
        let listed: BTreeMap<_, u64> = listed
            .into_iter()
            .map(|(flow, place)| (flow, place.parse::<f64>().unwrap() as u64))
            .collect();
        let holds = heads.remove(class).unwrap_or_default();
        for (flow, head) in &holds {
            match listed.get(flow) {
                None => assert!(
                    parked.contains(&(class, *flow)),
                    "{flow} of {class} after {what}"
                ),
                // One that waited for a slot comes back with the place it had.
                Some(_) if flow.contains('@') => {}
                // A job that took the place of another in the same millisecond bears the next one.
                Some(at) => assert!(
                    head.checked_sub(*at).is_some_and(|ms| ms < 100),
                    "ready:{class} of {flow} after {what}"
                ),
            }
        }
        // What waited for a slot may have been taken meanwhile: the next claim finds that out.
        let idle = listed
            .keys()
            .find(|flow| !flow.contains('@') && !holds.contains_key(*flow));
        assert_eq!(idle, None, "ready:{class} after {what}");
    }
    total
}
