//! Passes on how far the running jobs of one queue have come: all that is news, in one call, twice a second at most.

use super::context::QueueContext;
use super::report;
use crate::handlers::progress::News;
use crate::queue::QueueError;
use crate::queue::progress::{PROGRESS_MAX, Report};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The least time between two reports of one job.
const PACE: Duration = Duration::from_millis(500);

/// Passes on news until `stop`. Nothing is called while no job tells anything.
pub async fn run(context: Arc<QueueContext>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = context.told.news() => {}
        }
        pass_on(&context).await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PACE) => {}
        }
    }
}

/// All that is news now; what comes meanwhile waits for the next round, and so does what can't be passed on.
async fn pass_on(context: &QueueContext) {
    for news in context.told.take_news().chunks(PROGRESS_MAX) {
        let reports: Vec<Report> = news.iter().map(report_of).collect();
        match context.queue.report_progress(&reports).await {
            Ok(stale) => {
                // Whatever still tells under these tokens is a zombie, or outlived its job.
                for report in stale.into_iter().filter_map(|index| news.get(index)) {
                    context.told.forget(&report.id, &report.token);
                }
            }
            Err(e) => {
                if matches!(e, QueueError::WrongType(_)) {
                    report::heal(context).await;
                }
                let queue = &*context.queue.name;
                tracing::debug!(queue, error = %e, "progress not written; trying again");
                context.told.put_back(news);
            }
        }
    }
}

fn report_of(news: &News) -> Report {
    Report {
        id: Arc::clone(&news.id),
        token: Arc::clone(&news.token),
        json: serde_json::to_string(&news.progress).unwrap_or_default(),
    }
}
