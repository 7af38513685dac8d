//! Envelope v1: the one public form in which any language hands us a job.
//!
//! Owns: what an entry of an inbox may look like. What passes here is well formed by itself; whether the kind exists
//! and its arguments fit is the catalogue's to say.

mod check;
mod legible;

pub use legible::{Legible, id_alone};

use super::strict::{self, StrictObject};
use super::ties::{self, Debounce, Group, Parent, Unique};
use super::{JobId, Priority, Reject, RejectCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The largest whole entry, in bytes: arguments, the app's own `meta`, and room for the rest.
pub const MAX_ENTRY_BYTES: usize = 384 * 1024;
/// The largest `args`, in bytes of JSON.
pub const MAX_ARGS_BYTES: usize = 256 * 1024;
/// The deepest nesting of `args`.
pub const MAX_ARGS_DEPTH: usize = 32;
/// The deepest nesting of a whole entry: one level around `args`, and two more for each step that follows.
const MAX_DEPTH: usize = MAX_ARGS_DEPTH + 1 + 2 * (ties::MAX_CHAIN + 1);
/// The largest `meta`, in bytes of keys and values.
pub const MAX_META_BYTES: usize = 4 * 1024;
/// How far ahead a job may be put off: a year, in milliseconds.
pub const MAX_AHEAD_MS: u64 = 365 * 24 * 3600 * 1000;
/// The most attempts a job may ask for.
pub const MAX_ATTEMPTS: u32 = 1_000;
/// The longest timeout a job may ask for: a day, in milliseconds.
pub const MAX_TIMEOUT_MS: u64 = 86_400_000;

/// A job as an app sent it. Absent fields take the definition's values.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// Envelope version; only 1 exists.
    #[serde(default, deserialize_with = "present")]
    pub v: Option<u64>,
    /// Which definition it is for.
    pub kind: String,
    /// The app's own id; minted on admission when absent.
    #[serde(default, deserialize_with = "present")]
    pub id: Option<JobId>,
    #[serde(default)]
    args: StrictObject,
    /// Must agree with the inbox, if given.
    #[serde(default, deserialize_with = "present")]
    pub queue: Option<String>,
    /// Priority class.
    #[serde(default, deserialize_with = "present")]
    pub priority: Option<Priority>,
    /// Not before this time, ms since the epoch.
    #[serde(default, deserialize_with = "present")]
    pub run_at: Option<u64>,
    /// Not before this many ms after admission.
    #[serde(default, deserialize_with = "present")]
    pub delay_ms: Option<u64>,
    /// Expired if not started by this time, ms since the epoch.
    #[serde(default, deserialize_with = "present")]
    pub expires_at: Option<u64>,
    /// Expired if not started within this many ms of admission.
    #[serde(default, deserialize_with = "present")]
    pub ttl_ms: Option<u64>,
    /// Replaces the definition's number of attempts.
    #[serde(default, deserialize_with = "present")]
    pub max_attempts: Option<u32>,
    /// Replaces the definition's timeout, ms.
    #[serde(default, deserialize_with = "present")]
    pub timeout_ms: Option<u64>,
    /// What limits and turns tell it apart by, in place of the definition's expression.
    #[serde(default, deserialize_with = "present")]
    pub concurrency_key: Option<String>,
    /// The client's clock when it enqueued, ms since the epoch; for reports only.
    #[serde(default, deserialize_with = "present")]
    pub enqueued_at: Option<u64>,
    /// W3C trace context.
    #[serde(default, deserialize_with = "present")]
    pub traceparent: Option<String>,
    /// The app's own notes.
    #[serde(default)]
    pub meta: BTreeMap<String, String>,
    /// Whom it must not stand beside; replaces the definition's.
    #[serde(default, deserialize_with = "present")]
    pub unique: Option<Unique>,
    /// Of several that follow each other closely the last one runs; replaces the definition's.
    #[serde(default, deserialize_with = "present")]
    pub debounce: Option<Debounce>,
    /// The envelope that follows when it is done.
    #[serde(default, deserialize_with = "present")]
    pub then: Option<Box<RawValue>>,
    /// The group it is a member of.
    #[serde(default, deserialize_with = "present")]
    pub group: Option<Group>,
    /// How long its result is kept, ms; 0 for not at all.
    #[serde(default, deserialize_with = "present")]
    pub result_ttl_ms: Option<u64>,
    /// What came before it; written by the queue.
    #[serde(default)]
    pub parents: Vec<Parent>,
    /// The first job of the chain, or the group, that it belongs to; written by the queue.
    #[serde(default, deserialize_with = "present")]
    pub workflow: Option<JobId>,
}

/// What is wrong with a field, its name first: found by a second reading, so that the first one takes no longer for it.
/// None if it is nothing about one field.
fn in_field(raw: &[u8]) -> Option<String> {
    let mut reader = serde_json::Deserializer::from_slice(raw);
    let read: Result<Envelope, _> = serde_path_to_error::deserialize(&mut reader);
    let error = read.err()?;
    let named = error.path().iter().next().is_some();
    named.then(|| format!("{}: {}", error.path(), error.inner()))
}

/// An optional field that, when it stands there, must hold a value: `null` is not one.
pub(super) fn present<'de, D, T>(d: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(d).map(Some)
}

impl Envelope {
    /// Whether it gives this id. A job may have the envelope of a later one, which took its place and gave another.
    #[must_use]
    pub fn gives(&self, id: &str) -> bool {
        self.id.as_ref().is_some_and(|given| given.as_str() == id)
    }

    /// Parses and checks one inbox entry.
    ///
    /// # Errors
    /// The reason why it can never be a job as it stands.
    pub fn parse(raw: &[u8]) -> Result<Self, Reject> {
        Self::parse_step(raw, 0)
    }

    /// The same for an envelope before which others come, `steps` of them.
    pub(super) fn parse_step(raw: &[u8], steps: usize) -> Result<Self, Reject> {
        let malformed = |m: String| Reject::new(RejectCode::Malformed, m);
        if raw.len() > MAX_ENTRY_BYTES {
            let message = format!("{} bytes; at most {MAX_ENTRY_BYTES} allowed", raw.len());
            return Err(Reject::new(RejectCode::TooLarge, message));
        }
        let depth = strict::scan(raw, MAX_DEPTH).map_err(malformed)?;
        let envelope: Self = serde_json::from_slice(raw).map_err(|e| {
            let text = e.to_string();
            if text.starts_with("unknown field") {
                Reject::new(RejectCode::UnknownField, text)
            } else {
                malformed(in_field(raw).unwrap_or(text))
            }
        })?;
        if depth > MAX_ARGS_DEPTH + 1 && !strict::within(&envelope.args.0, MAX_ARGS_DEPTH) {
            let message = format!("args: nested deeper than {MAX_ARGS_DEPTH} levels");
            return Err(malformed(message));
        }
        envelope.check(steps)?;
        Ok(envelope)
    }

    /// The arguments as sent.
    #[must_use]
    pub const fn args(&self) -> &Map<String, Value> {
        &self.args.0
    }

    /// The arguments, taken out.
    #[must_use]
    pub fn take_args(&mut self) -> Map<String, Value> {
        std::mem::take(&mut self.args.0)
    }

    /// The envelopes that follow it, each with the field it stands in.
    pub fn following(&self) -> impl Iterator<Item = (&'static str, &RawValue)> {
        let group = self.group.as_ref().and_then(|group| group.then.as_deref());
        let group = group.map(|then| ("group.then", then));
        self.then
            .as_deref()
            .map(|then| ("then", then))
            .into_iter()
            .chain(group)
    }

    /// When the job may first run, given the time of its admission (both ms since the epoch).
    #[must_use]
    pub fn ready_at(&self, admitted_ms: u64) -> u64 {
        match (self.run_at, self.delay_ms) {
            (Some(at), _) => at.max(admitted_ms),
            (None, Some(delay)) => admitted_ms.saturating_add(delay),
            (None, None) => admitted_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn code(raw: &[u8]) -> RejectCode {
        Envelope::parse(raw).unwrap_err().code
    }

    #[test]
    fn kind_alone_is_enough() {
        let e = Envelope::parse(br#"{"kind":"app.append"}"#).unwrap();
        assert_eq!(e.kind, "app.append");
        assert!(e.args().is_empty());
        assert_eq!(e.ready_at(5), 5);
    }

    #[test]
    fn every_field_is_taken() {
        let raw = br#"{"v":1,"kind":"a.b","id":"x-1","args":{"n":[1,{"m":2.5e3}]},"queue":"default","priority":"bulk",
            "delay_ms":10,"ttl_ms":60000,"max_attempts":3,"timeout_ms":1000,"enqueued_at":1700000000000,
            "traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01","meta":{"user":"7"}}"#;
        let e = Envelope::parse(raw).unwrap();
        assert_eq!(e.priority, Some(Priority::Bulk));
        assert_eq!(e.ready_at(5), 15);
        assert_eq!(e.meta["user"], "7");
    }

    #[test]
    fn hostile_bytes_are_malformed() {
        let deep = format!(
            r#"{{"kind":"a","args":{{"x":{}{}}}}}"#,
            "[".repeat(32),
            "]".repeat(32)
        );
        let very_deep = format!(r#"{{"kind":"a","args":{}"#, "[".repeat(100_000));
        let cases: &[&[u8]] = &[
            b"",
            b"{",
            b"null",
            b"[]",
            b"\"kind\"",
            br#"{"kind":"a"} x"#,
            br#"{"kind":"a"}{"kind":"a"}"#,
            b"\xef\xbb\xbf{\"kind\":\"a\"}",
            b"{\"kind\":\"a\",\"args\":{\"x\":\"\xff\"}}",
            br#"{"kind":"a","args":{"x":"\ud800"}}"#,
            br#"{"kind":"a","kind":"b"}"#,
            br#"{"kind":"a","args":{"x":1,"x":2}}"#,
            br#"{"kind":"a","args":{"y":[{"x":1,"x":2}]}}"#,
            br#"{"kind":"a","args":{"x":NaN}}"#,
            br#"{"kind":"a","args":{"x":1e400}}"#,
            br#"{"kind":"a","args":{"x":18446744073709551616}}"#,
            br#"{"kind":"a","args":{"x":-9223372036854775809}}"#,
            br#"{"kind":"a","args":[]}"#,
            br#"{"kind":"a","args":null}"#,
            br#"{"kind":"a","id":"a:b"}"#,
            br#"{"kind":"a","id":null}"#,
            br#"{"kind":"A"}"#,
            br#"{"args":{}}"#,
            br#"{"kind":"a","delay_ms":-1}"#,
            br#"{"kind":"a","delay_ms":31536000001}"#,
            br#"{"kind":"a","delay_ms":1,"run_at":1}"#,
            br#"{"kind":"a","priority":"999"}"#,
            br#"{"kind":"a","priority":1}"#,
            br#"{"kind":"a","max_attempts":1000000000}"#,
            br#"{"kind":"a","max_attempts":0}"#,
            br#"{"kind":"a","timeout_ms":0}"#,
            br#"{"kind":"a","queue":"a:b"}"#,
            br#"{"kind":"a","traceparent":"x"}"#,
            br#"{"kind":"a","meta":{"x":1}}"#,
            deep.as_bytes(),
            very_deep.as_bytes(),
        ];
        for raw in cases {
            let shown = String::from_utf8_lossy(&raw[..raw.len().min(80)]).into_owned();
            assert_eq!(code(raw), RejectCode::Malformed, "{shown}");
        }
    }

    #[test]
    fn limits_are_exact() {
        let nested = |n: usize| {
            format!(
                r#"{{"kind":"a","args":{{"x":{}{}}}}}"#,
                "[".repeat(n),
                "]".repeat(n)
            )
        };
        assert!(Envelope::parse(nested(31).as_bytes()).is_ok());
        let sized = |n: usize| format!(r#"{{"kind":"a","args":{{"x":"{}"}}}}"#, "y".repeat(n - 8));
        assert!(Envelope::parse(sized(MAX_ARGS_BYTES).as_bytes()).is_ok());
        assert_eq!(
            code(sized(MAX_ARGS_BYTES + 1).as_bytes()),
            RejectCode::TooLarge
        );
        assert!(Envelope::parse(br#"{"kind":"a","args":{"x":18446744073709551615}}"#).is_ok());
    }

    #[test]
    fn what_a_later_version_may_know_is_told_apart() {
        assert_eq!(code(br#"{"kind":"a","v":2}"#), RejectCode::UnknownVersion);
        assert_eq!(
            code(br#"{"kind":"a","colour":"red"}"#),
            RejectCode::UnknownField
        );
        assert!(RejectCode::UnknownField.may_heal());
        assert!(!RejectCode::Malformed.may_heal());
    }
}
