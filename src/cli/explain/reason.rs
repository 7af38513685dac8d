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
        }
    }

    /// One that lets nothing start, and has no values.
    pub(super) fn stop(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(code, Binds::Stops, message, json!({}))
    }

    fn to_json(&self) -> Value {
        let mut json = self.details.clone();
        json["code"] = self.code.into();
        json["binds"] = self.binds.as_str().into();
        json["message"] = self.message.as_str().into();
        json
    }

    fn line(&self) -> String {
        format!("  - {}: {}\n", self.code, self.message.replace('\n', " "))
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
        assert!(reasons.text("-").contains("limits with room:\n  - slots"));
        assert_eq!(Reasons::default().text("none"), "  - none\n");
    }
}
