//! What operators order the gate to do.

use tracing::warn;

/// An order of an operator, as this daemon obeys it.
#[derive(Debug, Clone, Copy)]
pub struct GateOrder<'a> {
    /// What happens to it: `begun`, `released`, or `over` when it ends by itself.
    pub what: &'a str,
    /// The resource or the operation it is about.
    pub target: &'a str,
    /// What is ordered.
    pub order: &'a str,
    /// By whom.
    pub by: &'a str,
    /// Why.
    pub why: &'a str,
    /// When it ends, unix ms.
    pub until_ms: u64,
}

/// An order began or ended in this daemon.
pub fn gate_order(order: GateOrder<'_>) {
    let until = crate::clock::rfc3339(order.until_ms);
    telling!(
        warn,
        "gate_order",
        order {
            what,
            target,
            order,
            by,
            why
        },
        until,
        "an operator's order to the gate"
    );
}
