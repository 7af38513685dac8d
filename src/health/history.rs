//! The last hour of a resource, kept small: its worst moment of every ten seconds.

use std::collections::VecDeque;

use crate::policy::gate::GateState;

/// Milliseconds that one entry stands for.
pub const STEP_MS: u64 = 10_000;
/// Entries kept: an hour of them.
const ENTRIES: usize = 360;

/// What one step was like: two bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    /// The worst state; none if nobody looked.
    state: Option<GateState>,
    /// The worst badness, in percent.
    percent: u8,
}

/// The last hour of one resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// Oldest first.
    entries: VecDeque<Entry>,
    /// The number of the newest step since the monitor began.
    step: u64,
}

/// The worst moment of the hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peak {
    /// Its state.
    pub state: GateState,
    /// Its badness, in percent.
    pub percent: u8,
    /// How long ago it was, milliseconds, to ten seconds.
    pub ago_ms: u64,
}

impl History {
    /// Takes in how things stand at a time in milliseconds, which never goes back.
    pub fn note(&mut self, now_ms: u64, state: GateState, badness: f64) {
        self.reach(now_ms / STEP_MS);
        if let Some(newest) = self.entries.back_mut() {
            newest.state = newest.state.max(Some(state));
            newest.percent = newest.percent.max(percent(badness));
        }
    }

    /// Begins the entry of a step, and those that nobody noted before it.
    fn reach(&mut self, step: u64) {
        let missed = step.saturating_sub(self.step);
        let begun = match self.entries.is_empty() {
            true => 1,
            false => usize::try_from(missed).unwrap_or(ENTRIES).min(ENTRIES),
        };
        let unknown = Entry {
            state: None,
            percent: 0,
        };
        self.entries.extend(std::iter::repeat_n(unknown, begun));
        let excess = self.entries.len().saturating_sub(ENTRIES);
        self.entries.drain(..excess);
        self.step = self.step.max(step);
    }

    /// The worst entry, the latest of equals; none before anything was noted.
    #[must_use]
    pub fn peak(&self) -> Option<Peak> {
        let known = self.entries.iter().enumerate();
        let known = known.filter_map(|(at, entry)| Some((entry.state?, entry, at)));
        let worst = known.max_by_key(|(state, entry, _)| (*state, entry.percent));
        worst.map(|(state, entry, at)| Peak {
            state,
            percent: entry.percent,
            ago_ms: (self.entries.len() - 1 - at) as u64 * STEP_MS,
        })
    }

    /// The states, oldest first, a digit each: 0 for `ok` to 3 for `critical`, `-` where nobody looked.
    #[must_use]
    pub fn states(&self) -> String {
        let digit = |entry: &Entry| match entry.state {
            None => '-',
            Some(GateState::Ok) => '0',
            Some(GateState::Elevated) => '1',
            Some(GateState::Overloaded) => '2',
            Some(GateState::Critical) => '3',
        };
        self.entries.iter().map(digit).collect()
    }

    /// The badness of each entry in percent, oldest first.
    #[must_use]
    pub fn percents(&self) -> Vec<u8> {
        self.entries.iter().map(|entry| entry.percent).collect()
    }
}

/// A badness, 0 to 1, in whole percent; rounded up, so that what is not well is not shown as nothing.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 0 to 100
fn percent(badness: f64) -> u8 {
    (100.0 * badness).ceil().clamp(0.0, 100.0) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use GateState::{Critical, Elevated, Ok};

    #[test]
    fn each_step_keeps_its_worst_moment() {
        let mut history = History::default();
        assert_eq!((history.peak(), history.states()), (None, String::new()));
        history.note(0, Ok, 0.001);
        history.note(9_999, Elevated, 0.6);
        history.note(10_000, Elevated, 0.4);
        history.note(40_000, Ok, 0.0);
        assert_eq!(history.states(), "11--0");
        assert_eq!(history.percents(), [60, 40, 0, 0, 0]);
        let peak = Peak {
            state: Elevated,
            percent: 60,
            ago_ms: 40_000,
        };
        assert_eq!(history.peak(), Some(peak));
    }

    #[test]
    fn the_latest_of_equals_is_the_peak() {
        let mut history = History::default();
        for second in 0..30 {
            history.note(second * 1_000, Critical, 1.0);
        }
        assert_eq!(history.peak().map(|peak| peak.ago_ms), Some(0));
    }

    #[test]
    fn an_hour_is_kept_and_no_more() {
        let mut history = History::default();
        history.note(0, Critical, 1.0);
        for step in 1..=360 {
            history.note(step * STEP_MS, Ok, 0.0);
        }
        assert_eq!(history.entries.len(), ENTRIES);
        assert_eq!(history.peak().map(|peak| peak.state), Some(Ok));
        // After a day in which the machine slept.
        history.note(100_000_000, Elevated, 0.5);
        assert_eq!(history.entries.len(), ENTRIES);
        assert_eq!(history.states(), format!("{}1", "-".repeat(359)));
    }
}
