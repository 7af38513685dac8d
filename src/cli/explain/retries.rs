//! What retry budgets and the reserve of the critical jobs hold back, as the daemons tell it.

use super::super::fleet::Fleet;
use super::reason::{Binds, Reason};
use crate::job::Priority;
use serde_json::{Value, json};
use std::sync::Arc;

/// Retry budgets of these resources that make retries wait.
pub(super) fn budgets(fleet: &Fleet, resources: &[Arc<str>]) -> Vec<Reason> {
    let ours = |b: &&Value| resources.iter().any(|r| b["resource"] == **r);
    fleet
        .each("budgets")
        .filter(ours)
        .filter_map(budget)
        .collect()
}

fn budget(entry: &Value) -> Option<Reason> {
    let budget = &entry["budget"];
    if budget["state"] != "holding" {
        return None;
    }
    let resource = entry["resource"].as_str().unwrap_or("-");
    let percent = |name: &str| budget[name].as_f64().unwrap_or(0.0) * 100.0;
    let message = format!(
        "it waits for the retry budget of {resource}: retries are {:.0}% of its work and may be {:.0}%, now {:.1} a second; new \
         work goes first",
        percent("share"),
        percent("limit"),
        budget["per_second"].as_f64().unwrap_or(0.0),
    );
    let details = json!({"resource": resource, "budget": budget});
    Some(Reason::new("retry_budget", Binds::Slows, message, details))
}

/// Daemons whose slots are used by long jobs, but for those that are kept for critical ones.
pub(super) fn reserves(fleet: &Fleet, class: Priority) -> Vec<Reason> {
    if class == Priority::Critical {
        return Vec::new();
    }
    fleet.pages.iter().filter_map(reserve).collect()
}

fn reserve(page: &Value) -> Option<Reason> {
    let reserve = &page["reserve"];
    let of = |name: &str| reserve[name].as_u64();
    let (slots, reserved, long) = (of("slots")?, of("reserved")?, of("long")?);
    let instance = page["instance"].as_str().unwrap_or("-");
    let full = reserved > 0 && long + reserved >= slots;
    let message = format!(
        "in {instance} {long} long jobs run, and the other {reserved} of {slots} slots are kept for critical and short ones"
    );
    let details = json!({"instance": instance, "reserve": reserve});
    full.then(|| Reason::new("reserve", Binds::Slows, message, details))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_budgets_that_hold_are_told() {
        let budget = |resource: &str, state: &str| {
            json!({"resource": resource,
                "budget": {"state": state, "share": 0.31, "limit": 0.2, "per_second": 7.25}})
        };
        let all = [budget("http:app", "holding"), budget("redis:main", "free")];
        let fleet = Fleet::of(json!({"budgets": all}));
        let found = budgets(&fleet, &["http:app".into(), "redis:main".into()]);
        assert_eq!(found.len(), 1);
        let message = &found[0].message;
        assert!(
            message.contains(
                "budget of http:app: retries are 31% of its work and may be 20%, now 7.2 a second"
            ),
            "{message}"
        );
        assert!(budgets(&fleet, &["redis:main".into()]).is_empty());
    }

    #[test]
    fn a_full_reserve_is_told_to_whom_it_is_not_for() {
        let page = |long: u64| json!({"instance": "web1", "reserve": {"slots": 10, "reserved": 2, "long": long}});
        let fleet = Fleet {
            pages: vec![page(8), page(7), json!({})],
            ..Fleet::default()
        };
        let found = reserves(&fleet, Priority::High);
        assert_eq!(found.len(), 1);
        let message = &found[0].message;
        assert!(
            message.starts_with("in web1 8 long jobs run, and the other 2 of 10 slots"),
            "{message}"
        );
        assert!(reserves(&fleet, Priority::Critical).is_empty());
    }
}
