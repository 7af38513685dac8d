//! One thing that holds work back, or a limit that may: what is told of it, and in which order.

use super::super::output::age;
use serde_json::{Value, json};

/// How much a limit holds work back now; what binds most comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Binds {
    /// Nothing starts.
    Stops,
    /// Less starts than could.
    Slows,
    /// Others come first.
    Waits,
    /// It holds nothing back now.
    Not,
}

impl Binds {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Stops => "stops",
            Self::Slows => "slows",
            Self::Waits => "waits",
            Self::Not => "not",
        }
    }

    /// That of a limit of which so much is used: it stops when it is full.
    pub(super) const fn full(used: u64, limit: u64) -> Self {
        if used >= limit {
            Self::Stops
        } else {
            Self::Not
        }
    }
}

/// One thing that holds work back, or a limit that does not by now.
#[derive(Debug)]
pub(super) struct Reason {
    /// A stable word.
    pub(super) code: &'static str,
    /// How much it holds back.
    pub(super) binds: Binds,
    /// The sentence.
    pub(super) message: String,
    /// Measured values, if there are any.
    pub(super) details: Value,
    facts: Facts,
}

/// What each limit is told with; `null` where there is no such thing.
#[derive(Debug, Default)]
struct Facts {
    /// What is measured, or in use.
    value: Value,
    /// From which value it holds back, or the most that may be in use.
    limit: Value,
    /// How old the value is, ms.
    age_ms: Option<u64>,
    /// How long it has been as it is, ms.
    since_ms: Option<u64>,
    /// What would lift it.
    lifted_by: Vec<String>,
}

impl Reason {
    /// One with its measured values, an object.
    pub(super) fn new(
        code: &'static str,
        binds: Binds,
        message: impl Into<String>,
        details: Value,
    ) -> Self {
        Self {
            code,
            binds,
            message: message.into(),
            details,
            facts: Facts::default(),
        }
    }

    /// With what is measured or in use, where it begins to hold back, and how old the measure is, ms.
    pub(super) fn measured(
        mut self,
        value: impl Into<Value>,
        limit: impl Into<Value>,
        age_ms: Option<u64>,
    ) -> Self {
        self.facts.value = value.into();
        self.facts.limit = limit.into();
        self.facts.age_ms = age_ms;
        self
    }

    /// It has been as it is for this long, ms.
    pub(super) const fn holds_since(&mut self, ms: u64) {
        self.facts.since_ms = Some(ms);
    }

    /// With how long it has been as it is, ms.
    pub(super) fn since(mut self, ms: Option<u64>) -> Self {
        self.facts.since_ms = ms;
        self
    }

    /// With what would lift it. Of one that holds nothing back there is nothing to lift.
    pub(super) fn lifted_by(mut self, lifts: impl IntoIterator<Item = String>) -> Self {
        if self.binds != Binds::Not {
            self.facts.lifted_by = lifts.into_iter().collect();
        }
        self
    }

    /// One that lets nothing start, and has no values.
    pub(super) fn stop(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(code, Binds::Stops, message, json!({}))
    }

    pub(super) fn to_json(&self) -> Value {
        let (mut json, facts) = (self.details.clone(), &self.facts);
        json["code"] = self.code.into();
        json["binds"] = self.binds.as_str().into();
        json["message"] = self.message.as_str().into();
        json["value"] = facts.value.clone();
        json["limit"] = facts.limit.clone();
        json["age_ms"] = facts.age_ms.into();
        json["since_ms"] = facts.since_ms.into();
        json["lifted_by"] = facts.lifted_by.clone().into();
        json
    }

    /// The sentence, and the first thing that would lift it.
    pub(super) fn line(&self) -> String {
        let lifted = self.facts.lifted_by.first();
        let lifted = lifted.map_or_else(String::new, |lift| format!("; {lift}"));
        let text = format!("{}{lifted}", self.message).replace('\n', " ");
        format!("  - {}: {text}\n", self.code)
    }
}

/// What holds work back, the most binding first, and the limits that do not by now.
#[derive(Debug, Default)]
pub(super) struct Reasons {
    binding: Vec<Reason>,
    limits: Vec<Reason>,
}

impl FromIterator<Reason> for Reasons {
    /// Of equal sentences one is kept.
    fn from_iter<I: IntoIterator<Item = Reason>>(all: I) -> Self {
        let mut found: Vec<Reason> = Vec::new();
        for reason in all {
            if found.iter().all(|known| known.message != reason.message) {
                found.push(reason);
            }
        }
        found.sort_by_key(|reason| reason.binds);
        let (limits, binding) = found.into_iter().partition(|r| r.binds == Binds::Not);
        Self { binding, limits }
    }
}

impl Reasons {
    /// Adds them to an answer for programs, as `reasons` and `limits`.
    pub(super) fn write(&self, to: &mut Value) {
        let list = |reasons: &[Reason]| reasons.iter().map(Reason::to_json).collect::<Value>();
        to["reasons"] = list(&self.binding);
        to["limits"] = list(&self.limits);
    }

    /// As lists for people; `none` if nothing holds back.
    pub(super) fn text(&self, none: &str) -> String {
        let mut text: String = self.binding.iter().map(Reason::line).collect();
        if self.binding.is_empty() {
            text = format!("  - {none}\n");
        }
        if !self.limits.is_empty() {
            text.push_str("  limits with room:\n");
            text.extend(self.limits.iter().map(Reason::line));
        }
        text
    }
}

/// `, for 3m 20s` where it is known since when something is so.
pub(super) fn for_so_long(ms: Option<u64>) -> String {
    ms.map_or_else(String::new, |ms| format!(" for {}", age(ms)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_binds_most_comes_first_and_what_does_not_apart() {
        let reason = |code, binds| Reason::new(code, binds, code, json!({"n": 1}));
        let reasons: Reasons = [
            reason("ahead", Binds::Waits),
            reason("slots", Binds::full(3, 4)),
            reason("breaker", Binds::Stops),
            reason("gate", Binds::Slows),
            reason("breaker", Binds::Stops),
        ]
        .into_iter()
        .collect();
        let mut json = json!({});
        reasons.write(&mut json);
        let codes = |list: &str| -> Vec<String> {
            let each = json[list].as_array().into_iter().flatten();
            each.map(|r| r["code"].to_string()).collect()
        };
        assert_eq!(codes("reasons"), ["\"breaker\"", "\"gate\"", "\"ahead\""]);
        assert_eq!(codes("limits"), ["\"slots\""]);
        assert_eq!(json["limits"][0]["value"], Value::Null);
        assert!(reasons.text("-").contains("limits with room:\n  - slots"));
        assert_eq!(Reasons::default().text("none"), "  - none\n");
    }

    #[test]
    fn each_is_told_with_value_limit_age_since_when_and_what_lifts_it() {
        let full = |used| {
            let reason = Reason::new("slots", Binds::full(used, 4), "4 slots", json!({}));
            let lifts = ["one ends".to_owned(), "a larger limit".to_owned()];
            let told = reason.measured(used, 4, Some(250)).since(Some(9_000));
            told.lifted_by(lifts)
        };
        let json = full(4).to_json();
        let facts = ["value", "limit", "age_ms", "since_ms"].map(|name| json[name].clone());
        assert_eq!(facts, [4, 4, 250, 9_000].map(Value::from));
        assert_eq!(json["lifted_by"], json!(["one ends", "a larger limit"]));
        assert_eq!(full(4).line(), "  - slots: 4 slots; one ends\n");
        assert_eq!(full(3).to_json()["lifted_by"], json!([]));
    }
}
