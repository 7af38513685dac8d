//! What this daemon did and has not written yet, by slot, in numbered batches.

use crate::policy::forecast::{SLOT_MS, SlotLoad, slot_at};
use crate::queue::load_history::BATCH_SLOTS;
use crate::runner::load::Taken;
use std::collections::BTreeMap;

/// Slots that are held while Redis can't be reached: two days. Beyond it the oldest go.
const HELD_MAX: usize = 576;

/// The ledger of one daemon.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    held: BTreeMap<u64, SlotLoad>,
    /// The batch that is being written; empty if there is none.
    sent: BTreeMap<u64, SlotLoad>,
    batch: u64,
    noted_ms: Option<u64>,
}

impl Ledger {
    /// Takes in what was counted since the last time. The first time begins with it.
    pub(super) fn note(&mut self, taken: &Taken, now_ms: u64) {
        // Time that went back is no time, and nothing was done in the future.
        let since = self.noted_ms.unwrap_or(now_ms).min(now_ms);
        self.noted_ms = Some(now_ms);
        let up_ms = now_ms.saturating_sub(since).min(SLOT_MS);
        let mut done = SlotLoad {
            up_ms: i64::try_from(up_ms).unwrap_or(0),
            ..SlotLoad::default()
        };
        done.classes = taken.done;
        self.add(slot_at(since), &done);
        for moved in &taken.moved {
            let ago = u64::try_from(moved.ago.as_millis()).unwrap_or(u64::MAX);
            let mut load = SlotLoad::default();
            load.classes[moved.class.index()] = moved.load;
            self.add(slot_at(now_ms.saturating_sub(ago)), &load);
        }
        while self.held.len() > HELD_MAX {
            self.held.pop_first();
        }
    }

    fn add(&mut self, slot: u64, load: &SlotLoad) {
        if !load.is_empty() {
            self.held.entry(slot).or_default().add(load);
        }
    }

    /// The batch that is to be written, with its number: the last one again until it is [`Ledger::written`].
    pub(super) fn batch(&mut self) -> (u64, &BTreeMap<u64, SlotLoad>) {
        if self.sent.is_empty() {
            self.batch += 1;
            while self.sent.len() < BATCH_SLOTS
                && let Some((slot, load)) = self.held.pop_first()
            {
                self.sent.insert(slot, load);
            }
        }
        (self.batch, &self.sent)
    }

    /// The last batch is written. True if there is more.
    pub(super) fn written(&mut self) -> bool {
        self.sent.clear();
        !self.held.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Priority;
    use crate::policy::forecast::ClassLoad;
    use crate::runner::load::Moved;
    use std::time::Duration;

    fn worked(busy_ms: i64) -> Taken {
        let mut taken = Taken::default();
        taken.done[Priority::Bulk.index()] = ClassLoad { jobs: 1, busy_ms };
        taken
    }

    #[test]
    fn a_batch_stays_as_it_is_until_it_is_written() {
        let mut ledger = Ledger::default();
        ledger.note(&worked(5), SLOT_MS);
        let first = {
            let (number, load) = ledger.batch();
            (number, load.clone())
        };
        ledger.note(&worked(7), SLOT_MS + 1_000);
        let (number, load) = ledger.batch();
        assert_eq!((number, load), (first.0, &first.1));
        assert!(ledger.written());
        let (number, load) = ledger.batch();
        assert_eq!(number, first.0 + 1);
        let bulk = load[&1].classes[Priority::Bulk.index()];
        assert_eq!((bulk.busy_ms, load[&1].up_ms), (7, 1_000));
        assert!(!ledger.written());
    }

    #[test]
    fn after_a_clock_went_back_work_counts_where_it_is_done() {
        let mut ledger = Ledger::default();
        ledger.note(&worked(0), 20 * SLOT_MS);
        ledger.note(&worked(5), 8 * SLOT_MS);
        ledger.note(&worked(7), 8 * SLOT_MS + 1_000);
        let (_, load) = ledger.batch();
        let bulk = load[&8].classes[Priority::Bulk.index()];
        assert_eq!((bulk.jobs, bulk.busy_ms, load[&8].up_ms), (2, 12, 1_000));
    }

    #[test]
    fn late_work_goes_to_its_own_slot_and_an_outage_stays_bounded() {
        let mut ledger = Ledger::default();
        let mut taken = worked(9);
        taken.moved.push(Moved {
            class: Priority::High,
            ago: Duration::from_millis(3 * SLOT_MS),
            load: ClassLoad {
                jobs: 1,
                busy_ms: 60_000,
            },
        });
        ledger.note(&taken, 10 * SLOT_MS);
        let (_, load) = ledger.batch();
        assert_eq!(load[&7].classes[Priority::High.index()].busy_ms, 60_000);
        assert_eq!(load[&7].up_ms, 0);
        for slot in 20..2_000 {
            ledger.note(&worked(1), slot * SLOT_MS);
        }
        assert_eq!(ledger.held.len(), HELD_MAX);
        ledger.written();
        assert_eq!(ledger.batch().1.len(), BATCH_SLOTS);
    }
}
