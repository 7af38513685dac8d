//! What can be ordered, and how it is written.

use std::fmt;

use serde::{Serialize, Serializer};

use super::super::GateState;

/// The largest limit an order may set: that of the configuration's slots.
pub const LARGEST_LIMIT: usize = 100_000;

/// What is ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Will {
    /// A resource counts as being in this state; what is measured worse still counts.
    AtLeast(GateState),
    /// A resource counts as no worse than this, whatever is measured.
    AtMost(GateState),
    /// The breaker of an operation lets nothing through.
    Open,
    /// The breaker of an operation lets everything through and looks away.
    Disabled,
    /// The breaker of an operation lets everything through, and goes on judging.
    MetricsOnly,
    /// So many jobs of an operation run at once in each daemon, whatever its limiter finds.
    Limit(usize),
}

/// What an order changes. Of each there is one order for a target, the latest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Aspect {
    /// The state of a resource.
    State,
    /// What a breaker does.
    Breaker,
    /// The limit of an operation.
    Limit,
}

impl Aspect {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::State, Self::Breaker, Self::Limit];

    /// The word of storage, logs and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Breaker => "breaker",
            Self::Limit => "limit",
        }
    }
}

impl Will {
    /// What it changes.
    pub const fn aspect(self) -> Aspect {
        match self {
            Self::AtLeast(_) | Self::AtMost(_) => Aspect::State,
            Self::Open | Self::Disabled | Self::MetricsOnly => Aspect::Breaker,
            Self::Limit(_) => Aspect::Limit,
        }
    }

    /// Reads what [`Will`] displays, like `at-least overloaded`, `open` or `limit=4`.
    ///
    /// # Errors
    /// Says what was given and what can be.
    pub fn parse(text: &str) -> Result<Self, String> {
        let state = |name: &str| GateState::ALL.into_iter().find(|s| s.as_str() == name);
        let found = match text.split_once([' ', '=']) {
            Some(("at-least", name)) => state(name).map(Self::AtLeast),
            Some(("at-most", name)) => state(name).map(Self::AtMost),
            Some(("limit", n)) => {
                let limit = n.parse().ok();
                let limit = limit.filter(|n| (1..=LARGEST_LIMIT).contains(n));
                let wrong = || format!("limit={n}: want a whole number of 1 to {LARGEST_LIMIT}");
                return limit.map(Self::Limit).ok_or_else(wrong);
            }
            Some(_) => None,
            None => match text {
                "open" => Some(Self::Open),
                "disabled" => Some(Self::Disabled),
                "metrics-only" => Some(Self::MetricsOnly),
                // At least ok would change nothing.
                "ok" => Some(Self::AtMost(GateState::Ok)),
                name => state(name).map(Self::AtLeast),
            },
        };
        found.ok_or_else(|| {
            format!(
                "{text:?} is no order: want a state (ok, elevated, overloaded, critical) for a resource; \
                 open, disabled, metrics-only or limit=N for an operation"
            )
        })
    }
}

impl fmt::Display for Will {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(state) => write!(f, "at-least {state}"),
            Self::AtMost(state) => write!(f, "at-most {state}"),
            Self::Open => f.write_str("open"),
            Self::Disabled => f.write_str("disabled"),
            Self::MetricsOnly => f.write_str("metrics-only"),
            Self::Limit(n) => write!(f, "limit={n}"),
        }
    }
}

impl Serialize for Will {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use GateState::{Critical, Elevated, Ok as Well, Overloaded};

    #[test]
    fn what_is_ordered_is_read_as_it_is_written() {
        for (text, will) in [
            ("overloaded", Will::AtLeast(Overloaded)),
            ("ok", Will::AtMost(Well)),
            ("at-most elevated", Will::AtMost(Elevated)),
            ("at-least critical", Will::AtLeast(Critical)),
            ("open", Will::Open),
            ("metrics-only", Will::MetricsOnly),
            ("limit=4", Will::Limit(4)),
        ] {
            assert_eq!(Will::parse(text), Ok(will), "{text}");
            assert_eq!(Will::parse(&will.to_string()), Ok(will), "{text}");
        }
        for wrong in [
            "",
            "shut",
            "limit=0",
            "limit=many",
            "limit",
            "at-most",
            "at-least open",
        ] {
            assert!(Will::parse(wrong).is_err(), "{wrong}");
        }
    }
}
