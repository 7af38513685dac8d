//! What has to come about before a resource leaves its state.

use super::super::output::age;
use crate::clock::rfc3339;
use crate::policy::gate::{GateState, Thresholds};
use serde_json::Value;

/// The state of a resource as it was published.
pub(super) fn state_of(resource: &Value) -> GateState {
    serde_json::from_value(resource["state"].clone()).unwrap_or_default()
}

/// The signals of a resource.
pub(super) fn signals(resource: &Value) -> impl Iterator<Item = &Value> {
    resource["signals"].as_array().into_iter().flatten()
}

/// What lifts the state of the resource `name`, signal by signal; nothing where all is well.
pub(super) fn lifts(name: &str, resource: &Value, states: &Thresholds) -> Vec<String> {
    let state = state_of(resource);
    if state == GateState::Ok {
        return Vec::new();
    }
    let forced = &resource["forced"];
    if forced["order"].is_string() && forced["measured"] != resource["state"] {
        let until = rfc3339(forced["until"].as_u64().unwrap_or_default());
        return vec![format!(
            "the order ends at {until}, or with `tidegate gate release {name}`"
        )];
    }
    let left_at = states.left_at(state);
    let keeps = |signal: &&Value| {
        let cap: GateState =
            serde_json::from_value(signal["worst_state"].clone()).unwrap_or_default();
        let bad = signal["pressure"].as_f64().is_some_and(|p| p > left_at);
        signal["missing"] == true || cap >= state && bad
    };
    let lift = |signal: &Value| {
        let name = signal["name"].as_str().unwrap_or("-");
        if signal["missing"] == true {
            return format!("{state} is left after {name} is measured again");
        }
        let [lo, hi] = ["lo", "hi"].map(|limit| signal[limit].as_f64().unwrap_or_default());
        let exit = lo + left_at * (hi - lo);
        if lo == hi {
            return format!("{state} is left after {name} has ended");
        }
        let side = if lo < hi { "below" } else { "above" };
        format!("{state} is left after {name} has stayed {side} {exit:.3}")
    };
    let found: Vec<String> = signals(resource).filter(keeps).map(lift).collect();
    match (found.is_empty(), resource["hold_left_ms"].as_u64()) {
        (false, _) => found,
        (true, Some(left)) => vec![format!(
            "{state} is left in {}, unless it gets worse: nothing keeps it up any more",
            age(left)
        )],
        (true, None) => vec![format!(
            "{state} is left once its hold is over: nothing keeps it up any more"
        )],
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::{Sources, load};
    use serde_json::json;

    fn signal(name: &str, pressure: f64, cap: &str) -> Value {
        json!({"name": name, "value": 12.5, "lo": 5.0, "hi": 25.0, "worst_state": cap, "pressure": pressure,
            "missing": false, "age_ms": 900})
    }

    #[test]
    fn what_keeps_a_state_up_is_named_with_its_exit() {
        let states = Thresholds::from(&load(&Sources::default()).unwrap().gate.states);
        let resource = json!({"state": "overloaded", "signals": [
            signal("rtt_ms", 0.7, "critical"),
            signal("fork_percent", 0.9, "elevated"),
            signal("calm", 0.1, "critical"),
        ]});
        assert_eq!(
            lifts("db:x", &resource, &states),
            ["overloaded is left after rtt_ms has stayed below 17.000"]
        );
        let mut lost = resource.clone();
        lost["signals"][2]["missing"] = true.into();
        let found = lifts("db:x", &lost, &states);
        assert_eq!(found.len(), 2);
        assert!(found[1].contains("calm is measured again"), "{found:?}");
        let mut calm = resource;
        calm["signals"][0]["pressure"] = 0.2.into();
        assert!(lifts("db:x", &calm, &states)[0].contains("once its hold is over"));
        calm["hold_left_ms"] = 12_000.into();
        assert!(lifts("db:x", &calm, &states)[0].contains("is left in 12s"));
        calm["state"] = "ok".into();
        assert!(lifts("db:x", &calm, &states).is_empty());
    }
}
