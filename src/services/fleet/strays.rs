//! Decisions about operations that this daemon does not have. When one does not change for days nobody has its operation
//! any more, and it is to be removed. Pure: the time is an argument.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a decision must stay the same: much longer than any daemon that has the operation leaves one alone.
const LONG: Duration = Duration::from_secs(2 * 86_400);

/// What is known of them: each by the name of its operation, with its text and since when that is the same.
#[derive(Debug, Default)]
pub(super) struct Strays(BTreeMap<String, (String, Instant)>);

impl Strays {
    /// Takes note of all there are now, by name with their texts.
    pub(super) fn note(&mut self, all: BTreeMap<String, String>, now: Instant) {
        let mut known = std::mem::take(&mut self.0);
        let with_time = |(name, text): (String, String)| {
            let before = known.remove(&name).filter(|(old, _)| *old == text);
            let since = before.map_or(now, |(_, since)| since);
            (name, (text, since))
        };
        self.0 = all.into_iter().map(with_time).collect();
    }

    /// Names and texts of those to remove.
    pub(super) fn old(&self, now: Instant) -> impl Iterator<Item = (&str, &str)> {
        let is_old = move |since: &Instant| now.saturating_duration_since(*since) >= LONG;
        let of = self.0.iter().filter(move |(_, (_, since))| is_old(since));
        of.map(|(name, (text, _))| (name.as_str(), text.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(all: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
        all.iter().map(owned).collect()
    }

    #[test]
    fn only_what_nobody_changed_for_days_is_old() {
        let begun = crate::clock::monotonic();
        let mut strays = Strays::default();
        strays.note(
            decided(&[("dead", "x"), ("alive", "x"), ("ours", "x")]),
            begun,
        );
        let middle = begun + LONG / 2;
        strays.note(decided(&[("dead", "x"), ("alive", "y")]), middle);
        let end = begun + LONG;
        strays.note(
            decided(&[("dead", "x"), ("alive", "y"), ("ours", "x")]),
            end,
        );
        assert_eq!(strays.old(middle).count(), 0);
        assert_eq!(strays.old(end).collect::<Vec<_>>(), [("dead", "x")]);
    }
}
