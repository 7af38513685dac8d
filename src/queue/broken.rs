//! Deliberate defects, compiled in only with the feature `broken`: each must be found by the fault suite, or the suite
//! proves nothing. `BROKEN_DAEMON` in the environment chooses one.

use std::sync::LazyLock;

/// What can be wrong with such a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// A settlement counts under any token.
    NoTokenCheck,
    /// A job is settled before it runs.
    SettledFirst,
    /// Leases go by the clock of the daemon's machine.
    OwnClock,
    /// Nobody returns the jobs of the dead.
    NoRescue,
}

/// Whether this process has it.
#[must_use]
pub fn has(flaw: Flaw) -> bool {
    static CHOSEN: LazyLock<String> =
        LazyLock::new(|| std::env::var("BROKEN_DAEMON").unwrap_or_default());
    let name = match flaw {
        Flaw::NoTokenCheck => "no-token-check",
        Flaw::SettledFirst => "settled-first",
        Flaw::OwnClock => "own-clock",
        Flaw::NoRescue => "no-rescue",
    };
    *CHOSEN == name
}
