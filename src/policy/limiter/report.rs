//! What a limiter tells about itself: changes and their reasons, a snapshot, what is kept over a
//! restart.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::anchor::Anchor;

/// Why a limit changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Jobs used the limit, and none of them waited within the dependency.
    Room,
    /// Jobs waited within the dependency.
    Congestion,
    /// A step up from a limit that was found brought jobs that waited within the dependency: it is undone.
    NoRoom,
    /// Jobs are running, and none has ended for much longer than any should take.
    Silence,
    /// The limit is low for a moment, to measure an undisturbed latency.
    Measuring,
    /// The measurement is over.
    Measured,
    /// Cuts were in vain: jobs take longer by themselves, and the limit is what it was.
    Slower,
    /// The operation is too slow to be judged by latency; its resource's signals limit it.
    TooSlow,
}

impl Reason {
    /// The words of logs and `explain`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Room => "room to grow",
            Self::Congestion => "congestion",
            Self::NoRoom => "no room",
            Self::Silence => "nothing ended",
            Self::Measuring => "measuring",
            Self::Measured => "measured",
            Self::Slower => "slower by itself",
            Self::TooSlow => "too slow to judge by latency",
        }
    }
}

/// A change of the limit, for the caller to log.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Change {
    /// The limit it had.
    pub from: usize,
    /// The limit it has.
    pub to: usize,
    /// Why.
    pub reason: Reason,
    /// The wait each job seems to have had within the dependency, milliseconds, if it was that.
    pub wait_ms: Option<f64>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}: {}", self.from, self.to, self.reason.as_str())?;
        match self.wait_ms {
            Some(wait) => write!(f, ", each job waits {wait:.1} ms"),
            None => Ok(()),
        }
    }
}

/// A limiter at one moment, for `/health` and `explain`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Snapshot {
    /// Jobs that may run at once.
    pub limit: usize,
    /// Jobs that run.
    pub inflight: usize,
    /// Mean latency of undisturbed jobs, milliseconds; none before it was measured.
    pub anchor_ms: Option<f64>,
    /// The wait within the dependency by the newest look at enough jobs, milliseconds.
    pub wait_ms: Option<f64>,
    /// Whether it runs low for a moment, to measure.
    pub measuring: bool,
    /// Why the limit last changed; none if it never did.
    pub reason: Option<Reason>,
    /// Milliseconds since it last changed, or since the start.
    pub since_ms: u64,
}

/// What a limiter knows that is worth keeping over a restart. It says nothing of times, which mean
/// nothing to another process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    /// The limit it rests at: that before a measurement, a step up or a silence that goes on.
    pub limit: usize,
    pub(super) anchor: Option<Anchor>,
}
