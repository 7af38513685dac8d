//! Does in this daemon what operators ordered, as long as they ordered it.

use crate::policy::gate::{Order, Orders};
use crate::telemetry::events::{self, GateOrder};
use std::sync::Arc;
use tokio::sync::watch;

/// Where orders take effect.
pub struct Obedience {
    heard: watch::Sender<Arc<Orders>>,
}

impl Obedience {
    /// No order yet; what holds is told to the receiver.
    #[must_use]
    pub fn new() -> (Self, watch::Receiver<Arc<Orders>>) {
        let (heard, orders) = watch::channel(Arc::default());
        (Self { heard }, orders)
    }

    /// The orders that this daemon obeys.
    #[must_use]
    pub fn held(&self) -> Arc<Orders> {
        Arc::clone(&self.heard.borrow())
    }

    /// Obeys `orders`, all of which hold at `now_ms` by Redis time, in place of the earlier ones; one log event for each
    /// that began or ended.
    pub fn obey(&self, orders: Orders, now_ms: u64) {
        let held = self.held();
        if *held == orders {
            return;
        }
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

    /// Redis does not answer: those whose time is over end all the same.
    pub fn carry_on(&self, now_ms: u64) {
        let held = self.held();
        if !held.is_empty() {
            self.obey(held.in_force(now_ms), now_ms);
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
