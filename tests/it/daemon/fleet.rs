//! Limits that hold for all daemons together, whatever becomes of one.

use super::process::{Site, append_to};
use crate::support::{DEADLINE, wait_until};
use std::fs;
use std::time::Duration;

/// A definition whose runs write down when they begin and end, and that fails loudly when two overlap.
fn alone(dir: &std::path::Path, more: &str) -> String {
    let dir = dir.display();
    let script = format!(
        "read -r job || exit 1; exec 9>{dir}/lock; flock -n 9 || {{ echo two >> {dir}/overlap; exit 1; }}; echo run >> {dir}/runs; sleep 0.02"
    );
    format!(
        "kind = \"app.alone\"\nhandler = \"exec\"\n{more}\n[args]\nt = {{ type = \"string\" }}\n[exec]\ncommand = [\"/bin/sh\", \"-c\", '''{script}''']"
    )
}

fn lines(path: &std::path::Path) -> usize {
    fs::read_to_string(path).unwrap_or_default().lines().count()
}

/// A limit of one that lets several run, or none ever again: three daemons, one of them killed.
#[tokio::test(flavor = "multi_thread")]
async fn f12_a_limit_of_one_lets_several_run() {
    let dir = tempfile::tempdir().unwrap();
    let settings = "[daemon]\nlease = \"1s\"\npoll = \"5s\"\n";
    let site = Site::new(
        settings,
        &[&alone(
            dir.path(),
            "[concurrency]\nlimit = 1\nkey = \"args.t\"",
        )],
    );
    let victim = site.start("a");
    let _others = [site.start("b"), site.start("c")];
    let jobs: Vec<String> = (0..60)
        .map(|n| format!(r#"{{"kind":"app.alone","id":"j{n}","args":{{"t":"x"}}}}"#))
        .collect();
    site.push(&jobs).await;
    let runs = dir.path().join("runs");
    wait_until("some ran", DEADLINE, || {
        std::future::ready(lines(&runs) > 10)
    })
    .await;
    victim.kill9();
    site.wait_for_stat("completed", 60, DEADLINE).await;
    let overlaps = lines(&dir.path().join("overlap"));
    assert_eq!(overlaps, 0, "two ran at once");
    let queue = site.queue("default").await;
    assert_eq!(queue.holders("app.alone@x").await.unwrap(), 0);
    let counts = queue.counts().await.unwrap();
    assert_eq!(counts.stats["completed"], 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_parked_goes_on_as_soon_as_a_slot_comes_free_though_looks_are_far_apart() {
    let out = tempfile::NamedTempFile::new().unwrap();
    let site = Site::new(
        "[daemon]\npoll = \"10s\"\n",
        &[&append_to(out.path(), "[concurrency]\nlimit = 1")],
    );
    let _daemons = [site.start("a"), site.start("b"), site.start("c")];
    let jobs: Vec<String> = (0..40)
        .map(|n| format!(r#"{{"kind":"app.append","id":"j{n}"}}"#))
        .collect();
    site.push(&jobs).await;
    // Forty looks would take minutes.
    site.wait_for_stat("completed", 40, Duration::from_secs(20))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_rate_goes_on_when_it_is_raised() {
    for key in ["", "key = \"args.n\"\n"] {
        let out = tempfile::NamedTempFile::new().unwrap();
        let rate = format!("[rate]\nlimit = 1\nper = \"30d\"\n{key}");
        let site = Site::new("", &[&append_to(out.path(), &rate)]);
        let _daemon = site.start("a");
        let jobs: Vec<String> = (0..5)
            .map(|n| format!(r#"{{"kind":"app.append","id":"j{n}"}}"#))
            .collect();
        site.push(&jobs).await;
        site.wait_for_stat("completed", 1, DEADLINE).await;
        let raised = crate::cli::at(
            &site,
            &[
                "limits",
                "set",
                "default",
                "app.append",
                "--rate",
                "1000/1s",
            ],
        );
        assert_eq!(raised.code, 0, "{raised:?}");
        site.wait_for_stat("completed", 5, DEADLINE).await;
    }
}
