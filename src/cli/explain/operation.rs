//! Breakers and limiters of operations (a handler on a resource) as reasons, and one operation explained whole.

use super::super::fleet::Fleet;
use super::super::output::{age, pairs};
use super::super::store::Store;
use super::super::{CliError, Report};
use super::gate::{gates, ordered};
use super::reason::{Binds, Reason, Reasons};
use crate::policy::gate::Aspect;
use serde_json::{Value, json};
use std::sync::Arc;

/// What breakers and limiters let through of a handler on each of its resources.
pub(super) fn operations(fleet: &Fleet, handler: &str, resources: &[Arc<str>]) -> Vec<Reason> {
    let each = resources.iter().flat_map(|resource| {
        let breaker = entry(fleet, "breakers", handler, resource).map(|e| breaker(fleet, e));
        let limiter = entry(fleet, "limiters", handler, resource).map(|e| limiter(fleet, e));
        [breaker, limiter].into_iter().flatten()
    });
    each.collect()
}

fn entry<'a>(fleet: &'a Fleet, list: &str, handler: &str, resource: &str) -> Option<&'a Value> {
    let of_it = |entry: &&Value| entry["handler"] == handler && entry["resource"] == resource;
    fleet.each(list).find(of_it)
}

fn names(entry: &Value) -> (&str, &str) {
    let name = |field: &str| entry[field].as_str().unwrap_or("-");
    (name("handler"), name("resource"))
}

/// Who ordered one aspect of an operation otherwise.
fn order(fleet: &Fleet, entry: &Value, aspect: Aspect) -> Option<String> {
    let (handler, resource) = names(entry);
    let order = fleet.orders.of_operation(handler, resource, aspect)?;
    let what = order.order.to_string();
    Some(ordered(&what, &order.by, order.until, &order.why))
}

fn breaker(fleet: &Fleet, entry: &Value) -> Reason {
    let breaker = &entry["breaker"];
    let (handler, resource) = names(entry);
    let state = breaker["state"].as_str().unwrap_or("closed");
    let heeded = breaker["mode"].as_str().is_none_or(|mode| mode == "on");
    let binds = match (state, heeded) {
        (_, false) | ("closed", _) => Binds::Not,
        ("open", true) => Binds::Stops,
        _ => Binds::Slows,
    };
    let mut message = format!("the breaker of {handler} on {resource} is {state}");
    if let Some(since) = entry["since"].as_u64() {
        let ms = fleet.now_ms.saturating_sub(since);
        message.push_str(&format!(" for {}", age(ms)));
    }
    if let Some(mode) = breaker["mode"].as_str().filter(|_| !heeded) {
        message.push_str(&format!(" ({mode}: it holds nothing back)"));
    }
    if let Some(because) = entry["because"].as_str() {
        message.push_str(&format!(": {because}"));
    }
    if let Some(calls) = breaker["calls"].as_u64().filter(|calls| *calls > 0) {
        let (failed, slow) = (&breaker["failures"], &breaker["slow"]);
        message.push_str(&format!(
            "; of {calls} calls {failed} failed, {slow} were slow"
        ));
    }
    if let Some(share) = breaker["limit"].as_f64() {
        message.push_str(&format!(
            "; {:.0}% of the usual limit may run",
            share * 100.0
        ));
    }
    if let Some(ms) = breaker["retry_in_ms"].as_u64() {
        message.push_str(&format!(", next trial in {}", age(ms)));
    }
    let order = order(fleet, entry, Aspect::Breaker);
    if let Some(order) = &order {
        message.push_str(&format!("; {order}"));
    }
    let details = json!({
        "handler": handler,
        "resource": resource,
        "breaker": breaker,
        "since": entry["since"],
        "because": entry["because"],
        "instance": entry["instance"],
        "daemons": entry["daemons"],
        "order": order,
    });
    Reason::new("breaker", binds, message, details)
}

fn limiter(fleet: &Fleet, entry: &Value) -> Reason {
    let limiter = &entry["limiter"];
    let (handler, resource) = names(entry);
    let number = |value: &Value| value.as_u64();
    // Of all daemons, if it is told; else of the one that told.
    let limit = number(&entry["all"]["limit"])
        .or(number(&entry["limit"]))
        .or(number(&limiter["limit"]))
        .unwrap_or_default();
    let used = number(&entry["all"]["inflight"])
        .or(number(&limiter["inflight"]))
        .unwrap_or_default();
    let by = entry["by"].as_str().unwrap_or("limiter");
    // What a breaker lets through, and what slots there are, is told of these.
    let binds = match by {
        "breaker" | "slots" => Binds::Not,
        _ => Binds::full(used, limit),
    };
    let mut message =
        format!("{used} of {limit} calls of {handler} on {resource} run, by its {by}");
    if let Some(reason) = limiter["reason"].as_str() {
        let since = number(&limiter["since_ms"]).unwrap_or_default();
        message.push_str(&format!(" ({reason}, {} ago)", age(since)));
    }
    if let Some(anchor) = limiter["anchor_ms"].as_f64() {
        message.push_str(&format!("; undisturbed one takes {anchor:.1} ms"));
    }
    if let Some(wait) = limiter["wait_ms"].as_f64() {
        message.push_str(&format!(", now each waits {wait:.1} ms"));
    }
    if limiter["measuring"] == true {
        message.push_str("; it is low for a moment, to measure");
    }
    let order = order(fleet, entry, Aspect::Limit);
    if let Some(order) = &order {
        message.push_str(&format!("; {order}"));
    }
    let details = json!({
        "handler": handler,
        "resource": resource,
        "used": used,
        "limit": limit,
        "by": by,
        "mode": entry["mode"],
        "limiter": limiter,
        "instance": entry["instance"],
        "order": order,
    });
    Reason::new("limiter", binds, message, details)
}

/// Explains one operation: `handler@resource`.
///
/// # Errors
/// Neither definitions nor daemons know it.
pub(super) fn explain(
    store: &Store,
    fleet: &Fleet,
    handler: &str,
    resource: &str,
) -> Result<Report, CliError> {
    let using = store
        .catalog
        .iter()
        .filter(|spec| spec.handler == handler && spec.resources.iter().any(|r| **r == *resource));
    let kinds: Vec<&str> = using.map(|spec| &*spec.kind).collect();
    let of_it = operations(fleet, handler, &[resource.into()]);
    if kinds.is_empty() && of_it.is_empty() {
        let message = format!(
            "there is no operation {handler}@{resource}; `tidegate gate show` lists those there are"
        );
        return Err(CliError::NotFound(message));
    }
    let mode = store.config.gate.mode;
    let gates = gates(fleet, mode, &[resource], None);
    let reasons: Reasons = of_it.into_iter().chain(gates).collect();
    let mut json = json!({"operation": format!("{handler}@{resource}"), "handler": handler,
        "resource": resource, "kinds": kinds});
    reasons.write(&mut json);
    let mut text = format!("operation {handler}@{resource}\n");
    if !kinds.is_empty() {
        text.push_str(&pairs(&[("kinds", kinds.join(", "))]));
    }
    text.push_str(&reasons.text("nothing holds it back"));
    Ok(Report::new(json, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet() -> Fleet {
        let mut fleet = Fleet::of(json!({"resources": {}, "breakers": [
            {"handler":"http","resource":"http:app","since":1_000,"because":"9 of 9 calls failed",
                "breaker":{"state":"open","mode":"on","retry_in_ms":4200,"calls":0}},
            {"handler":"exec","resource":"http:app","breaker":{"state":"closed","calls":4,"failures":1,"slow":0}}],
            "limiters": [{"handler":"http","resource":"http:app","limit":4,"by":"limiter","limiter":{
                "limit":4,"inflight":4,"anchor_ms":20.0,"wait_ms":35.5,"reason":"congestion","since_ms":12_000}}]}));
        fleet.now_ms = 6_000;
        fleet
    }

    #[test]
    fn a_breaker_tells_since_when_why_and_the_next_trial() {
        let resources: Vec<Arc<str>> = vec!["http:app".into()];
        let found = operations(&fleet(), "http", &resources);
        assert_eq!((found[0].code, found[0].binds), ("breaker", Binds::Stops));
        assert_eq!(
            found[0].message,
            "the breaker of http on http:app is open for 5s: 9 of 9 calls failed, next trial in 4s"
        );
        let closed = operations(&fleet(), "exec", &resources);
        assert_eq!((closed.len(), closed[0].binds), (1, Binds::Not));
        assert!(operations(&fleet(), "http", &[]).is_empty());
    }

    #[test]
    fn a_limiter_tells_its_use_reason_anchor_and_wait() {
        let found = operations(&fleet(), "http", &["http:app".into()]);
        assert_eq!((found[1].code, found[1].binds), ("limiter", Binds::Stops));
        assert_eq!(
            found[1].message,
            "4 of 4 calls of http on http:app run, by its limiter (congestion, 12s ago); \
             undisturbed one takes 20.0 ms, now each waits 35.5 ms"
        );
    }
}
