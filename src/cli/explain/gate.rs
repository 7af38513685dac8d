//! Health as the daemons published it, read as reasons.

use super::super::output::age;
use super::Reason;
use crate::config::GateMode;
use crate::health::{MEMORY, QUEUE_REDIS};
use crate::job::Priority;
use crate::policy::gate::{GateState, share};
use serde_json::{Value, json};
use std::sync::Arc;

/// What was published; none if no daemon did so lately.
pub(super) struct Health {
    json: Option<Value>,
    mode: GateMode,
}

impl Health {
    /// Reads the published text.
    pub(super) fn read(text: Option<&str>, mode: GateMode) -> Self {
        let json = text.and_then(|text| serde_json::from_str(text).ok());
        Self { json, mode }
    }

    /// What was published, as it is.
    pub(super) const fn published(&self) -> &Option<Value> {
        &self.json
    }

    /// Resources under pressure that hold back jobs of `class` (of any, if none is given) which declare `resources`.
    pub(super) fn gates(&self, resources: &[&str], class: Option<Priority>) -> Vec<Reason> {
        if self.mode == GateMode::Off {
            return Vec::new();
        }
        let gating = [QUEUE_REDIS, MEMORY]
            .into_iter()
            .chain(resources.iter().copied());
        gating.filter_map(|name| self.gate(name, class)).collect()
    }

    fn gate(&self, name: &str, class: Option<Priority>) -> Option<Reason> {
        let resource = self.json.as_ref()?.get("resources")?.get(name)?;
        let state: GateState = serde_json::from_value(resource["state"].clone()).ok()?;
        let shares = shares(state, class);
        if shares.is_empty() {
            return None;
        }
        let worst = &resource["worst"];
        let lo = worst["lo"].as_f64().unwrap_or(0.0);
        let limit = lo + state.entered_at() * (worst["hi"].as_f64().unwrap_or(lo) - lo);
        let value = match &worst["value"] {
            Value::Null => "not measured".to_owned(),
            value => value.to_string(),
        };
        let kept: Vec<String> = shares
            .iter()
            .map(|(class, share)| format!("{class} keeps {:.0}%", share * 100.0))
            .collect();
        let signal = worst["name"].as_str().unwrap_or("-");
        let shadow = match self.mode {
            GateMode::Shadow => " (shadow: nothing is really held back)",
            _ => "",
        };
        Some(Reason {
            code: "gate",
            message: format!(
                "{name} is {state}: {signal} is {value}, {state} from {limit:.3}; of the slots {}{shadow}",
                kept.join(", ")
            ),
            details: json!({
                "resource": name,
                "state": state,
                "signal": worst["name"],
                "value": worst["value"],
                "limit": limit,
            }),
        })
    }

    /// The slots that are kept for critical jobs, if long ones of other classes use all others.
    pub(super) fn reserve(&self, class: Priority) -> Option<Reason> {
        let reserve = self.json.as_ref()?.get("reserve")?;
        let of = |name: &str| reserve[name].as_u64();
        let (slots, reserved, long) = (of("slots")?, of("reserved")?, of("long")?);
        let full = reserved > 0 && long + reserved >= slots;
        (full && class != Priority::Critical).then(|| Reason {
            code: "reserve",
            message: format!(
                "{long} long jobs run, and the other {reserved} of {slots} slots are kept for critical and short ones"
            ),
            details: json!({"reserve": reserve}),
        })
    }

    /// Retry budgets of these resources that make retries wait.
    pub(super) fn budgets(&self, resources: &[Arc<str>]) -> Vec<Reason> {
        let all = self
            .json
            .as_ref()
            .and_then(|json| json["budgets"].as_array());
        let ours = |b: &&Value| resources.iter().any(|r| b["resource"] == **r);
        let budgets = all.into_iter().flatten().filter(ours);
        budgets.filter_map(budget).collect()
    }

    /// Breakers and limiters of a handler on its resources that do not let everything through.
    pub(super) fn operations(&self, handler: &str, resources: &[Arc<str>]) -> Vec<Reason> {
        let all = |list: &str| {
            let json = self.json.as_ref();
            json.and_then(|json| json[list].as_array())
                .into_iter()
                .flatten()
        };
        let ours = |of: &&Value| {
            of["handler"] == handler && resources.iter().any(|r| of["resource"] == **r)
        };
        let breakers = all("breakers").filter(ours).filter_map(breaker);
        let limiters = all("limiters").filter(ours).filter_map(limiter);
        breakers.chain(limiters).collect()
    }
}

fn limiter(entry: &Value) -> Option<Reason> {
    let limit = entry["limit"].as_u64()?;
    let limiter = &entry["limiter"];
    let full = limiter["inflight"].as_u64()? >= limit;
    if entry["mode"] != "on" || entry["by"] != "limiter" || !full {
        return None;
    }
    let (handler, resource) = (entry["handler"].as_str()?, entry["resource"].as_str()?);
    let why = limiter["reason"].as_str().unwrap_or("nothing known yet");
    let anchor = limiter["anchor_ms"].as_f64();
    let anchor = anchor.map_or_else(String::new, |ms| {
        format!("; undisturbed a job takes {ms:.1} ms")
    });
    Some(Reason {
        code: "limiter",
        message: format!(
            "{handler} on {resource} runs {limit} jobs at once, all that its limiter lets ({why}){anchor}"
        ),
        details: entry.clone(),
    })
}

fn breaker(entry: &Value) -> Option<Reason> {
    let breaker = &entry["breaker"];
    let state = breaker["state"]
        .as_str()
        .filter(|state| *state != "closed")?;
    let handler = entry["handler"].as_str().unwrap_or("-");
    let resource = entry["resource"].as_str().unwrap_or("-");
    let next = breaker["retry_in_ms"]
        .as_u64()
        .map_or_else(String::new, |ms| format!(", next trial in {}", age(ms)));
    Some(Reason {
        code: "breaker",
        message: format!("the breaker of {handler} on {resource} is {state}{next}"),
        details: json!({"handler": handler, "resource": resource, "breaker": breaker}),
    })
}

fn budget(entry: &Value) -> Option<Reason> {
    let budget = &entry["budget"];
    if budget["state"] != "holding" {
        return None;
    }
    let resource = entry["resource"].as_str().unwrap_or("-");
    let percent = |name: &str| budget[name].as_f64().unwrap_or(0.0) * 100.0;
    Some(Reason {
        code: "retry_budget",
        message: format!(
            "the retry budget of {resource} is used up: retries are {:.0}% of its work and may be {:.0}%, now {:.1} a \
             second; the others wait, and new work goes first",
            percent("share"),
            percent("limit"),
            budget["per_second"].as_f64().unwrap_or(0.0),
        ),
        details: json!({"resource": resource, "budget": budget}),
    })
}

/// The classes that a state leaves less than all slots, with what it leaves them.
fn shares(state: GateState, only: Option<Priority>) -> Vec<(Priority, f64)> {
    let classes = Priority::ALL.into_iter();
    let asked = classes.filter(|class| only.is_none_or(|o| o == *class));
    asked
        .map(|class| (class, share(class, state)))
        .filter(|(_, share)| *share < 1.0)
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PUBLISHED: &str = r#"{"v":1,"state":"overloaded","pressure":0.75,"resources":{
        "redis:main":{"state":"ok","pressure":0.1,"worst":null},
        "postgres:primary":{"state":"overloaded","pressure":0.75,
            "worst":{"name":"acquire_ms","value":190.5,"lo":10.0,"hi":250.0}}},
        "breakers":[
            {"handler":"http","resource":"http:app","breaker":{"state":"open","retry_in_ms":4200}},
            {"handler":"exec","resource":"http:app","breaker":{"state":"closed"}}],
        "reserve":{"slots":10,"reserved":2,"long":8},
        "budgets":[
            {"resource":"http:app","budget":{"state":"holding","share":0.31,"limit":0.2,"per_second":7.25}},
            {"resource":"redis:main","budget":{"state":"free","share":0.1,"limit":0.2,"per_second":5.0}}]}"#;

    #[test]
    fn a_gate_names_signal_value_and_limit() {
        let health = Health::read(Some(PUBLISHED), GateMode::On);
        let found = health.gates(&["postgres:primary"], Some(Priority::Bulk));
        assert_eq!(found.len(), 1);
        let message = &found[0].message;
        assert!(message.contains("acquire_ms is 190.5"), "{message}");
        assert!(message.contains("bulk keeps 0%"), "{message}");
        assert_eq!(
            found[0].details["limit"],
            10.0 + GateState::Overloaded.entered_at() * 240.0
        );
        assert!(
            health
                .gates(&["postgres:primary"], Some(Priority::Critical))
                .is_empty()
        );
        assert!(health.gates(&[], None).is_empty());
    }

    #[test]
    fn only_breakers_that_hold_back_are_told() {
        let health = Health::read(Some(PUBLISHED), GateMode::On);
        let resources: Vec<Arc<str>> = vec!["http:app".into()];
        let found = health.operations("http", &resources);
        assert_eq!(found.len(), 1);
        assert!(
            found[0].message.ends_with("is open, next trial in 4s"),
            "{}",
            found[0].message
        );
        assert!(health.operations("exec", &resources).is_empty());
        assert!(health.operations("http", &[]).is_empty());
    }

    #[test]
    fn a_full_reserve_is_told_to_whom_it_is_not_for() {
        let health = Health::read(Some(PUBLISHED), GateMode::On);
        let found = health.reserve(Priority::High).unwrap();
        assert!(
            found
                .message
                .starts_with("8 long jobs run, and the other 2 of 10 slots"),
            "{}",
            found.message
        );
        assert!(health.reserve(Priority::Critical).is_none());
        let other = PUBLISHED.replace("\"long\":8", "\"long\":7");
        assert!(
            Health::read(Some(&other), GateMode::On)
                .reserve(Priority::Bulk)
                .is_none()
        );
    }

    #[test]
    fn only_budgets_that_hold_are_told() {
        let health = Health::read(Some(PUBLISHED), GateMode::On);
        let found = health.budgets(&["http:app".into(), "redis:main".into()]);
        assert_eq!(found.len(), 1);
        let message = &found[0].message;
        assert!(
            message.contains("budget of http:app is used up"),
            "{message}"
        );
        assert!(
            message.contains("31% of its work and may be 20%, now 7.2 a second"),
            "{message}"
        );
    }

    #[test]
    fn what_is_not_json_is_no_health() {
        let health = Health::read(Some("{"), GateMode::On);
        assert!(health.published().is_none() && health.gates(&["x:y"], None).is_empty());
    }
}
