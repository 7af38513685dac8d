//! What can be done with what was set aside: the same for dead jobs, quarantined entries and rejected rows.

use super::{CliError, Report};
use serde::Serialize;
use serde_json::json;
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

/// The flag that confirms a removal.
#[derive(Debug, clap::Args)]
pub(super) struct Sure {
    /// Really remove them: needed with --all on a terminal
    #[arg(long)]
    yes: bool,
}

impl Sure {
    /// Refuses to remove everything when a person may have mistyped: on a terminal it takes `--yes`.
    pub(super) fn confirm(&self, all: bool) -> Result<(), CliError> {
        if all && !self.yes && std::io::stdin().is_terminal() {
            let message = "this removes all of them for good: say so with --yes";
            return Err(CliError::Usage(message.to_owned()));
        }
        Ok(())
    }
}

/// How many were acted on; `missing` is what was asked for and not there, `failure` says so.
pub(super) fn acted(
    what: Act,
    changed: u64,
    missing: impl Serialize,
    failure: Option<String>,
) -> Report {
    let word = what.word();
    let json = json!({word: changed, "missing": missing});
    Report::new(json, format!("{changed} {word}\n")).failing(failure)
}
