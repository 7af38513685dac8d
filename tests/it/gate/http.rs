//! A web app that is gone, and one that takes calls and never answers.

use super::scene::{Change, QUICK, SLOTS, SOON_MS, Scene, Trouble, kinds_on, last_id, now_ms};
use crate::daemon::process::Site;
use crate::support::{DEADLINE, wait_until};
use axum::Router;
use axum::routing::post;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;

/// A web app on a port of its own, that answers after a while, or never.
struct App {
    address: SocketAddr,
    mute: Arc<AtomicBool>,
    serving: Option<JoinHandle<()>>,
}

impl App {
    async fn start() -> Self {
        let mut app = Self {
            address: "127.0.0.1:0".parse().unwrap(),
            mute: Arc::default(),
            serving: None,
        };
        app.come_back();
        app
    }

    /// Nobody listens any more, and open connections are cut.
    async fn go(&mut self) {
        let serving = self.serving.take().unwrap();
        serving.abort();
        let _ = serving.await;
    }

    fn come_back(&mut self) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(self.address).unwrap();
        let listener: TcpListener = socket.listen(64).unwrap();
        self.address = listener.local_addr().unwrap();
        let mute = Arc::clone(&self.mute);
        let answer = move || {
            let mute = Arc::clone(&mute);
            async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                while mute.load(Ordering::SeqCst) {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        };
        let router = Router::new().route("/jobs", post(answer));
        self.serving = Some(tokio::spawn(async move {
            axum::serve(listener, router).await.unwrap();
        }));
    }
}

fn site(app: &App) -> Site {
    let host = app.address;
    let settings = format!(
        "{QUICK}[breaker]\nopen = \"1s\"\nopen_max = \"2s\"\n[http]\nallow = [\"{host}\"]\nallow_private = true\n"
    );
    let run = format!(
        "handler = \"http\"\ntimeout = \"500ms\"\nhttp.url = \"http://{host}/jobs\"\n\
         retry.max_attempts = 100\nretry.strategy = \"fixed\"\nretry.base = \"100ms\"\nretry.jitter = \"none\""
    );
    let kinds = kinds_on(&format!("http:127.0.0.1:{}", host.port()), &run);
    let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
    Site::new(&settings, &kinds)
}

/// `most` calls may fail before it is found out.
async fn dies_and_comes_back(
    most: usize,
    break_it: impl AsyncFnOnce(&mut App),
    mend_it: impl AsyncFnOnce(&mut App),
) {
    let mut app = App::start().await;
    let resource = format!("http:127.0.0.1:{}", app.address.port());
    let scene = Scene::begin(site(&app)).await;
    let onset_ms = now_ms();
    break_it(&mut app).await;
    wait_until("the breaker opens", DEADLINE, || {
        std::future::ready(!scene.breaker_changes(&resource).is_empty())
    })
    .await;
    let trouble = scene.outlast(onset_ms).await;
    assert_left_alone(&scene, &resource, trouble, most).await;

    mend_it(&mut app).await;
    let mended_ms = now_ms();
    wait_until("the breaker closes", DEADLINE, || {
        let changes = scene.breaker_changes(&resource);
        std::future::ready(changes.last().is_some_and(|c| c.to == "closed"))
    })
    .await;
    for kind in ["bulk", "normal", "critical"] {
        scene.until_started(kind, now_ms()).await;
    }
    // A trial that was under way may have failed yet; from the first that was good it only goes up.
    let changes = scene.breaker_changes(&resource);
    let since = changes.iter().skip_while(|c| c.at_ms < mended_ms);
    let way: Vec<&str> = since.map(|c| c.to.as_str()).collect();
    assert!(way.ends_with(&["ramping", "closed"]), "{way:?}");
    let ramps = way.iter().filter(|state| **state == "ramping").count();
    assert_eq!(ramps, 1, "no second collapse: {way:?}");
    scene.assert_told();
    assert!(scene.daemon.events("job_dead").is_empty());
}

/// The breaker opened soon. Then only trials reach the app; who does not need it goes on, and what waits for it is whole.
async fn assert_left_alone(scene: &Scene, resource: &str, trouble: Trouble, most: usize) {
    let Trouble { onset_ms, end_ms } = trouble;
    let changes = scene.breaker_changes(resource);
    let open = changes.iter().find(|c| c.to == "open");
    let opened_ms = open.expect("it opened").at_ms;
    let took_ms = opened_ms - onset_ms;
    assert!(took_ms <= SOON_MS, "it took {took_ms} ms");
    let failed = scene.daemon.events("job_failed").len();
    let trial = |c: &&Change| c.to == "half_open" && c.at_ms < end_ms;
    let trials = changes.iter().filter(trial).count();
    assert!(failed <= most + trials, "{failed} failed, {trials} trials");

    // Those that had been claimed a moment before it opened begin a moment after.
    let from_ms = opened_ms + 100;
    let calls: usize = ["bulk", "normal", "critical"]
        .map(|kind| scene.count(kind, from_ms, end_ms))
        .iter()
        .sum();
    assert!(calls <= trials + 1, "{calls} calls, {trials} trials");
    scene.assert_went_on("free", trouble);
    let queue = scene.site.queue("default").await;
    for kind in ["bulk", "normal", "critical"] {
        let held = queue.find(&last_id(kind)).await.unwrap().unwrap();
        assert_eq!((held.state.as_str(), held.history.attempts), ("pending", 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_is_gone_is_left_alone_until_it_is_back() {
    let most = 3 * SLOTS;
    dies_and_comes_back(
        most,
        async |app| app.go().await,
        async |app| app.come_back(),
    )
    .await;
}

/// Each call takes its whole timeout to tell nothing, with as many at once as there are slots.
#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_never_answers_is_left_alone_until_it_does() {
    let most = 4 * SLOTS;
    dies_and_comes_back(
        most,
        async |app| app.mute.store(true, Ordering::SeqCst),
        async |app| app.mute.store(false, Ordering::SeqCst),
    )
    .await;
}
