//! The gate's share of the slots, by the health of resources, read as reasons.

use super::super::fleet::Fleet;
use super::super::output::age;
use super::lift;
use super::reason::{Binds, Reason, for_so_long};
use crate::clock::rfc3339;
use crate::config::GateMode;
use crate::health::{MEMORY, QUEUE_REDIS};
use crate::job::Priority;
use crate::policy::gate::{GateState, Rules};
use serde_json::{Map, Value, json};

/// Resources that jobs of `class` (of any, if none is given) which declare `resources` go by: those under pressure, and
/// those with room.
pub(super) fn gates(
    fleet: &Fleet,
    rules: &Rules,
    resources: &[&str],
    class: Option<Priority>,
) -> Vec<Reason> {
    if rules.mode == GateMode::Off {
        return Vec::new();
    }
    let gating = [QUEUE_REDIS, MEMORY]
        .into_iter()
        .chain(resources.iter().copied());
    gating
        .filter_map(|name| gate(fleet, rules, name, class))
        .collect()
}

/// One resource as it holds jobs of `class` back; none if nobody tells of it.
pub(super) fn gate(
    fleet: &Fleet,
    rules: &Rules,
    name: &str,
    class: Option<Priority>,
) -> Option<Reason> {
    let resource = fleet.resource(name)?;
    let state = lift::state_of(resource);
    let shares = shares(rules, state, class);
    let held: Vec<(Priority, f64)> = shares.iter().copied().filter(|(_, s)| *s < 1.0).collect();
    let binds = match (held.is_empty(), rules.mode, class) {
        (true, _, _) | (_, GateMode::Shadow, _) => Binds::Not,
        (false, _, Some(_)) if held.iter().all(|(_, share)| *share == 0.0) => Binds::Stops,
        _ => Binds::Slows,
    };
    // Where all is well: what would hold back first.
    let bound = state.max(GateState::Elevated);
    let worst = &resource["worst"];
    let lo = worst["lo"].as_f64().unwrap_or(0.0);
    let limit = lo + rules.states.entered_at(bound) * (worst["hi"].as_f64().unwrap_or(lo) - lo);
    let cause = cause(resource, worst, bound, limit);
    let kept = match held.is_empty() {
        true => "all slots".to_owned(),
        false => {
            let each = held.iter();
            let each = each.map(|(class, share)| format!("{class} keeps {:.0}%", share * 100.0));
            format!("of the slots {}", each.collect::<Vec<_>>().join(", "))
        }
    };
    let shadow = match rules.mode {
        GateMode::Shadow if !held.is_empty() => " (shadow: nothing is really held back)",
        _ => "",
    };
    let since_ms = resource["state_age_ms"].as_u64();
    let since = for_so_long(since_ms);
    let each = shares
        .iter()
        .map(|(class, share)| (class.to_string(), (*share).into()));
    let message = format!("{name} is {state}{since}: {cause}; {kept}{shadow}");
    let details = json!({
        "resource": name,
        "state": state,
        "pressure": resource["pressure"],
        "signal": worst["name"],
        "shares": each.collect::<Map<String, Value>>(),
        "forced": resource["forced"],
        "instance": resource["instance"],
    });
    // As old as the sample was when it was told, and as long ago as that is.
    let told = fleet.age_of(&resource["instance"]).unwrap_or_default();
    let sampled = worst["age_ms"].as_u64().map(|ms| ms + told);
    let reason = Reason::new("gate", binds, message, details);
    let reason = reason.measured(worst["value"].clone(), limit, sampled);
    Some(
        reason
            .since(since_ms)
            .lifted_by(lift::lifts(name, resource, &rules.states)),
    )
}

/// Why a resource is in its state: an operator's order, or its worst signal.
fn cause(resource: &Value, worst: &Value, bound: GateState, limit: f64) -> String {
    let forced = &resource["forced"];
    let order = forced["order"].as_str().map(|order| {
        ordered(
            order,
            forced["by"].as_str().unwrap_or("-"),
            forced["until"].as_u64().unwrap_or_default(),
            forced["why"].as_str().unwrap_or_default(),
        )
    });
    // An order may also ask for less than what is measured anyway.
    let beside = match order {
        Some(order) if forced["measured"] != resource["state"] => return order,
        Some(order) => format!("; {order}"),
        None => String::new(),
    };
    let value = match &worst["value"] {
        Value::Null => "not measured".to_owned(),
        value => value.to_string(),
    };
    let signal = worst["name"].as_str().unwrap_or("-");
    let sampled = worst["age_ms"].as_u64();
    let sampled = sampled.map_or_else(String::new, |ms| format!(" {} ago", age(ms)));
    format!("{signal} is {value}{sampled}, {bound} from {limit:.3}{beside}")
}

/// Who ordered what, until when and why.
pub(super) fn ordered(order: &str, by: &str, until: u64, why: &str) -> String {
    let why = match why {
        "" => String::new(),
        why => format!(": {why}"),
    };
    format!("{by} ordered {order} until {}{why}", rfc3339(until))
}

/// What a state leaves to each class asked about.
fn shares(rules: &Rules, state: GateState, only: Option<Priority>) -> Vec<(Priority, f64)> {
    let classes = Priority::ALL.into_iter();
    let asked = classes.filter(|class| only.is_none_or(|o| o == *class));
    asked
        .map(|class| (class, rules.shares.of(class, state)))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::{Sources, load};

    /// Those of the default configuration, in this mode.
    fn rules(mode: GateMode) -> Rules {
        let config = load(&Sources::default()).unwrap();
        Rules {
            mode,
            ..Rules::from(&config.gate)
        }
    }

    fn fleet() -> Fleet {
        Fleet::of(
            json!({"v":1,"state":"overloaded","pressure":0.75,"resources":{
            "redis:main":{"state":"ok","pressure":0.1,"worst":null},
            "postgres:primary":{"state":"overloaded","pressure":0.75,"state_age_ms":125_000,
                "worst":{"name":"acquire_ms","value":190.5,"lo":10.0,"hi":250.0,"age_ms":300},
                "signals":[{"name":"acquire_ms","value":190.5,"lo":10.0,"hi":250.0,"pressure":0.75,
                    "worst_state":"critical","missing":false,"age_ms":300}]}}}),
        )
    }

    #[test]
    fn a_gate_names_signal_value_limit_age_and_what_lifts_it() {
        let one = ["postgres:primary"];
        let found = gates(&fleet(), &rules(GateMode::On), &one, Some(Priority::Bulk));
        let [redis, postgres] = &found[..] else {
            unreachable!("{found:?}")
        };
        assert_eq!((redis.binds, postgres.binds), (Binds::Not, Binds::Stops));
        assert_eq!(
            postgres.message,
            "postgres:primary is overloaded for 2m 5s: acquire_ms is 190.5 300ms ago, overloaded from 202.000; \
             of the slots bulk keeps 0%"
        );
        let told = postgres.to_json();
        assert_eq!(
            (&told["value"], &told["limit"]),
            (&json!(190.5), &json!(202.0))
        );
        assert_eq!(
            (&told["age_ms"], &told["since_ms"]),
            (&json!(300), &json!(125_000))
        );
        let lifts = json!(["overloaded is left after acquire_ms has stayed below 154.000"]);
        assert_eq!(told["lifted_by"], lifts);
        assert_eq!(postgres.details["shares"], json!({"bulk": 0.0}));
        let critical = gates(
            &fleet(),
            &rules(GateMode::On),
            &one,
            Some(Priority::Critical),
        );
        assert!(critical.iter().all(|gate| gate.binds == Binds::Not));
        let any = gates(&fleet(), &rules(GateMode::On), &one, None);
        assert_eq!(any[1].binds, Binds::Slows);
        let shadow = gates(
            &fleet(),
            &rules(GateMode::Shadow),
            &one,
            Some(Priority::Bulk),
        );
        assert!(shadow[1].binds == Binds::Not && shadow[1].message.contains("shadow"));
        assert!(gates(&fleet(), &rules(GateMode::Off), &one, None).is_empty());
        assert!(gates(&Fleet::default(), &rules(GateMode::On), &one, None).is_empty());
    }

    #[test]
    fn an_order_is_named_with_who_gave_it_and_why() {
        let fleet = Fleet::of(
            json!({"resources": {"db:x": {"state": "critical", "worst": null, "forced":
            {"order": "at-least critical", "measured": "ok", "until": 0, "by": "me@here", "why": "moving"}}}}),
        );
        let found = gates(&fleet, &rules(GateMode::On), &["db:x"], Some(Priority::Low));
        let wanted = "db:x is critical: me@here ordered at-least critical until 1970-01-01T00:00:00.000Z: moving; \
                      of the slots low keeps 0%";
        assert!(found[0].message.starts_with(wanted), "{}", found[0].message);

        let mut worse = fleet.health.clone().unwrap_or_default();
        worse["resources"]["db:x"]["forced"]["measured"] = "critical".into();
        let found = gates(&Fleet::of(worse), &rules(GateMode::On), &["db:x"], None);
        let message = &found[0].message;
        assert!(
            message.contains("not measured") && message.contains("; me@here ordered"),
            "{message}"
        );
    }
}
