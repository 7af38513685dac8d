//! Where daemons pool what their breakers see, and what all of them decided: a hash of decisions, and a stream of news that
//! is short and expires. Both are told apart by operation, which is a text to this file, as is what is kept of it.

use super::connection::Connection;
use super::reply::Reply;
use super::script::BREAKERS;
use super::{QueueError, millis};
use std::time::Duration;

/// The most bytes of what a daemon tells in one turn.
pub const NEWS_MAX: usize = 32 * 1024;
/// The most changes of one turn.
pub const CHANGES_MAX: usize = 64;
/// The most entries of news handed out in one turn.
const ENTRIES_MAX: usize = 512;
/// The most decisions that are kept.
const DECISIONS_MAX: usize = 1_000;
/// How long news are kept.
const NEWS_TTL: Duration = Duration::from_secs(60);
/// How long decisions are kept after the last change of one.
const DECISIONS_TTL: Duration = Duration::from_secs(2 * 3_600);
/// Before the first entry of any stream.
const FIRST: &str = "0-0";

/// The store, as one daemon uses it.
#[derive(Debug, Clone)]
pub struct Fleet {
    conn: Connection,
    keys: [String; 2],
    who: String,
    /// The last entry of news that was heard.
    heard: String,
}

/// A decision to be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Of which operation.
    pub operation: String,
    /// As it was; empty if there was none.
    pub old: String,
    /// As it is to be; empty to forget it.
    pub new: String,
}

/// What a turn brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// The time of the server, unix milliseconds.
    pub now_ms: u64,
    /// Of each change whether it was made; if not, somebody else was first.
    pub made: Vec<bool>,
    /// All decisions: operation and text.
    pub decisions: Vec<(String, String)>,
    /// What was told since the last turn.
    pub news: Vec<News>,
}

/// What a daemon told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// When, by the time of the server, unix milliseconds.
    pub at_ms: u64,
    /// Which daemon.
    pub who: String,
    /// What.
    pub text: String,
}

impl Fleet {
    /// The store of the daemons with this prefix, for the daemon `who`.
    #[must_use]
    pub fn new(conn: Connection, prefix: &str, who: &str) -> Self {
        let base = format!("{prefix}:{{gate}}:breakers");
        Self {
            conn,
            keys: [base.clone(), format!("{base}:news")],
            who: who.to_owned(),
            heard: FIRST.to_owned(),
        }
    }

    /// Changes decisions, tells `news` (nothing if empty), and hears of all that is new. At most [`CHANGES_MAX`] changes
    /// and [`NEWS_MAX`] bytes of news are taken.
    ///
    /// # Errors
    /// Redis failed.
    pub async fn turn(&mut self, news: &str, changes: &[Change]) -> Result<Turn, QueueError> {
        let news = if news.len() > NEWS_MAX { "" } else { news };
        let mut cmd = BREAKERS.call(self.keys.iter());
        cmd.arg(&self.who)
            .arg(news)
            .arg(&self.heard)
            .arg(ENTRIES_MAX)
            .arg(millis(NEWS_TTL))
            .arg(millis(DECISIONS_TTL))
            .arg(DECISIONS_MAX);
        for change in changes.iter().take(CHANGES_MAX) {
            cmd.arg(&change.operation).arg(&change.old).arg(&change.new);
        }
        let mut reply = Reply::new(BREAKERS.ask(&self.conn, &cmd).await?)?;
        let now_ms = reply.count()?;
        if now_ms < at_of(&self.heard) {
            // The clock of the server went back: what is told now has smaller ids than what was heard.
            FIRST.clone_into(&mut self.heard);
        }
        let (mut made, mut decisions, mut told) = (reply.array()?, reply.array()?, reply.array()?);
        let mut turn = Turn {
            now_ms,
            made: Vec::with_capacity(made.len()),
            decisions: Vec::with_capacity(decisions.len() / 2),
            news: Vec::with_capacity(told.len() / 3),
        };
        while !made.is_empty() {
            turn.made.push(made.int()? == 1);
        }
        while !decisions.is_empty() {
            turn.decisions
                .push((decisions.lossy()?, decisions.lossy()?));
        }
        while !told.is_empty() {
            self.heard = told.lossy()?;
            turn.news.push(News {
                at_ms: at_of(&self.heard),
                who: told.lossy()?,
                text: told.lossy()?,
            });
        }
        Ok(turn)
    }
}

/// When an entry was told, unix milliseconds.
fn at_of(entry: &str) -> u64 {
    let ms = entry.split_once('-').and_then(|(ms, _)| ms.parse().ok());
    ms.unwrap_or(0)
}
