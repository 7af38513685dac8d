//! Does in this daemon what operators ordered, as long as they ordered it.
//!
//! States of resources are told to the monitor, which publishes them in place of the measured ones; breakers and
//! limits are set here. An order about an operation that a reload brings is obeyed from then on.

use crate::policy::breaker::Mode;
use crate::policy::gate::{Aspect, Order, Orders, Will};
use crate::runner::operations::{Operation, Operations};
use crate::telemetry::events::{self, GateOrder};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Where orders take effect.
pub struct Obedience {
    heard: watch::Sender<Arc<Orders>>,
    operations: Arc<Operations>,
    /// What breakers do that nobody ordered otherwise.
    usual: Mode,
    /// The orders that operations obey.
    obeyed: BTreeMap<Obeyed, Order>,
}

/// A handler, a resource, and what of them an order is about.
type Obeyed = (Arc<str>, Arc<str>, Aspect);

impl Obedience {
    /// No order yet; what holds is sent to `heard`.
    #[must_use]
    pub fn new(
        heard: watch::Sender<Arc<Orders>>,
        operations: &Arc<Operations>,
        usual: Mode,
    ) -> Self {
        Self {
            heard,
            operations: Arc::clone(operations),
            usual,
            obeyed: BTreeMap::new(),
        }
    }

    /// Obeys `orders`, all of which hold at `now_ms` by Redis time, in place of the earlier ones; one log event for each
    /// that began or ended.
    pub fn obey(&mut self, orders: Orders, now_ms: u64) {
        let held = Arc::clone(&self.heard.borrow());
        if *held != orders {
            for order in orders.gone(&held) {
                let how = if order.holds(now_ms) {
                    "released"
                } else {
                    "over"
                };
                tell(order, how);
            }
            for order in orders.since(&held) {
                tell(order, "begun");
            }
            self.heard.send_replace(Arc::new(orders));
        }
        self.set_operations(now_ms);
    }

    /// Redis does not answer: those whose time is over end all the same.
    pub fn carry_on(&mut self, now_ms: u64) {
        let held = self.heard.borrow().in_force(now_ms);
        self.obey(held, now_ms);
    }

    fn set_operations(&mut self, now_ms: u64) {
        let held = Arc::clone(&self.heard.borrow());
        if held.is_empty() && self.obeyed.is_empty() {
            return;
        }
        for operation in self.operations.each() {
            for aspect in [Aspect::Breaker, Aspect::Limit] {
                let (handler, resource) = (&operation.handler, &operation.resource);
                let key = (Arc::clone(handler), Arc::clone(resource), aspect);
                let wanted = held.of_operation(handler, resource, aspect);
                let obeyed = self.obeyed.get(&key);
                if wanted == obeyed {
                    continue;
                }
                match aspect {
                    Aspect::Limit => self.set_limit(&operation, wanted),
                    _ => self.set_breaker(&operation, wanted, obeyed, now_ms),
                }
                match wanted {
                    Some(order) => self.obeyed.insert(key, order.clone()),
                    None => self.obeyed.remove(&key),
                };
            }
        }
    }

    fn set_limit(&self, operation: &Operation, wanted: Option<&Order>) {
        let limit = wanted.and_then(|order| match order.order {
            Will::Limit(limit) => Some(limit),
            _ => None,
        });
        self.operations.set_limit(operation, limit);
    }

    fn set_breaker(
        &self,
        operation: &Operation,
        wanted: Option<&Order>,
        obeyed: Option<&Order>,
        now_ms: u64,
    ) {
        match wanted.map(|order| (order.order, order.until)) {
            Some((Will::Open, until)) => {
                let left = Duration::from_millis(until.saturating_sub(now_ms));
                self.operations.force_open(operation, left);
            }
            Some((Will::Disabled, _)) => self.operations.set_mode(operation, Mode::Disabled),
            Some((Will::MetricsOnly, _)) => self.operations.set_mode(operation, Mode::MetricsOnly),
            // A breaker whose time is over is tried like any other.
            None if self.usual == Mode::On
                && obeyed.is_some_and(|o| o.order == Will::Open && !o.holds(now_ms)) => {}
            Some(_) | None => self.operations.set_mode(operation, self.usual),
        }
    }
}

fn tell(order: &Order, what: &'static str) {
    events::gate_order(GateOrder {
        what,
        target: &order.target.to_string(),
        order: &order.order.to_string(),
        by: &order.by,
        why: &order.why,
        until_ms: order.until,
    });
}
