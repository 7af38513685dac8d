//! What the pages of all daemons come to together: of each resource and each breaker the worst there is.
//!
//! Owns the merging alone, of JSON: a daemon of another version may know fields that we do not.

use crate::policy::gate::GateState;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Breaker states, best first.
const BREAKER_STATES: [&str; 4] = ["closed", "ramping", "half_open", "open"];

/// `own` health together with the pages of the others, in the form of `own`: see docs/GATE.md.
#[must_use]
pub fn merged(own: &Value, others: &[Value]) -> Value {
    let pages: Vec<&Value> = others.iter().filter(|page| page["v"] == own["v"]).collect();
    let all = || std::iter::once(own).chain(pages.iter().copied());
    let mut health = own.clone();
    let resources = resources(all());
    let worst = resources.values().max_by(|a, b| by_state(a, b));
    if let Some(worst) = worst {
        health["state"] = worst["state"].clone();
        health["pressure"] = worst["pressure"].clone();
    }
    health["resources"] = json!(resources);
    health["breakers"] = of_operations(all(), "breakers", worst_breaker);
    health["limiters"] = of_operations(all(), "limiters", tightest_limiter);
    health["budgets"] = budgets(all());
    // Each daemon has its own: it stands on the pages.
    if let Some(health) = health.as_object_mut() {
        health.remove("reserve");
        health.remove("pool");
    }
    health["daemons"] = all().count().into();
    health
}

fn state_of(resource: &Value) -> GateState {
    serde_json::from_value(resource["state"].clone()).unwrap_or_default()
}

fn by_state(a: &Value, b: &Value) -> std::cmp::Ordering {
    let pressure = |resource: &Value| resource["pressure"].as_f64().unwrap_or_default();
    let by_state = state_of(a).cmp(&state_of(b));
    by_state.then(pressure(a).total_cmp(&pressure(b)))
}

/// Each resource as the daemon measured it for which it is worst.
fn resources<'a>(pages: impl Iterator<Item = &'a Value>) -> BTreeMap<&'a str, Value> {
    let mut found: BTreeMap<&str, (&Value, &Value)> = BTreeMap::new();
    for page in pages {
        for (name, resource) in page["resources"].as_object().into_iter().flatten() {
            let known = found.entry(name).or_insert((page, resource));
            if by_state(resource, known.1).is_gt() {
                *known = (page, resource);
            }
        }
    }
    let told = |(name, (page, resource)): (&'a str, (&Value, &Value))| {
        let mut resource = resource.clone();
        resource["instance"] = page["instance"].clone();
        (name, resource)
    };
    found.into_iter().map(told).collect()
}

/// One entry for each handler and resource, made by `of_all` of all entries with the pages they stand on.
fn of_operations<'a>(
    pages: impl Iterator<Item = &'a Value>,
    field: &str,
    of_all: impl Fn(&[(&Value, &Value)]) -> Value,
) -> Value {
    let mut found: BTreeMap<(&str, &str), Vec<(&Value, &Value)>> = BTreeMap::new();
    for page in pages {
        for entry in page[field].as_array().into_iter().flatten() {
            if let (Some(handler), Some(resource)) =
                (entry["handler"].as_str(), entry["resource"].as_str())
            {
                let of_one = found.entry((handler, resource)).or_default();
                of_one.push((page, entry));
            }
        }
    }
    found.values().map(|entries| of_all(entries)).collect()
}

/// The retry budget of each resource that holds back, or uses most of what it may, with whose it is.
fn budgets<'a>(pages: impl Iterator<Item = &'a Value>) -> Value {
    let mut found: BTreeMap<&str, (&Value, &Value)> = BTreeMap::new();
    let rank = |entry: &Value| {
        let budget = &entry["budget"];
        (
            budget["state"] == "holding",
            budget["share"].as_f64().unwrap_or_default(),
        )
    };
    for page in pages {
        for entry in page["budgets"].as_array().into_iter().flatten() {
            let Some(resource) = entry["resource"].as_str() else {
                continue;
            };
            let known = found.entry(resource).or_insert((page, entry));
            if rank(entry) > rank(known.1) {
                *known = (page, entry);
            }
        }
    }
    found.values().map(|worst| whose(Some(worst))).collect()
}

/// The worst of them, with whose it is, and in how many daemons it is in which state.
fn worst_breaker(entries: &[(&Value, &Value)]) -> Value {
    let rank = |entry: &Value| {
        let state = entry["breaker"]["state"].as_str().unwrap_or_default();
        let wait = entry["breaker"]["retry_in_ms"].as_u64();
        (
            BREAKER_STATES.iter().position(|known| *known == state),
            wait,
        )
    };
    let worst = entries.iter().max_by_key(|(_, entry)| rank(entry));
    let mut daemons: BTreeMap<&str, u64> = BTreeMap::new();
    for (_, entry) in entries {
        let state = entry["breaker"]["state"].as_str().unwrap_or_default();
        *daemons.entry(state).or_default() += 1;
    }
    let mut told = whose(worst);
    told["daemons"] = json!(daemons);
    told
}

/// The one with the least limit, with whose it is, and what all of them come to.
fn tightest_limiter(entries: &[(&Value, &Value)]) -> Value {
    // What may run, all told; the limiter's own word where no more is said.
    let limit = |entry: &Value| {
        let told = entry["limit"].as_u64();
        told.or(entry["limiter"]["limit"].as_u64())
            .unwrap_or_default()
    };
    let inflight = |entry: &Value| entry["limiter"]["inflight"].as_u64().unwrap_or_default();
    let sum = |of: &dyn Fn(&Value) -> u64| entries.iter().map(|(_, entry)| of(entry)).sum::<u64>();
    let tightest = entries.iter().min_by_key(|(_, entry)| limit(entry));
    let mut told = whose(tightest);
    told["daemons"] = entries.len().into();
    told["all"] = json!({"limit": sum(&limit), "inflight": sum(&inflight)});
    told
}

fn whose(entry: Option<&(&Value, &Value)>) -> Value {
    let Some((page, entry)) = entry else {
        return Value::Null;
    };
    let mut told = (*entry).clone();
    told["instance"] = page["instance"].clone();
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(instance: &str, postgres: &str, pressure: f64, breaker: &str, limit: u64) -> Value {
        json!({
            "v": 1, "instance": instance, "state": postgres, "pressure": pressure,
            "resources": {
                "redis:main": {"state": "ok", "pressure": 0.1},
                "postgres:primary": {"state": postgres, "pressure": pressure}},
            "breakers": [{"handler": "http", "resource": "http:a:1", "breaker": {"state": breaker}}],
            "limiters": [{"handler": "http", "resource": "http:a:1", "limiter": {"limit": limit, "inflight": 2}}],
        })
    }

    #[test]
    fn the_worst_of_all_daemons_counts_and_is_named() {
        let others = [
            page("b", "overloaded", 0.85, "open", 4),
            page("c", "elevated", 0.9, "closed", 20),
            json!({"v": 2, "resources": {"other": {"state": "critical"}}}),
        ];
        let health = merged(&page("a", "ok", 0.2, "closed", 16), &others);
        assert_eq!(
            (&health["state"], &health["pressure"]),
            (&json!("overloaded"), &json!(0.85))
        );
        assert_eq!(health["resources"]["postgres:primary"]["instance"], "b");
        assert_eq!(health["resources"]["redis:main"]["instance"], "a");
        let breaker = &health["breakers"][0];
        assert_eq!(
            (&breaker["breaker"]["state"], &breaker["instance"]),
            (&json!("open"), &json!("b"))
        );
        assert_eq!(breaker["daemons"], json!({"closed": 2, "open": 1}));
        let limiter = &health["limiters"][0];
        assert_eq!(
            (&limiter["limiter"]["limit"], &limiter["daemons"]),
            (&json!(4), &json!(3))
        );
        assert_eq!(limiter["all"], json!({"limit": 40, "inflight": 6}));
        assert_eq!(health["daemons"], 3);
    }

    #[test]
    fn one_daemon_alone_is_the_fleet() {
        let own = page("a", "elevated", 0.6, "ramping", 8);
        let health = merged(&own, &[]);
        assert_eq!(
            (&health["state"], &health["daemons"]),
            (&json!("elevated"), &json!(1))
        );
        assert_eq!(health["breakers"][0]["breaker"]["state"], "ramping");
    }
}
