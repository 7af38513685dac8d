//! How far running jobs have come: what handlers tell, kept until the runner passes it on.
//!
//! Owns: the last report of each running job of a queue, and which of them are news. Telling costs a lock and no call to
//! any server, so a handler may tell as often as it likes. Must not know where reports go.

use crate::clock;
use crate::job::{Job, Progress};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// What the running jobs of one queue have told.
#[derive(Debug, Default)]
pub struct Board {
    told: Mutex<HashMap<Arc<str>, Told>>,
    news: Notify,
}

/// The last report of one delivery.
#[derive(Debug)]
struct Told {
    token: Arc<str>,
    progress: Progress,
    /// Not passed on yet.
    fresh: bool,
    /// How long it rested because the gate asked for it.
    rested: Duration,
}

impl Told {
    fn begin(job: &Job) -> Self {
        Self {
            token: Arc::clone(&job.token),
            progress: Progress::default(),
            fresh: false,
            rested: Duration::ZERO,
        }
    }
}

/// A report on its way.
#[derive(Debug, Clone)]
pub struct News {
    /// The job.
    pub id: Arc<str>,
    /// The token of the delivery that told it.
    pub token: Arc<str>,
    /// What it told.
    pub progress: Progress,
}

impl Board {
    /// Waits until there is news.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    /// Every report that was not passed on yet; they count as passed on from now.
    #[must_use]
    pub fn take_news(&self) -> Vec<News> {
        let mut told = self.told.lock();
        let fresh = told.iter_mut().filter(|(_, told)| told.fresh);
        let taken = fresh.map(|(id, told)| {
            told.fresh = false;
            News {
                id: Arc::clone(id),
                token: Arc::clone(&told.token),
                progress: told.progress.clone(),
            }
        });
        taken.collect()
    }

    /// Reports that could not be passed on are news again, unless there are newer ones.
    pub fn put_back(&self, news: &[News]) {
        let mut told = self.told.lock();
        for report in news {
            let known = told.get_mut(&report.id);
            if let Some(known) = known.filter(|known| known.token == report.token) {
                known.fresh = true;
            }
        }
        drop(told);
        self.news.notify_one();
    }

    /// Forgets a delivery; true if it had told anything.
    pub fn forget(&self, id: &str, token: &str) -> bool {
        let mut told = self.told.lock();
        let its = told.get(id).is_some_and(|told| &*told.token == token);
        its && told.remove(id).is_some()
    }

    /// How long a delivery has rested because the gate asked for it.
    #[must_use]
    pub fn rested(&self, job: &Job) -> Duration {
        let told = self.told.lock();
        let its = told.get(job.id.as_str());
        its.filter(|told| told.token == job.token)
            .map_or(Duration::ZERO, |told| told.rested)
    }

    fn tell(&self, job: &Job, change: impl FnOnce(&mut Progress)) {
        self.change(job, |told| {
            change(&mut told.progress);
            told.progress = std::mem::take(&mut told.progress).bounded();
            told.progress.at = Some(clock::unix_ms());
            told.fresh = true;
        });
        self.news.notify_one();
    }

    /// Changes what is known of a delivery; a new one of the same job starts from nothing.
    fn change(&self, job: &Job, change: impl FnOnce(&mut Told)) {
        let mut told = self.told.lock();
        let entry = told
            .entry(job.id.shared())
            .or_insert_with(|| Told::begin(job));
        if entry.token != job.token {
            *entry = Told::begin(job);
        }
        change(entry);
    }
}

/// Where one delivery tells how far it has come. Cheap to clone and to use: the last report counts, and it is written
/// to the queue at most twice a second. `tidegate job show` shows it as long as the job runs.
#[derive(Debug, Clone)]
pub struct Reporter {
    board: Arc<Board>,
    job: Arc<Job>,
}

impl Reporter {
    /// The reporter of one delivery.
    #[must_use]
    pub const fn new(board: Arc<Board>, job: Arc<Job>) -> Self {
        Self { board, job }
    }

    /// How much is done, 0 to 100.
    pub fn percent(&self, percent: f64) {
        self.update(|progress| progress.percent = Some(percent));
    }

    /// What it does, for people; cut to 512 bytes.
    pub fn message(&self, message: impl Into<String>) {
        let message = message.into();
        self.update(|progress| progress.message = Some(message));
    }

    /// A number by name, like `rows`; at most 16 of them.
    pub fn count(&self, name: &str, value: i64) {
        self.update(|progress| progress.count(name, value));
    }

    /// All of it at once.
    pub fn set(&self, progress: Progress) {
        self.update(|last| *last = progress);
    }

    /// It rested for so long because the gate asked for it.
    pub(super) fn rested(&self, took: Duration) {
        self.board.change(&self.job, |told| told.rested += took);
    }

    /// Changes some of the last report.
    pub fn update(&self, change: impl FnOnce(&mut Progress)) {
        self.board.tell(&self.job, change);
    }
}

/// A count as a counter holds it.
pub(super) fn saturating(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::job::{JobId, Priority};

    fn reporter(board: &Arc<Board>, token: &str) -> Reporter {
        let job = Job {
            id: JobId::parse("x").unwrap(),
            kind: "app.x".into(),
            queue: "default".into(),
            priority: Priority::Normal,
            args: serde_json::Map::new(),
            attempt: 1,
            max_attempts: 1,
            traceparent: None,
            token: token.into(),
            parents: Vec::new(),
        };
        Reporter::new(Arc::clone(board), Arc::new(job))
    }

    #[test]
    fn the_last_report_is_news_once_and_again_if_it_could_not_be_passed_on() {
        let board = Arc::new(Board::default());
        let first = reporter(&board, "a:1");
        first.percent(10.0);
        first.count("rows", 3);
        let news = board.take_news();
        assert_eq!((news.len(), news[0].progress.percent), (1, Some(10.0)));
        assert_eq!(news[0].progress.counters["rows"], 3);
        assert!(board.take_news().is_empty());
        board.put_back(&news);
        first.percent(20.0);
        let news = board.take_news();
        assert_eq!((news.len(), news[0].progress.percent), (1, Some(20.0)));
    }

    #[test]
    fn a_new_delivery_begins_from_nothing_and_is_not_forgotten_with_the_old_one() {
        let board = Arc::new(Board::default());
        reporter(&board, "a:1").percent(90.0);
        let old = board.take_news();
        reporter(&board, "a:2").message("again");
        let new = board.take_news().remove(0);
        assert_eq!((&*new.token, new.progress.percent), ("a:2", None));
        board.put_back(&old);
        assert!(board.take_news().is_empty(), "there is a newer delivery");
        assert!(!board.forget("x", "a:1"));
        assert!(board.forget("x", "a:2"));
        assert!(!board.forget("x", "a:2"), "it is gone");
    }

    #[test]
    fn rests_add_up_for_one_delivery_and_are_no_news() {
        let board = Arc::new(Board::default());
        let first = reporter(&board, "a:1");
        first.rested(Duration::from_secs(2));
        first.rested(Duration::from_secs(3));
        assert!(board.take_news().is_empty());
        assert_eq!(board.rested(&first.job), Duration::from_secs(5));
        let second = reporter(&board, "a:2");
        assert_eq!(board.rested(&second.job), Duration::ZERO);
        second.percent(1.0);
        assert_eq!(board.rested(&first.job), Duration::ZERO, "it is over");
    }
}
