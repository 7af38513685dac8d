//! The web app that the load's jobs are handed to: it keeps a receipt of every run, from its first byte to its answer or
//! to the moment at which the daemon broke it off.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One run of a job, as the app saw it.
#[derive(Debug, Clone)]
pub struct Run {
    pub id: String,
    pub attempt: u32,
    /// What no two runs may share at the same time, if there is such a thing.
    pub key: Option<String>,
    pub began: Instant,
    /// When it was answered or broken off.
    pub ended: Option<Instant>,
    /// Whether it was answered with success.
    pub succeeded: bool,
    /// Whether it was broken off before its answer.
    pub cut: bool,
}

#[derive(Clone, Default)]
struct Book(Arc<Mutex<Vec<Run>>>);

/// The app. It ends with its trial's runtime tasks.
pub struct Receiver {
    address: SocketAddr,
    book: Book,
    server: tokio::task::JoinHandle<()>,
}

impl Receiver {
    pub async fn start() -> Self {
        let book = Book::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new()
            .route("/", post(receive))
            .with_state(book.clone());
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            address,
            book,
            server,
        }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// All runs so far.
    pub fn runs(&self) -> Vec<Run> {
        self.book.0.lock().clone()
    }

    /// Runs that are under way.
    pub fn open(&self) -> usize {
        let book = self.book.0.lock();
        book.iter().filter(|run| run.ended.is_none()).count()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Notes the end of a run, also of one whose connection is gone.
struct Receipt {
    book: Book,
    number: usize,
    succeeded: Option<bool>,
}

impl Drop for Receipt {
    fn drop(&mut self) {
        let mut book = self.book.0.lock();
        let run = &mut book[self.number];
        run.ended = Some(Instant::now());
        run.succeeded = self.succeeded == Some(true);
        run.cut = self.succeeded.is_none();
    }
}

async fn receive(State(book): State<Book>, Json(job): Json<Value>) -> StatusCode {
    let args = &job["args"];
    let attempt = u32::try_from(job["attempt"].as_u64().unwrap()).unwrap();
    let number = {
        let mut runs = book.0.lock();
        runs.push(Run {
            id: job["id"].as_str().unwrap().to_owned(),
            attempt,
            key: args["key"]
                .as_str()
                .filter(|k| !k.is_empty())
                .map(str::to_owned),
            began: Instant::now(),
            ended: None,
            succeeded: false,
            cut: false,
        });
        runs.len() - 1
    };
    let mut receipt = Receipt {
        book,
        number,
        succeeded: None,
    };
    let takes = Duration::from_millis(args["ms"].as_u64().unwrap_or(0));
    tokio::time::sleep(takes).await;
    let fails = u64::from(attempt) <= args["fails"].as_u64().unwrap_or(0);
    receipt.succeeded = Some(!fails);
    // "Too early" lays no blame on the host, so no breaker has a say.
    if fails {
        StatusCode::TOO_EARLY
    } else {
        StatusCode::OK
    }
}

/// How often each attempt of each job began.
pub fn starts(runs: &[Run]) -> BTreeMap<(String, u32), u32> {
    let mut starts = BTreeMap::new();
    for run in runs {
        *starts.entry((run.id.clone(), run.attempt)).or_default() += 1;
    }
    starts
}

/// Pairs of runs with the same key, of different jobs, that were under way at the same time.
pub fn overlaps(runs: &[Run]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (n, run) in runs.iter().enumerate() {
        for other in &runs[n + 1..] {
            let apart = |a: &Run, b: &Run| a.ended.is_some_and(|ended| ended <= b.began);
            if run.key.is_some()
                && run.key == other.key
                && run.id != other.id
                && !apart(run, other)
                && !apart(other, run)
            {
                found.push((run.id.clone(), other.id.clone()));
            }
        }
    }
    found
}
