//! What load comes at this time of the week, and whether that calls for more slots beforehand.
//!
//! Owns: the history of the fleet's load as numbers, the seasonal model with its interval and its own error, which
//! peaks are known, and when a daemon raises its slots and comes back. It may only ever raise: the health gate, the
//! breakers and the limiters decide after it and go below it at will. Must not know where a history is kept, what a
//! slot is for, or how health is measured.
//!
//! Time is cut into slots of five minutes, numbered from the Unix epoch, so they are in UTC: after a shift of daylight
//! saving time a peak that follows the local clock comes an hour earlier or later than the model thinks, until it has
//! seen three of four weeks with the new time. Unix milliseconds throughout.
//!
//! *Load* is work by the time it was due, not by when it ran: see [`ClassLoad`]. Its unit is slot-seconds, told as the mean
//! number of jobs at once.

mod accuracy;
mod bands;
mod history;
mod model;
mod outlook;
mod peaks;
mod rules;
mod season;
mod stance;
#[cfg(test)]
mod synthetic;
#[cfg(test)]
mod tests;

pub use accuracy::Accuracy;
pub use history::{ClassLoad, History, Series, SlotLoad};
pub use model::{Cycle, Model, Predicted};
pub use outlook::{Outlook, View};
pub use peaks::{Peak, peaks};
pub use rules::{PeakRules, Rules};
pub use stance::{Change, Setting, Stance, StanceRules, Why, slots_for};

/// Length of a slot.
pub const SLOT_MS: u64 = 300_000;
/// Slots of a day.
pub const DAY: u64 = 288;
/// Slots of a week.
pub const WEEK: u64 = 7 * DAY;
/// Slots of history that are looked at: what a week of forecasts was made from, and the week itself.
pub const KEPT: u64 = 5 * WEEK;

/// The slot in which a time falls.
#[must_use]
pub const fn slot_at(unix_ms: u64) -> u64 {
    unix_ms / SLOT_MS
}

/// When a slot begins.
#[must_use]
pub const fn slot_start_ms(slot: u64) -> u64 {
    slot.saturating_mul(SLOT_MS)
}
