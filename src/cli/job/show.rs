//! A job as it is shown, to programs and to people.

use super::super::output::{age, pairs, table};
use super::super::store::Store;
use super::around::{group_text, lock_text};
use crate::clock;
use crate::job::{Envelope, Progress};
use crate::queue::Queue;
use crate::queue::home::home_of;
use crate::queue::inspect::Found;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

/// A job for programs. Times are milliseconds since the epoch, as in envelopes.
pub(in crate::cli) fn view(
    store: &Store,
    queue: &Queue,
    id: &str,
    found: &Found,
    payload: bool,
) -> Value {
    let history = &found.history;
    let mut view = json!({
        "id": id,
        "queue": &*queue.name,
        "state": found.state,
        "attempts": history.attempts,
        "crashes": history.crashes,
        "snoozes": history.snoozes,
        "errors": history.errors,
        "events": history.events,
    });
    if history.dropped > 0 {
        view["events_dropped"] = history.dropped.into();
    }
    if let Some(at) = found.at_ms {
        view[at_name(&found.state)] = at.into();
    }
    if let Some(since) = waits_since(found) {
        view["waits_for"] = "the retry budget of what it touches".into();
        view["was_due_at"] = since.into();
    }
    if let Some(finished) = &found.finished {
        view["kind"] = finished.kind.as_str().into();
        view["priority"] = finished.priority.as_str().into();
        view["attempts"] = finished.attempts.into();
        view["duration_ms"] = finished.duration_ms.into();
        return view;
    }
    if let Some(progress) = &found.progress {
        view["progress"] = json!(progress);
    }
    if let Some((worker, _)) = found.token.as_deref().and_then(|t| t.split_once(':')) {
        view["worker"] = worker.into();
    }
    // What is stored passed the same check when it was admitted.
    let Ok(envelope) = Envelope::parse(&found.raw) else {
        view["kind"] = Value::Null;
        view["priority"] = Value::Null;
        return view;
    };
    let flow = home_of(&envelope, &store.catalog, &found.ties, Some(history));
    let spec = store.catalog.get(&envelope.kind);
    let attempts = envelope.max_attempts;
    view["kind"] = envelope.kind.as_str().into();
    view["priority"] = flow.priority.as_str().into();
    view["max_attempts"] = attempts.or(spec.map(|s| s.retry.max_attempts)).into();
    view["enqueued_at"] = envelope.enqueued_at.into();
    view["meta"] = json!(envelope.meta);
    if let Some(key) = &flow.key {
        view["key"] = (&**key).into();
    }
    if let Some(at) = envelope.expires_at {
        view["expires_at"] = at.into();
    }
    let ttl = spec.and_then(|spec| spec.ttl).map(millis);
    if let Some(ttl) = envelope
        .ttl_ms
        .or(ttl.filter(|_| envelope.expires_at.is_none()))
    {
        view["ttl_ms"] = ttl.into();
    }
    view_ties(&mut view, &envelope, &found.ties);
    if view["then"].is_null()
        && let Some(then) = spec.and_then(|spec| spec.then.as_ref())
    {
        view["then"] = json!(then.kinds.iter().take(1).collect::<Vec<_>>());
    }
    if payload {
        view["args"] = Value::Object(envelope.args().clone());
    }
    view
}

/// When a retry was due that had to wait longer, ms: nothing but a retry budget puts it off. It was settled by the clock
/// of a daemon, so that a second or two prove nothing.
pub(in crate::cli) fn waits_since(found: &Found) -> Option<u64> {
    const CLOCKS_MS: u64 = 2_000;
    let due = found.history.retry_due()?;
    (found.state == "delayed" && found.at_ms? > due + CLOCKS_MS).then_some(due)
}

/// What a job has to do with others.
fn view_ties(view: &mut Value, envelope: &Envelope, ties: &str) {
    let tied = |letters: &[char]| ties.lines().find_map(|line| line.strip_prefix(letters));
    let kept_ms = tied(&['r']).and_then(|ms| ms.parse::<u64>().ok());
    let next: Vec<String> = envelope
        .following()
        .filter_map(|(_, next)| Envelope::parse(next.get().as_bytes()).ok())
        .map(|next| next.kind)
        .collect();
    let parents: Vec<&str> = envelope.parents.iter().map(|p| p.id.as_str()).collect();
    let some = [
        ("lock", tied(&['f', 'c', 't']).map(Value::from)),
        ("group", tied(&['g', 'G']).map(Value::from)),
        ("workflow", tied(&['w']).map(Value::from)),
        ("result_ttl_ms", kept_ms.map(Value::from)),
        ("then", (!next.is_empty()).then(|| json!(next))),
        ("parents", (!parents.is_empty()).then(|| json!(parents))),
    ];
    for (name, value) in some {
        if let Some(value) = value {
            view[name] = value;
        }
    }
}

/// What the time of a state is called.
fn at_name(state: &str) -> &'static str {
    match state {
        "delayed" => "due_at",
        "dead" => "died_at",
        _ => "finished_at",
    }
}

/// A job for people, from its view.
pub(in crate::cli) fn view_text(view: &Value) -> String {
    const NAMES: [&str; 33] = [
        "id",
        "status",
        "kind",
        "queue",
        "priority",
        "key",
        "state",
        "attempts",
        "max_attempts",
        "crashes",
        "snoozes",
        "due_at",
        "was_due_at",
        "waits_for",
        "expires_at",
        "ttl_ms",
        "died_at",
        "finished_at",
        "enqueued_at",
        "duration_ms",
        "worker",
        "progress",
        "slots",
        "lock",
        "merged",
        "group",
        "workflow",
        "parents",
        "then",
        "result_ttl_ms",
        "result",
        "meta",
        "args",
    ];
    let now = clock::unix_ms();
    let shown = |name: &'static str| {
        let value = view
            .get(name)
            .filter(|v| !v.is_null() && **v != json!({}))?;
        let text = match (name, value) {
            (name, Value::Number(n)) if name.ends_with("_at") => when(n.as_u64().unwrap_or(0), now),
            (name, Value::Number(n)) if name.ends_with("_ms") => age(n.as_u64().unwrap_or(0)),
            ("lock", _) if view.get("lock_until").is_some() => lock_text(view),
            ("group", _) => group_text(view),
            ("progress", value) => progress_text(value, now),
            (_, Value::String(text)) => text.clone(),
            (_, other) => other.to_string(),
        };
        Some((name.trim_end_matches("_ms"), text))
    };
    let mut lines: Vec<(&str, String)> = NAMES.into_iter().filter_map(shown).collect();
    let errors = view["errors"].as_array().map_or(&[][..], Vec::as_slice);
    for error in errors {
        let at = when(error["at"].as_u64().unwrap_or(0), now);
        let words = error["error"].as_str().unwrap_or_default();
        lines.push((
            "error",
            format!("attempt {}, {at}: {words}", error["attempt"]),
        ));
    }
    let mut text = pairs(&lines);
    text.push_str(&events_text(view));
    text
}

/// What happened to a job, one event a line.
fn events_text(view: &Value) -> String {
    let events = view["events"].as_array().map_or(&[][..], Vec::as_slice);
    let row = |event: &Value| {
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        let number = |name: &str| event[name].as_u64();
        let mut words: Vec<String> = Vec::new();
        words.extend(number("times").map(|n| format!("{n} times")));
        words.extend(number("attempt").map(|n| format!("attempt {n}")));
        words.extend(number("due").map(|due| format!("again at {}", clock::rfc3339(due))));
        words.extend(event["by"].as_str().map(|by| format!("by {by}")));
        words.extend(event["note"].as_str().map(str::to_owned));
        let at = clock::rfc3339(number("at").unwrap_or(0));
        vec![at, text("event"), words.join(", ")]
    };
    if events.is_empty() {
        return String::new();
    }
    let rows: Vec<Vec<String>> = events.iter().map(row).collect();
    let dropped = view["events_dropped"]
        .as_u64()
        .map_or_else(String::new, |n| {
            format!("{n} events after the first ones are not kept\n")
        });
    format!("\n{}{dropped}", table(&["at", "event", ""], &rows))
}

/// What it told last and how long ago: `40%, halfway there, rows 120 (2s ago)`.
fn progress_text(value: &Value, now_ms: u64) -> String {
    let progress = Progress::deserialize(value).unwrap_or_default();
    let ago = now_ms.saturating_sub(progress.at.unwrap_or(now_ms));
    format!("{} ({} ago)", progress.in_words(), age(ago))
}

/// A time with its distance from now.
pub(in crate::cli) fn when(at_ms: u64, now_ms: u64) -> String {
    let stamp = clock::rfc3339(at_ms);
    if at_ms > now_ms {
        format!("{stamp} (in {})", age(at_ms - now_ms))
    } else {
        format!("{stamp} ({} ago)", age(now_ms - at_ms))
    }
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}
