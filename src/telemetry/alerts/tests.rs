//! Delivery to a real HTTP server on a real socket.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::config::Secret;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

const SOON: Duration = Duration::from_secs(20);

/// A webhook that answers with these statuses in turn, and then with 200.
struct Receiver {
    config: AlertsConfig,
    received: mpsc::UnboundedReceiver<Value>,
}

#[derive(Clone)]
struct Answers {
    statuses: Arc<Mutex<VecDeque<StatusCode>>>,
    received: mpsc::UnboundedSender<Value>,
}

async fn take(State(answers): State<Answers>, body: String) -> StatusCode {
    answers
        .received
        .send(serde_json::from_str(&body).unwrap())
        .unwrap();
    answers
        .statuses
        .lock()
        .pop_front()
        .unwrap_or(StatusCode::OK)
}

async fn receiver(statuses: &[StatusCode]) -> Receiver {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook?key=hunter2", listener.local_addr().unwrap());
    let (sender, received) = mpsc::unbounded_channel();
    let answers = Answers {
        statuses: Arc::new(Mutex::new(statuses.iter().copied().collect())),
        received: sender,
    };
    let app = Router::new()
        .route("/hook", axum::routing::post(take))
        .with_state(answers);
    tokio::spawn(async move { axum::serve(listener, app).await });
    Receiver {
        config: config(&url),
        received,
    }
}

fn config(url: &str) -> AlertsConfig {
    AlertsConfig {
        webhook: Secret::new(url),
        timeout: Duration::from_secs(10),
    }
}

impl Receiver {
    async fn next(&mut self) -> Value {
        timeout(SOON, self.received.recv()).await.unwrap().unwrap()
    }
}

fn alert(subject: &str) -> Alert {
    Alert::new(AlertName::QueueLag, subject, "late")
}

#[tokio::test]
async fn an_alert_arrives_as_json() {
    let mut receiver = receiver(&[]).await;
    let (alerts, task) = Alerts::start(&receiver.config).unwrap();
    alerts.raise(alert("default"));
    let got = receiver.next().await;
    assert_eq!(got["alert"], "queue_lag");
    assert_eq!(got["subject"], "default");
    assert!(task.shutdown(SOON).await);
    assert_eq!(alerts.lost(), 0);
}

#[tokio::test]
async fn a_failed_delivery_is_tried_three_times() {
    let down = StatusCode::SERVICE_UNAVAILABLE;
    let mut receiver = receiver(&[down, down, StatusCode::OK, down, down, down]).await;
    let (alerts, task) = Alerts::start(&receiver.config).unwrap();
    alerts.raise(alert("a"));
    alerts.raise(alert("b"));
    for subject in ["a", "a", "a", "b", "b", "b"] {
        assert_eq!(receiver.next().await["subject"], subject);
    }
    assert!(task.shutdown(SOON).await);
    assert_eq!(alerts.lost(), 1, "the second one was never taken");
    assert!(receiver.received.try_recv().is_err(), "no fourth try");
}

#[tokio::test]
async fn a_refusal_is_not_tried_again() {
    let mut receiver = receiver(&[StatusCode::FORBIDDEN]).await;
    let (alerts, task) = Alerts::start(&receiver.config).unwrap();
    alerts.raise(alert("a"));
    receiver.next().await;
    assert!(task.shutdown(SOON).await);
    assert!(receiver.received.try_recv().is_err());
    assert_eq!(alerts.lost(), 1);
}

#[tokio::test]
async fn alike_alerts_are_held_back_and_told_at_shutdown() {
    let mut receiver = receiver(&[]).await;
    let (alerts, task) = Alerts::start(&receiver.config).unwrap();
    for _ in 0..5 {
        alerts.raise(alert("a"));
    }
    assert_eq!(receiver.next().await["suppressed"], 0);
    assert!(task.shutdown(SOON).await);
    assert_eq!(receiver.next().await["suppressed"], 3);
    assert!(receiver.received.try_recv().is_err());
}

/// A server that accepts and never answers: shutdown keeps its deadline, and the queue its bound.
#[tokio::test]
async fn a_hanging_webhook_holds_nothing_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (alerts, task) = Alerts::start(&config(&url)).unwrap();
    alerts.raise(alert("first"));
    let (_connection, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
    for n in 0..QUEUE + 10 {
        alerts.raise(alert(&n.to_string()));
    }
    assert_eq!(alerts.lost(), 10, "the oldest were dropped");
    assert!(!task.shutdown(Duration::from_millis(50)).await);
}

#[tokio::test]
async fn no_error_shows_the_address() {
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/?key=hunter2", unused.local_addr().unwrap());
    drop(unused);
    let webhook = Webhook::new(&Secret::new(url), Duration::from_secs(10)).unwrap();
    let error = webhook.deliver(&alert("a")).await.unwrap_err();
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(Webhook::new(&Secret::new("no url"), SOON).is_err());
}

#[tokio::test]
async fn without_a_webhook_nothing_is_kept() {
    let (alerts, task) = Alerts::start(&config("")).unwrap();
    alerts.raise(alert("a"));
    assert!(task.shutdown(Duration::ZERO).await);
}
