//! What operators ordered the gate to do, each until its end: the state of a resource, what a breaker does, a limit.
//!
//! Owns what an order is and what it makes of a measured state. Must not know where orders are kept or who reads them.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

mod forced;
mod will;

pub use forced::Forced;
pub use will::{Aspect, LARGEST_LIMIT, Will};

/// The longest time an order may hold: a forgotten one ends. Our choice, as for a breaker that is forced open.
pub const LONGEST_ORDER: Duration = Duration::from_secs(86_400);

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

#[cfg(test)]
pub(super) mod tests {
    use super::super::GateState::Overloaded;
    use super::*;

    pub(in crate::policy::gate::orders) fn order(target: &str, will: Will, until: u64) -> Order {
        Order {
            target: Target::parse(target),
            order: will,
            by: "me@here".to_owned(),
            why: "a test".to_owned(),
            at: 1_000,
            until,
        }
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
