//! A machine whose processors have more to do than they can: it is well, and goes on.

use super::scene::{DEFAULTS, KINDS, Scene, kinds_on, now_ms};
use crate::daemon::process::Site;
use crate::support::{DEADLINE, wait_until};
use std::num::NonZero;
use std::path::Path;
use std::process::{Child, Command};
use std::thread::available_parallelism;

/// Jobs that are busy themselves; politely so, since other tests run beside.
const BUSY: &str = "handler = \"exec\"\nexec.command = [\"nice\", \"-n\", \"15\", \"/bin/sh\", \"-c\", \
                    \"sleep 0.2; n=0; while [ $n -lt 20000 ]; do n=$((n+1)); done\"]";
/// How long it lasts once it is seen: five bad samples and more, which would make any other signal critical.
const LASTS_MS: u64 = 8_000;

/// Processes that do nothing but use a processor. Killed when dropped.
struct Hogs(Vec<Child>);

impl Hogs {
    fn start() -> Self {
        let processors = available_parallelism().map_or(1, NonZero::get);
        let hog = |_| {
            let mut hog = Command::new("nice");
            hog.args(["-n", "15", "sh", "-c", "while :; do :; done"]);
            hog.spawn().unwrap()
        };
        Self((0..3 * processors).map(hog).collect())
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        for hog in &mut self.0 {
            let _ = hog.kill();
            let _ = hog.wait();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hogs_of_the_processors_and_the_runners_own_work_stop_nobody() {
    if !Path::new("/proc/pressure/cpu").exists() {
        println!("not run: this kernel does not measure the pressure on its processors");
        return;
    }
    let kinds = kinds_on("host", BUSY);
    let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
    let scene = Scene::begin(Site::new(DEFAULTS, &kinds)).await;
    let hogs = Hogs::start();
    wait_until("the host is elevated", DEADLINE, || {
        let changes = scene.changes("host");
        std::future::ready(changes.last().is_some_and(|c| c.to == "elevated"))
    })
    .await;
    let seen_ms = now_ms();
    let half_ms = seen_ms + LASTS_MS / 2;
    wait_until("it lasts", DEADLINE, || {
        std::future::ready(now_ms() >= seen_ms + LASTS_MS)
    })
    .await;
    let end_ms = now_ms();
    let health = crate::cli::json_at(&scene.site, &["explain", "host"]).ok();
    assert_eq!(health["state"], "elevated", "{health}");
    drop(hogs);

    for kind in KINDS {
        for [from_ms, to_ms] in [[seen_ms, half_ms], [half_ms, end_ms]] {
            let count = scene.count(kind, from_ms, to_ms);
            assert!(count > 0, "{kind} jobs stopped");
        }
    }
    for resource in ["host", "redis:main"] {
        let changes = scene.changes(resource);
        let beyond = |state: &str| matches!(state, "overloaded" | "critical");
        assert!(
            !changes.iter().any(|c| beyond(&c.to)),
            "{resource}: {changes:#?}"
        );
    }
    scene.assert_told();
    scene.assert_nothing_burned();
}
