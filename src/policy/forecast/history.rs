//! The history of the fleet's load: numbers by slot, with gaps where nobody looked.

use super::{KEPT, SLOT_MS};
use crate::job::Priority;

/// A slot counts as seen if daemons were there for this part of it, all together.
const SEEN_MS: i64 = (SLOT_MS / 2) as i64;

/// What one class did in one slot.
///
/// A job that waited for lack of free slots counts from when it was due, as if there had been enough of them; otherwise
/// an hour in which everything was full would be remembered as one that needed just what there was. Waiting for
/// anything else (a limit, the gate, a pause) does not count: more slots would not have helped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClassLoad {
    /// Jobs that were due.
    pub jobs: i64,
    /// Milliseconds of slots that they took, as far as they fall into this slot.
    pub busy_ms: i64,
}

/// What the whole fleet did in one slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SlotLoad {
    /// Milliseconds that daemons were there to work, all together: none means that nobody looked, which says nothing of
    /// the load.
    pub up_ms: i64,
    /// By class, in the order of [`Priority::ALL`].
    pub classes: [ClassLoad; 5],
}

impl SlotLoad {
    /// Whether anything is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds what another one says of the same slot.
    pub fn add(&mut self, other: &Self) {
        self.up_ms = self.up_ms.saturating_add(other.up_ms);
        for (own, more) in self.classes.iter_mut().zip(&other.classes) {
            own.jobs = own.jobs.saturating_add(more.jobs);
            own.busy_ms = own.busy_ms.saturating_add(more.busy_ms);
        }
    }

    /// Jobs at once on average; none if nobody looked.
    #[must_use]
    pub fn demand(&self, class: Option<Priority>) -> Option<f64> {
        self.sum(class, |c| c.busy_ms).map(|ms| ms / SLOT_MS as f64)
    }

    /// Jobs that were due; none if nobody looked.
    #[must_use]
    pub fn jobs(&self, class: Option<Priority>) -> Option<f64> {
        self.sum(class, |c| c.jobs)
    }

    /// Of one class, or of all. Late corrections of several daemons may meet, so that less than nothing is left: nothing.
    fn sum(&self, class: Option<Priority>, of: impl Fn(&ClassLoad) -> i64) -> Option<f64> {
        let sum = match class {
            Some(class) => of(&self.classes[class.index()]),
            None => self
                .classes
                .iter()
                .fold(0_i64, |sum, c| sum.saturating_add(of(c))),
        };
        (self.up_ms >= SEEN_MS).then(|| sum.max(0) as f64)
    }
}

/// One number for each slot; none where nobody looked.
#[derive(Debug, Clone, Default)]
pub struct Series {
    /// The slot of the first value.
    first: u64,
    /// NaN for none.
    values: Vec<f32>,
}

impl Series {
    /// Notes the number of a slot. Slots more than [`KEPT`] before the last one are forgotten.
    pub fn set(&mut self, slot: u64, value: Option<f64>) {
        if self.values.is_empty() {
            self.first = slot;
        }
        if slot < self.first {
            let end = self.first + self.values.len() as u64;
            if end - slot > KEPT {
                return;
            }
            let gap = (self.first - slot) as usize;
            self.values.splice(0..0, std::iter::repeat_n(f32::NAN, gap));
            self.first = slot;
        }
        let index = slot - self.first;
        if index >= 2 * KEPT {
            // A leap that leaves nothing of what is kept.
            *self = Self::default();
            return self.set(slot, value);
        }
        let index = index as usize;
        if index >= self.values.len() {
            self.values.resize(index + 1, f32::NAN);
        }
        self.values[index] = value.map_or(f32::NAN, |v| v as f32);
        let over = self.values.len().saturating_sub(KEPT as usize);
        // In one go now and then: moving all of it for each slot would cost more than it saves.
        if over >= super::DAY as usize {
            self.values.drain(..over);
            self.first += over as u64;
        }
    }

    /// The number of a slot, if anybody looked.
    #[must_use]
    pub fn get(&self, slot: u64) -> Option<f64> {
        let index = usize::try_from(slot.checked_sub(self.first)?).ok()?;
        let value = *self.values.get(index)?;
        (!value.is_nan()).then_some(f64::from(value))
    }

    /// The first slot that anybody looked at.
    #[must_use]
    pub fn began(&self) -> Option<u64> {
        let at = self.values.iter().position(|v| !v.is_nan())?;
        Some(self.first + at as u64)
    }
}

/// The load of all classes: for each, and for all together, the demand and the jobs.
#[derive(Debug, Clone, Default)]
pub struct History {
    demand: [Series; 6],
    jobs: [Series; 6],
}

/// Where all classes together stand beside the single ones.
const ALL: usize = 5;

impl History {
    /// Notes what is known of a slot by now.
    pub fn set(&mut self, slot: u64, load: &SlotLoad) {
        let classes = Priority::ALL.into_iter().map(Some).chain([None]);
        for class in classes {
            let at = class.map_or(ALL, Priority::index);
            self.demand[at].set(slot, load.demand(class));
            self.jobs[at].set(slot, load.jobs(class));
        }
    }

    /// Jobs at once on average, of a class or of all.
    #[must_use]
    pub fn demand(&self, class: Option<Priority>) -> &Series {
        &self.demand[class.map_or(ALL, Priority::index)]
    }

    /// Jobs that were due, of a class or of all.
    #[must_use]
    pub fn jobs(&self, class: Option<Priority>) -> &Series {
        &self.jobs[class.map_or(ALL, Priority::index)]
    }
}
