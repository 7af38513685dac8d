//! Whether the jobs of a kind are usually short, by its last runs.
//!
//! All that is kept is, for each of the last 63 runs, whether it took longer than the bound: one word, so that noting a run
//! is one atomic step. Usually short means that 95 of 100 were: the p95 of the last runs is within the bound. Must not know
//! what depends on it.

/// When the jobs of a kind are usually short.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ShortRule {
    /// Of fewer runs nothing is said. (ours: with eight of eight, seven of ten runs at least are short, at 95%)
    pub runs: u32,
    /// At most this share of the last 63 may be long. (ours: 0.05, so that it is their p95)
    pub long_share: f64,
}

impl Default for ShortRule {
    fn default() -> Self {
        Self {
            runs: 8,
            long_share: 0.05,
        }
    }
}

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
    pub fn usually_short(self, rule: &ShortRule) -> bool {
        // A little more, so that one of twenty is a twentieth.
        let may_be = rule.long_share * f64::from(self.count()) + 1e-9;
        self.count() >= rule.runs && f64::from(self.long()) <= may_be
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULE: ShortRule = ShortRule {
        runs: 8,
        long_share: 0.05,
    };

    fn of(runs: &[bool]) -> LastRuns {
        runs.iter()
            .fold(LastRuns::NONE, |last, long| last.after(*long))
    }

    #[test]
    fn little_is_known_at_first_and_one_in_twenty_may_be_long() {
        assert!(!of(&[false; 7]).usually_short(&RULE));
        assert!(of(&[false; 8]).usually_short(&RULE));
        let mut runs = [false; 20];
        runs[3] = true;
        assert!(!of(&runs[..19]).usually_short(&RULE));
        assert!(of(&runs).usually_short(&RULE));
        runs[4] = true;
        assert!(!of(&runs).usually_short(&RULE));
    }

    #[test]
    fn other_rules_may_ask_for_more_runs_and_suffer_no_long_one() {
        let strict = ShortRule {
            runs: 30,
            long_share: 0.0,
        };
        assert!(!of(&[false; 29]).usually_short(&strict));
        assert!(of(&[false; 30]).usually_short(&strict));
        assert!(!of(&[false; 62]).after(true).usually_short(&strict));
    }

    #[test]
    fn it_follows_a_kind_that_changes() {
        let mut last = of(&[false; 100]);
        for _ in 0..3 {
            last = last.after(true);
            assert!(last.usually_short(&RULE));
        }
        last = last.after(true);
        assert!(!last.usually_short(&RULE));
        for _ in 0..63 {
            last = last.after(false);
        }
        assert!(last.usually_short(&RULE));
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
