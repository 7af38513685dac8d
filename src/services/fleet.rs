//! Shares what the breakers see with the other daemons, and has them follow what all decide together.
//!
//! A turn is one call of Redis: a second apart while all is well, sooner while something is about to be decided. While
//! Redis can't be reached each daemon decides by itself.

mod strays;

use crate::clock;
use crate::config::BreakerConfig as Settings;
use crate::policy::breaker::BreakerConfig;
use crate::policy::breaker::Stand;
use crate::policy::breaker::fleet::{Change as Next, Pool, Record, Report, View};
use crate::queue::QueueError;
use crate::queue::connection::Connection;
use crate::queue::fleet::{CHANGES_MAX, Change, Fleet as Store, NEWS_MAX, Turn};
use crate::runner::operations::{Operation, Operations};
use crate::telemetry::events;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use strays::Strays;
use tokio_util::sync::CancellationToken;

/// The pause between two turns. No setting: how long daemons wait for each other's word follows from it.
const PAUSE: Duration = Duration::from_secs(1);
/// The pause while something is about to be decided.
const SHORT_PAUSE: Duration = Duration::from_millis(250);
/// What the service is made of.
pub struct Fleet {
    store: Store,
    operations: Arc<Operations>,
    config: BreakerConfig,
    /// How long Redis may be silent before this daemon decides by itself.
    alone_after: Duration,
    me: String,
    /// What is known of operations of which anything is.
    known: BTreeMap<String, Known>,
    /// Decisions about operations that this daemon does not have.
    strays: Strays,
    /// The time of Redis, and when that was.
    time: Option<(u64, Instant)>,
    answered: Instant,
    is_alone: bool,
    /// How much it told: where it is too much for a turn, it goes on there.
    told: usize,
}

/// What is known of one operation.
#[derive(Default)]
struct Known {
    pool: Pool,
    record: Option<Record>,
    /// The decision as it is kept.
    text: String,
}

/// What a daemon says in a turn.
#[derive(Default)]
struct Speech {
    news: Vec<(String, Report)>,
    changes: Vec<Change>,
    is_urgent: bool,
}

impl Fleet {
    /// The service of a daemon whose keys begin with `prefix`.
    #[must_use]
    pub fn new(
        conn: Connection,
        prefix: &str,
        operations: Arc<Operations>,
        settings: &Settings,
    ) -> Self {
        let me = uuid::Uuid::new_v4().to_string();
        Self {
            store: Store::new(conn, prefix, &me),
            operations,
            config: BreakerConfig::from(settings),
            alone_after: settings.alone_after,
            me,
            known: BTreeMap::new(),
            strays: Strays::default(),
            time: None,
            answered: clock::monotonic(),
            is_alone: false,
            told: 0,
        }
    }

    /// Takes turns until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let pause = tokio::select! {
                () = stop.cancelled() => return,
                pause = self.turn() => pause,
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One turn; answers how long to pause after it.
    async fn turn(&mut self) -> Duration {
        let stands = self.operations.stands();
        if stands.is_empty() {
            self.answered = clock::monotonic();
            return PAUSE;
        }
        let speech = self.speech(&stands);
        let (text, told) = encode(&speech.news, self.told);
        self.told = self.told.wrapping_add(told);
        match self.store.turn(&text, &speech.changes).await {
            Ok(turn) => {
                self.hear(turn, &stands);
                if speech.is_urgent { SHORT_PAUSE } else { PAUSE }
            }
            Err(e) => {
                self.unanswered(&e);
                PAUSE
            }
        }
    }

    fn speech(&self, stands: &[(Arc<Operation>, Option<Stand>)]) -> Speech {
        let mut speech = Speech::default();
        let Some((told_ms, at)) = self.time else {
            // The first turn only listens: nothing can be dated yet.
            return speech;
        };
        let since = u64::try_from(clock::since(at).as_millis()).unwrap_or(u64::MAX);
        let unknown = Known::default();
        for (operation, stand) in stands {
            let name = name_of(operation);
            let known = self.known.get(&name).unwrap_or(&unknown);
            let view = View {
                config: &self.config,
                record: known.record.as_ref(),
                pool: &known.pool,
                stand: stand.as_ref(),
                me: &self.me,
                now_ms: told_ms.saturating_add(since),
                jitter: rand::random(),
            };
            speech.is_urgent |= view.is_urgent();
            if let Some(report) = view.news() {
                speech.news.push((name.clone(), report.clone()));
                speech.is_urgent |= known.record.is_none();
            }
            if let Some(next) = view.next()
                && speech.changes.len() < CHANGES_MAX
            {
                speech.changes.push(Change {
                    operation: name,
                    old: known.text.clone(),
                    new: match next {
                        Next::Put(record) => serde_json::to_string(&record).unwrap_or_default(),
                        Next::Forget => String::new(),
                    },
                });
            }
        }
        let remove = |(name, text): (&str, &str)| Change {
            operation: name.to_owned(),
            old: text.to_owned(),
            new: String::new(),
        };
        let room = CHANGES_MAX - speech.changes.len();
        let old = self.strays.old(clock::monotonic()).take(room);
        speech.changes.extend(old.map(remove));
        speech
    }

    fn hear(&mut self, turn: Turn, stands: &[(Arc<Operation>, Option<Stand>)]) {
        self.answered = clock::monotonic();
        self.time = Some((turn.now_ms, self.answered));
        if std::mem::take(&mut self.is_alone) {
            events::breakers_shared(true);
        }
        let ours: BTreeMap<String, &Arc<Operation>> =
            stands.iter().map(|(o, _)| (name_of(o), o)).collect();
        for news in turn.news {
            for (name, report) in decode(&news.text) {
                if ours.contains_key(&name) {
                    let known = self.known.entry(name).or_default();
                    known.pool.hear(&news.who, news.at_ms, &report);
                }
            }
        }
        let mut decided: BTreeMap<String, String> = turn.decisions.into_iter().collect();
        for (name, operation) in ours {
            let text = decided.remove(&name).unwrap_or_default();
            if text.is_empty() && !self.known.contains_key(&name) {
                continue;
            }
            let known = self.known.entry(name.clone()).or_default();
            known.pool.forget(turn.now_ms, &self.config);
            let had_one = known.record.is_some();
            if known.text != text {
                // One that a later version wrote says nothing here; it is replaced when the evidence says so.
                known.record = serde_json::from_str(&text).ok();
                known.text = text;
            }
            if let Some(record) = &mut known.record {
                record.set_back(turn.now_ms, &self.config);
            }
            if had_one || known.record.is_some() {
                let record = known.record.as_ref();
                self.operations
                    .follow(operation, record, &self.me, turn.now_ms);
            }
            if known.text.is_empty() && known.pool.is_empty() {
                self.known.remove(&name);
            }
        }
        self.strays.note(decided, clock::monotonic());
    }

    /// Redis did not answer. What was known grows old: soon each breaker goes by its own evidence.
    fn unanswered(&mut self, error: &QueueError) {
        tracing::debug!(error = %error, "breakers not shared");
        if self.is_alone || clock::since(self.answered) < self.alone_after {
            return;
        }
        self.is_alone = true;
        for known in self.known.values_mut() {
            known.pool = Pool::default();
        }
        self.operations.alone();
        events::breakers_shared(false);
    }
}

/// How daemons name an operation among each other.
fn name_of(operation: &Operation) -> String {
    format!("{}|{}", operation.handler, operation.resource)
}

/// What is told, within what may be told in one turn; nothing if there is nothing to tell. Where it is too much each has its
/// turn: `from` counts those that were told before. Answers with how many are told.
fn encode(news: &[(String, Report)], from: usize) -> (String, usize) {
    if news.is_empty() {
        return (String::new(), 0);
    }
    let mut text = "[".to_owned();
    let mut told = 0;
    for one in news.iter().cycle().skip(from % news.len()).take(news.len()) {
        let one = serde_json::to_string(one).unwrap_or_default();
        if one.is_empty() || text.len() + one.len() + ",]".len() > NEWS_MAX {
            break;
        }
        if told > 0 {
            text.push(',');
        }
        text.push_str(&one);
        told += 1;
    }
    text.push(']');
    (text, told)
}

/// What another daemon told; nothing of what can't be read.
fn decode(text: &str) -> Vec<(String, Report)> {
    serde_json::from_str(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_has_its_turn_where_there_is_too_much_to_tell() {
        let report = Report {
            seconds: vec![[1_000_000; 4]; 120],
            ..Report::default()
        };
        let news: Vec<(String, Report)> = (0..30)
            .map(|n| (format!("http|http:{n}"), report.clone()))
            .collect();
        assert_eq!(encode(&[], 7), (String::new(), 0));
        let mut heard = std::collections::BTreeSet::new();
        let mut from = 0;
        for _ in 0..30 {
            let (text, told) = encode(&news, from);
            assert!(told > 0 && told < news.len() && text.len() <= NEWS_MAX);
            let read = decode(&text);
            assert_eq!(read.len(), told);
            heard.extend(read.into_iter().map(|(name, _)| name));
            from += told;
        }
        assert_eq!(heard.len(), news.len());
        let few = &news[..2];
        assert_eq!(decode(&encode(few, 1).0), [few[1].clone(), few[0].clone()]);
    }
}
