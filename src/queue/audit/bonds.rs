//! What is kept beside jobs: histories, ties, locks, groups, slots. Found where its job is gone or does not run.

use super::super::QueueError;
use super::Damage;
use super::steps::{Beside, SCAN};
use super::sweep::{HELD, PART, Sweep, hash};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// An open group as it was read.
struct Group {
    read: String,
    /// Members that have not ended.
    open: u64,
    /// Those of them that were seen, by the hashes of their ids.
    seen: HashSet<u64>,
}

impl Group {
    /// None unless it waits for a member.
    fn waiting(read: String) -> Option<Self> {
        let fields: Vec<&str> = read.split('|').collect();
        let [_, _, members, done, failed, "o"] = fields[..] else {
            return None;
        };
        let count = |field: &str| field.parse::<u64>().ok();
        let open = count(members)?.checked_sub(count(done)? + count(failed)?)?;
        (open > 0).then(|| Self {
            read,
            open,
            seen: HashSet::new(),
        })
    }

    fn gone(&self) -> u64 {
        self.open.saturating_sub(self.seen.len() as u64)
    }
}

/// What was told of already, by what jobs hold.
#[derive(Default)]
struct Told {
    ids: HashSet<Vec<u8>>,
    slots: HashSet<String>,
}

impl Sweep<'_> {
    pub(super) async fn bonds(&mut self) -> Result<(), QueueError> {
        self.orphans().await?;
        self.steps(Damage::Orphan, Beside::Ties).await?;
        self.steps(Damage::Orphan, Beside::Locks).await?;
        for id in self.queue.unreserve(self.options.repair).await? {
            self.note(Damage::Reservation, &id);
        }
        self.groups().await?;
        self.slots().await
    }

    /// What is kept by id, or by the name of a group, for those that are gone.
    async fn orphans(&mut self) -> Result<(), QueueError> {
        let k = self.queue.keys();
        for (of, home, damage) in [
            (&k.delayed, &k.jobs, Damage::Bodiless),
            (&k.dead, &k.jobs, Damage::Bodiless),
            (&k.meta, &k.jobs, Damage::Orphan),
            (&k.progress, &k.jobs, Damage::Orphan),
            (&k.cancels, &k.jobs, Damage::Orphan),
            (&k.merges, &k.jobs, Damage::Orphan),
            (&k.archive, &k.archived, Damage::Orphan),
            (&k.archived, &k.archive, Damage::Orphan),
            (&k.group_then, &k.groups, Damage::Orphan),
            (&k.group_results, &k.groups, Damage::Orphan),
            (&k.group_times, &k.groups, Damage::Orphan),
        ] {
            self.steps(damage, Beside::Ids { of, home }).await?;
        }
        Ok(())
    }

    /// Takes steps until all was seen, and notes what they find.
    async fn steps(&mut self, damage: Damage, of: Beside<'_>) -> Result<(), QueueError> {
        let mut cursor = "0".to_owned();
        loop {
            let step = self.queue.step_beside(of, &cursor, self.options.repair);
            let (next, found) = step.await?;
            found.iter().for_each(|what| self.note(damage, what));
            self.pause().await;
            if next == "0" {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// Groups that wait for members that are gone. Whoever joins a group or ends in it changes it; so of one that is as it
    /// was before all ties were read, all members were seen that it has.
    async fn groups(&mut self) -> Result<(), QueueError> {
        let mut groups = self.waiting_groups().await?;
        if groups.is_empty() || !self.see_members(&mut groups).await? {
            return Ok(());
        }
        let incomplete = groups.iter().filter(|(_, group)| group.gone() > 0);
        let incomplete: Vec<(&str, &str, u64)> = incomplete
            .map(|(name, group)| (&**name, &*group.read, group.gone()))
            .collect();
        for few in incomplete.chunks(SCAN) {
            for name in self.queue.regroup(few, self.options.repair).await? {
                self.note(Damage::Group, &name);
            }
            self.pause().await;
        }
        Ok(())
    }

    /// As many as are held; the next sweep goes on with the others.
    async fn waiting_groups(&self) -> Result<BTreeMap<String, Group>, QueueError> {
        let (mut groups, mut cursor) = (BTreeMap::new(), Some(0));
        while let Some(from) = cursor.filter(|_| groups.len() < HELD) {
            let (next, page) = self.queue.page(&self.queue.keys().groups, from).await?;
            let waiting = page.into_iter();
            groups.extend(waiting.filter_map(|(name, read)| Some((name, Group::waiting(read)?))));
            cursor = next;
            self.pause().await;
        }
        Ok(groups)
    }

    /// Strikes out the members that are there. False if there are too many to hold.
    async fn see_members(&self, groups: &mut BTreeMap<String, Group>) -> Result<bool, QueueError> {
        let (mut held, mut cursor) = (0, Some(0));
        while let Some(from) = cursor {
            let (next, page) = self.queue.page(&self.queue.keys().ties, from).await?;
            for (id, tied) in &page {
                let names = tied.lines().filter_map(|line| line.strip_prefix('g'));
                for name in names {
                    if let Some(group) = groups.get_mut(name) {
                        held += u64::from(group.seen.insert(hash(id.as_bytes())));
                    }
                }
            }
            if held > PART {
                return Ok(false);
            }
            cursor = next;
            self.pause().await;
        }
        Ok(true)
    }

    /// Slots that are held by jobs that do not run, or not counted for those that do; and flows that wait for a slot that
    /// nobody holds. Each is judged by a script in one instant: claims and settlements write all of it at once.
    async fn slots(&mut self) -> Result<(), QueueError> {
        let (mut names, mut told) = (BTreeSet::new(), Told::default());
        let mut cursor = Some(0);
        while let Some(from) = cursor {
            let (next, page) = self.queue.page(&self.queue.keys().holds, from).await?;
            for few in page.chunks(SCAN) {
                for id in self.queue.unhold(few, self.options.repair).await? {
                    self.note(Damage::Slot, &id);
                    told.ids.insert(id);
                }
                for (id, lines) in few {
                    names.extend(lines.lines().map(str::to_owned));
                    if told.ids.contains(id.as_bytes()) {
                        told.slots.extend(lines.lines().map(str::to_owned));
                    }
                }
                self.pause().await;
            }
            cursor = next;
        }
        cursor = Some(0);
        while let Some(from) = cursor {
            let (next, page) = self.queue.page(&self.queue.keys().parked, from).await?;
            names.extend(page.into_iter().map(|(name, _)| name));
            cursor = next;
            self.pause().await;
        }
        for flow in &self.flows {
            names.insert(flow.member().into_owned());
            names.insert(flow.kind.to_string());
        }
        let all: Vec<String> = names.into_iter().collect();
        for few in all.chunks(SCAN) {
            self.holders(few, &told).await?;
        }
        Ok(())
    }

    /// Goes through all holders of a few slots.
    async fn holders(&mut self, names: &[String], told: &Told) -> Result<(), QueueError> {
        let from_start = |name: &String| (name.clone(), "0".to_owned());
        let mut left: Vec<(String, String)> = names.iter().map(from_start).collect();
        while !left.is_empty() {
            let step = self.queue.unslot(&left, self.options.repair).await?;
            let ghosts = step.ghosts.iter().filter(|id| !told.ids.contains(*id));
            ghosts.for_each(|id| self.note(Damage::Slot, id));
            let stuck = step.stuck.iter().filter(|slot| !told.slots.contains(*slot));
            stuck.for_each(|slot| self.note(Damage::Parked, slot.as_bytes()));
            let on = left.into_iter().zip(step.cursors);
            let on = on.map(|((name, _), next)| (name, next));
            left = on.filter(|(_, next)| next != "0").collect();
            self.pause().await;
        }
        Ok(())
    }
}
