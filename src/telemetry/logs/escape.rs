//! One event, one line: the step between the formatter and the writer that makes it so.
//!
//! Must not know formats: an escape `\u001b` is valid inside a JSON string, and readable elsewhere.

use super::writer::Handle;
use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Makes a [`Line`] per event.
pub(super) struct LineMaker {
    to: Handle,
}

impl LineMaker {
    pub(super) fn new(to: Handle) -> Self {
        Self { to }
    }
}

impl<'w> MakeWriter<'w> for LineMaker {
    type Writer = Line<'w>;

    fn make_writer(&'w self) -> Line<'w> {
        Line {
            to: &self.to,
            urgent: true,
        }
    }

    fn make_writer_for(&'w self, meta: &Metadata<'_>) -> Line<'w> {
        Line {
            to: &self.to,
            urgent: *meta.level() <= Level::WARN,
        }
    }
}

/// Takes one formatted event: the formatter writes each with a single call.
pub(super) struct Line<'w> {
    to: &'w Handle,
    urgent: bool,
}

impl Write for Line<'_> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        self.to.push(&escape(text), self.urgent);
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `text` with every character that could end a line, move a terminal's cursor or turn the reading direction written
/// as `\uXXXX`.
#[must_use]
pub fn escape(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|b| matches!(b, b' '..=b'~')) || !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 32);
    for c in text.chars() {
        if is_unsafe(c) {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}')
        || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_not_copied() {
        assert!(matches!(escape("as it is"), Cow::Borrowed(_)));
        assert!(matches!(escape("déjà vu"), Cow::Borrowed(_)));
    }

    #[test]
    fn nothing_that_acts_is_left() {
        let hostile = "a\nb\r\u{1b}[2J\u{9b}31m\u{7f}\u{202e}c\u{2028}d";
        assert_eq!(
            escape(hostile),
            "a\\u000ab\\u000d\\u001b[2J\\u009b31m\\u007f\\u202ec\\u2028d"
        );
    }
}
