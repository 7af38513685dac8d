//! What can be done with jobs and entries that were set aside: the same for the dead and the quarantined.

use super::CliError;
use std::io::IsTerminal;

/// What to do with those that were chosen.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Give them another chance.
    Retry,
    /// Remove them for good.
    Purge,
}

impl Act {
    /// What was done, as answers call it.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Retry => "retried",
            Self::Purge => "purged",
        }
    }
}

/// Refuses to remove everything when a person may have mistyped: on a terminal it takes `--yes`.
pub(super) fn confirm_purge(all: bool, yes: bool) -> Result<(), CliError> {
    if all && !yes && std::io::stdin().is_terminal() {
        let message = "this removes all of them for good: say so with --yes";
        return Err(CliError::Usage(message.to_owned()));
    }
    Ok(())
}
