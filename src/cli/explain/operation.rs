//! Breakers and limiters of operations (a handler on a resource) as reasons, and one operation explained whole.

use super::super::fleet::Fleet;
use super::super::output::{age, pairs};
use super::super::store::Store;
use super::super::{CliError, Report};
use super::gate::{gates, ordered};
use super::reason::{Binds, Reason, Reasons, for_so_long};
use super::supply;
use crate::config::BreakerConfig;
use crate::policy::gate::Aspect;
use serde_json::{Value, json};
use std::sync::Arc;

/// What breakers and limiters let through of a handler on each of its resources. `settings` are those of breakers.
pub(super) fn operations(
    fleet: &Fleet,
    settings: &BreakerConfig,
    handler: &str,
    resources: &[Arc<str>],
) -> Vec<Reason> {
    let each = resources.iter().flat_map(|resource| {
        let breaker = entry(fleet, "breakers", handler, resource);
        let breaker = breaker.map(|e| breaker_reason(fleet, settings, e));
        let limiter = entry(fleet, "limiters", handler, resource);
        let limiter = limiter.map(|e| limiter_reason(fleet, e));
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

fn breaker_reason(fleet: &Fleet, settings: &BreakerConfig, entry: &Value) -> Reason {
    let breaker = &entry["breaker"];
    let (handler, resource) = names(entry);
    let state = breaker["state"].as_str().unwrap_or("closed");
    let heeded = breaker["mode"].as_str().is_none_or(|mode| mode == "on");
    let binds = match (state, heeded) {
        (_, false) | ("closed", _) => Binds::Not,
        ("open", true) => Binds::Stops,
        _ => Binds::Slows,
    };
    let since_ms = fleet.since(entry);
    let order = order(fleet, entry, Aspect::Breaker);
    let mut message = breaker_message(entry, state, heeded, since_ms);
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
    let share = bad_share(breaker).map(|(_, share)| share);
    let too_large = settings.failed_share.max(settings.slow_share);
    Reason::new("breaker", binds, message, details)
        .measured(json!(share), too_large, fleet.age_of(&entry["instance"]))
        .since(since_ms)
        .lifted_by(closes(breaker, state, &format!("{handler}@{resource}")))
}

fn breaker_message(entry: &Value, state: &str, heeded: bool, since_ms: Option<u64>) -> String {
    let breaker = &entry["breaker"];
    let (handler, resource) = names(entry);
    let since = for_so_long(since_ms);
    let mut message = format!("the breaker of {handler} on {resource} is {state}{since}");
    let would = would(breaker);
    match breaker["mode"].as_str().filter(|_| !heeded) {
        Some(mode) => {
            let would = would.map_or_else(String::new, |would| format!("; {would}"));
            message.push_str(&format!(" ({mode}: it holds nothing back{would})"));
        }
        // One at rest goes on with care.
        None if state == "closed" => {
            message.extend(would.map(|would| format!(" (at rest: {would})")));
        }
        None => {}
    }
    if let Some(because) = entry["because"].as_str() {
        message.push_str(&format!(": {because}"));
    }
    if let Some((calls, _)) = bad_share(breaker) {
        let (failed, slow) = (&breaker["failures"], &breaker["slow"]);
        message.push_str(&format!(
            "; of {calls} calls {failed} failed, {slow} were slow"
        ));
    }
    if let Some(share) = breaker["limit"].as_f64() {
        let percent = share * 100.0;
        message.push_str(&format!("; {percent:.0}% of the usual limit may run"));
    }
    message
}

/// What a state means for the next call, where it says more than the state does.
fn would(breaker: &Value) -> Option<&'static str> {
    Some(match breaker["would"].as_str()? {
        "refuse" => "it would let nothing through",
        "try" => "it would let one through, to try",
        "limit" => "it would let a part through",
        _ => return None,
    })
}

/// The calls a breaker goes by, and the share of them that failed or was slow; none without calls.
fn bad_share(breaker: &Value) -> Option<(u64, f64)> {
    let count = |field: &str| breaker[field].as_u64().unwrap_or_default();
    let calls = count("calls");
    let bad = count("failures") + count("slow");
    (calls > 0).then(|| {
        (
            calls,
            (bad as f64 / calls as f64 * 1_000.0).round() / 1_000.0,
        )
    })
}

/// What has to come about before a breaker lets more through.
fn closes(breaker: &Value, state: &str, name: &str) -> Option<String> {
    let forced = breaker["forced_ms"].as_u64();
    let retry = breaker["retry_in_ms"].as_u64();
    Some(match (state, forced, retry) {
        (_, Some(ms), _) => format!(
            "the order ends in {}, or with `tidegate gate release {name}`; then it is tried",
            age(ms)
        ),
        ("open", None, Some(ms)) => format!("the next trial is in {}, if it succeeds", age(ms)),
        ("open", None, None) => "the next job of it is a trial, if it succeeds".to_owned(),
        ("half_open", ..) => "the trial that runs, if it succeeds".to_owned(),
        ("ramping", ..) => "good results open it further, step by step".to_owned(),
        _ => return None,
    })
}

fn limiter_reason(fleet: &Fleet, entry: &Value) -> Reason {
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
    let since_ms = number(&limiter["since_ms"]);
    let mut message = limiter_message(entry, used, limit, by);
    let order = order(fleet, entry, Aspect::Limit);
    if let Some(order) = &order {
        message.push_str(&format!("; {order}"));
    }
    let more = match by {
        "pool" => "more connections: [database] max_connections".to_owned(),
        "order" => format!("`tidegate gate release {handler}@{resource}`"),
        _ => "a higher limit: it rises while its calls do not wait within the resource".to_owned(),
    };
    let details = json!({
        "handler": handler,
        "resource": resource,
        "used": used,
        "by": by,
        "mode": entry["mode"],
        "limiter": limiter,
        "instance": entry["instance"],
        "order": order,
    });
    let age_ms = fleet.oldest_page();
    Reason::new("limiter", binds, message, details)
        .measured(used, limit, age_ms)
        .since(since_ms)
        .lifted_by(["one of them ends".to_owned(), more])
}

fn limiter_message(entry: &Value, used: u64, limit: u64, by: &str) -> String {
    let limiter = &entry["limiter"];
    let (handler, resource) = names(entry);
    let mut message =
        format!("{used} of {limit} calls of {handler} on {resource} run, by its {by}");
    if let Some(reason) = limiter["reason"].as_str() {
        let ago = age(limiter["since_ms"].as_u64().unwrap_or_default());
        message.push_str(&format!(" ({reason}, {ago} ago)"));
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
    if let Some(mode) = entry["mode"].as_str().filter(|mode| *mode != "on") {
        message.push_str(&format!("; {mode}: the limiter itself holds nothing back"));
    }
    message
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
    let resources: [Arc<str>; 1] = [resource.into()];
    let of_it = operations(fleet, &store.config.breaker, handler, &resources);
    if kinds.is_empty() && of_it.is_empty() {
        let message = format!(
            "there is no operation {handler}@{resource}; `tidegate gate show` lists those there are"
        );
        return Err(CliError::NotFound(message));
    }
    let gates = gates(fleet, &fleet.rules(store), &[resource], None);
    let supply = supply::pool(fleet, handler, &resources);
    let reasons: Reasons = of_it.into_iter().chain(gates).chain(supply).collect();
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
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::{self, Sources};

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

    fn told(handler: &str, resources: &[Arc<str>]) -> Vec<Reason> {
        let config = config::load(&Sources::default()).unwrap();
        operations(&fleet(), &config.breaker, handler, resources)
    }

    #[test]
    fn a_breaker_tells_since_when_why_and_the_next_trial() {
        let resources: Vec<Arc<str>> = vec!["http:app".into()];
        let found = told("http", &resources);
        assert_eq!((found[0].code, found[0].binds), ("breaker", Binds::Stops));
        assert_eq!(
            found[0].message,
            "the breaker of http on http:app is open for 5s: 9 of 9 calls failed"
        );
        let json = found[0].to_json();
        assert_eq!(
            (&json["since_ms"], &json["limit"]),
            (&json!(5_000), &json!(0.5))
        );
        assert_eq!(
            json["lifted_by"],
            json!(["the next trial is in 4s, if it succeeds"])
        );
        let closed = told("exec", &resources);
        assert_eq!((closed.len(), closed[0].binds), (1, Binds::Not));
        assert_eq!(closed[0].to_json()["value"], json!(0.25));
        assert!(told("http", &[]).is_empty());
    }

    #[test]
    fn what_an_ordered_breaker_would_do_and_how_long_is_told() {
        let breaker = json!({"state": "open", "mode": "metrics_only", "would": "refuse"});
        let entry = json!({"handler": "http", "resource": "http:app", "breaker": breaker});
        let config = config::load(&Sources::default()).unwrap();
        let of = |entry: &Value| breaker_reason(&Fleet::default(), &config.breaker, entry);
        assert_eq!(
            of(&entry).message,
            "the breaker of http on http:app is open (metrics_only: it holds nothing back; it would let nothing through)"
        );
        let rests = json!({"state": "closed", "mode": "on", "would": "try"});
        let rests = json!({"handler": "http", "resource": "http:app", "breaker": rests});
        let message = of(&rests).message;
        assert!(
            message.ends_with("closed (at rest: it would let one through, to try)"),
            "{message}"
        );
        let mut forced = entry;
        forced["breaker"] =
            json!({"state": "open", "mode": "on", "forced_ms": 90_000, "retry_in_ms": 90_000});
        let lifted = of(&forced).to_json()["lifted_by"][0].clone();
        assert!(
            lifted
                .as_str()
                .unwrap()
                .starts_with("the order ends in 1m 30s, or with")
        );
    }

    #[test]
    fn a_limiter_tells_its_use_reason_anchor_and_wait() {
        let found = told("http", &["http:app".into()]);
        assert_eq!((found[1].code, found[1].binds), ("limiter", Binds::Stops));
        assert_eq!(
            found[1].message,
            "4 of 4 calls of http on http:app run, by its limiter (congestion, 12s ago); \
             undisturbed one takes 20.0 ms, now each waits 35.5 ms"
        );
    }
}
