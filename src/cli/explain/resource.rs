//! How a resource fares: its state, every signal with its limits, what would lift it, its last hour, and what else limits
//! what is done to it.

use super::super::fleet::Fleet;
use super::super::output::{age, table};
use super::super::store::Store;
use super::super::{CliError, Report};
use super::gate::gate;
use super::lift::{self, lifts, state_of};
use super::operation::operations;
use super::reason::{Reason, Reasons};
use super::retries::budgets;
use super::supply;
use crate::job::Priority;
use crate::policy::gate::Rules;
use crate::queue::board;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Entries of the history that one column of the picture stands for: a minute.
const PER_COLUMN: usize = 6;
/// How bad a minute was, in the picture.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Whether `target` is a resource: one that is probed, or a name that no queue or job can have.
pub(super) fn is_one(target: &str, fleet: &Fleet) -> bool {
    target.contains(':') || fleet.resource(target).is_some()
}

/// Explains one resource.
///
/// # Errors
/// Neither definitions nor daemons know it, or Redis failed.
pub(super) async fn explain(store: &Store, name: &str, fleet: &Fleet) -> Result<Report, CliError> {
    let kinds: Vec<&str> = store
        .catalog
        .iter()
        .filter(|spec| spec.resources.iter().any(|r| **r == *name))
        .map(|spec| &*spec.kind)
        .collect();
    let limits = limits(store, fleet, name);
    let Some(resource) = fleet.resource(name) else {
        if kinds.is_empty() && limits.is_empty() {
            return Err(CliError::NotFound(unknown(fleet, name)));
        }
        return Ok(unprobed(name, &kinds, limits));
    };
    let key = board::history_key(&store.config.redis.prefix);
    let published = board::read(&store.conn, &key).await?;
    let history: Option<Value> = published.and_then(|text| serde_json::from_str(&text).ok());
    let history = history.map_or(Value::Null, |mut all| all["resources"][name].take());
    let rules = fleet.rules(store);
    let lifts = lifts(name, resource, &rules.states);
    let mut text = headline(name, resource);
    text.push_str(&signals(resource));
    for lift in &lifts {
        text.push_str(&format!("  - {lift}\n"));
    }
    text.push_str(&hour(resource, &history));
    text.push_str(&limits_text(&limits));
    let mut json = resource.clone();
    json["shares"] = Value::Object(shares(resource, &rules));
    json["operations"] = of_operations(fleet, name).cloned().collect();
    json["order"] = json!(fleet.orders.of_resource(name));
    json["resource"] = name.into();
    json["probed"] = true.into();
    json["kinds"] = json!(kinds);
    json["lifted_by"] = lifts.into();
    json["history"] = history;
    let gate = gate(fleet, &rules, name, None);
    let all: Reasons = gate.into_iter().chain(limits).collect();
    all.write(&mut json);
    Ok(Report::new(json, text))
}

/// One that nobody measures: what limits its operations is all there is.
fn unprobed(name: &str, kinds: &[&str], limits: Vec<Reason>) -> Report {
    let mut json = json!({"resource": name, "probed": false, "kinds": kinds});
    let mut text = format!("resource {name}: nobody probes it, so health holds nothing back\n");
    text.push_str(&limits_text(&limits));
    let all: Reasons = limits.into_iter().collect();
    all.write(&mut json);
    Report::new(json, text)
}

/// The limits of what is done to a resource: breakers and limiters of its operations, its retry budget, its connections.
fn limits(store: &Store, fleet: &Fleet, name: &str) -> Vec<Reason> {
    let own: [Arc<str>; 1] = [name.into()];
    let entries = fleet.each("breakers").chain(fleet.each("limiters"));
    let on_it = entries.filter(|entry| entry["resource"] == name);
    let handlers: BTreeSet<&str> = on_it.filter_map(|e| e["handler"].as_str()).collect();
    let each = handlers.iter();
    let operations = each.flat_map(|of| operations(fleet, &store.config.breaker, of, &own));
    let pool = handlers.iter().find_map(|of| supply::pool(fleet, of, &own));
    operations.chain(budgets(fleet, &own)).chain(pool).collect()
}

fn limits_text(limits: &[Reason]) -> String {
    let lines = limits.iter().map(Reason::line);
    lines.collect()
}

fn unknown(fleet: &Fleet, name: &str) -> String {
    if fleet.health.is_none() {
        return format!("no daemon told of health lately, so nothing is known of {name}");
    }
    let names: Vec<&str> = fleet.resources().map(|(name, _)| name).collect();
    format!(
        "{name} is not probed, and no definition names it; probed are: {}",
        names.join(", ")
    )
}

/// What its state leaves to each class.
fn shares(resource: &Value, rules: &Rules) -> Map<String, Value> {
    let state = state_of(resource);
    let each = Priority::ALL.into_iter();
    each.map(|class| (class.to_string(), rules.shares.of(class, state).into()))
        .collect()
}

/// The breakers on it, as they were told.
fn of_operations<'a>(fleet: &'a Fleet, name: &str) -> impl Iterator<Item = &'a Value> {
    fleet
        .each("breakers")
        .filter(move |entry| entry["resource"] == name)
}

fn headline(name: &str, resource: &Value) -> String {
    let since = age(resource["state_age_ms"].as_u64().unwrap_or_default());
    let worst = resource["worst"]["name"].as_str().unwrap_or("-");
    format!(
        "resource {name}: {} for {since}, pressure {}; the worst signal is {worst}\n",
        state_of(resource),
        resource["pressure"]
    )
}

fn signals(resource: &Value) -> String {
    let row = |signal: &Value| {
        let sampled = age(signal["age_ms"].as_u64().unwrap_or_default());
        let value = match &signal["value"] {
            Value::Null => "not measured".to_owned(),
            value => value.to_string(),
        };
        let text = |field: &str| signal[field].as_str().unwrap_or("-").to_owned();
        vec![
            text("name"),
            value,
            signal["lo"].to_string(),
            signal["hi"].to_string(),
            signal["pressure"].to_string(),
            text("worst_state"),
            format!("{sampled} ago"),
        ]
    };
    let rows: Vec<Vec<String>> = lift::signals(resource).map(row).collect();
    let head = [
        "signal", "value", "from", "to", "pressure", "at worst", "sampled",
    ];
    table(&head, &rows)
}

fn hour(resource: &Value, history: &Value) -> String {
    let peak = &resource["hour"];
    let mut text = String::new();
    if let (Some(state), Some(ago)) = (peak["state"].as_str(), peak["ago_ms"].as_u64()) {
        let (ago, pressure) = (age(ago), &peak["pressure"]);
        text = format!("worst of the last hour: {state}, pressure {pressure}, {ago} ago\n");
    }
    let percents = history["pressure"].as_array();
    let percents: Vec<u64> = percents
        .into_iter()
        .flatten()
        .filter_map(Value::as_u64)
        .collect();
    if !percents.is_empty() {
        text.push_str(&format!(
            "  {}  a minute each, now at the right\n",
            picture(&percents)
        ));
    }
    text
}

/// The worst of each minute; the newest is whole, the oldest may be cut.
fn picture(percents: &[u64]) -> String {
    let minutes = percents.rchunks(PER_COLUMN).rev();
    let worst = minutes.map(|minute| minute.iter().copied().max().unwrap_or_default());
    let bar = |percent: u64| {
        let at = usize::try_from(percent * 7 / 100).unwrap_or_default();
        BARS[at.min(BARS.len() - 1)]
    };
    worst.map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal(name: &str, pressure: f64, cap: &str, missing: bool) -> Value {
        json!({"name": name, "value": 12.5, "lo": 5.0, "hi": 25.0, "worst_state": cap, "pressure": pressure,
            "missing": missing, "age_ms": 900})
    }

    fn resource() -> Value {
        json!({
            "state": "overloaded", "state_age_ms": 65_000, "pressure": 0.7,
            "worst": {"name": "rtt_ms"},
            "hour": {"state": "critical", "pressure": 1.0, "ago_ms": 600_000},
            "signals": [
                signal("rtt_ms", 0.7, "critical", false),
                signal("fork_percent", 0.9, "elevated", false),
                signal("calm", 0.1, "critical", false),
            ],
        })
    }

    #[test]
    fn every_signal_and_the_hour_are_shown() {
        let text = headline("redis:main", &resource()) + &signals(&resource());
        for part in [
            "overloaded for 1m",
            "rtt_ms",
            "fork_percent",
            "12.5",
            "elevated",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let history = json!({"pressure": [0, 0, 100, 0, 0, 0, 0, 0]});
        let text = hour(&resource(), &history);
        assert!(text.contains("critical") && text.contains("▁█"), "{text}");
        assert_eq!(hour(&json!({}), &Value::Null), "");
    }

    #[test]
    fn a_name_with_a_colon_is_a_resource_whether_it_is_probed_or_not() {
        let fleet = Fleet::of(json!({"resources": {"host": {"state": "ok"}}}));
        assert!(is_one("host", &fleet) && is_one("redis:other", &fleet));
        assert!(!is_one("mail-7", &fleet));
        let message = unknown(&fleet, "redis:other");
        assert!(message.contains("redis:other is not probed") && message.contains("host"));
    }
}
