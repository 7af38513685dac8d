//! What a web app's answer means for the job.
//!
//! Owns: the table from status to outcome, `Retry-After`, and how much of an answer is read and shown. Must not know how
//! the request was made.

use crate::clock;
use crate::job::{Failure, Outcome};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use std::fmt::Write;
use std::time::Duration;

/// How much of a body is shown in an error, bytes.
const EXCERPT: usize = 200;
/// The longest wait another side may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(86_400);
/// The longest `Retry-After` that is read, bytes: an HTTP-date has 29.
const MAX_RETRY_AFTER_TEXT: usize = 64;

/// Reads an answer, of its body at most `max_response` bytes. `resource` is what a fault is laid to.
pub(super) async fn outcome(response: Response, max_response: usize, resource: &str) -> Outcome {
    let status = response.status();
    let retry_after = retry_after(response.headers(), clock::unix_ms());
    let body = Body::read(response, max_response).await;
    if status.is_success() {
        return body.success(status, resource);
    }
    let failure = Failure::new(format!("status {status}{}", body.excerpt()));
    match status {
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            Outcome::Failed(Failure {
                retry_after,
                ..failure
            })
        }
        _ if status.is_server_error() => Outcome::Failed(Failure {
            retry_after,
            ..failure.blaming(resource, false)
        }),
        // A redirect is not followed: it could lead to a host that is not allowed.
        _ => Outcome::Fatal(failure),
    }
}

/// What was read of a body.
struct Body {
    bytes: Vec<u8>,
    end: End,
}

/// Where the reading of a body ended.
enum End {
    /// At its end.
    Whole,
    /// At the most that is read.
    Cut,
    /// Before its end.
    Broken(reqwest::Error),
}

impl Body {
    async fn read(mut response: Response, max: usize) -> Self {
        let mut bytes = Vec::new();
        let end = loop {
            match response.chunk().await {
                Ok(None) => break End::Whole,
                Ok(Some(chunk)) => {
                    let room = max - bytes.len();
                    bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
                    if chunk.len() > room {
                        break End::Cut;
                    }
                }
                Err(e) => break End::Broken(e),
            }
        };
        Self { bytes, end }
    }

    /// The job is done, unless the answer broke off: then the app may have, too.
    fn success(self, status: StatusCode, resource: &str) -> Outcome {
        match self.end {
            End::Whole => Outcome::Done(serde_json::from_slice(&self.bytes).ok()),
            End::Cut => Outcome::Done(None),
            End::Broken(e) => {
                let why = super::chain(&e.without_url());
                let failure =
                    Failure::new(format!("status {status}, but the answer broke off: {why}"));
                Outcome::Failed(failure.blaming(resource, false))
            }
        }
    }

    fn excerpt(&self) -> String {
        let start = &self.bytes[..self.bytes.len().min(EXCERPT)];
        if start.is_empty() {
            return String::new();
        }
        format!(": {}", escape(&String::from_utf8_lossy(start)))
    }
}

/// Text fit for a log line: control characters are written as escapes.
fn escape(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            let _ = write!(shown, "{}", c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// The wait that `Retry-After` asks for, in seconds or as an HTTP-date in the form of RFC 9110 that senders must use.
/// None if it is absent, unreadable or already over: then the policy's own delay counts.
fn retry_after(headers: &HeaderMap, now_ms: u64) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if text.is_empty() || text.len() > MAX_RETRY_AFTER_TEXT {
        return None;
    }
    let wait = if text.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than a number holds is a very long wait.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        let at = chrono::DateTime::parse_from_rfc2822(text).ok()?;
        let at_ms = u64::try_from(at.timestamp_millis()).ok()?;
        Duration::from_millis(at_ms.saturating_sub(now_ms))
    };
    (!wait.is_zero()).then_some(wait.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn asked(text: &str) -> Option<u64> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, text.parse().unwrap());
        // Sun, 06 Nov 1994 08:49:00 GMT
        retry_after(&headers, 784_111_740_000).map(|wait| wait.as_secs())
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_within_a_day() {
        assert_eq!(asked("120"), Some(120));
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:37 GMT"), Some(37));
        assert_eq!(asked("Sat, 06 Nov 2094 08:49:37 GMT"), Some(86_400));
        assert_eq!(asked("99999999999999999999999"), Some(86_400));
        for none in [
            "0",
            "Sun, 06 Nov 1994 08:48:00 GMT",
            "-5",
            "1.5",
            "soon",
            "",
            &"9".repeat(65),
        ] {
            assert_eq!(asked(none), None, "{none:?}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), 0), None);
    }

    #[test]
    fn control_characters_are_shown_not_sent_to_the_terminal() {
        assert_eq!(escape("a\n\u{1b}[31mé\u{9b}"), "a\\n\\u{1b}[31mé\\u{9b}");
    }
}
