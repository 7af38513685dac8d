//! The `http` handler against real servers on this machine.

use super::handler::{context, try_build};
use super::support::DEADLINE;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Response, Uri};
use futures::StreamExt;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tidegate::config::{Config, Secret};
use tidegate::handlers::Handler;
use tidegate::job::{Blame, Failure, Outcome};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// A request as the app saw it.
#[derive(Debug)]
struct Seen {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Seen {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
}

/// A web app that answers every request alike and tells what it saw.
struct App {
    address: SocketAddr,
    seen: mpsc::UnboundedReceiver<Seen>,
}

impl App {
    async fn start(answer: impl Fn() -> Response<Body> + Clone + Send + Sync + 'static) -> Self {
        let (send, seen) = mpsc::unbounded_channel();
        let app = axum::Router::new().fallback(
            async move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| {
                let request = Seen {
                    method,
                    uri,
                    headers,
                    body,
                };
                send.send(request).unwrap();
                answer()
            },
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, seen }
    }

    async fn answering(
        status: u16,
        headers: &[(&'static str, String)],
        body: &'static str,
    ) -> Self {
        let headers = headers.to_vec();
        Self::start(move || {
            let mut response = Response::builder().status(status);
            for (name, value) in &headers {
                response = response.header(*name, value);
            }
            response.body(Body::from(body)).unwrap()
        })
        .await
    }

    /// What the handler makes of this app's answer.
    async fn outcome(&self) -> Outcome {
        run(&post_to(self.address, "")).await
    }

    fn resource(&self) -> String {
        format!("http:{}", self.address)
    }
}

/// A server that answers with these bytes, whatever they are, and hangs up when `hang_up` is set.
async fn raw(answer: &'static [u8], hang_up: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer).await;
                if !hang_up {
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    address
}

fn with_config(url: &str, more: &str, set: impl FnOnce(&mut Config)) -> Arc<dyn Handler> {
    let section = format!("url = \"{url}\"\n{more}");
    try_build("http", &section, |config| {
        config.http.allow = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        config.http.allow_private = true;
        config.http.max_response = 1_000;
        let secret = Secret::new("hunter2");
        config.secrets.insert("webapp".to_owned(), secret);
        set(config);
    })
    .unwrap()
}

fn post_to(address: SocketAddr, more: &str) -> Arc<dyn Handler> {
    with_config(&format!("http://{address}/jobs?x=1"), more, |_| {})
}

async fn run(handler: &Arc<dyn Handler>) -> Outcome {
    let ctx = context(json!({"to": "é"}));
    tokio::time::timeout(DEADLINE, handler.run(&ctx))
        .await
        .expect("the handler ends within the deadline")
}

fn failed(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Failed(failure) => failure,
        other => panic!("not failed: {other:?}"),
    }
}

fn fatal(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Fatal(failure) => failure,
        other => panic!("not fatal: {other:?}"),
    }
}

#[tokio::test]
async fn the_app_gets_the_job_signed() {
    let mut app = App::answering(200, &[], "{\"sent\":true}").await;
    let handler = post_to(
        app.address,
        "secret = \"webapp\"\nheaders = { X-Env = \"test\" }",
    );
    let outcome = run(&handler).await;
    assert_eq!(outcome, Outcome::Done(Some(json!({"sent": true}))));

    let seen = app.seen.recv().await.unwrap();
    assert_eq!(
        (seen.method.as_str(), seen.uri.to_string().as_str()),
        ("POST", "/jobs?x=1")
    );
    let body: Value = serde_json::from_slice(&seen.body).unwrap();
    assert_eq!(
        body,
        json!({"id": "job-1", "kind": "app.test", "args": {"to": "é"}, "attempt": 2})
    );
    for (name, value) in [
        ("content-type", "application/json"),
        (
            "user-agent",
            concat!("tidegate/", env!("CARGO_PKG_VERSION")),
        ),
        ("tidegate-id", "job-1"),
        ("idempotency-key", "job-1"),
        ("tidegate-attempt", "2"),
        (
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ),
        ("x-env", "test"),
    ] {
        assert_eq!(seen.header(name), value, "{name}");
    }
    check_signature(&seen, "hunter2");
}

/// As a receiver would: over the raw body, with a time that is recent.
fn check_signature(seen: &Seen, secret: &str) {
    let (t, v1) = seen
        .header("tidegate-signature")
        .split_once(",v1=")
        .unwrap();
    let t = t.strip_prefix("t=").unwrap();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    assert!(now.abs_diff(t.parse().unwrap()) < 60, "{t}");
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("{t}.").as_bytes());
    mac.update(&seen.body);
    mac.verify_slice(&hex::decode(v1).unwrap()).unwrap();
}

#[tokio::test]
async fn without_a_secret_nothing_is_signed() {
    let mut app = App::answering(204, &[], "").await;
    assert_eq!(app.outcome().await, Outcome::Done(None));
    assert_eq!(
        app.seen.recv().await.unwrap().header("tidegate-signature"),
        ""
    );
}

#[tokio::test]
async fn an_answer_that_is_no_json_is_no_result() {
    let app = App::answering(201, &[], "created").await;
    assert_eq!(app.outcome().await, Outcome::Done(None));
}

#[tokio::test]
async fn an_endless_answer_is_cut() {
    let app = App::start(|| {
        let zeros = futures::stream::repeat_with(|| {
            Ok::<_, std::io::Error>(Bytes::from_static(&[b'0'; 64]))
        });
        Response::new(Body::from_stream(zeros.boxed()))
    })
    .await;
    assert_eq!(app.outcome().await, Outcome::Done(None));
}

#[tokio::test]
async fn statuses_that_may_pass_are_tried_again_after_the_time_asked_for() {
    for status in [408, 425, 429, 500, 503] {
        let app = App::answering(status, &[("retry-after", "17".to_owned())], "busy").await;
        let failure = failed(app.outcome().await);
        assert_eq!(
            failure.retry_after,
            Some(Duration::from_secs(17)),
            "{status}"
        );
        assert!(failure.message.contains(&status.to_string()), "{failure:?}");
        assert!(failure.message.ends_with(": busy"), "{failure:?}");
        let blame = Blame {
            resource: app.resource(),
            connect: false,
        };
        let expected = (status >= 500).then_some(blame);
        assert_eq!(failure.blame, expected, "{status}");
    }
}

#[tokio::test]
async fn other_statuses_are_fatal_and_show_a_safe_excerpt() {
    let app = App::answering(
        422,
        &[("retry-after", "17".to_owned())],
        "no\n\u{1b}[31m such user",
    )
    .await;
    let failure = fatal(app.outcome().await);
    assert!(
        failure.message.ends_with(": no\\n\\u{1b}[31m such user"),
        "{failure:?}"
    );
    assert_eq!((failure.retry_after, failure.blame), (None, None));

    let long = Box::leak("x".repeat(10_000).into_boxed_str());
    let app = App::answering(404, &[], long).await;
    assert!(fatal(app.outcome().await).message.len() < 300);
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let mut target = App::answering(200, &[], "").await;
    for status in [301, 302, 303, 307, 308] {
        let location = format!("http://{}/", target.address);
        let app = App::answering(status, &[("location", location)], "").await;
        fatal(app.outcome().await);
    }
    assert!(target.seen.try_recv().is_err(), "the redirect was followed");
}

#[tokio::test]
async fn a_closed_port_is_a_failure_to_connect() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let failure = failed(run(&post_to(address, "")).await);
    let resource = format!("http:{address}");
    assert_eq!(
        failure,
        Failure::new(&failure.message).blaming(resource, true)
    );
    assert!(failure.message.contains("refused"), "{failure:?}");
}

#[tokio::test]
async fn silence_and_half_an_answer_are_the_hosts_fault() {
    let silent = raw(b"", false).await;
    let dripping = raw(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n1", false).await;
    let broken = raw(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n1", true).await;
    let gone = raw(b"", true).await;
    let rubbish = raw(b"SSH-2.0-OpenSSH\r\n", true).await;
    for (what, address) in [
        ("silent", silent),
        ("dripping", dripping),
        ("broken", broken),
        ("gone", gone),
        ("rubbish", rubbish),
    ] {
        let failure = failed(run(&post_to(address, "timeout = \"300ms\"")).await);
        let blamed = Failure::new(&failure.message).blaming(format!("http:{address}"), false);
        assert_eq!(failure, blamed, "{what}");
    }
}

#[tokio::test]
async fn a_name_that_leads_to_this_machine_is_refused_unless_allowed() {
    let mut app = App::answering(204, &[], "").await;
    let url = format!("http://localhost:{}/", app.address.port());
    let allowed = with_config(&url, "", |_| {});
    assert_eq!(run(&allowed).await, Outcome::Done(None));
    app.seen.recv().await.unwrap();

    let guarded = with_config(&url, "", |config| config.http.allow_private = false);
    let failure = fatal(run(&guarded).await);
    assert!(failure.message.contains("may not be called"), "{failure:?}");
    assert!(app.seen.try_recv().is_err(), "the refused host was called");
}

#[tokio::test]
async fn https_speaks_tls() {
    let app = App::answering(204, &[], "").await;
    let handler = with_config(&format!("https://{}/", app.address), "", |_| {});
    let failure = failed(run(&handler).await);
    // The plain server answers the handshake with a plain 400.
    assert!(failure.blame.is_some_and(|blame| blame.connect));
    assert!(
        failure.message.contains("InvalidContentType"),
        "{}",
        failure.message
    );
}
