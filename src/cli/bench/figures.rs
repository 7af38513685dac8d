//! What was measured, in both forms.

use super::failed;
use crate::cli::{CliError, Report, output};
use serde::Serialize;

/// Everything one run measures. The names are those of `--json`.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    pub(super) concurrency: u64,
    pub(super) raw_jobs_per_s: f64,
    pub(super) enqueue_jobs_per_s: f64,
    pub(super) inbox_push_per_s: f64,
    pub(super) drain_jobs_per_s: f64,
    pub(super) inbox_jobs_per_s: f64,
    pub(super) pickup_inbox_p50_ms: f64,
    pub(super) pickup_inbox_p99_ms: f64,
    pub(super) pickup_script_p50_ms: f64,
    pub(super) pickup_script_p99_ms: f64,
    pub(super) overhead_bytes_per_job: f64,
    pub(super) idle_round_trips_per_s: f64,
    pub(super) idle_core_percent: f64,
    pub(super) rss_idle_mb: f64,
    pub(super) rss_peak_mb: f64,
}

impl Figures {
    pub(super) fn report(&self) -> Result<Report, CliError> {
        let json = serde_json::to_value(self).map_err(failed)?;
        let of_raw = 100.0 * self.drain_jobs_per_s / self.raw_jobs_per_s;
        let per_s = |rate: f64| format!("{rate:.0} jobs/s");
        let pickup = |p50: f64, p99: f64| format!("p50 {p50:.3} ms, p99 {p99:.3} ms");
        let text = output::pairs(&[
            ("jobs at once", self.concurrency.to_string()),
            ("raw loop, no daemon", per_s(self.raw_jobs_per_s)),
            (
                "drain, admitted to settled",
                format!("{}, {of_raw:.0}% of raw", per_s(self.drain_jobs_per_s)),
            ),
            ("full inbox to settled", per_s(self.inbox_jobs_per_s)),
            ("enqueue script", per_s(self.enqueue_jobs_per_s)),
            ("inbox push", per_s(self.inbox_push_per_s)),
            (
                "pickup by inbox",
                pickup(self.pickup_inbox_p50_ms, self.pickup_inbox_p99_ms),
            ),
            (
                "pickup by script",
                pickup(self.pickup_script_p50_ms, self.pickup_script_p99_ms),
            ),
            (
                "Redis beyond the envelope",
                format!("{:.0} bytes per waiting job", self.overhead_bytes_per_job),
            ),
            (
                "daemon, idle",
                format!(
                    "{:.1} round trips a second, {:.2}% of a core",
                    self.idle_round_trips_per_s, self.idle_core_percent
                ),
            ),
            (
                "daemon, resident",
                format!(
                    "{:.1} MB idle, {:.1} MB peak",
                    self.rss_idle_mb, self.rss_peak_mb
                ),
            ),
        ]);
        Ok(Report::new(json, text))
    }
}
