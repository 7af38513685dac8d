//! What an envelope may say about other jobs: whom it must not stand beside, what comes after it, what it is part of.
//!
//! Owns: the form and the ranges of `group` and `parents`, and the ids and outcomes of workflows; those of `unique` and
//! `debounce` are in [`super::unique`]. Must not know how the queue keeps to it.

use super::envelope::MAX_ARGS_DEPTH;
use super::history::{MAX_ERROR_BYTES, cut};
use super::id;
use super::strict::{self, StrictValue};
use super::{Envelope, JobId};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

pub use super::unique::{
    Debounce, MAX_DEBOUNCE_MS, MAX_LOCK_MS, OnConflict, Unique, Until, check_key,
};

/// The most members of a group.
pub const MAX_GROUP_SIZE: u32 = 100_000;
/// The most steps that may follow a job, one after the other.
pub const MAX_CHAIN: usize = 16;
/// The most steps of a chain to which definitions add their own: no sane one comes near it, but definitions of two versions
/// may lead round in a circle that neither of them has alone.
pub const MAX_STEPS: u32 = 256;
/// The largest envelope that follows a job, bytes: there must be room for the job's result beside it.
pub const MAX_THEN_BYTES: usize = 256 * 1024;
/// The largest envelope that follows a group, bytes: there must be room for the results of its members beside it.
pub const MAX_GROUP_THEN_BYTES: usize = 96 * 1024;
/// The largest result that is kept, bytes of JSON.
pub const MAX_RESULT_BYTES: usize = 64 * 1024;
/// The longest a result may be kept: a week, in milliseconds.
pub const MAX_RESULT_TTL_MS: u64 = 604_800_000;

/// Why a job that may be dropped for another one is no member of a group.
pub const NO_MEMBER: &str =
    "a member can't be unique or debounced: the group would wait for one that was dropped";

/// When the job after a group runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// When all members are done.
    #[default]
    Success,
    /// When all members have ended, however.
    Always,
}

/// `group`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Its id; every member names the same.
    pub id: JobId,
    /// How many members it has in all.
    pub size: u32,
    /// The envelope that follows. One member must have it; of several, the first admitted counts.
    #[serde(default, deserialize_with = "super::envelope::present")]
    pub then: Option<Box<RawValue>>,
    /// When it follows.
    #[serde(default)]
    pub when: When,
}

/// What a job is told of one that came before it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parent {
    /// Its id; of a group, the group's.
    pub id: JobId,
    /// Its kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// How it ended: `done`, `dead`, `cancelled` …; `group` for the sum of a group.
    pub state: String,
    /// When, ms since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
    /// Its result.
    #[serde(
        default,
        deserialize_with = "strict",
        skip_serializing_if = "Option::is_none"
    )]
    pub result: Option<Value>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

fn strict<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Value>, D::Error> {
    StrictValue::deserialize(d).map(|value| Some(value.0))
}

/// What is wrong: the field, and why.
pub(super) type Fault = (&'static str, String);

impl Group {
    /// Whether it can be a group at all, whatever follows it.
    pub(super) fn is_sound(&self) -> bool {
        (1..=MAX_GROUP_SIZE).contains(&self.size)
    }

    pub(super) fn check(&self, steps: usize) -> Result<(), Fault> {
        if !self.is_sound() {
            return Err(("group", format!("size must be 1 to {MAX_GROUP_SIZE}")));
        }
        match &self.then {
            Some(then) => check_then("group", then, MAX_GROUP_THEN_BYTES, steps),
            None => Ok(()),
        }
    }
}

/// Checks the envelope of what follows, with all that follows it in turn.
pub(super) fn check_then(
    field: &'static str,
    then: &RawValue,
    max_bytes: usize,
    steps: usize,
) -> Result<(), Fault> {
    let bytes = then.get().len();
    if bytes > max_bytes {
        return Err((
            field,
            format!("then: {bytes} bytes; at most {max_bytes} allowed"),
        ));
    }
    if steps >= MAX_CHAIN {
        return Err((
            field,
            format!("more than {MAX_CHAIN} steps follow each other"),
        ));
    }
    let next = Envelope::parse_step(then.get().as_bytes(), steps + 1)
        .map_err(|reject| (field, format!("then: {}", reject.message)))?;
    if !next.parents.is_empty() || next.workflow.is_some() {
        let why = "then: parents and workflow are written by the queue";
        return Err((field, why.to_owned()));
    }
    Ok(())
}

/// The id of the step after `id`: the steps of a chain count up.
#[must_use]
pub fn next_id(id: &str, workflow: Option<&JobId>) -> String {
    let counted = workflow.and_then(|_| counted(id));
    let (root, step) = counted.unwrap_or((id, 0));
    suffixed(root, &format!("-t{}", step.saturating_add(1)))
}

/// The id of a step without its number, and that.
fn counted(id: &str) -> Option<(&str, u32)> {
    let (root, step) = id.rsplit_once("-t")?;
    Some((root, step.parse().ok()?))
}

/// Checks that a chain is not longer than any may be.
///
/// # Errors
/// It is, and what may be the cause.
pub fn check_steps(step: &Envelope) -> Result<(), String> {
    let id = step.id.as_ref().filter(|_| step.workflow.is_some());
    let number = id
        .and_then(|id| counted(id.as_str()))
        .map(|(_, number)| number);
    match number.filter(|number| *number > MAX_STEPS && id_was_made(step)) {
        None => Ok(()),
        Some(number) => Err(format!(
            "then: step {number} of a chain, at most {MAX_STEPS} are allowed: do the [then] of definitions lead round in a \
             circle, in two versions of them that are in use?"
        )),
    }
}

/// Whether the queue made the id of a step of a workflow, so that nobody meant it to be that of another job.
#[must_use]
pub fn id_was_made(step: &Envelope) -> bool {
    let (Some(id), Some(workflow), Some(before)) = (&step.id, &step.workflow, step.parents.first())
    else {
        return false;
    };
    if before.state == "group" {
        return id.as_str() == group_then_id(workflow);
    }
    let of_chain = (before.id != *workflow).then_some(workflow);
    id.as_str() == next_id(before.id.as_str(), of_chain)
}

/// The id of what follows a group.
#[must_use]
pub fn group_then_id(group: &JobId) -> String {
    suffixed(group.as_str(), "-then")
}

/// An id with a suffix; too long ones are told apart by a digest.
fn suffixed(id: &str, suffix: &str) -> String {
    use sha2::{Digest, Sha256};
    if id.len() + suffix.len() <= id::MAX_ID_LEN {
        return format!("{id}{suffix}");
    }
    let digest = hex::encode(Sha256::digest(id));
    let kept = id::MAX_ID_LEN - suffix.len() - 33;
    format!("{}-{}{suffix}", &id[..kept], &digest[..32])
}

/// How a job ended, as those are told who wait for it or come after it; of an unknown kind if that is empty. Results that are too large give way to their
/// size.
#[must_use]
pub fn outcome(
    id: &JobId,
    kind: &str,
    state: &str,
    at_ms: u64,
    result: Option<&Value>,
    error: Option<&str>,
) -> String {
    let result = result.map(|value| {
        let bytes = serde_json::to_vec(value).map_or(usize::MAX, |text| text.len());
        if bytes > MAX_RESULT_BYTES || !strict::value_within(value, MAX_ARGS_DEPTH) {
            return serde_json::json!({"truncated": true, "bytes": bytes});
        }
        value.clone()
    });
    let told = Parent {
        id: id.clone(),
        kind: (!kind.is_empty()).then(|| kind.to_owned()),
        state: state.to_owned(),
        at: Some(at_ms),
        result,
        error: error.map(|text| cut(text, MAX_ERROR_BYTES).to_owned()),
    };
    serde_json::to_string(&told).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn fault(fields: &str) -> String {
        let raw = format!(r#"{{"kind":"a",{fields}}}"#);
        match Envelope::parse(raw.as_bytes()) {
            Ok(_) => String::new(),
            Err(reject) => reject.to_string(),
        }
    }

    #[test]
    fn what_is_out_of_range_is_told_with_its_field() {
        let long = "x".repeat(257);
        for (fields, told) in [
            (r#""unique":{"key":""}"#, "unique: key must be"),
            (
                &format!(r#""unique":{{"key":"{long}"}}"#),
                "unique: key must be",
            ),
            (r##""unique":{"key":"#1"}"##, "not begin with '#'"),
            (r#""unique":{"key":"a","args":["b"]}"#, "not both"),
            (r#""unique":{"ttl_ms":0}"#, "unique: ttl must be"),
            (r#""unique":{"until":"ttl"}"#, "needs a ttl"),
            (r#""unique":{"on_conflict":"merge"}"#, "needs until"),
            (r#""unique":{"until":"never"}"#, "never"),
            (r#""unique":{"kee":"a"}"#, "kee"),
            (r#""unique":null"#, "malformed"),
            (
                r#""debounce":{"key":"a","wait_ms":0}"#,
                "debounce: wait must be",
            ),
            (
                r#""debounce":{"key":"a","wait_ms":9,"max_wait_ms":8}"#,
                "max_wait",
            ),
            (r#""debounce":{"wait_ms":9}"#, "key"),
            (
                r#""debounce":{"key":"a","wait_ms":1},"unique":{}"#,
                "debounce: give unique or",
            ),
            (
                r#""debounce":{"key":"a","wait_ms":1},"delay_ms":5"#,
                "debounce: ",
            ),
            (r#""group":{"id":"g","size":0}"#, "group: size must be"),
            (r#""group":{"id":"a:b","size":1}"#, "id: must be"),
            (
                r#""group":{"id":"g","size":1,"then":{"kind":"B"}}"#,
                "group: then: kind",
            ),
            (r#""group":{"id":"g","size":2},"unique":{}"#, "group: "),
            (
                r#""then":{"kind":"b","colour":"red"}"#,
                "then: then: unknown field",
            ),
            (r#""then":{"kind":"b","parents":[]},"then":1"#, "malformed"),
            (
                r#""then":{"kind":"b","workflow":"x"}"#,
                "written by the queue",
            ),
            (r#""then":[]"#, "then"),
            (r#""result_ttl_ms":604800001"#, "result_ttl_ms"),
            (r#""parents":[{"id":"x"}]"#, "state"),
        ] {
            let error = fault(fields);
            assert!(error.contains(told), "{fields}: {error:?} lacks {told:?}");
        }
    }

    #[test]
    fn what_is_in_range_is_taken() {
        for fields in [
            r#""unique":{}"#,
            r#""unique":{"key":"a b:c/ü","until":"claimed","ttl_ms":1,"on_conflict":"merge"}"#,
            r#""unique":{"args":["a"],"until":"ttl","ttl_ms":5,"on_conflict":"replace"}"#,
            r#""debounce":{"key":"a","wait_ms":5,"max_wait_ms":5}"#,
            r#""group":{"id":"g","size":3,"when":"always","then":{"kind":"b","then":{"kind":"c"}}}"#,
            r#""then":{"kind":"b","args":{"x":[[1]]},"then":{"kind":"c"}},"result_ttl_ms":0"#,
            r#""parents":[{"id":"x","state":"done","result":{"a":[1]}}],"workflow":"x""#,
        ] {
            assert_eq!(fault(fields), "", "{fields}");
        }
    }

    #[test]
    fn a_chain_is_bounded_however_deep_its_text_is_nested() {
        let chain = |steps: usize| {
            let mut text = r#"{"kind":"last"}"#.to_owned();
            for _ in 0..steps {
                text = format!(r#"{{"kind":"a","then":{text}}}"#);
            }
            Envelope::parse(text.as_bytes()).map(|_| ())
        };
        assert_eq!(chain(MAX_CHAIN), Ok(()));
        assert!(
            chain(MAX_CHAIN + 1)
                .unwrap_err()
                .message
                .contains("more than 16 steps")
        );
        assert!(chain(5_000).is_err());
    }

    #[test]
    fn a_result_that_is_too_large_or_too_deep_gives_way_to_its_size() {
        let id = JobId::parse("x").unwrap();
        let told = |value: &Value| -> Parent {
            let text = outcome(&id, "a", "done", 5, Some(value), None);
            serde_json::from_str(&text).unwrap()
        };
        let fits = Value::String("y".repeat(MAX_RESULT_BYTES - 2));
        assert_eq!(told(&fits).result, Some(fits));
        let large = Value::String("y".repeat(MAX_RESULT_BYTES - 1));
        let cut = serde_json::json!({"truncated": true, "bytes": MAX_RESULT_BYTES + 1});
        assert_eq!(told(&large).result, Some(cut));
        let deep = (0..40).fold(Value::Null, |inner, _| Value::Array(vec![inner]));
        assert_eq!(told(&deep).result.unwrap()["truncated"], true);
    }

    #[test]
    fn an_id_that_the_queue_made_is_known() {
        let made = |id: &str, workflow: &str, before: &str, state: &str| {
            let raw = format!(
                r#"{{"kind":"a","id":"{id}","workflow":"{workflow}","parents":[{{"id":"{before}","state":"{state}"}}]}}"#
            );
            id_was_made(&Envelope::parse(raw.as_bytes()).unwrap())
        };
        assert!(made("order-7-t1", "order-7", "order-7", "done"));
        assert!(made("order-7-t2", "order-7", "order-7-t1", "done"));
        assert!(
            made("mine-t1", "order-7", "mine", "done"),
            "after one with a given id"
        );
        assert!(made("x-t5-t1", "x-t5", "x-t5", "done"));
        assert!(made("site-4-then", "site-4", "site-4", "group"));
        assert!(!made("mine", "order-7", "order-7", "done"));
        assert!(!made("order-7-t3", "order-7", "order-7-t1", "done"));
        assert!(!made("publish", "site-4", "site-4", "group"));
        assert!(!id_was_made(
            &Envelope::parse(br#"{"kind":"a","id":"b-t1"}"#).unwrap()
        ));
    }

    #[test]
    fn a_chain_that_is_never_over_ends() {
        let step = |number: u32| {
            let before = format!("order-7-t{}", number - 1);
            let raw = format!(
                r#"{{"kind":"a","id":"order-7-t{number}","workflow":"order-7","parents":[{{"id":"{before}","state":"done"}}]}}"#
            );
            check_steps(&Envelope::parse(raw.as_bytes()).unwrap())
        };
        assert_eq!(step(MAX_STEPS), Ok(()));
        assert!(step(MAX_STEPS + 1).unwrap_err().contains("circle"));
        let own = Envelope::parse(br#"{"kind":"a","id":"site-t9999"}"#).unwrap();
        assert_eq!(check_steps(&own), Ok(()), "the app's own name");
    }

    #[test]
    fn steps_count_up_and_ids_stay_ids() {
        let root = JobId::parse("order-7").unwrap();
        assert_eq!(next_id("order-7", None), "order-7-t1");
        assert_eq!(next_id("order-7-t1", Some(&root)), "order-7-t2");
        assert_eq!(next_id("mail-t9", None), "mail-t9-t1", "the app's own name");
        let long = "x".repeat(128);
        let next = next_id(&long, None);
        assert!(
            JobId::parse(&next).is_ok() && next.ends_with("-t1"),
            "{next}"
        );
        assert_ne!(next, next_id(&"x".repeat(127), None));
    }
}
