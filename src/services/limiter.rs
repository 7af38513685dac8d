//! Has the limiters judge what was reported to them, a few times a second while anything runs; and tells of it.

use crate::health::HealthView;
use crate::policy::gate::GateState;
use crate::policy::limiter::{Change, Reason};
use crate::runner::operations::{Operation, Operations};
use crate::telemetry::events::{self, LimiterChange};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often.
const TICK: Duration = Duration::from_millis(250);

/// Ticks while operations are in use. At rest it waits, and costs nothing.
pub async fn run(
    operations: Arc<Operations>,
    view: watch::Receiver<Arc<HealthView>>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = operations.in_use() => {}
        }
        let view = Arc::clone(&view.borrow());
        for (operation, change, shadow) in operations.tick(|resource| may_grow(&view, resource)) {
            tell(&operation, &change, shadow);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(TICK) => {}
        }
    }
}

fn tell(operation: &Operation, change: &Change, shadow: bool) {
    let holds_back = matches!(
        change.reason,
        Reason::Congestion | Reason::Silence | Reason::TooSlow
    );
    events::limiter(LimiterChange {
        handler: &operation.handler,
        resource: &operation.resource,
        from: change.from,
        to: change.to,
        reason: change.reason.as_str(),
        wait_ms: change.wait_ms,
        shadow,
        holds_back,
    });
}

/// Whether a limit may rise: not while the resource is under pressure or a signal of it is missing, nor while much of the
/// work is held back for the sake of Redis or memory.
fn may_grow(view: &HealthView, resource: &str) -> bool {
    let well = view.resources.get(resource).is_none_or(|own| {
        own.state == GateState::Ok && own.signals.iter().all(|signal| !signal.missing)
    });
    well && view.state_of(&[resource]).0 < GateState::Overloaded
}
