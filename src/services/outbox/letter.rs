//! From a row of the outbox to an envelope. Pure.

use crate::db::outbox::Row;
use crate::job::envelope::MAX_ENTRY_BYTES;
use crate::job::{Envelope, Outgoing, Reject};
use crate::queue::admit::within_a_year;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// Fields of an envelope that have a column of their own.
const COLUMNS: [&str; 7] = [
    "kind", "id", "args", "queue", "priority", "run_at", "delay_ms",
];

/// The envelope of a row.
///
/// # Errors
/// Why the row can never be a job as it stands, naming the column or field. What another version may understand passes:
/// admission sets it aside and tries it again after an upgrade.
pub fn envelope(row: &Row, now_ms: u64) -> Result<Vec<u8>, String> {
    let Some(args) = &row.args else {
        return Err(format!(
            "too_large: {} bytes of args and options; at most {MAX_ENTRY_BYTES} allowed",
            row.bytes
        ));
    };
    let args: &RawValue = serde_json::from_str(args).map_err(|e| format!("args: {e}"))?;
    let more = options(row.options.as_deref())?;
    let created_ms = millis("created_at", row.created_ms)?;
    let outgoing = Outgoing {
        kind: &row.kind,
        id: &row.id,
        args,
        priority: row.priority.as_deref(),
        run_at: run_at(row, created_ms)?,
        enqueued_at: (!more.contains_key("enqueued_at")).then_some(created_ms),
        more,
    };
    let bytes = outgoing.encode()?;
    let judged = Envelope::parse(&bytes).and_then(|e| within_a_year(&e, now_ms));
    match judged {
        Err(reject) if !passes(&reject) => Err(reject.to_string()),
        _ => Ok(bytes),
    }
}

/// The id that the enqueue script is told. A member of a group goes to the inbox whether its id is taken or not, so that
/// admission counts it: its envelope has the id all the same.
#[must_use]
pub fn script_id(row: &Row) -> String {
    let options = row.options.as_deref().unwrap_or_default();
    if options.contains(r#""group""#) {
        String::new()
    } else {
        row.id.clone()
    }
}

fn passes(reject: &Reject) -> bool {
    reject.code.may_heal()
}

fn options(given: Option<&str>) -> Result<BTreeMap<String, Box<RawValue>>, String> {
    let Some(text) = given else {
        return Ok(BTreeMap::new());
    };
    let options: BTreeMap<String, Box<RawValue>> =
        serde_json::from_str(text).map_err(|e| format!("options: must be an object: {e}"))?;
    match COLUMNS.iter().find(|name| options.contains_key(**name)) {
        Some(name) if *name == "delay_ms" => {
            Err("options: `delay_ms` has a column of its own, `delay`".to_owned())
        }
        Some(name) => Err(format!("options: `{name}` has a column of its own")),
        None => Ok(options),
    }
}

/// A delay counts from the insert, however long the row has waited since.
fn run_at(row: &Row, created_ms: u64) -> Result<Option<u64>, String> {
    match (row.run_at_ms, row.delay_ms) {
        (Some(_), Some(_)) => Err("run_at: give run_at or delay, not both".to_owned()),
        (Some(at), None) => Ok(Some(millis("run_at", at)?)),
        (None, Some(delay)) => Ok(Some(created_ms.saturating_add(millis("delay", delay)?))),
        (None, None) => Ok(None),
    }
}

/// Whole milliseconds; a time before 1970 has passed, whichever it is.
fn millis(column: &str, given: f64) -> Result<u64, String> {
    if given.is_finite() {
        Ok(given.max(0.0) as u64)
    } else {
        Err(format!("{column}: is infinite"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    fn row() -> Row {
        Row {
            seq: 1,
            kind: "mail.send".to_owned(),
            queue: "default".to_owned(),
            id: "m-1".to_owned(),
            priority: None,
            args: Some(r#"{"to": 7}"#.to_owned()),
            options: None,
            bytes: 20,
            run_at_ms: None,
            delay_ms: None,
            created_ms: NOW as f64,
        }
    }

    fn parsed(row: &Row) -> Envelope {
        Envelope::parse(&envelope(row, NOW).unwrap()).unwrap()
    }

    #[test]
    fn a_plain_row_is_a_plain_envelope() {
        let envelope = parsed(&row());
        assert_eq!(envelope.kind, "mail.send");
        assert_eq!(envelope.args()["to"], 7);
        assert_eq!((envelope.run_at, envelope.enqueued_at), (None, Some(NOW)));
    }

    #[test]
    fn a_delay_counts_from_the_insert() {
        let mut row = row();
        row.delay_ms = Some(60_000.4);
        assert_eq!(parsed(&row).run_at, Some(NOW + 60_000));
        row.delay_ms = None;
        row.run_at_ms = Some(-5.0);
        assert_eq!(parsed(&row).run_at, Some(0), "long ago: now");
    }

    #[test]
    fn options_are_further_fields() {
        let mut row = row();
        row.options =
            Some(r#"{"ttl_ms": 60000, "meta": {"user": "7"}, "enqueued_at": 5}"#.to_owned());
        let envelope = parsed(&row);
        assert_eq!(
            (envelope.ttl_ms, envelope.enqueued_at),
            (Some(60_000), Some(5))
        );
    }

    #[test]
    fn a_field_of_a_later_version_is_passed_on() {
        let mut row = row();
        row.options = Some(r#"{"colour": "red"}"#.to_owned());
        assert!(envelope(&row, NOW).is_ok());
    }

    #[test]
    fn what_can_never_be_a_job_is_told_by_field() {
        let with = |change: fn(&mut Row)| {
            let mut row = row();
            change(&mut row);
            envelope(&row, NOW).unwrap_err()
        };
        let options = |text: &str| {
            let mut row = row();
            row.options = Some(text.to_owned());
            envelope(&row, NOW).unwrap_err()
        };
        for (error, part) in [
            (with(|r| r.args = None), "too_large"),
            (with(|r| r.run_at_ms = Some(f64::INFINITY)), "run_at"),
            (with(|r| r.delay_ms = Some(f64::INFINITY)), "delay"),
            (
                with(|r| r.delay_ms = Some(4e10)),
                "run_at: more than a year",
            ),
            (with(|r| r.args = Some("[]".to_owned())), "object"),
            (
                with(|r| r.args = Some(r#"{"n": 1e400}"#.to_owned())),
                "number",
            ),
            (with(|r| r.kind = "A".to_owned()), "kind"),
            (with(|r| r.id = "a:b".to_owned()), "id"),
            (options("[]"), "options"),
            (options(r#"{"priority": "low"}"#), "options: `priority`"),
            (options(r#"{"delay_ms": 1}"#), "`delay`"),
            (options(r#"{"max_attempts": 0}"#), "max_attempts"),
            (options(r#"{"ttl_ms": "1m"}"#), "malformed"),
        ] {
            assert!(error.contains(part), "{error:?} does not name {part:?}");
        }
    }
}
