//! A walk through the jobs of one queue, in bounded steps.

use super::filter::{AgeUnknown, Filter, Matched};
use crate::queue::scan::{SCAN_STEP, Seen, State};
use crate::queue::{Queue, QueueError};

/// A walk. The delayed and the dead are found by their sets, in order; waiting and running jobs by a scan of all.
pub(super) struct Walk<'a> {
    queue: &'a Queue,
    filter: &'a Filter,
    now_ms: u64,
    way: Way,
    looked: u64,
    total: u64,
    age_unknown: u64,
}

enum Way {
    /// The cursor of the next step; none when it is through.
    Scan(Option<u64>),
    /// Ids not yet looked at, the next one last.
    Ids(Vec<String>),
}

impl<'a> Walk<'a> {
    pub(super) async fn start(queue: &'a Queue, filter: &'a Filter) -> Result<Self, QueueError> {
        let (stored, now_ms) = queue.stored_count().await?;
        let by_scan = |state: &State| matches!(state, State::Pending | State::Running);
        let (way, total) = if filter.states.iter().any(by_scan) {
            (Way::Scan(Some(0)), stored)
        } else {
            let mut ids = Vec::new();
            for state in &filter.states {
                ids.extend(queue.ids_in(*state).await?);
            }
            ids.reverse();
            let total = ids.len() as u64;
            (Way::Ids(ids), total)
        };
        Ok(Self {
            queue,
            filter,
            now_ms,
            way,
            looked: 0,
            total,
            age_unknown: 0,
        })
    }

    /// Redis time at the start, ms.
    pub(super) const fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// How many were looked at, and about how many there are.
    pub(super) const fn looked(&self) -> (u64, u64) {
        (self.looked, self.total)
    }

    /// How many were left out because nobody knows their age.
    pub(super) const fn age_unknown(&self) -> u64 {
        self.age_unknown
    }

    /// Those of the next step that are meant, perhaps none; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Matched>>, QueueError> {
        let seen: Vec<Seen> = match &mut self.way {
            Way::Scan(cursor) => {
                let Some(at) = *cursor else { return Ok(None) };
                let step = self.queue.scan(at).await?;
                *cursor = (step.cursor != 0).then_some(step.cursor);
                step.jobs
            }
            Way::Ids(ids) => {
                let step = ids.split_off(ids.len().saturating_sub(SCAN_STEP));
                if step.is_empty() {
                    return Ok(None);
                }
                let step: Vec<String> = step.into_iter().rev().collect();
                self.queue.seen(&step).await?
            }
        };
        self.looked += seen.len() as u64;
        let mut meant = Vec::new();
        for job in seen {
            match self.filter.fits(job, self.now_ms) {
                Ok(job) => meant.extend(job),
                Err(AgeUnknown) => self.age_unknown += 1,
            }
        }
        Ok(Some(meant))
    }
}
