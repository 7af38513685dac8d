//! What the forecast does about load that is known to come. In shadow mode the same events tell what it would do.

use tracing::info;

/// A daemon's slots were raised, or are back at what is configured.
#[derive(Debug, Clone, Copy)]
pub struct SlotsChange<'a> {
    /// Slots before; at a return, the most there were.
    pub from: usize,
    /// Slots now.
    pub to: usize,
    /// Why.
    pub reason: &'a str,
    /// Whether it is only told what would be done.
    pub shadow: bool,
}

/// The slots of this daemon were raised for load that is forecast.
pub fn forecast_raised(change: SlotsChange<'_>) {
    telling!(
        info,
        "forecast_raised",
        change {
            from,
            to,
            reason,
            shadow
        },
        "slots raised"
    );
}

/// The slots of this daemon are back at what is configured.
pub fn forecast_returned(change: SlotsChange<'_>) {
    telling!(
        info,
        "forecast_returned",
        change {
            from,
            to,
            reason,
            shadow
        },
        "slots as configured again"
    );
}

/// Connections of the Postgres pool were opened before a known peak.
pub fn forecast_pool(connections: u32, peak_ms: u64, shadow: bool) {
    info!(
        event = "forecast_pool",
        connections, peak_ms, shadow, "connections opened before a known peak"
    );
}

/// A job that prepares for a known peak.
#[derive(Debug, Clone, Copy)]
pub struct WarmUp<'a> {
    /// Its kind.
    pub kind: &'a str,
    /// Its queue.
    pub queue: &'a str,
    /// Its id, the same for all daemons.
    pub job_id: &'a str,
    /// When the peak begins.
    pub peak_ms: u64,
    /// False if another daemon had enqueued it.
    pub created: bool,
    /// Whether it is only told what would be done.
    pub shadow: bool,
}

/// A job that prepares for a known peak was enqueued.
pub fn forecast_warm(job: WarmUp<'_>) {
    telling!(
        info,
        "forecast_warm",
        job {
            kind,
            queue,
            job_id,
            peak_ms,
            created,
            shadow
        },
        "enqueued before a known peak"
    );
}

/// The history of the load can't be recorded, or read. It is tried again.
pub fn forecast_blind(what: &str, error: &str) {
    let error = crate::telemetry::clip(error);
    tracing::warn!(
        event = "forecast_blind",
        what,
        error,
        "the history of the load can't be reached: tried again"
    );
}

/// What is to prepare for a known peak could not be done; the jobs go on without it.
pub fn forecast_failed(what: &str, error: &str) {
    let error = crate::telemetry::clip(error);
    tracing::warn!(
        event = "forecast_failed",
        what,
        error,
        "not prepared for a known peak"
    );
}
