//! The five priority classes.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A priority class. Within a queue a higher class is always taken first; ageing lifts what waits too long.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Never fully shed by the gate.
    Critical,
    /// Before normal work.
    High,
    /// The default.
    #[default]
    Normal,
    /// Held back early when a dependency is under pressure.
    Low,
    /// First to be held back; meant for backfills.
    Bulk,
}

impl Priority {
    /// All classes, the most urgent first.
    pub const ALL: [Self; 5] = [
        Self::Critical,
        Self::High,
        Self::Normal,
        Self::Low,
        Self::Bulk,
    ];

    /// Position in [`Priority::ALL`]: 0 is the most urgent.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The class as it is written in envelopes, definitions and keys.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
            Self::Bulk => "bulk",
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Priority {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|p| p.as_str() == s)
            .ok_or_else(|| format!("`{s}` is not one of critical, high, normal, low, bulk"))
    }
}
