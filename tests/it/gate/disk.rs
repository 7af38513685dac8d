//! A full disk under the append-only file: Redis answers, and refuses every write.
//!
//! The disk is made full by the limit of a process on the size of its files. That needs neither rights nor mounts, and is
//! lifted as easily.

use super::redis::{MAIN, assert_came_back_by_class};
use super::scene::{QUICK, SLEEP, Scene, kinds_on, now_ms};
use crate::daemon::process::Site;
use crate::support::{DEADLINE, wait_until};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tidegate::stack::{PrivateRedis, RedisOptions, Scratch};

/// Lets a server write files up to a size; none: up to any.
fn limit_files(server: &PrivateRedis, bytes: Option<u64>) {
    let pid = Pid::from_raw(i32::try_from(server.pid().unwrap()).unwrap());
    let limit = Rlimit {
        current: bytes,
        maximum: None,
    };
    prlimit(pid, Resource::Fsize, limit).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_the_append_only_file_burns_nothing_and_comes_back_by_class() {
    let scratch = Scratch::new().unwrap();
    let mut options = RedisOptions::new(scratch.path().join("redis"));
    options.append_only = true;
    let server = PrivateRedis::start(options).unwrap();
    let kinds = kinds_on(MAIN, SLEEP);
    let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
    let scene = Scene::begin(Site::on(&server.url(), QUICK, &kinds)).await;

    let onset_ms = now_ms();
    limit_files(&server, Some(0));
    scene.until_state(MAIN, "critical", onset_ms).await;
    let trouble = scene.outlast(onset_ms).await;
    let refused = ::redis::cmd("SET")
        .arg("probe")
        .arg("x")
        .exec_async(&mut scene.site.redis().await)
        .await;
    assert_eq!(refused.unwrap_err().code(), Some("MISCONF"));
    limit_files(&server, None);
    // Such a server refuses even a PING, in the same moment: which of two equals is named depends on whose sample is first.
    // That both were seen, its health tells.
    wait_until("the append-only file shows", DEADLINE, || {
        let health = crate::cli::json_at(&scene.site, &["explain", MAIN]).ok();
        let shows = |name: &str| {
            let signals = health["signals"].as_array().into_iter().flatten();
            let mut of_it = signals.filter(|s| s["name"] == name);
            of_it.any(|s| s["pressure"].as_f64() > Some(0.1))
        };
        std::future::ready(shows("redis_aof_write_failed") && shows("redis_ping_failed"))
    })
    .await;
    let told = scene.daemon.events("gate");
    let by_disk = |e: &serde_json::Value| {
        ["redis_aof_write_failed", "redis_ping_failed"]
            .contains(&e["signal"].as_str().unwrap_or(""))
    };
    assert!(told.iter().any(by_disk), "{told:#?}");
    assert_came_back_by_class(&scene, trouble).await;
}
