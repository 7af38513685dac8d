//! What the daemon tells about itself: log lines, metrics, alerts.
//!
//! Owns: the names of events, metrics and alerts, and how they leave the process. Must not know who reports what, nor
//! decide anything: whoever changes a state calls one function of [`events`] for it.

pub mod alerts;
pub mod events;
pub mod logs;
pub mod metrics;
pub mod successes;

pub use alerts::{Alert, AlertName, Alerts};
pub use logs::{Logs, Stream, escape};
pub use metrics::{KindMetrics, Metrics};
pub use successes::{KindSuccesses, Successes};

/// The longest error text that is logged or sent, in bytes; as much as a job's history keeps.
pub const MAX_ERROR: usize = 4 * 1024;

/// `text`, cut to at most [`MAX_ERROR`] bytes between two characters.
#[must_use]
pub fn clip(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_ERROR)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(clip("short"), "short");
        let long = "é".repeat(MAX_ERROR);
        assert_eq!(clip(&long).len(), MAX_ERROR);
        assert_eq!(clip(&format!("x{long}")).len(), MAX_ERROR - 1);
    }
}
