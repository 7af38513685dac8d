//! From measured signals to what may run: badness per resource, a state with hysteresis, a share
//! of the slots per priority class.
//!
//! Owns what thresholds, smoothing and the table of shares mean; the values are those of `[gate]`. It must not know where a value comes from
//! or what is done with a share. Shedding means *not claiming*: a job kept back stays in its place.
//!
//! There is one [`ResourceGauge`] per resource and never one average over all: a job is held back
//! by the worst of the resources it uses, and by no other. All times are monotonic milliseconds.
//! The defaults are those of our notes on the gate, but for what a failure weighs and where `critical` is left: our choice, at
//! the distance that the other two states have.

mod advice;
mod gauge;
mod orders;
mod rules;
mod signal;
mod tuning;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use crate::config::GateMode;
pub use advice::Advice;
pub use gauge::{GaugeSnapshot, ResourceGauge, SignalSnapshot, Transition};
pub use orders::{Aspect, Forced, LARGEST_LIMIT, LONGEST_ORDER, Order, Orders, Target, Will};
pub use rules::{Rules, Shares, Thresholds};
pub use signal::Signal;
pub use tuning::{Timing, Tuning};

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
