//! The tombstones of a sweep: those that count entries which are not there are corrected.

use super::super::{Flow, QueueError};
use super::Damage;
use super::steps::{UNSTONE_MAX, split};
use super::sweep::{HELD, Sweep};
use std::collections::{HashMap, HashSet};

/// A tombstone as it was read.
pub(super) struct Stone {
    value: String,
    count: u64,
    /// Entries that became ready later are no cancelled job's.
    pub until_ms: u64,
    /// Entries it is for, that were seen in one walk.
    pub seen: u64,
}

impl Stone {
    pub(super) fn read(value: String) -> Self {
        let (count, until) = value.split_once(':').unwrap_or_default();
        Self {
            count: count.parse().unwrap_or(0),
            until_ms: until.parse().unwrap_or(0),
            seen: 0,
            value,
        }
    }
}

impl Sweep<'_> {
    /// All tombstones; none if there are too many to hold.
    pub(super) async fn read_stones(&self) -> Result<Option<HashMap<Vec<u8>, Stone>>, QueueError> {
        let (mut stones, mut cursor) = (HashMap::new(), 0);
        loop {
            let (next, step) = self.queue.stones(cursor).await?;
            stones.extend(step.into_iter().map(|(id, value)| (id, Stone::read(value))));
            if stones.len() > HELD {
                return Ok(None);
            }
            self.pause().await;
            if next == 0 {
                return Ok(Some(stones));
            }
            cursor = next;
        }
    }

    /// Takes tombstones away again for which there is no entry, now that all flows were read once more.
    pub(super) async fn lift(
        &mut self,
        mut laid: HashMap<Vec<u8>, Stone>,
    ) -> Result<(), QueueError> {
        self.take_in_new_flows().await?;
        self.each_entry(|seen| {
            let (ready, id) = split(&seen.entry);
            if let Some(stone) = laid.get_mut(id)
                && ready <= stone.until_ms
            {
                stone.seen += 1;
            }
        })
        .await?;
        self.unstone(&laid).await
    }

    /// Flows that came since the sweep began: an entry that a stone is for may stand in one of them.
    async fn take_in_new_flows(&mut self) -> Result<(), QueueError> {
        let known: HashSet<Flow> = self.flows.iter().cloned().collect();
        let now = self.queue.all_flows(self.catalog).await?;
        let new = now.into_iter().filter(|flow| !known.contains(flow));
        self.flows.extend(new);
        Ok(())
    }

    async fn unstone(&self, stones: &HashMap<Vec<u8>, Stone>) -> Result<(), QueueError> {
        let wrong = stones.iter().filter(|(_, stone)| stone.seen < stone.count);
        let wrong: Vec<(&[u8], &str, u64)> = wrong
            .map(|(id, stone)| (id.as_slice(), stone.value.as_str(), stone.seen))
            .collect();
        for few in wrong.chunks(UNSTONE_MAX) {
            self.queue.unstone(few).await?;
            self.pause().await;
        }
        Ok(())
    }

    /// Tombstones for fewer entries than they say, in two walks, and unchanged all the while: entries of cancelled jobs stay
    /// where they are until a claim drops them, and then their stone changes.
    pub(super) async fn correct_stones(&mut self) -> Result<(), QueueError> {
        let Some(stones) = self.stones.take() else {
            return Ok(());
        };
        let short = |stone: &Stone| stone.seen < stone.count;
        let mut wrong: HashMap<Vec<u8>, Stone> =
            stones.into_iter().filter(|(_, s)| short(s)).collect();
        if wrong.is_empty() {
            return Ok(());
        }
        self.take_in_new_flows().await?;
        let mut again: HashMap<Vec<u8>, u64> = HashMap::new();
        self.each_entry(|seen| {
            let (ready, id) = split(&seen.entry);
            if wrong.get(id).is_some_and(|stone| ready <= stone.until_ms) {
                *again.entry(id.to_vec()).or_default() += 1;
            }
        })
        .await?;
        for (id, stone) in &mut wrong {
            stone.seen = stone.seen.max(again.get(id).copied().unwrap_or(0));
        }
        let now = self.read_stones().await?.unwrap_or_default();
        wrong.retain(|id, stone| {
            short(stone) && now.get(id).is_some_and(|found| found.value == stone.value)
        });
        wrong.keys().for_each(|id| self.note(Damage::Stone, id));
        if self.options.repair {
            self.unstone(&wrong).await?;
        }
        Ok(())
    }
}
