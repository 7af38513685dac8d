//! From measured signals to what may run: badness per resource, a state with hysteresis, a share
//! of the slots per priority class.
//!
//! Owns thresholds, smoothing and the table of shares. It must not know where a value comes from
//! or what is done with a share. Shedding means *not claiming*: a job kept back stays in its place.
//!
//! There is one [`ResourceGauge`] per resource and never one average over all: a job is held back
//! by the worst of the resources it uses, and by no other. All times are monotonic milliseconds.
//! The constants are those of our notes on the gate unless marked as our choice.

mod advice;
mod gauge;
mod orders;
mod share;
mod signal;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use crate::config::GateMode;
pub use advice::Advice;
pub use gauge::{GaugeSnapshot, ResourceGauge, SignalSnapshot, Timing, Transition};
pub use orders::{Aspect, Forced, LARGEST_LIMIT, LONGEST_ORDER, Order, Orders, Target, Will};
pub use share::{class_limit, share};
pub use signal::Signal;

/// How a resource fares; later is worse in `Ord`, so the worst of several is their `max`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum GateState {
    /// All is well: nothing is held back.
    #[default]
    Ok,
    /// Strained: mass work is slowed.
    Elevated,
    /// Too much: mass work stops, the rest is slowed.
    Overloaded,
    /// Close to failing: only critical work, and little of it.
    Critical,
}

impl GateState {
    /// All states, best first.
    pub const ALL: [GateState; 4] = [Self::Ok, Self::Elevated, Self::Overloaded, Self::Critical];

    /// The name in logs, metrics and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Elevated => "elevated",
            Self::Overloaded => "overloaded",
            Self::Critical => "critical",
        }
    }

    /// The badness at which it is entered.
    pub const fn entered_at(self) -> f64 {
        match self {
            Self::Ok => 0.0,
            Self::Elevated => 0.5,
            Self::Overloaded => 0.8,
            Self::Critical => 0.95,
        }
    }

    /// The badness at or below which it may be left. That of `critical` is our choice, at the
    /// distance the other two have.
    pub const fn left_at(self) -> f64 {
        match self {
            Self::Ok => 0.0,
            Self::Elevated => 0.3,
            Self::Overloaded => 0.6,
            Self::Critical => 0.75,
        }
    }

    /// The next better state.
    const fn better(self) -> Self {
        match self {
            Self::Ok | Self::Elevated => Self::Ok,
            Self::Overloaded => Self::Elevated,
            Self::Critical => Self::Overloaded,
        }
    }
}

impl fmt::Display for GateState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl GateMode {
    /// The state to act on while `measured` is the one that was found.
    pub const fn heeded(self, measured: GateState) -> GateState {
        match self {
            Self::On => measured,
            Self::Shadow | Self::Off => GateState::Ok,
        }
    }
}
