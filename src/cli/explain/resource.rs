//! How a resource fares: its state, every signal with its limits, what would lift it, and its last hour.

use super::super::output::{age, table};
use super::super::store::Store;
use super::super::{CliError, Report};
use super::gate::Health;
use crate::policy::gate::GateState;
use crate::queue::board;
use serde_json::Value;

/// Entries of the history that one column of the picture stands for: a minute.
const PER_COLUMN: usize = 6;
/// How bad a minute was, in the picture.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Whether `target` is a resource: one that is probed, or a name that no queue or job can have.
pub(super) fn is_one(target: &str, health: &Health) -> bool {
    target.contains(':') || of(health, target).is_some()
}

fn of<'a>(health: &'a Health, name: &str) -> Option<&'a Value> {
    health.published().as_ref()?.get("resources")?.get(name)
}

/// Explains one resource.
///
/// # Errors
/// No daemon told of health lately, none probes this resource, or Redis failed.
pub(super) async fn explain(
    store: &Store,
    name: &str,
    health: &Health,
) -> Result<Report, CliError> {
    let Some(resource) = of(health, name) else {
        return Err(CliError::NotFound(unknown(health, name)));
    };
    let key = board::history_key(&store.config.redis.prefix);
    let published = board::read(&store.conn, &key).await?;
    let history: Option<Value> = published.and_then(|text| serde_json::from_str(&text).ok());
    let history = history.map_or(Value::Null, |mut all| all["resources"][name].take());
    let lifts = lifts(resource);
    let mut text = headline(name, resource);
    text.push_str(&signals(resource));
    for lift in &lifts {
        text.push_str(&format!("  - {lift}\n"));
    }
    text.push_str(&hour(resource, &history));
    let mut json = resource.clone();
    json["resource"] = name.into();
    json["lifted_by"] = lifts.into();
    json["history"] = history;
    Ok(Report::new(json, text))
}

fn unknown(health: &Health, name: &str) -> String {
    let Some(published) = health.published() else {
        return format!("no daemon told of health lately, so nothing is known of {name}");
    };
    let probed = published["resources"].as_object();
    let names: Vec<&str> = probed
        .into_iter()
        .flatten()
        .map(|(name, _)| name.as_str())
        .collect();
    format!("{name} is not probed; probed are: {}", names.join(", "))
}

fn state_of(resource: &Value) -> GateState {
    serde_json::from_value(resource["state"].clone()).unwrap_or_default()
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

fn each(resource: &Value) -> impl Iterator<Item = &Value> {
    resource["signals"].as_array().into_iter().flatten()
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
    let rows: Vec<Vec<String>> = each(resource).map(row).collect();
    let head = [
        "signal", "value", "from", "to", "pressure", "at worst", "sampled",
    ];
    table(&head, &rows)
}

/// What has to come about before the state can be left, signal by signal.
fn lifts(resource: &Value) -> Vec<String> {
    let state = state_of(resource);
    if state == GateState::Ok {
        return Vec::new();
    }
    let keeps = |signal: &&Value| {
        let cap: GateState =
            serde_json::from_value(signal["worst_state"].clone()).unwrap_or_default();
        let bad = signal["pressure"]
            .as_f64()
            .is_some_and(|p| p > state.left_at());
        signal["missing"] == true || cap >= state && bad
    };
    let lift = |signal: &Value| {
        let name = signal["name"].as_str().unwrap_or("-");
        if signal["missing"] == true {
            return format!("{state} is left after {name} is measured again");
        }
        let [lo, hi] = ["lo", "hi"].map(|limit| signal[limit].as_f64().unwrap_or_default());
        let exit = lo + state.left_at() * (hi - lo);
        if lo == hi {
            return format!("{state} is left after {name} has ended");
        }
        let side = if lo < hi { "below" } else { "above" };
        format!("{state} is left after {name} has stayed {side} {exit:.3}")
    };
    let found: Vec<String> = each(resource).filter(keeps).map(lift).collect();
    match found.is_empty() {
        true => vec![format!(
            "{state} is left once its hold is over: nothing keeps it up any more"
        )],
        false => found,
    }
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
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::GateMode;
    use serde_json::json;

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
    fn what_keeps_a_state_up_is_named_with_its_exit() {
        assert_eq!(
            lifts(&resource()),
            ["overloaded is left after rtt_ms has stayed below 17.000"]
        );
        let mut lost = resource();
        lost["signals"][2]["missing"] = true.into();
        let found = lifts(&lost);
        assert_eq!(found.len(), 2);
        assert!(found[1].contains("calm is measured again"), "{found:?}");
        let mut calm = resource();
        calm["signals"][0]["pressure"] = 0.2.into();
        assert!(lifts(&calm)[0].contains("once its hold is over"));
        calm["state"] = "ok".into();
        assert!(lifts(&calm).is_empty());
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
        let published = r#"{"resources":{"host":{"state":"ok"}}}"#;
        let health = Health::read(Some(published), GateMode::On);
        assert!(is_one("host", &health) && is_one("redis:other", &health));
        assert!(!is_one("mail-7", &health));
        let message = unknown(&health, "redis:other");
        assert!(message.contains("redis:other is not probed") && message.contains("host"));
    }
}
