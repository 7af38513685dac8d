//! Envelopes that the daemon itself puts together, for jobs that come by other ways than an inbox.
//!
//! Arguments and further fields are passed on as the text they came as, so that no number changes on the way.

use serde::Serialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// The parts of an envelope. What it says is admission's to judge.
#[derive(Debug, Serialize)]
pub struct Outgoing<'a> {
    /// Which definition it is for.
    pub kind: &'a str,
    /// The job's id: the same one whenever the same thing is handed over again.
    pub id: &'a str,
    /// The arguments: JSON, checked to be valid.
    pub args: &'a RawValue,
    /// Priority class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<&'a str>,
    /// Not before this time, ms since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_at: Option<u64>,
    /// When the app asked for it, ms since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enqueued_at: Option<u64>,
    /// Further fields, none of them one of the above.
    #[serde(flatten)]
    pub more: BTreeMap<String, Box<RawValue>>,
}

impl Outgoing<'_> {
    /// The bytes to push.
    ///
    /// # Errors
    /// None that is known: every part is valid JSON already.
    pub fn encode(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec(self).map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::job::Envelope;

    #[test]
    fn numbers_and_further_fields_arrive_as_they_were() {
        let args = RawValue::from_string(r#"{"n": 12345678901234567890, "x": 1.50}"#.to_owned());
        let meta = RawValue::from_string(r#"{"user":"7"}"#.to_owned()).unwrap();
        let outgoing = Outgoing {
            kind: "mail.send",
            id: "m-1",
            args: &args.unwrap(),
            priority: Some("high"),
            run_at: None,
            enqueued_at: Some(5),
            more: BTreeMap::from([("meta".to_owned(), meta)]),
        };
        let bytes = outgoing.encode().unwrap();
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert!(
            text.contains(r#""n": 12345678901234567890, "x": 1.50"#),
            "{text}"
        );
        let envelope = Envelope::parse(&bytes).unwrap();
        assert_eq!(envelope.id.unwrap().as_str(), "m-1");
        assert_eq!((envelope.enqueued_at, envelope.run_at), (Some(5), None));
        assert_eq!(envelope.meta["user"], "7");
    }
}
