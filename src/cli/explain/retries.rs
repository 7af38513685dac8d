//! What retry budgets and the reserve of the critical jobs hold back, as the daemons tell it.

use super::super::fleet::Fleet;
use super::reason::{Binds, Reason};
use crate::job::Priority;
use serde_json::{Value, json};
use std::sync::Arc;

/// The retry budgets of these resources.
pub(super) fn budgets(fleet: &Fleet, resources: &[Arc<str>]) -> Vec<Reason> {
    let ours = |b: &&Value| resources.iter().any(|r| b["resource"] == **r);
    let found = fleet.each("budgets").filter(ours);
    found.map(|entry| budget(fleet, entry)).collect()
}

fn budget(fleet: &Fleet, entry: &Value) -> Reason {
    let budget = &entry["budget"];
    let holds = budget["state"] == "holding";
    let resource = entry["resource"].as_str().unwrap_or("-");
    let percent = |name: &str| budget[name].as_f64().unwrap_or(0.0) * 100.0;
    let figures = format!(
        "retries are {:.0}% of its work and may be {:.0}%, now {:.1} a second",
        percent("share"),
        percent("limit"),
        budget["per_second"].as_f64().unwrap_or(0.0),
    );
    let (binds, message) = match holds {
        true => (
            Binds::Slows,
            format!("retries wait for the budget of {resource}: {figures}; new work goes first"),
        ),
        false => (
            Binds::Not,
            format!("the retry budget of {resource} has room: {figures}"),
        ),
    };
    let details = json!({"resource": resource, "budget": budget, "instance": entry["instance"]});
    Reason::new("retry_budget", binds, message, details)
        .measured(
            budget["share"].clone(),
            budget["limit"].clone(),
            fleet.age_of(&entry["instance"]),
        )
        .since(fleet.since(entry))
        .lifted_by(["new work, or time: some are let through all along".to_owned()])
}

/// Slots of daemons that long jobs leave to critical and short ones, as they concern a class; any, if none is given.
pub(super) fn reserves(fleet: &Fleet, class: Option<Priority>) -> Vec<Reason> {
    if class == Some(Priority::Critical) {
        return Vec::new();
    }
    fleet.pages.iter().filter_map(reserve).collect()
}

fn reserve(page: &Value) -> Option<Reason> {
    let reserve = &page["reserve"];
    let of = |name: &str| reserve[name].as_u64();
    let (slots, reserved, long) = (of("slots")?, of("reserved")?, of("long")?);
    if reserved == 0 {
        return None;
    }
    let most = slots.saturating_sub(reserved);
    let instance = page["instance"].as_str().unwrap_or("-");
    let message = format!(
        "in {instance} {long} long jobs run, and {reserved} of {slots} slots are kept for critical and short ones"
    );
    let details = json!({"instance": instance, "reserve": reserve});
    // Short jobs may have a slot all the same.
    let binds = if long >= most {
        Binds::Slows
    } else {
        Binds::Not
    };
    let reason = Reason::new("reserve", binds, message, details);
    let reason = reason.measured(long, most, page["age_ms"].as_u64());
    Some(reason.lifted_by(["one of the long jobs ends".to_owned()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_that_holds_is_told_apart_from_one_with_room() {
        let budget = |resource: &str, state: &str| {
            json!({"resource": resource,
                "since": 1_000,
                "budget": {"state": state, "share": 0.31, "limit": 0.2, "per_second": 7.25}})
        };
        let all = [budget("http:app", "holding"), budget("redis:main", "free")];
        let mut fleet = Fleet::of(json!({"budgets": all}));
        fleet.now_ms = 5_000;
        let found = budgets(&fleet, &["http:app".into(), "redis:main".into()]);
        let binds: Vec<Binds> = found.iter().map(|reason| reason.binds).collect();
        assert_eq!(binds, [Binds::Slows, Binds::Not]);
        let message = &found[0].message;
        assert!(
            message.contains(
                "budget of http:app: retries are 31% of its work and may be 20%, now 7.2 a second"
            ),
            "{message}"
        );
        let json = found[0].to_json();
        assert_eq!(
            (&json["value"], &json["limit"]),
            (&json!(0.31), &json!(0.2))
        );
        assert_eq!(json["since_ms"], 4_000);
        assert!(budgets(&fleet, &["other:thing".into()]).is_empty());
    }

    #[test]
    fn a_full_reserve_is_told_to_whom_it_is_not_for() {
        let page = |long: u64| json!({"instance": "web1", "reserve": {"slots": 10, "reserved": 2, "long": long}});
        let fleet = Fleet {
            pages: vec![page(8), page(7), json!({})],
            ..Fleet::default()
        };
        let found = reserves(&fleet, Some(Priority::High));
        let binds: Vec<Binds> = found.iter().map(|reason| reason.binds).collect();
        assert_eq!(binds, [Binds::Slows, Binds::Not]);
        let message = &found[0].message;
        assert!(
            message.starts_with("in web1 8 long jobs run, and 2 of 10 slots are kept"),
            "{message}"
        );
        assert!(reserves(&fleet, Some(Priority::Critical)).is_empty());
    }
}
