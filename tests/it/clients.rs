//! What `clients/` publishes is what the queue does: every test vector goes through a real inbox, and the JSON Schema
//! agrees with admission wherever a schema can see the fault.

use crate::queue::rig::Rig;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use tidegate::catalog;
use tidegate::queue::Verdict;

/// One test vector, as the files have it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    name: String,
    /// The entry as text, or in base64 where it is none.
    raw: Option<String>,
    base64: Option<String>,
    expect: Expected,
    /// Whether a JSON Schema can tell that it is wrong.
    #[serde(default = "yes")]
    schema: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    code: Option<String>,
    /// A word the reason must hold: the field at fault.
    names: Option<String>,
}

const fn yes() -> bool {
    true
}

impl Vector {
    fn bytes(&self) -> Vec<u8> {
        match (&self.raw, &self.base64) {
            (Some(raw), None) => raw.as_bytes().to_vec(),
            (None, Some(base64)) => STANDARD.decode(base64).unwrap(),
            _ => panic!("{}: give raw or base64", self.name),
        }
    }
}

fn folder() -> PathBuf {
    clients().join("v1")
}

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

fn vectors(name: &str) -> Vec<Vector> {
    let text = fs::read_to_string(folder().join("vectors").join(name)).unwrap();
    let vectors: Vec<Vector> = serde_json::from_str(&text).unwrap();
    assert!(vectors.len() >= 10, "{name} holds vectors");
    vectors
}

fn schema() -> jsonschema::Validator {
    let text = fs::read_to_string(folder().join("envelope.schema.json")).unwrap();
    jsonschema::validator_for(&serde_json::from_str(&text).unwrap()).unwrap()
}

async fn rig() -> Rig {
    let mut rig = Rig::new().await;
    rig.catalog = catalog::load(&folder().join("vectors"), &["exec"]).unwrap();
    rig
}

#[tokio::test]
async fn entries_the_vectors_call_good_are_admitted() {
    let (rig, schema) = (rig().await, schema());
    let vectors = vectors("accepted.json");
    for vector in &vectors {
        let (verdicts, duplicates) = {
            rig.push(&[vector.bytes()]).await;
            rig.admit().await
        };
        let rejected = verdicts.iter().find_map(|v| match v {
            Verdict::Rejected { reject, .. } => Some(reject.to_string()),
            _ => None,
        });
        assert_eq!(rejected, None, "{}", vector.name);
        assert_eq!(
            (verdicts.len(), duplicates.len()),
            (1, 0),
            "{}",
            vector.name
        );
        let value: Value = serde_json::from_slice(&vector.bytes()).unwrap();
        let fault = schema.validate(&value).err().map(|e| e.to_string());
        assert_eq!(fault, None, "{}: the schema", vector.name);
    }
    assert_eq!(rig.stat("admitted").await, vectors.len() as u64);
}

#[tokio::test]
async fn entries_the_vectors_call_bad_are_quarantined_with_their_reason() {
    let (rig, schema) = (rig().await, schema());
    let vectors = vectors("rejected.json");
    for vector in &vectors {
        rig.put(&[vector.bytes()]).await;
        if vector.schema {
            let value: Value = serde_json::from_slice(&vector.bytes()).unwrap();
            assert!(!schema.is_valid(&value), "{}: the schema", vector.name);
        }
    }
    let kept = rig.queue.quarantined("", 1_000).await.unwrap();
    assert_eq!(kept.len(), vectors.len());
    for (vector, entry) in vectors.iter().zip(&kept) {
        let told = format!("{}: {} {}", vector.name, entry.code, entry.reason);
        assert_eq!(entry.raw, vector.bytes(), "{told}");
        assert_eq!(Some(&entry.code), vector.expect.code.as_ref(), "{told}");
        let named = vector.expect.names.as_deref().unwrap_or_default();
        assert!(entry.reason.contains(named), "{told}");
    }
    assert_eq!(rig.stat("admitted").await, 0);
}

/// One call of the enqueue script: its arguments, and what it answers.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    name: String,
    arguments: Vec<String>,
    answers: Value,
}

/// An answer of Redis as JSON.
fn json(value: &redis::Value) -> Value {
    match value {
        redis::Value::Array(items) => items.iter().map(json).collect(),
        redis::Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into(),
        redis::Value::SimpleString(text) => text.as_str().into(),
        redis::Value::Int(n) => (*n).into(),
        other => panic!("no answer of the script: {other:?}"),
    }
}

#[tokio::test]
async fn the_published_script_answers_as_published() {
    let published = fs::read_to_string(clients().join("enqueue/v2.lua")).unwrap();
    let text = fs::read_to_string(clients().join("enqueue/v2.vectors.json")).unwrap();
    let calls: Vec<Call> = serde_json::from_str(&text).unwrap();
    assert!(calls.len() >= 5);
    let rig = rig().await;
    let keys = rig.queue.keys();
    for call in calls {
        let mut cmd = redis::cmd("EVAL");
        cmd.arg(&published).arg(7);
        for name in [
            "inbox", "jobs", "ids", "running", "delayed", "dead", "locks",
        ] {
            cmd.arg(keys.named(name));
        }
        cmd.arg(&call.arguments);
        let answer: Result<redis::Value, _> = cmd.query_async(&mut rig.conn.clone()).await;
        let answer = match &answer {
            Ok(value) => json(value),
            Err(error) => serde_json::json!({"error": error.code()}),
        };
        assert_eq!(answer, call.answers, "{}", call.name);
    }
    // What was created can be admitted: the ids and the locks are those of the envelopes.
    let (verdicts, duplicates) = rig.admit().await;
    assert!(duplicates.is_empty(), "{duplicates:?}");
    assert_eq!(rig.stat("admitted").await, verdicts.len() as u64);
}
