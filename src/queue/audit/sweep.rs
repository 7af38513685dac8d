//! The sweep itself: marks what should wait, strikes out what does, and deals with what is left over.
//!
//! Jobs are taken in parts by the hash of their ids, so that memory is bounded whatever the size of the queue. Under load a
//! job may be running while its flow is read: what is left over is looked for once more, and then judged by a script.

use super::super::home::home_of;
use super::super::{Flow, Queue, QueueError};
use super::steps::{ASK, PAGE, REENTER_MAX, Sighting, split};
use super::stones::Stone;
use super::{Damage, Findings, Options};
use crate::catalog::Catalog;
use crate::clock;
use crate::job::{Envelope, Event, History, Priority, What};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Jobs marked at once: some twenty bytes each.
pub(super) const PART: u64 = 1_000_000;
/// The most ids, or entries, of one sort that are held in full; the next sweep goes on with the others.
pub(super) const HELD: usize = 10_000;

/// What a call costs, in entries read: very many short flows are not to take an age, nor to come without a pause.
const CALL: usize = 24;

/// Marks of jobs by the hash of their ids, and whether an entry of each was seen.
type Marks = HashMap<u64, bool>;

/// What one walk through all flows brought, besides striking out marks.
#[derive(Default)]
struct Walked {
    strays: Vec<Sighting>,
    twice: HashSet<Vec<u8>>,
}

/// One sweep of one queue.
pub(super) struct Sweep<'a> {
    pub(super) queue: &'a Queue,
    pub(super) catalog: &'a Catalog,
    pub(super) options: Options,
    pub(super) flows: Vec<Flow>,
    /// None if there are too many to hold.
    pub(super) stones: Option<HashMap<Vec<u8>, Stone>>,
    found: Findings,
    /// Done since the last pause, in entries.
    work: usize,
}

impl<'a> Sweep<'a> {
    pub(super) fn new(queue: &'a Queue, catalog: &'a Catalog, options: Options) -> Self {
        Self {
            queue,
            catalog,
            options,
            flows: Vec::new(),
            stones: None,
            found: Findings::default(),
            work: 0,
        }
    }

    pub(super) async fn run(mut self) -> Result<Findings, QueueError> {
        self.beside_jobs().await?;
        self.stones = self.read_stones().await?;
        let jobs = self.queue.job_count().await?;
        let parts = jobs / PART + 1;
        for part in 0..parts {
            self.part(part, parts).await?;
        }
        self.correct_stones().await?;
        Ok(self.found)
    }

    pub(super) async fn run_bonds(mut self) -> Result<Findings, QueueError> {
        self.beside_jobs().await?;
        Ok(self.found)
    }

    async fn beside_jobs(&mut self) -> Result<(), QueueError> {
        self.flows = self.queue.all_flows(self.catalog).await?;
        self.relist().await?;
        self.bonds().await
    }

    pub(super) async fn pause(&self) {
        if !self.options.pace.is_zero() {
            tokio::time::sleep(self.options.pace).await;
        }
    }

    /// Pauses once as much was done as a whole page is.
    async fn worked(&mut self, entries: usize) {
        self.work += entries + CALL;
        if self.work >= PAGE {
            self.work = 0;
            self.pause().await;
        }
    }

    pub(super) fn note(&mut self, damage: Damage, what: &[u8]) {
        self.found.note(damage, String::from_utf8_lossy(what));
    }

    async fn relist(&mut self) -> Result<(), QueueError> {
        for flow in self.flows.clone() {
            if self.queue.relist(&flow, self.options.repair).await? {
                let key = self.queue.keys.flow(&flow);
                self.note(Damage::Unlisted, key.as_bytes());
            }
            self.worked(0).await;
        }
        Ok(())
    }

    /// One part of the jobs. Entries that are no jobs' show with the first.
    async fn part(&mut self, part: u64, parts: u64) -> Result<(), QueueError> {
        let mut marks = Marks::new();
        self.each_pending(|id| {
            let hash = hash(id);
            if hash % parts == part {
                marks.insert(hash, false);
            }
        })
        .await?;
        let walked = self.walk(&mut marks, part == 0).await?;
        for stray in walked.strays {
            if self.queue.hole(&stray, None, self.options.repair).await? {
                self.note(Damage::Stray, split(&stray.entry).1);
            }
        }
        self.twins(&walked.twice).await?;
        marks.retain(|_, seen| !*seen);
        if marks.is_empty() {
            return Ok(());
        }
        let mut left = Vec::new();
        self.each_pending(|id| {
            if left.len() < HELD && marks.contains_key(&hash(id)) {
                left.push(id.to_vec());
            }
        })
        .await?;
        self.lost(left).await
    }

    async fn each_pending(&self, mut each: impl FnMut(&[u8])) -> Result<(), QueueError> {
        let mut cursor = "0".to_owned();
        loop {
            let (next, ids) = self.queue.pending(&cursor).await?;
            ids.iter().for_each(|id| each(id));
            self.pause().await;
            if next == "0" {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// Goes through all flows and strikes out what waits there. `all` looks at every entry: what it is for, and at the
    /// tombstones.
    async fn walk(&mut self, marks: &mut Marks, all: bool) -> Result<Walked, QueueError> {
        let mut walked = Walked::default();
        for flow in self.flows.clone() {
            let mut from = 0;
            loop {
                let page = self.queue.flow_page(&flow, from).await?;
                let living = self.strike(&page, marks, all, &mut walked);
                if all {
                    for asked in living.chunks(ASK) {
                        let ids: Vec<&[u8]> = asked.iter().map(|s| split(&s.entry).1).collect();
                        let letters = self.queue.whereabouts(&ids).await?;
                        let strays = asked.iter().zip(letters).filter(|(_, at)| *at != b'p');
                        let room = HELD.saturating_sub(walked.strays.len());
                        let strays = strays.map(|(seen, _)| (*seen).clone());
                        walked.strays.extend(strays.take(room));
                    }
                }
                let full = page.len() == PAGE;
                self.worked(page.len()).await;
                if !full {
                    break;
                }
                from += PAGE;
            }
        }
        Ok(walked)
    }

    /// Strikes out the marks of a page; returns its entries but for those that cancelled jobs left behind.
    fn strike<'p>(
        &mut self,
        page: &'p [Sighting],
        marks: &mut Marks,
        all: bool,
        walked: &mut Walked,
    ) -> Vec<&'p Sighting> {
        let mut living = Vec::with_capacity(page.len());
        for seen in page {
            let (ready, id) = split(&seen.entry);
            let stone = self.stones.as_mut().and_then(|stones| stones.get_mut(id));
            if let Some(stone) = stone.filter(|stone| ready <= stone.until_ms) {
                stone.seen += u64::from(all);
                continue;
            }
            living.push(seen);
            match marks.get_mut(&hash(id)) {
                Some(true) if walked.twice.len() < HELD => {
                    walked.twice.insert(id.to_vec());
                }
                Some(mark) => *mark = true,
                None => {}
            }
        }
        living
    }

    /// Second entries of jobs that were seen twice. Under load that may have been the same entry twice.
    async fn twins(&mut self, twice: &HashSet<Vec<u8>>) -> Result<(), QueueError> {
        if twice.is_empty() {
            return Ok(());
        }
        let mut sightings: BTreeMap<Vec<u8>, Vec<Sighting>> = BTreeMap::new();
        self.each_entry(|seen| {
            let id = split(&seen.entry).1;
            if twice.contains(id) {
                let of = sightings.entry(id.to_vec()).or_default();
                if of.len() < EXTRA {
                    of.push(seen.clone());
                }
            }
        })
        .await?;
        for (id, mut seen) in sightings {
            // The first in line stays.
            seen.sort_by_key(|s| (split(&s.entry).0, std::cmp::Reverse(s.distance)));
            let Some((first, others)) = seen.split_first() else {
                continue;
            };
            for other in others {
                let repair = self.options.repair;
                if self.queue.hole(other, Some(first), repair).await? {
                    self.note(Damage::Twin, &id);
                }
            }
        }
        Ok(())
    }

    pub(super) async fn each_entry(
        &mut self,
        mut each: impl FnMut(&Sighting),
    ) -> Result<(), QueueError> {
        for flow in self.flows.clone() {
            let mut from = 0;
            loop {
                let page = self.queue.flow_page(&flow, from).await?;
                page.iter().for_each(&mut each);
                self.worked(page.len()).await;
                if page.len() < PAGE {
                    break;
                }
                from += PAGE;
            }
        }
        Ok(())
    }

    /// Jobs that were seen nowhere: looked for once more, also in flows of which nobody knew, then put back.
    async fn lost(&mut self, left: Vec<Vec<u8>>) -> Result<(), QueueError> {
        let mut homes: HashMap<Flow, Vec<(Vec<u8>, String)>> = HashMap::new();
        for ids in left.chunks(ASK) {
            // Only as many envelopes at once as a step may hold.
            for few in ids.chunks(ASK / 10) {
                let names: Vec<String> = few.iter().map(|id| lossy(id)).collect();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                let stored = self.queue.stored(&names).await?;
                let ties = self.queue.ties_of(&names).await?;
                for ((id, (raw, history)), ties) in few.iter().zip(stored).zip(ties) {
                    let (flow, fresh) = self.home(&raw, &history, &ties);
                    homes.entry(flow).or_default().push((id.clone(), fresh));
                }
                self.pause().await;
            }
        }
        for flow in homes.keys() {
            if !self.flows.contains(flow) {
                self.flows.push(flow.clone());
                if self.queue.relist(flow, self.options.repair).await? {
                    let key = self.queue.keys.flow(flow);
                    self.note(Damage::Unlisted, key.as_bytes());
                }
            }
        }
        let mut marks: Marks = left.iter().map(|id| (hash(id), false)).collect();
        self.walk(&mut marks, false).await?;
        for (flow, mut jobs) in homes {
            jobs.retain(|(id, _)| marks.get(&hash(id)) == Some(&false));
            self.put_back(&flow, &jobs).await?;
        }
        Ok(())
    }

    /// Where a job belongs, and its history should it have none. What can't be read goes to any flow there is: who claims
    /// it sets it aside.
    fn home(&self, raw: &[u8], history: &[u8], ties: &str) -> (Flow, String) {
        if let Ok(envelope) = Envelope::parse(raw) {
            let known = History::parse(history);
            let flow = home_of(&envelope, self.catalog, ties, known.as_ref());
            let mut fresh = History::of(&flow.kind, flow.priority);
            fresh.key.clone_from(&flow.key);
            return (flow, fresh.encode());
        }
        let any = self.flows.first().cloned().unwrap_or_else(|| Flow {
            priority: Priority::default(),
            kind: "unreadable".into(),
            key: None,
        });
        (any, History::default().encode())
    }

    async fn put_back(
        &mut self,
        flow: &Flow,
        jobs: &[(Vec<u8>, String)],
    ) -> Result<(), QueueError> {
        let event = Event::new(clock::unix_ms(), What::Repaired).note("it was in no place");
        let event = event.encode();
        let mut laid: HashMap<Vec<u8>, Stone> = HashMap::new();
        for few in jobs.chunks(REENTER_MAX) {
            let repair = self.options.repair;
            let back = self.queue.reenter(flow, few, &event, repair);
            for (id, value) in back.await? {
                self.note(Damage::Lost, &id);
                laid.insert(id, Stone::read(value));
            }
            self.pause().await;
        }
        if self.options.repair && !laid.is_empty() {
            self.lift(laid).await?;
        }
        Ok(())
    }
}

/// Entries of one job held when it has more than one.
const EXTRA: usize = 16;

pub(super) fn hash(id: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

fn lossy(id: &[u8]) -> String {
    String::from_utf8_lossy(id).into_owned()
}
