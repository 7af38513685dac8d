//! A Redis that is frozen: nothing can be claimed, so that what is shown is that nothing is lost by it, and in which order
//! work comes back.

use super::scene::{KINDS, QUICK, SLEEP, SOON_MS, Scene, Start, Trouble, kinds_on, now_ms};
use crate::daemon::process::Site;
use tidegate::stack::{PrivateRedis, RedisOptions, Scratch};

pub const MAIN: &str = "redis:main";

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_redis_burns_nothing_and_comes_back_by_class() {
    let scratch = Scratch::new().unwrap();
    let mut server = PrivateRedis::start(RedisOptions::new(scratch.path().join("redis"))).unwrap();
    let kinds = kinds_on(MAIN, SLEEP);
    let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
    let scene = Scene::begin(Site::on(&server.url(), QUICK, &kinds)).await;

    let onset_ms = now_ms();
    server.pause().unwrap();
    scene.until_state(MAIN, "critical", onset_ms).await;
    let trouble = scene.outlast(onset_ms).await;
    server.resume().unwrap();
    assert_came_back_by_class(&scene, trouble).await;
    // One event each: it went, and it came back.
    for event in ["redis_lost", "redis_back"] {
        assert_eq!(scene.daemon.events(event).len(), 1, "{event}");
    }
}

/// Nothing started while Redis could not be written; when it could again, `critical` came at once, and the others with
/// the state. `free` needs Redis as well: it is its queue's.
pub async fn assert_came_back_by_class(scene: &Scene, trouble: Trouble) {
    let Trouble { onset_ms, end_ms } = trouble;
    let critical = scene
        .changes(MAIN)
        .into_iter()
        .find(|c| c.at_ms >= onset_ms && c.to == "critical");
    let critical_ms = critical.expect("it became critical").at_ms;
    assert!(
        critical_ms <= onset_ms + SOON_MS,
        "{} ms",
        critical_ms - onset_ms
    );
    for kind in KINDS {
        scene.assert_stopped(kind, trouble).await;
    }

    scene.until_state(MAIN, "ok", end_ms).await;
    scene.until_started("bulk", now_ms()).await;
    scene.assert_recovered(MAIN, trouble);
    let entered = |state: &str| {
        let changes = scene.changes(MAIN).into_iter();
        let mut after = changes.filter(|c| c.at_ms >= end_ms);
        after.find(|c| c.to == state).unwrap().at_ms
    };
    let first = |kind: &str| {
        let starts: Vec<Start> = scene.starts();
        let mut after = starts.into_iter().filter(|s| s.at_ms >= end_ms);
        after.find(|s| s.kind == kind).unwrap().at_ms
    };
    assert!(
        first("critical") < entered("overloaded"),
        "critical jobs wait for no state"
    );
    assert!(first("normal") >= entered("overloaded"));
    assert!(first("free") >= entered("overloaded"));
    scene.assert_told();
    scene.assert_nothing_burned();
}
