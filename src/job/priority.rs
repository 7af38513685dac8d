//! The five priority classes, in the order in which a queue serves them.
//!
//! Owns names and order. It must not know what the gate or the queue make of a class.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A priority class; the first is served first, so `Critical < Bulk` in `Ord`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Work someone waits for; never shed entirely.
    Critical,
    /// Ahead of the usual.
    High,
    /// The usual; what a job gets that names none.
    #[default]
    Normal,
    /// May wait while something is strained.
    Low,
    /// Mass work without a deadline; shed first.
    Bulk,
}

impl Priority {
    /// All classes in the order they are served; `ALL[p.index()] == p`.
    pub const ALL: [Priority; 5] = [
        Self::Critical,
        Self::High,
        Self::Normal,
        Self::Low,
        Self::Bulk,
    ];

    /// Position in [`Priority::ALL`], 0 for `critical`.
    pub const fn index(self) -> usize {
        match self {
            Self::Critical => 0,
            Self::High => 1,
            Self::Normal => 2,
            Self::Low => 3,
            Self::Bulk => 4,
        }
    }

    /// The name used in envelopes, definitions, keys and metrics.
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
        f.pad(self.as_str())
    }
}

/// The text is not the name of a priority class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("want one of critical, high, normal, low, bulk")]
pub struct ParsePriorityError;

impl FromStr for Priority {
    type Err = ParsePriorityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|class| class.as_str() == text)
            .ok_or(ParsePriorityError)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_positions_and_serde_agree() {
        for (position, class) in Priority::ALL.into_iter().enumerate() {
            assert_eq!(class.index(), position);
            assert_eq!(class.to_string().parse(), Ok(class));
            assert_eq!(
                serde_json::to_string(&class).unwrap(),
                format!("\"{class}\"")
            );
            assert_eq!(
                serde_json::from_str::<Priority>(&format!("\"{class}\"")).unwrap(),
                class
            );
        }
        assert!(Priority::ALL.is_sorted());
        assert!(Priority::Critical < Priority::Bulk);
    }

    #[test]
    fn other_spellings_are_refused() {
        for text in ["", "Critical", "urgent", "0", "normal "] {
            assert_eq!(text.parse::<Priority>(), Err(ParsePriorityError));
        }
    }
}
