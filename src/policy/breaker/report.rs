//! What a breaker tells about itself: states, transitions and their reasons, a snapshot.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Mode;
use super::rest::Rest;

/// The states of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Calls go through.
    Closed,
    /// No call goes through until the cool-down is over.
    Open,
    /// One call at a time goes through, to see.
    HalfOpen,
    /// Calls go through up to a growing share of the usual limit.
    Ramping,
}

impl State {
    /// The name in logs, metrics and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::Ramping => "ramping",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a breaker changed its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Most calls in the window failed, beyond chance.
    Failures {
        /// Failed calls in the window.
        failures: u32,
        /// All calls in the window.
        calls: u32,
    },
    /// Most calls in the window were slow, beyond chance.
    SlowCalls {
        /// Slow calls in the window.
        slow: u32,
        /// All calls in the window.
        calls: u32,
    },
    /// Most calls in the window failed or were slow, beyond chance.
    BadCalls {
        /// Failed calls in the window.
        failures: u32,
        /// Slow ones.
        slow: u32,
        /// All calls in the window.
        calls: u32,
    },
    /// Nobody answered the door several times in a row.
    ConnectErrors {
        /// Connect errors in a row.
        count: u32,
    },
    /// The cool-down is over; a trial starts.
    CoolDownOver,
    /// The trial failed or was slow.
    TrialFailed,
    /// The trial succeeded.
    TrialSucceeded,
    /// The last ramp step was passed.
    Recovered,
    /// No job needed it any more.
    Rests(Rest),
    /// Jobs need it again.
    Needed,
    /// An operator opened it.
    Forced,
    /// An operator closed it, or set its mode.
    Reset,
    /// The daemons opened it together.
    Fleet(Pooled),
    /// The daemon that tried for all was refused, or another one tries now.
    FleetTrialFailed,
    /// The daemon that tried for all succeeded.
    FleetTrialSucceeded,
    /// The daemons recovered together, or an operator closed it for all.
    FleetRecovered,
    /// No job of any daemon needed it any more.
    FleetRests(Rest),
}

/// The evidence of all daemons together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Pooled {
    /// Daemons that see it fail.
    pub agree: u32,
    /// Daemons that saw calls of it.
    pub daemons: u32,
    /// Their calls that count.
    pub calls: u32,
    /// Failed ones.
    pub failures: u32,
    /// Slow ones.
    pub slow: u32,
}

impl Reason {
    /// Whether this daemon decided by itself, or all of them together.
    pub const fn scope(self) -> &'static str {
        match self {
            Self::Fleet(_)
            | Self::FleetTrialFailed
            | Self::FleetTrialSucceeded
            | Self::FleetRecovered
            | Self::FleetRests(_) => "fleet",
            Self::Forced | Self::Reset => "operator",
            _ => "local",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failures { failures, calls } => write!(f, "{failures} of {calls} calls failed"),
            Self::SlowCalls { slow, calls } => write!(f, "{slow} of {calls} calls were slow"),
            Self::BadCalls {
                failures,
                slow,
                calls,
            } => write!(f, "{failures} of {calls} calls failed, {slow} were slow"),
            Self::ConnectErrors { count } => write!(f, "{count} connect errors in a row"),
            Self::CoolDownOver => f.write_str("cool-down over"),
            Self::TrialFailed => f.write_str("trial failed"),
            Self::TrialSucceeded => f.write_str("trial succeeded"),
            Self::Recovered => f.write_str("recovered"),
            Self::Rests(rest) => write!(f, "no job needs it any more; {rest}"),
            Self::Needed => f.write_str("jobs need it again"),
            Self::Forced => f.write_str("forced open"),
            Self::Reset => f.write_str("reset"),
            Self::Fleet(pooled) => write!(
                f,
                "{} of {} daemons see it fail: {} of {} calls failed, {} were slow",
                pooled.agree, pooled.daemons, pooled.failures, pooled.calls, pooled.slow
            ),
            Self::FleetTrialFailed => f.write_str("trial for all daemons failed"),
            Self::FleetTrialSucceeded => f.write_str("trial for all daemons succeeded"),
            Self::FleetRecovered => f.write_str("recovered on all daemons"),
            Self::FleetRests(rest) => write!(f, "no job of any daemon needs it any more; {rest}"),
        }
    }
}

/// A change of state, for the caller to log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Transition {
    /// The state it left.
    pub from: State,
    /// The state it entered.
    pub to: State,
    /// Why.
    pub reason: Reason,
    /// When, monotonic milliseconds.
    pub at_ms: u64,
}

/// What a state means for the next call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Would {
    /// It would be let through.
    Allow,
    /// It would be let through within a share of the usual limit.
    Limit,
    /// It would be the one trial.
    Try,
    /// It would be refused.
    Refuse,
}

/// A breaker at one moment, for `/health` and `explain`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Snapshot {
    /// Its state.
    pub state: State,
    /// Whether it acts on it.
    pub mode: Mode,
    /// What its state means for the next call. It does so only if `mode` is on.
    pub would: Would,
    /// Opened by an operator: milliseconds until that ends.
    pub forced_ms: Option<u64>,
    /// Whether its state is that of all daemons.
    pub fleet: bool,
    /// While calls are refused: milliseconds until one may be tried.
    pub retry_in_ms: Option<u64>,
    /// While ramping, or when it goes on with that after a rest: the share of the usual limit.
    pub limit: Option<f64>,
    /// Openings since the last full recovery.
    pub openings: u32,
    /// Calls in the window.
    pub calls: u32,
    /// Failed ones.
    pub failures: u32,
    /// Slow ones.
    pub slow: u32,
}
