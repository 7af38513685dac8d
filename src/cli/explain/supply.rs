//! What there is to use besides limits: connections of the Postgres pool, and slots that the forecast adds.

use super::super::fleet::Fleet;
use super::super::output::age;
use super::reason::{Binds, Reason};
use crate::handlers::uses_pool;
use serde_json::{Value, json};
use std::sync::Arc;

/// The connections that jobs of a handler share, if they do.
pub(super) fn pool(fleet: &Fleet, handler: &str, resources: &[Arc<str>]) -> Option<Reason> {
    let shares = resources.iter().any(|r| uses_pool(handler, r));
    shares.then(|| of_pages(fleet)).flatten()
}

/// The connections of all daemons; none if nobody tells of any.
fn of_pages(fleet: &Fleet) -> Option<Reason> {
    let pools: Vec<&Value> = fleet.pages.iter().map(|page| &page["pool"]).collect();
    let sum = |field: &str| pools.iter().filter_map(|pool| pool[field].as_u64()).sum();
    let [busy, max, open]: [u64; 3] = ["busy", "max", "open"].map(sum);
    let message = format!("{busy} of {max} connections of the Postgres pool are in use");
    // Who finds none free waits for one, and is not stopped.
    let binds = if busy >= max {
        Binds::Slows
    } else {
        Binds::Not
    };
    let details = json!({"open": open});
    let reason = Reason::new("pool", binds, message, details);
    let reason = reason.measured(busy, max, fleet.oldest_page());
    let lifts = [
        "one is given back",
        "more of them: [database] max_connections",
    ];
    (max > 0).then(|| reason.lifted_by(lifts.map(str::to_owned)))
}

/// Slots that the forecast adds to those that are configured, or would.
pub(super) fn forecasts(fleet: &Fleet) -> Vec<Reason> {
    fleet
        .pages
        .iter()
        .filter_map(|page| forecast(page, fleet.now_ms))
        .collect()
}

fn forecast(page: &Value, now_ms: u64) -> Option<Reason> {
    let (mode, slots) = (&page["forecast"]["mode"], &page["forecast"]["slots"]);
    let of = |field: &str| slots[field].as_u64();
    let (base, most, now) = (of("base")?, of("max")?, of("now")?);
    let wanted = of("wanted").unwrap_or_default();
    // Without leave to raise any it is no limit.
    if most <= base {
        return None;
    }
    let instance = page["instance"].as_str().unwrap_or("-");
    let would = if mode == "on" {
        "has"
    } else {
        "would have (mode shadow)"
    };
    let mut message = format!(
        "by the forecast {instance} {would} {now} slots: {base} are configured, {wanted} wanted, {most} allowed"
    );
    let since = slots["last"]["at"].as_u64();
    let since_ms = since.map(|at| now_ms.saturating_sub(at));
    if let (Some(why), Some(ms)) = (slots["last"]["why"].as_str(), since_ms) {
        message.push_str(&format!("; last change {} ago: {why}", age(ms)));
    }
    let unwell = slots["unwell"].as_str();
    let held = unwell.filter(|_| mode == "on" && wanted > now);
    let binds = if held.is_some() {
        Binds::Slows
    } else {
        Binds::Not
    };
    let lifts =
        held.map(|unwell| format!("{unwell} is well for a while: until then none is raised"));
    let details = json!({"instance": instance, "mode": mode, "configured": base, "wanted": wanted, "unwell": unwell});
    let reason = Reason::new("forecast", binds, message, details);
    let reason = reason.measured(now, most, page["age_ms"].as_u64());
    Some(reason.since(since_ms).lifted_by(lifts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_added_up_over_the_daemons() {
        let page = |busy: u64| json!({"age_ms": 40, "pool": {"max": 10, "open": 10, "busy": busy}});
        let of = |pages: Vec<Value>| Fleet {
            pages,
            ..Fleet::default()
        };
        let resources: [Arc<str>; 1] = ["postgres:primary".into()];
        let told = |busy| pool(&of(vec![page(10), page(busy)]), "db.purge", &resources);
        let full = told(10).map(|reason| (reason.binds, reason.to_json()));
        let Some((Binds::Slows, json)) = full else {
            unreachable!("{full:?}")
        };
        let numbers = [&json["value"], &json["limit"], &json["age_ms"]];
        assert_eq!(numbers, [&json!(20), &json!(20), &json!(40)]);
        assert_eq!(told(3).map(|reason| reason.binds), Some(Binds::Not));
        assert!(pool(&of(vec![page(1)]), "http", &resources).is_none());
        assert!(pool(&of(vec![json!({})]), "db.purge", &resources).is_none());
    }

    #[test]
    fn slots_that_the_forecast_raised_or_may_not_raise_are_told() {
        let page = |now: u64, unwell: Value| {
            json!({"instance": "web1", "forecast": {"mode": "on", "slots": {"base": 8, "max": 16, "wanted": 13,
                "now": now, "unwell": unwell, "last": {"why": "more load is forecast", "at": 1_000}}}})
        };
        let raised = forecast(&page(13, Value::Null), 61_000).map(|r| (r.binds, r.message));
        let wanted = "by the forecast web1 has 13 slots: 8 are configured, 13 wanted, 16 allowed; last change 1m ago: \
                      more load is forecast";
        assert_eq!(raised, Some((Binds::Not, wanted.to_owned())));
        let held = forecast(&page(8, json!("host (elevated)")), 61_000);
        let held = held.map(|r| (r.binds, r.to_json()["lifted_by"][0].clone()));
        let lift = json!("host (elevated) is well for a while: until then none is raised");
        assert_eq!(held, Some((Binds::Slows, lift)));
        let mut none = page(8, Value::Null);
        none["forecast"]["slots"]["max"] = 8.into();
        assert!(forecast(&none, 61_000).is_none());
    }
}
