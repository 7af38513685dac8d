//! The HTTP endpoints, asked over real sockets.

use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tidegate::admin::{AdminError, AdminState, QueueReadiness, Readiness, serve};
use tidegate::config::Secret;
use tidegate::telemetry::Metrics;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::support::DEADLINE;

/// A served admin address, and the facts it tells.
struct Admin {
    address: SocketAddr,
    healthy: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    server: JoinHandle<Result<(), AdminError>>,
    client: Client,
}

fn state(token: &str, healthy: &Arc<AtomicBool>, metrics: &Arc<Metrics>) -> AdminState {
    let (live, ready) = (Arc::clone(healthy), Arc::clone(healthy));
    AdminState {
        token: Secret::new(token),
        liveness: Arc::new(move || {
            if live.load(Ordering::SeqCst) {
                Ok(())
            } else {
                Err("the scheduler stands still".to_owned())
            }
        }),
        readiness: Arc::new(move || Readiness {
            redis_answers: ready.load(Ordering::SeqCst),
            stopping: false,
            look_limit: Duration::from_secs(5),
            queues: vec![QueueReadiness {
                name: "default".into(),
                last_look: Some(Duration::from_millis(12)),
                oldest_age: None,
                objective: Duration::from_secs(300),
            }],
        }),
        health: Arc::new(|| json!({"v": 1, "state": "ok"})),
        metrics: Arc::clone(metrics),
    }
}

async fn admin(token: &str) -> Admin {
    tidegate::tls::install();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let healthy = Arc::new(AtomicBool::new(true));
    let metrics = Arc::new(Metrics::new());
    let stop = CancellationToken::new();
    let state = state(token, &healthy, &metrics);
    Admin {
        address,
        server: tokio::spawn(serve(listener, state, stop.clone())),
        healthy,
        metrics,
        stop,
        client: Client::builder()
            .no_proxy()
            .timeout(DEADLINE)
            .build()
            .unwrap(),
    }
}

impl Admin {
    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("http://{}{path}", self.address);
        self.client.request(method, url)
    }

    async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    /// What is answered to raw bytes, until the server closes the connection.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        read_to_close(&mut stream).await
    }
}

async fn read_to_close(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // The server may reset a connection whose input it did not read; what it said before counts.
    let _ = timeout(DEADLINE, stream.read_to_end(&mut answer))
        .await
        .expect("the server did not close the connection");
    String::from_utf8(answer).unwrap()
}

async fn body(response: Response) -> Value {
    serde_json::from_str(&response.text().await.unwrap()).unwrap()
}

#[tokio::test]
async fn each_endpoint_tells_how_things_stand() {
    let admin = admin("").await;
    let live = admin.get("/livez").await;
    assert_eq!(live.status(), StatusCode::OK);
    assert_eq!(body(live).await, json!({"live": true}));

    let ready = admin.get("/readyz").await;
    assert_eq!(ready.status(), StatusCode::OK);
    let wanted = json!({"ready": true, "reasons": [], "queues": [{"name": "default",
        "last_look_ms_ago": 12, "oldest_age_ms": null, "objective_ms": 300_000, "late": false}]});
    assert_eq!(body(ready).await, wanted);

    admin.metrics.reload_failed();
    let metrics = admin.get("/metrics").await;
    let kind = metrics.headers()["content-type"].to_str().unwrap();
    assert!(kind.starts_with("application/openmetrics-text"));
    let text = metrics.text().await.unwrap();
    assert!(text.contains("tidegate_reload_failures_total 1\n"));

    let health = admin.get("/health").await;
    assert_eq!(health.headers()["cache-control"], "no-store");
    assert_eq!(body(health).await["v"], 1);
}

#[tokio::test]
async fn trouble_is_told_with_its_reason() {
    let admin = admin("").await;
    admin.healthy.store(false, Ordering::SeqCst);
    let live = admin.get("/livez").await;
    assert_eq!(live.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(body(live).await["reason"], "the scheduler stands still");
    let ready = admin.get("/readyz").await;
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        body(ready).await["reasons"],
        json!(["redis does not answer"])
    );
}

#[tokio::test]
async fn unknown_paths_and_methods_are_refused_as_json() {
    let admin = admin("").await;
    let unknown = admin.get("/../etc/passwd").await;
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
    assert_eq!(body(unknown).await, json!({"error": "not_found"}));
    let post = admin.request(Method::POST, "/livez").send().await.unwrap();
    assert_eq!(post.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(body(post).await, json!({"error": "method_not_allowed"}));
}

#[tokio::test]
async fn the_token_opens_what_is_not_for_all() {
    let admin = admin("s3cret").await;
    assert_eq!(admin.get("/livez").await.status(), StatusCode::OK);
    assert_eq!(admin.get("/readyz").await.status(), StatusCode::OK);
    for path in ["/metrics", "/health", "/unknown"] {
        let refused = admin.get(path).await;
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(refused.headers()["www-authenticate"], "Bearer");
    }
    let in_query = admin.get("/metrics?token=s3cret").await;
    assert_eq!(in_query.status(), StatusCode::UNAUTHORIZED);

    let metrics = admin
        .request(Method::GET, "/metrics")
        .bearer_auth("s3cret")
        .send()
        .await
        .unwrap();
    assert_eq!(metrics.status(), StatusCode::OK);
    let text = metrics.text().await.unwrap();
    assert!(text.contains("tidegate_admin_refused_total{reason=\"token\"} 3\n"));
    assert!(text.contains("tidegate_admin_refused_total{reason=\"token_in_query\"} 1\n"));
}

#[tokio::test]
async fn a_rebound_name_reads_nothing() {
    let admin = admin("").await;
    let rebound = admin
        .request(Method::GET, "/health")
        .header("host", "evil.example")
        .send()
        .await
        .unwrap();
    assert_eq!(rebound.status(), StatusCode::MISDIRECTED_REQUEST);
    let foreign = admin
        .request(Method::GET, "/health")
        .header("origin", "http://evil.example")
        .send()
        .await
        .unwrap();
    assert_eq!(foreign.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn oversize_and_malformed_requests_end_at_once() {
    let admin = admin("").await;
    let filler = "x".repeat(64 * 1024);
    let huge = format!("GET /livez HTTP/1.1\r\nhost: localhost\r\nx: {filler}\r\n\r\n");
    let answer = admin.raw(huge.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");

    let many = "x: y\r\n".repeat(100);
    let many = format!("GET /livez HTTP/1.1\r\nhost: localhost\r\n{many}\r\n");
    let answer = admin.raw(many.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");

    let answer = admin.raw(b"\x16\x03\x01 no http at all\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");

    let body = b"POST /livez HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000000\r\n\r\n";
    let answer = admin.raw(body).await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
}

#[tokio::test]
async fn a_connection_carries_one_request() {
    let admin = admin("").await;
    let one = "GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let answer = admin.raw(one.repeat(2).as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
}

/// As many clients as there are slots send half a request and wait. They are thrown out, and an honest one is served.
#[tokio::test]
async fn slow_clients_do_not_keep_others_out() {
    let admin = admin("").await;
    let mut slow = Vec::new();
    for _ in 0..64 {
        let mut stream = TcpStream::connect(admin.address).await.unwrap();
        stream
            .write_all(b"GET /livez HTTP/1.1\r\nhost:")
            .await
            .unwrap();
        slow.push(stream);
    }
    assert_eq!(admin.get("/livez").await.status(), StatusCode::OK);
    let answer = read_to_close(&mut slow[0]).await;
    assert!(!answer.contains("200"), "{answer}");
}

#[tokio::test]
async fn stopping_ends_idle_connections_and_the_server() {
    let admin = admin("").await;
    let mut idle = TcpStream::connect(admin.address).await.unwrap();
    // Answered after the idle connection was accepted: connections are accepted in order.
    assert_eq!(admin.get("/livez").await.status(), StatusCode::OK);
    admin.stop.cancel();
    timeout(DEADLINE, admin.server)
        .await
        .expect("the server did not stop")
        .unwrap()
        .unwrap();
    assert_eq!(read_to_close(&mut idle).await, "");
    assert!(TcpStream::connect(admin.address).await.is_err());
}

#[tokio::test]
async fn nothing_is_open_to_others_without_a_token() {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let state = state("", &Arc::default(), &Arc::default());
    let refused = serve(listener, state, CancellationToken::new()).await;
    assert!(matches!(refused, Err(AdminError::Exposed(_))));
}
