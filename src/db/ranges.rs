//! What of a table is still to be done: ranges of keys, and those to come back to.
//!
//! Owns: how progress moves on after each batch. Pure: the database that keeps it is elsewhere.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// The text of each key column of one row.
pub(super) type Key = Vec<String>;

/// The most ranges remembered for a later pass; beyond it the last one grows to cover what comes.
const MAX_SKIPPED: usize = 1_000;

/// The rows whose key is greater than `after` and not greater than `upto`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Range {
    /// None: from the first row on.
    pub after: Option<Key>,
    /// The last key of the range.
    pub upto: Key,
}

/// Ranges to do now, and ranges in which rows were locked by others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ranges {
    /// In order; the first one is being worked on.
    pub todo: VecDeque<Range>,
    /// To be met again in a later pass.
    pub skipped: Vec<Range>,
}

impl Ranges {
    /// Everything up to a key.
    pub(super) fn upto(last: Option<Key>) -> Self {
        let whole = last.map(|upto| Range { after: None, upto });
        Self {
            todo: whole.into_iter().collect(),
            skipped: Vec::new(),
        }
    }

    /// A batch at the head of the list was done up to `end`, or all of its range. `left_rows`: some rows of it were
    /// locked by others and are still there.
    ///
    /// # Errors
    /// The batch did not come any further: going on would never end.
    pub(super) fn advance(&mut self, end: Option<Key>, left_rows: bool) -> Result<(), String> {
        let Some(range) = self.todo.pop_front() else {
            return Err("a batch was done, but there was none to do".to_owned());
        };
        let Range { after, upto } = range;
        let end = end.unwrap_or_else(|| upto.clone());
        if after.as_ref() == Some(&end) {
            return Err(format!("the walk stands still at key {end:?}"));
        }
        if end != upto {
            self.todo.push_front(Range {
                after: Some(end.clone()),
                upto,
            });
        }
        if left_rows {
            self.skip(Range { after, upto: end });
        }
        Ok(())
    }

    /// Turns to what was skipped.
    pub(super) fn next_pass(&mut self) {
        self.todo.extend(self.skipped.drain(..));
    }

    fn skip(&mut self, range: Range) {
        let full = self.skipped.len() >= MAX_SKIPPED;
        match self.skipped.last_mut() {
            // Ranges come in order of their keys, so growing the last one covers this one.
            Some(last) if full || range.after.as_ref() == Some(&last.upto) => {
                last.upto = range.upto
            }
            _ => self.skipped.push(range),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn key(n: usize) -> Key {
        vec![n.to_string()]
    }

    fn range(after: usize, upto: usize) -> Range {
        Range {
            after: Some(key(after)),
            upto: key(upto),
        }
    }

    #[test]
    fn a_walk_ends_at_the_key_that_was_last_at_its_start() {
        let mut ranges = Ranges::upto(Some(key(25)));
        ranges.advance(Some(key(10)), false).unwrap();
        assert_eq!(ranges.todo, [range(10, 25)]);
        ranges.advance(Some(key(20)), false).unwrap();
        ranges.advance(None, false).unwrap();
        assert_eq!(ranges, Ranges::default());
        assert_eq!(Ranges::upto(None), Ranges::default());
    }

    #[test]
    fn standing_still_is_an_error() {
        let mut ranges = Ranges::upto(Some(key(25)));
        ranges.advance(Some(key(10)), false).unwrap();
        assert!(ranges.advance(Some(key(10)), false).is_err());
        assert!(Ranges::default().advance(None, false).is_err());
    }

    #[test]
    fn ranges_with_locked_rows_are_met_again() {
        let mut ranges = Ranges::upto(Some(key(50)));
        ranges.advance(Some(key(10)), true).unwrap();
        ranges.advance(Some(key(20)), true).unwrap();
        ranges.advance(Some(key(30)), false).unwrap();
        ranges.advance(None, true).unwrap();
        let first = Range {
            after: None,
            upto: key(20),
        };
        assert_eq!(ranges.skipped, [first.clone(), range(30, 50)]);
        ranges.next_pass();
        assert_eq!(ranges.todo, [first, range(30, 50)]);
        assert!(ranges.skipped.is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded_and_loses_nothing() {
        let mut ranges = Ranges::upto(Some(key(10_000)));
        for n in 1..5_000 {
            ranges.advance(Some(key(n)), n % 2 == 0).unwrap();
        }
        assert_eq!(ranges.skipped.len(), MAX_SKIPPED);
        assert_eq!(ranges.skipped.last().unwrap(), &range(1_999, 4_998));
    }
}
