//! The rule that says whether an entry may be served. Pure.

use super::entry::Header;

/// Why there is nothing to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Miss {
    /// There is no entry, or it has expired.
    Absent,
    /// The bytes are no entry of a known form, or too many.
    Unreadable,
    /// The region's log was lost, whole or its tail: nothing can be trusted until the next rebuild opens a new epoch.
    LogLost,
    /// The entry is of an earlier epoch.
    OtherEpoch,
    /// Older than what the log remembers.
    BelowFloor,
    /// Younger than the counter: the counter lost its tail.
    AheadOfLog,
    /// One of its tags, its key or its region was invalidated after its source was read.
    Invalidated,
}

impl Miss {
    /// All of them, in the order of [`Miss::index`].
    pub const ALL: [Self; 7] = [
        Self::Absent,
        Self::Unreadable,
        Self::LogLost,
        Self::OtherEpoch,
        Self::BelowFloor,
        Self::AheadOfLog,
        Self::Invalidated,
    ];

    /// Position in [`Miss::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The word for it in metrics and logs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Unreadable => "unreadable",
            Self::LogLost => "log_lost",
            Self::OtherEpoch => "other_epoch",
            Self::BelowFloor => "below_floor",
            Self::AheadOfLog => "ahead_of_log",
            Self::Invalidated => "invalidated",
        }
    }
}

/// What the log says about one entry, all read at one instant.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LogView {
    /// Invalidations so far; none if the counter is gone.
    pub seq: Option<u64>,
    /// The epoch; none if it is gone.
    pub epoch: Option<String>,
    /// Stamps below it are not remembered; none if it is gone.
    pub floor: Option<u64>,
    /// Whether the member that is always there is there.
    pub sentinel: bool,
    /// The last invalidation of any tag of the entry, its key, or the region.
    pub last: Option<u64>,
}

impl LogView {
    /// Compares the view with what this process knew before it was read. A counter that went back within its epoch has
    /// lost invalidations; the next look by `begin` opens a new epoch.
    ///
    /// # Errors
    /// [`Miss::LogLost`].
    pub(super) fn check_tail(&self, seen_epoch: &str, seen_seq: u64) -> Result<(), Miss> {
        if self.epoch.as_deref() == Some(seen_epoch) && self.seq < Some(seen_seq) {
            return Err(Miss::LogLost);
        }
        Ok(())
    }
}

/// Whether an entry may be served.
///
/// # Errors
/// Why not.
pub(super) fn judge(header: &Header<'_>, log: &LogView) -> Result<(), Miss> {
    let (Some(seq), Some(epoch), Some(floor), true) =
        (log.seq, log.epoch.as_deref(), log.floor, log.sentinel)
    else {
        return Err(Miss::LogLost);
    };
    if header.e != epoch {
        Err(Miss::OtherEpoch)
    } else if header.s < floor {
        Err(Miss::BelowFloor)
    } else if header.s > seq {
        Err(Miss::AheadOfLog)
    } else if log.last.is_some_and(|n| n > header.s) {
        Err(Miss::Invalidated)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::entry;
    use super::*;

    const ENTRY: &[u8] = br#"{"v":1,"e":"now","s":10,"created":0,"base_ttl":1,"grace":0,"delta":0,"tags":[],"enc":"plain"}
"#;

    fn log() -> LogView {
        LogView {
            seq: Some(20),
            epoch: Some("now".to_owned()),
            floor: Some(5),
            sentinel: true,
            last: None,
        }
    }

    fn verdict(log: LogView) -> Result<(), Miss> {
        judge(&entry::decode(ENTRY).unwrap().0, &log)
    }

    #[test]
    fn each_clause_of_the_rule_decides() {
        let last = |n| LogView {
            last: Some(n),
            ..log()
        };
        assert_eq!(verdict(log()), Ok(()));
        assert_eq!(verdict(last(10)), Ok(()), "invalidated before the stamp");
        assert_eq!(verdict(last(11)), Err(Miss::Invalidated));
        let floor = |n| LogView { floor: n, ..log() };
        assert_eq!(verdict(floor(Some(10))), Ok(()));
        assert_eq!(verdict(floor(Some(11))), Err(Miss::BelowFloor));
        let seq = |n| LogView { seq: n, ..log() };
        assert_eq!(verdict(seq(Some(10))), Ok(()));
        assert_eq!(verdict(seq(Some(9))), Err(Miss::AheadOfLog));
        let epoch = |e: Option<&str>| LogView {
            epoch: e.map(str::to_owned),
            ..log()
        };
        assert_eq!(verdict(epoch(Some("then"))), Err(Miss::OtherEpoch));
    }

    #[test]
    fn a_counter_that_went_back_within_its_epoch_has_lost_its_tail() {
        assert_eq!(log().check_tail("now", 20), Ok(()));
        assert_eq!(log().check_tail("now", 21), Err(Miss::LogLost));
        assert_eq!(log().check_tail("then", 21), Ok(()), "another count");
        assert_eq!(log().check_tail("", 0), Ok(()), "nothing seen yet");
    }

    #[test]
    fn a_log_with_any_part_missing_is_lost() {
        for lost in [
            LogView { seq: None, ..log() },
            LogView {
                epoch: None,
                ..log()
            },
            LogView {
                floor: None,
                ..log()
            },
            LogView {
                sentinel: false,
                ..log()
            },
        ] {
            assert_eq!(verdict(lost), Err(Miss::LogLost));
        }
    }
}
