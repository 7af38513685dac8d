//! From a task of apalis-redis to an envelope. Pure.

use crate::job::envelope::MAX_ENTRY_BYTES;
use crate::job::{JobId, Outgoing};
use crate::queue::bridge::{Payload, Task};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// What a bridge makes of a task.
#[derive(Debug, PartialEq, Eq)]
pub enum Translated {
    /// A job: its id and its envelope, for admission to judge.
    Job(String, Vec<u8>),
    /// It can't even be put into an envelope, for this reason.
    Not(String),
    /// There is nothing to translate.
    Nothing,
}

/// How a bridge translates.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Its name.
    pub name: String,
    /// The kind of its jobs.
    pub kind: String,
    /// The argument of a payload that is no object.
    pub arg: String,
}

/// Translates one task. The same task is the same job, however often it is translated.
#[must_use]
pub fn translate(rules: &Rules, task: &Task, now_ms: u64) -> Translated {
    let payload = match &task.payload {
        Payload::Whole(bytes) => bytes,
        Payload::TooLarge(bytes) => return Translated::Not(too_large(*bytes)),
        Payload::Missing => return Translated::Nothing,
    };
    let given: &RawValue = match serde_json::from_slice(payload) {
        Ok(given) => given,
        Err(e) => return Translated::Not(format!("malformed: the payload is not JSON: {e}")),
    };
    let wrapped;
    let args = if given.get().starts_with('{') {
        given
    } else {
        wrapped = wrap(&rules.arg, given);
        match &wrapped {
            Ok(args) => args,
            Err(reason) => return Translated::Not(reason.clone()),
        }
    };
    let id = job_id(&rules.name, &task.id);
    let outgoing = Outgoing {
        kind: &rules.kind,
        id: &id,
        args,
        priority: None,
        // One that is due takes its turn among the others.
        run_at: task
            .due_s
            .map(|s| s.saturating_mul(1_000))
            .filter(|at| *at > now_ms),
        enqueued_at: None,
        more: BTreeMap::new(),
    };
    match outgoing.encode() {
        Ok(envelope) if envelope.len() > MAX_ENTRY_BYTES => {
            Translated::Not(too_large(envelope.len() as u64))
        }
        Ok(envelope) => Translated::Job(id, envelope),
        Err(reason) => Translated::Not(reason),
    }
}

fn too_large(bytes: u64) -> String {
    format!("too_large: {bytes} bytes; at most {MAX_ENTRY_BYTES} allowed")
}

fn wrap(arg: &str, given: &RawValue) -> Result<Box<RawValue>, String> {
    let name = serde_json::Value::from(arg);
    RawValue::from_string(format!("{{{name}:{given}}}")).map_err(|e| e.to_string())
}

/// The id of a task's job: `<bridge>-<task>`, since two namespaces may use the same ids. A task whose id is none for a
/// job is known by a digest.
fn job_id(bridge: &str, task: &[u8]) -> String {
    let plain = std::str::from_utf8(task).map(|task| format!("{bridge}-{task}"));
    match plain {
        Ok(id) if JobId::parse(&id).is_ok() => id,
        _ => {
            let digest = hex::encode(Sha256::digest(task));
            format!("{bridge}-{}", &digest[..32])
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::job::Envelope;

    const NOW: u64 = 1_700_000_000_000;

    fn rules() -> Rules {
        Rules {
            name: "mail".to_owned(),
            kind: "mail.send".to_owned(),
            arg: "payload".to_owned(),
        }
    }

    fn task(id: &[u8], due_s: Option<u64>, payload: &[u8]) -> Task {
        let mut entry = format!("{}:", due_s.unwrap_or(0)).into_bytes();
        entry.extend(id);
        Task::from_parts(entry, Payload::Whole(payload.to_vec()))
    }

    fn envelope(task: &Task) -> Envelope {
        match translate(&rules(), task, NOW) {
            Translated::Job(_, bytes) => Envelope::parse(&bytes).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn fields_of_an_object_are_arguments_and_anything_else_is_one() {
        let object = envelope(&task(b"1", None, br#" {"to":7}"#));
        assert_eq!(object.args()["to"], 7);
        for (payload, wanted) in [
            ("42", "42"),
            ("\"x\"", "\"x\""),
            ("null", "null"),
            ("[1,2]", "[1,2]"),
        ] {
            let other = envelope(&task(b"1", None, payload.as_bytes()));
            assert_eq!(other.args()["payload"].to_string(), wanted);
        }
    }

    #[test]
    fn what_is_due_later_runs_later() {
        assert_eq!(
            envelope(&task(b"1", Some(1_700_000_000), b"1")).run_at,
            None
        );
        let later = envelope(&task(b"1", Some(1_700_000_060), b"1"));
        assert_eq!(later.run_at, Some(1_700_000_060_000));
    }

    #[test]
    fn ids_are_derived_and_always_valid() {
        let id = |task_id: &[u8]| envelope(&task(task_id, None, b"1")).id.unwrap();
        assert_eq!(id(b"01J8ZC").as_str(), "mail-01J8ZC");
        for strange in [&b"a:b"[..], b"", b"\xff", "é".as_bytes(), &[b'x'; 200]] {
            assert_eq!(id(strange), id(strange));
        }
        assert_ne!(id(b"a:b"), id(b"a:c"));
    }

    #[test]
    fn a_payload_smuggles_nothing_into_the_envelope() {
        for payload in [
            &br#"1},"priority":"critical","x":{"#[..],
            br#"{"a":1},"priority":"critical""#,
            b"{\"a\":",
            b"\x93\x01\x02\x03",
            b"",
        ] {
            let translated = translate(&rules(), &task(b"1", None, payload), NOW);
            match translated {
                Translated::Not(reason) => assert!(reason.contains("not JSON"), "{reason}"),
                other => panic!("{other:?}"),
            }
        }
        let quoted = Rules {
            arg: "a\":1,\"b".to_owned(),
            ..rules()
        };
        let Translated::Job(_, bytes) = translate(&quoted, &task(b"1", None, b"1"), NOW) else {
            panic!("no job");
        };
        assert_eq!(Envelope::parse(&bytes).unwrap().args()["a\":1,\"b"], 1);
    }

    #[test]
    fn what_is_too_large_is_told_with_its_size() {
        let large = format!("\"{}\"", "x".repeat(MAX_ENTRY_BYTES - 20));
        for payload in [
            Payload::TooLarge(5_000_000),
            Payload::Whole(large.into_bytes()),
        ] {
            let task = Task::from_parts(b"0:1".to_vec(), payload);
            match translate(&rules(), &task, NOW) {
                Translated::Not(reason) => assert!(reason.contains("too_large"), "{reason}"),
                other => panic!("{other:?}"),
            }
        }
    }
}
