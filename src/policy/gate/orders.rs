//! What operators ordered the gate to do, each until its end: the state of a resource, what a breaker does, a limit.
//!
//! Owns what an order is and what it makes of a measured state. Must not know where orders are kept or who reads them.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::{GateState, GaugeSnapshot};

/// The longest time an order may hold: a forgotten one ends. Our choice, as for a breaker that is forced open.
pub const LONGEST_ORDER: Duration = Duration::from_secs(86_400);
/// The largest limit an order may set: that of the configuration's slots.
pub const LARGEST_LIMIT: usize = 100_000;

/// Whom an order is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A resource, like `postgres:primary`.
    Resource(String),
    /// A handler kind on a resource, like `http@http:app.example:443`.
    Operation {
        /// The handler kind.
        handler: String,
        /// The resource.
        resource: String,
    },
}

impl Target {
    /// Reads `resource` or `handler@resource`. Neither name can have an `@` in it.
    pub fn parse(text: &str) -> Self {
        match text.split_once('@') {
            None => Self::Resource(text.to_owned()),
            Some((handler, resource)) => Self::Operation {
                handler: handler.to_owned(),
                resource: resource.to_owned(),
            },
        }
    }

    /// Whether it is that operation.
    pub fn is_operation(&self, of_handler: &str, on_resource: &str) -> bool {
        matches!(self, Self::Operation { handler, resource } if handler == of_handler && resource == on_resource)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resource(name) => f.write_str(name),
            Self::Operation { handler, resource } => write!(f, "{handler}@{resource}"),
        }
    }
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What is ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Will {
    /// A resource counts as being in this state; what is measured worse still counts.
    AtLeast(GateState),
    /// A resource counts as no worse than this, whatever is measured.
    AtMost(GateState),
    /// The breaker of an operation lets nothing through.
    Open,
    /// The breaker of an operation lets everything through and looks away.
    Disabled,
    /// The breaker of an operation lets everything through, and goes on judging.
    MetricsOnly,
    /// So many jobs of an operation run at once in each daemon, whatever its limiter finds.
    Limit(usize),
}

/// What an order changes. Of each there is one order for a target, the latest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Aspect {
    /// The state of a resource.
    State,
    /// What a breaker does.
    Breaker,
    /// The limit of an operation.
    Limit,
}

impl Aspect {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::State, Self::Breaker, Self::Limit];

    /// The word of storage, logs and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Breaker => "breaker",
            Self::Limit => "limit",
        }
    }
}

impl Will {
    /// What it changes.
    pub const fn aspect(self) -> Aspect {
        match self {
            Self::AtLeast(_) | Self::AtMost(_) => Aspect::State,
            Self::Open | Self::Disabled | Self::MetricsOnly => Aspect::Breaker,
            Self::Limit(_) => Aspect::Limit,
        }
    }

    /// Reads what [`Will`] displays, like `at-least overloaded`, `open` or `limit=4`.
    ///
    /// # Errors
    /// Says what was given and what can be.
    pub fn parse(text: &str) -> Result<Self, String> {
        let state = |name: &str| GateState::ALL.into_iter().find(|s| s.as_str() == name);
        let found = match text.split_once([' ', '=']) {
            Some(("at-least", name)) => state(name).map(Self::AtLeast),
            Some(("at-most", name)) => state(name).map(Self::AtMost),
            Some(("limit", n)) => {
                let limit = n.parse().ok();
                let limit = limit.filter(|n| (1..=LARGEST_LIMIT).contains(n));
                let wrong = || format!("limit={n}: want a whole number of 1 to {LARGEST_LIMIT}");
                return limit.map(Self::Limit).ok_or_else(wrong);
            }
            Some(_) => None,
            None => match text {
                "open" => Some(Self::Open),
                "disabled" => Some(Self::Disabled),
                "metrics-only" => Some(Self::MetricsOnly),
                // At least ok would change nothing.
                "ok" => Some(Self::AtMost(GateState::Ok)),
                name => state(name).map(Self::AtLeast),
            },
        };
        found.ok_or_else(|| {
            format!(
                "{text:?} is no order: want a state (ok, elevated, overloaded, critical) for a resource; \
                 open, disabled, metrics-only or limit=N for an operation"
            )
        })
    }
}

impl fmt::Display for Will {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(state) => write!(f, "at-least {state}"),
            Self::AtMost(state) => write!(f, "at-most {state}"),
            Self::Open => f.write_str("open"),
            Self::Disabled => f.write_str("disabled"),
            Self::MetricsOnly => f.write_str("metrics-only"),
            Self::Limit(n) => write!(f, "limit={n}"),
        }
    }
}

impl Serialize for Will {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Order {
    /// Whom it is about.
    pub target: Target,
    /// What is ordered.
    pub order: Will,
    /// By whom, as user@host.
    pub by: String,
    /// Why, in the operator's words.
    pub why: String,
    /// When it was given, unix ms by the server's clock.
    pub at: u64,
    /// When it ends, unix ms by the server's clock.
    pub until: u64,
}

impl Order {
    /// Whether it still holds.
    pub const fn holds(&self, now_ms: u64) -> bool {
        now_ms < self.until
    }
}

/// All orders, at most one for each target and aspect.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Orders(Vec<Order>);

impl FromIterator<Order> for Orders {
    fn from_iter<I: IntoIterator<Item = Order>>(orders: I) -> Self {
        let mut orders: Vec<Order> = orders.into_iter().collect();
        orders.sort_by(|a, b| (&a.target, a.order.aspect()).cmp(&(&b.target, b.order.aspect())));
        Self(orders)
    }
}

impl Orders {
    /// Those that still hold.
    pub fn in_force(&self, now_ms: u64) -> Self {
        let held = self.0.iter().filter(|order| order.holds(now_ms));
        Self(held.cloned().collect())
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Order> {
        self.0.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The order about the state of a resource.
    pub fn of_resource(&self, name: &str) -> Option<&Order> {
        let about = |o: &&Order| matches!(&o.target, Target::Resource(r) if r == name);
        self.0.iter().find(about)
    }

    /// The order about one aspect of an operation.
    pub fn of_operation(&self, handler: &str, resource: &str, aspect: Aspect) -> Option<&Order> {
        self.0.iter().find(|order| {
            order.order.aspect() == aspect && order.target.is_operation(handler, resource)
        })
    }

    /// Orders of this set that the earlier one did not have, or had otherwise.
    pub fn since<'a>(&'a self, earlier: &'a Self) -> impl Iterator<Item = &'a Order> {
        self.0.iter().filter(|order| !earlier.0.contains(order))
    }

    /// Orders that ended: the earlier set had one for a target and aspect, and this set has none.
    pub fn gone<'a>(&'a self, earlier: &'a Self) -> impl Iterator<Item = &'a Order> {
        let same =
            |a: &Order, b: &Order| a.target == b.target && a.order.aspect() == b.order.aspect();
        let kept = move |order: &Order| self.0.iter().any(|now| same(now, order));
        earlier.0.iter().filter(move |order| !kept(order))
    }
}

/// That the state of a resource is not the measured one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Forced {
    /// What was ordered.
    pub order: Will,
    /// The state that was measured; none if nobody probes the resource.
    pub measured: Option<GateState>,
    /// When the order ends, unix ms by the server's clock.
    pub until: u64,
    /// By whom.
    pub by: String,
    /// Why.
    pub why: String,
}

impl Order {
    /// What this order makes of a resource as it was measured; of one that nobody probes, if none is given. None if the
    /// order is not about a state. `now_ms` is unix ms, as of the order.
    pub fn applied(&self, measured: Option<&GaugeSnapshot>, now_ms: u64) -> Option<GaugeSnapshot> {
        let calm = GaugeSnapshot {
            state: GateState::Ok,
            state_age_ms: now_ms.saturating_sub(self.at),
            badness: 0.0,
            worst: None,
            signals: Vec::new(),
            hold_left_ms: None,
            forced: None,
        };
        let found = measured.unwrap_or(&calm);
        let (state, badness) = match self.order {
            Will::AtLeast(least) => (
                found.state.max(least),
                found.badness.max(least.entered_at()),
            ),
            Will::AtMost(most) => (found.state.min(most), found.badness.min(most.entered_at())),
            Will::Open | Will::Disabled | Will::MetricsOnly | Will::Limit(_) => return None,
        };
        Some(GaugeSnapshot {
            state,
            state_age_ms: match state == found.state {
                true => found.state_age_ms,
                false => now_ms.saturating_sub(self.at),
            },
            badness,
            worst: found.worst,
            signals: found.signals.clone(),
            hold_left_ms: found.hold_left_ms,
            forced: Some(Forced {
                order: self.order,
                measured: measured.map(|snapshot| snapshot.state),
                until: self.until,
                by: self.by.clone(),
                why: self.why.clone(),
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use GateState::{Critical, Elevated, Ok as Well, Overloaded};

    fn order(target: &str, will: Will, until: u64) -> Order {
        Order {
            target: Target::parse(target),
            order: will,
            by: "me@here".to_owned(),
            why: "a test".to_owned(),
            at: 1_000,
            until,
        }
    }

    fn measured(state: GateState, badness: f64) -> GaugeSnapshot {
        GaugeSnapshot {
            state,
            state_age_ms: 60_000,
            badness,
            worst: None,
            signals: Vec::new(),
            hold_left_ms: None,
            forced: None,
        }
    }

    #[test]
    fn what_is_ordered_is_read_as_it_is_written() {
        for (text, will) in [
            ("overloaded", Will::AtLeast(Overloaded)),
            ("ok", Will::AtMost(Well)),
            ("at-most elevated", Will::AtMost(Elevated)),
            ("at-least critical", Will::AtLeast(Critical)),
            ("open", Will::Open),
            ("metrics-only", Will::MetricsOnly),
            ("limit=4", Will::Limit(4)),
        ] {
            assert_eq!(Will::parse(text), Ok(will), "{text}");
            assert_eq!(Will::parse(&will.to_string()), Ok(will), "{text}");
        }
        for wrong in [
            "",
            "shut",
            "limit=0",
            "limit=many",
            "limit",
            "at-most",
            "at-least open",
        ] {
            assert!(Will::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn at_least_never_hides_what_is_worse_and_at_most_always_does() {
        let least = order("db:x", Will::AtLeast(Overloaded), 9_000);
        let state = |order: &Order, measured: Option<&GaugeSnapshot>| {
            order.applied(measured, 2_000).map(|s| (s.state, s.badness))
        };
        assert_eq!(
            state(&least, Some(&measured(Well, 0.1))),
            Some((Overloaded, 0.8))
        );
        assert_eq!(
            state(&least, Some(&measured(Critical, 0.97))),
            Some((Critical, 0.97))
        );
        assert_eq!(state(&least, None), Some((Overloaded, 0.8)));
        let most = order("db:x", Will::AtMost(Well), 9_000);
        assert_eq!(
            state(&most, Some(&measured(Critical, 1.0))),
            Some((Well, 0.0))
        );
        let forced = most.applied(Some(&measured(Critical, 1.0)), 2_000);
        let forced = forced.and_then(|s| s.forced);
        assert_eq!(forced.map(|f| f.measured), Some(Some(Critical)));
        let unprobed = least.applied(None, 2_000);
        assert_eq!(unprobed.map(|s| s.state_age_ms), Some(1_000));
        assert_eq!(state(&order("a@db:x", Will::Open, 9_000), None), None);
    }

    #[test]
    fn orders_end_by_themselves_and_are_told_once() {
        let first: Orders = [
            order("db:x", Will::AtLeast(Overloaded), 5_000),
            order("http@http:a:1", Will::Open, 9_000),
            order("http@http:a:1", Will::Limit(3), 9_000),
        ]
        .into_iter()
        .collect();
        assert_eq!(first.since(&Orders::default()).count(), 3);
        let later = first.in_force(5_000);
        assert_eq!(later.iter().count(), 2);
        assert!(later.of_resource("db:x").is_none());
        assert_eq!(later.gone(&first).count(), 1);
        assert_eq!(later.since(&first).count(), 0);
        let open = later.of_operation("http", "http:a:1", Aspect::Breaker);
        assert_eq!(open.map(|o| o.order), Some(Will::Open));
        // Given anew it is another order, not an end.
        let again: Orders = [order("http@http:a:1", Will::Open, 20_000)]
            .into_iter()
            .collect();
        assert_eq!(
            (again.since(&later).count(), again.gone(&later).count()),
            (1, 1)
        );
    }
}
