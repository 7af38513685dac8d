//! `tidegate dev` as a process: what its command is told, whose exit code it has, and what it leaves behind.

use crate::support::{self, DEADLINE};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tidegate");
const JOB: &str = "kind = \"echo\"\nhandler = \"exec\"\n[exec]\ncommand = [\"cat\"]\n";

/// A folder with one definition, and the command line of `tidegate dev` there.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("jobs")).unwrap();
        fs::write(dir.path().join("jobs/echo.toml"), JOB).unwrap();
        fs::write(dir.path().join("tidegate.toml"), "").unwrap();
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `tidegate dev` with these flags, and the script as its command.
    fn dev(&self, flags: &[&str], script: &str) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .arg("dev")
            .arg("--config")
            .arg(self.path("tidegate.toml"))
            .arg("--log")
            .arg(self.path("daemon.log"))
            .args(flags)
            .args(["--", "sh", "-c", script, PROGRAM])
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    async fn run(&self, flags: &[&str], script: &str) -> Output {
        let mut command = self.dev(flags, script);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap());
        tokio::time::timeout(DEADLINE, output)
            .await
            .unwrap()
            .unwrap()
    }

    /// Starts it and waits until its command has written the file `ready`: whatever it has to say.
    async fn start(&self, script: &str) -> (Child, String) {
        let child = self.dev(&["--no-postgres"], script).spawn().unwrap();
        let ready = self.path("ready");
        let said = || fs::read_to_string(&ready).unwrap_or_default();
        support::wait_until("the command runs", DEADLINE, || {
            std::future::ready(said().ends_with('\n'))
        })
        .await;
        (child, said())
    }
}

async fn end_of(child: &mut Child) -> ExitStatus {
    let mut status = None;
    support::wait_until("`tidegate dev` ends", DEADLINE, || {
        status = child.try_wait().unwrap();
        std::future::ready(status.is_some())
    })
    .await;
    status.unwrap()
}

/// All processes that come from this one, itself left out.
fn descendants(of: u32) -> Vec<u32> {
    let pids: Vec<u32> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    let mut found = vec![of];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        let is_child = |pid: &&u32| support::process_state(**pid).is_some_and(|(_, p)| p == parent);
        found.extend(pids.iter().filter(is_child));
        next += 1;
    }
    found.split_off(1)
}

#[tokio::test]
async fn the_command_works_with_the_private_servers_and_its_exit_code_is_ours() {
    let place = Place::new();
    let script = r#"
        "$0" migrate --json && "$0" check --online --json > /dev/null &&
        "$0" enqueue echo --wait --json && echo "$TIDEGATE_DEV_DIR" && test -n "$REDIS_URL$TIDEGATE_ADMIN_URL" &&
        test "$DATABASE_URL" = "$TIDEGATE_DATABASE__URL" && exit 7"#;
    let output = place.run(&[], script).await;
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(7), "{text}{errors}");
    let mut lines = text.lines();
    let migrated: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    assert_eq!(
        migrated["applied"], 0,
        "it was migrated already: {migrated}"
    );
    let job: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    assert_eq!(job["state"], "done", "{job}");
    let dir = lines.next().unwrap();
    assert!(!Path::new(dir).exists(), "{dir} is left behind");
    let log = fs::read_to_string(place.path("daemon.log")).unwrap();
    assert!(
        log.contains("job_done") && log.contains("\"stopped\""),
        "{log}"
    );
}

#[tokio::test]
async fn a_signal_is_handed_on_and_the_command_may_end_in_its_own_way() {
    let place = Place::new();
    let script =
        "trap 'exit 9' TERM; echo \"$TIDEGATE_DEV_DIR\" > ready; while :; do sleep 0.05; done";
    let (mut dev, dir) = place.start(script).await;
    let children = descendants(dev.id());
    assert!(children.len() >= 3, "redis, janitor, command: {children:?}");
    kill_process(Pid::from_child(&dev), Signal::TERM).unwrap();
    assert_eq!(end_of(&mut dev).await.code(), Some(9));
    assert!(!Path::new(dir.trim()).exists(), "{dir} is left behind");
    assert!(!children.into_iter().any(support::is_running));
}

#[tokio::test]
async fn nothing_is_left_when_it_is_killed() {
    let place = Place::new();
    let (mut dev, dir) = place
        .start("echo \"$TIDEGATE_DEV_DIR\" > ready; exec sleep 1000")
        .await;
    let children = descendants(dev.id());
    assert!(children.len() >= 3, "redis, janitor, command: {children:?}");
    dev.kill().unwrap();
    dev.wait().unwrap();
    support::wait_until("all of it is gone", DEADLINE, || {
        let running = children.iter().any(|pid| support::is_running(*pid));
        std::future::ready(!running && !Path::new(dir.trim()).exists())
    })
    .await;
}

#[tokio::test]
async fn a_folder_of_ones_own_keeps_its_data_and_has_one_user() {
    let place = Place::new();
    let kept = ["--dir", "kept"];
    let first = place
        .run(
            &kept,
            "\"$0\" enqueue echo --id a --delay 1h --json && \"$0\" dev --dir kept -- true",
        )
        .await;
    let errors = String::from_utf8_lossy(&first.stderr);
    assert_eq!(first.status.code(), Some(1), "{errors}");
    assert!(
        errors.contains("another `tidegate dev` uses it"),
        "{errors}"
    );
    let second = place.run(&kept, "\"$0\" job show a --json").await;
    let job: Value = serde_json::from_slice(&second.stdout).unwrap();
    assert_eq!(job["state"], "delayed", "{job}");
}

#[tokio::test]
async fn wrong_definitions_and_unknown_commands_are_told_apart() {
    let place = Place::new();
    let mut unknown = Command::new(PROGRAM);
    unknown.args(["dev", "--no-postgres", "--", "tidegate-no-such-program"]);
    unknown.current_dir(place.0.path());
    let output = tokio::task::spawn_blocking(move || unknown.output().unwrap());
    let output = tokio::time::timeout(DEADLINE, output)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(output.status.code(), Some(127));

    fs::write(place.path("jobs/echo.toml"), "kind = \"echo\"\n").unwrap();
    let output = place.run(&["--no-postgres"], "exit 7").await;
    assert_eq!(output.status.code(), Some(78));
}
