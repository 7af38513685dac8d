//! Whether the jobs of a kind are usually short, by its last runs.
//!
//! All that is kept is, for each of the last 63 runs, whether it took longer than the bound: one word, so that noting a run
//! is one atomic step. Usually short means that 95 of 100 were: the p95 of the last runs is within the bound. Must not know
//! what depends on it.

/// Of fewer runs nothing is said. Our choice: with eight of eight, seven of ten runs at least are short (at 95%).
const ENOUGH: u32 = 8;
/// At most one of so many may be long.
const ONE_IN: u32 = 20;

/// The last runs of a kind: a bit for each, the last one lowest, below a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastRuns(u64);

impl LastRuns {
    /// None yet.
    pub const NONE: Self = Self(1);
    const MARK: u64 = 1 << 63;

    /// What [`LastRuns::to_bits`] gave.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(if bits == 0 { 1 } else { bits })
    }

    /// All of it as one word.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// With one more run, which was longer than the bound or not. Beyond 63 the oldest is forgotten.
    #[must_use]
    pub const fn after(self, long: bool) -> Self {
        let full = self.0 & Self::MARK;
        Self(((self.0 << 1) | long as u64) | full)
    }

    /// How many there are, at most 63.
    #[must_use]
    pub const fn count(self) -> u32 {
        63 - self.0.leading_zeros()
    }

    /// How many of them were longer than the bound.
    #[must_use]
    pub const fn long(self) -> u32 {
        self.0.count_ones() - 1
    }

    /// Whether the jobs are usually short, as far as is known.
    #[must_use]
    pub const fn usually_short(self) -> bool {
        let count = self.count();
        count >= ENOUGH && self.long() * ONE_IN <= count
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(runs: &[bool]) -> LastRuns {
        runs.iter()
            .fold(LastRuns::NONE, |last, long| last.after(*long))
    }

    #[test]
    fn little_is_known_at_first_and_one_in_twenty_may_be_long() {
        assert!(!of(&[false; 7]).usually_short());
        assert!(of(&[false; 8]).usually_short());
        let mut runs = [false; 20];
        runs[3] = true;
        assert!(!of(&runs[..19]).usually_short());
        assert!(of(&runs).usually_short());
        runs[4] = true;
        assert!(!of(&runs).usually_short());
    }

    #[test]
    fn it_follows_a_kind_that_changes() {
        let mut last = of(&[false; 100]);
        for _ in 0..3 {
            last = last.after(true);
            assert!(last.usually_short());
        }
        last = last.after(true);
        assert!(!last.usually_short());
        for _ in 0..63 {
            last = last.after(false);
        }
        assert!(last.usually_short());
    }

    proptest! {
        #[test]
        fn it_counts_the_last_sixty_three(runs in prop::collection::vec(any::<bool>(), 0..200)) {
            let last = of(&runs);
            let kept = &runs[runs.len().saturating_sub(63)..];
            prop_assert_eq!(last.count() as usize, kept.len());
            prop_assert_eq!(last.long() as usize, kept.iter().filter(|long| **long).count());
            prop_assert_eq!(LastRuns::from_bits(last.to_bits()), last);
        }
    }
}
