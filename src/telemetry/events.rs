//! One function per change of state, so that every name stands in one place.
//!
//! Each emits exactly one log event, with the fields `event job_id kind queue priority attempt token duration_ms
//! outcome error` as far as they apply. Those that somebody should be told about carry an `alert` field as well and
//! return the [`super::Alert`]; hand it to [`super::Alerts::raise`]. Payloads are never logged.

/// An event that is an alert as well: its level, its name, the alert, whom it is about, what is told, then the fields of
/// the event.
macro_rules! alerting {
    ($level:ident, $event:literal, $alert:ident, $subject:expr, $told:expr, $($rest:tt)+) => {{
        $level!(event = $event, alert = AlertName::$alert.as_str(), $($rest)+);
        Alert::new(AlertName::$alert, $subject, $told)
    }};
}

/// An event that tells every field of what it is about as it stands: its level, its name, the fields, then what else there
/// is to say.
macro_rules! telling {
    ($level:ident, $event:literal, $of:ident { $($field:ident),+ $(,)? }, $($rest:tt)+) => {
        $level!(event = $event, $($field = $of.$field,)+ $($rest)+)
    };
}

mod forecast;
mod intake;
mod job;
mod orders;
mod retries;
mod system;

pub use forecast::*;
pub use intake::*;
pub use job::*;
pub use orders::*;
pub use retries::*;
pub use system::*;

use std::time::Duration;

/// Milliseconds with microsecond precision: short jobs take less than one.
pub(super) fn ms(duration: Duration) -> f64 {
    u32::try_from(duration.as_micros()).map_or_else(
        |_| duration.as_secs_f64() * 1_000.0,
        |micros| f64::from(micros) / 1_000.0,
    )
}

/// Whole milliseconds.
fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
