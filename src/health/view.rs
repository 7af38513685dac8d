//! What is published: every resource at one moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{History, MEMORY, QUEUE_REDIS, ResourceView, STEP_MS, SignalView};
use crate::policy::gate::GateState;

/// All resources at one moment. The default one knows of none, and so finds all of them well.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HealthView {
    /// When it was made, milliseconds since the epoch.
    pub at_ms: u64,
    /// The resources that are probed, by name.
    pub resources: BTreeMap<String, ResourceView>,
    /// The last hour of each, by name.
    pub histories: Arc<BTreeMap<String, History>>,
}

impl HealthView {
    /// The state that gates a job which declares `resources`, and its badness: the worst of these, the queue's Redis
    /// and memory.
    ///
    /// A resource nobody probes counts as `ok`: that of an `http` handler is guarded by its breaker alone.
    pub fn state_of<R: AsRef<str>>(&self, resources: &[R]) -> (GateState, f64) {
        self.worst_for(resources)
            .map_or((GateState::Ok, 0.0), |(_, view)| (view.state, view.badness))
    }

    /// The resource [`HealthView::state_of`] goes by, with its name; none if none of them is probed.
    pub fn worst_for<R: AsRef<str>>(&self, resources: &[R]) -> Option<(&str, &ResourceView)> {
        let always = [QUEUE_REDIS, MEMORY];
        worst(
            always
                .into_iter()
                .chain(resources.iter().map(AsRef::as_ref))
                .filter_map(|name| self.resources.get_key_value(name)),
        )
    }

    /// The worst resource of all, with its name.
    pub fn worst(&self) -> Option<(&str, &ResourceView)> {
        worst(self.resources.iter())
    }

    /// Version 1 of the JSON for web apps, the same at `/health` and in Redis. Fields may be added to it.
    ///
    /// `pressure` is a badness, 0 to 1; the outermost `state` and `pressure` are those of the worst resource. `value`,
    /// `lo` and `hi` of a signal are in the unit its name ends in; `value` is null if it could not be measured. `hour` is
    /// the worst moment of the last hour. `hold_left_ms` is there while the state is about to be left, `forced` while an
    /// operator's order is about the state.
    pub fn to_json(&self) -> Value {
        let (state, pressure) = self
            .worst()
            .map_or((GateState::Ok, 0.0), |(_, view)| (view.state, view.badness));
        let resources = self.resources.iter();
        let resources: BTreeMap<&str, Value> = resources
            .map(|(name, view)| (name.as_str(), resource_json(view, self.histories.get(name))))
            .collect();
        json!({
            "v": 1,
            "at": self.at_ms,
            "state": state,
            "pressure": rounded(pressure),
            "resources": resources,
        })
    }
}

impl HealthView {
    /// Version 1 of the JSON of the last hour: of each resource a digit for the worst state of every ten seconds, 0 for
    /// `ok` to 3 for `critical` and `-` where nobody looked, and its worst pressure in percent; the oldest come first.
    pub fn history_json(&self) -> Value {
        let each = self.histories.iter().map(|(name, history)| {
            let json = json!({"states": history.states(), "pressure": history.percents()});
            (name.as_str(), json)
        });
        let resources: BTreeMap<&str, Value> = each.collect();
        json!({"v": 1, "at": self.at_ms, "step_ms": STEP_MS, "resources": resources})
    }
}

/// The worse state wins; of the same state the higher badness.
fn worst<'a>(
    views: impl Iterator<Item = (&'a String, &'a ResourceView)>,
) -> Option<(&'a str, &'a ResourceView)> {
    views
        .max_by(|(_, a), (_, b)| {
            let by_state = a.state.cmp(&b.state);
            by_state.then(a.badness.total_cmp(&b.badness))
        })
        .map(|(name, view)| (name.as_str(), view))
}

fn resource_json(view: &ResourceView, history: Option<&History>) -> Value {
    let peak = history.and_then(History::peak).map(|peak| {
        json!({
            "state": peak.state,
            "pressure": rounded(f64::from(peak.percent) / 100.0),
            "ago_ms": peak.ago_ms,
        })
    });
    let signals: Vec<Value> = view.signals.iter().map(signal_json).collect();
    let mut json = json!({
        "state": view.state,
        "state_age_ms": view.state_age_ms,
        "pressure": rounded(view.badness),
        "worst": view.worst_signal().map(signal_json),
        "hour": peak,
        "signals": signals,
    });
    if let Some(left) = view.hold_left_ms {
        json["hold_left_ms"] = left.into();
    }
    if let Some(forced) = &view.forced {
        json["forced"] = json!(forced);
    }
    json
}

fn signal_json(signal: &SignalView) -> Value {
    json!({
        "name": signal.name,
        "value": signal.value.map(rounded),
        "lo": signal.lo,
        "hi": signal.hi,
        "worst_state": signal.cap,
        "pressure": rounded(signal.badness),
        "missing": signal.missing,
        "age_ms": signal.age_ms,
    })
}

/// To a thousandth: what is beyond that is noise to whoever reads it.
fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A view of resources with one signal each, whose limits are 10 and 20: name, state, badness, value.
    pub(in crate::health) fn view(resources: &[(&str, GateState, f64, f64)]) -> HealthView {
        let resource = |&(name, state, badness, value): &(&str, GateState, f64, f64)| {
            let signal = SignalView {
                name: "wait_ms",
                value: Some(value),
                lo: 10.0,
                hi: 20.0,
                cap: GateState::Critical,
                badness,
                missing: false,
                age_ms: 7,
            };
            let view = ResourceView {
                state,
                state_age_ms: 5_000,
                badness,
                worst: Some(signal.name),
                signals: vec![signal],
                hold_left_ms: None,
                forced: None,
            };
            (name.to_owned(), view)
        };
        HealthView {
            at_ms: 1_700_000_000_000,
            resources: resources.iter().map(resource).collect(),
            histories: Arc::default(),
        }
    }

    use GateState::{Elevated, Ok, Overloaded};

    #[test]
    fn a_job_is_gated_by_what_it_declares_its_redis_and_memory_alone() {
        let none: [&str; 0] = [];
        let view = view(&[
            ("host", Overloaded, 0.9, 19.0),
            ("memory", Ok, 0.1, 11.0),
            ("postgres:primary", Elevated, 0.6, 16.0),
            ("redis:main", Ok, 0.2, 12.0),
        ]);
        assert_eq!(view.state_of(&none), (Ok, 0.2));
        assert_eq!(view.state_of(&["http:billing"]), (Ok, 0.2));
        assert_eq!(view.state_of(&["postgres:primary"]), (Elevated, 0.6));
        let both = ["postgres:primary", "host"];
        assert_eq!(view.worst_for(&both).map(|(name, _)| name), Some("host"));
        assert_eq!(HealthView::default().state_of(&both), (Ok, 0.0));
    }

    #[test]
    fn the_state_counts_before_the_badness() {
        let view = view(&[
            ("host", Elevated, 1.0, 30.0),
            ("memory", Ok, 0.4, 14.0),
            ("redis:main", Overloaded, 0.7, 17.0),
        ]);
        assert_eq!(view.state_of(&["host"]), (Overloaded, 0.7));
        assert_eq!(view.worst().map(|(name, _)| name), Some("redis:main"));
    }

    #[test]
    fn json_has_its_version_what_is_worst_and_every_signal() {
        let mut view = view(&[
            ("memory", Ok, 0.123_456, 11.234_56),
            ("redis:main", Elevated, 0.6, 16.0),
        ]);
        let mut history = History::default();
        history.note(0, Overloaded, 0.81);
        history.note(10_000, Elevated, 0.6);
        view.histories = Arc::new([("redis:main".to_owned(), history)].into());
        let signal = |value: f64, pressure: f64| {
            json!({"name": "wait_ms", "value": value, "lo": 10.0, "hi": 20.0, "worst_state": "critical",
                "pressure": pressure, "missing": false, "age_ms": 7})
        };
        let expected = json!({
            "v": 1,
            "at": 1_700_000_000_000_u64,
            "state": "elevated",
            "pressure": 0.6,
            "resources": {
                "memory": {
                    "state": "ok",
                    "state_age_ms": 5_000,
                    "pressure": 0.123,
                    "worst": signal(11.235, 0.123),
                    "hour": null,
                    "signals": [signal(11.235, 0.123)],
                },
                "redis:main": {
                    "state": "elevated",
                    "state_age_ms": 5_000,
                    "pressure": 0.6,
                    "worst": signal(16.0, 0.6),
                    "hour": {"state": "overloaded", "pressure": 0.81, "ago_ms": 10_000},
                    "signals": [signal(16.0, 0.6)],
                },
            },
        });
        assert_eq!(view.to_json(), expected);
        let hour = json!({
            "v": 1,
            "at": 1_700_000_000_000_u64,
            "step_ms": 10_000,
            "resources": {"redis:main": {"states": "21", "pressure": [81, 60]}},
        });
        assert_eq!(view.history_json(), hour);
        let empty = HealthView::default().to_json();
        assert_eq!(
            (&empty["state"], &empty["pressure"]),
            (&json!("ok"), &json!(0.0))
        );
    }
}
