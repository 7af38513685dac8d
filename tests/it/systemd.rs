//! The unit file: systemd understands it, and it stays closed.

use std::{fs, path::Path, process::Command};

const UNIT: &str = include_str!("../../systemd/tidegate.service");

/// The greatest exposure allowed, in tenths: 1.5 on systemd's scale from 0 to 10.
const EXPOSURE_MAX: &str = "--threshold=15";

/// The first version whose `systemd-analyze` rates a file that is not installed.
const OFFLINE_SINCE: u32 = 250;

#[test]
fn systemd_understands_the_unit() {
    if systemd_version().is_none() {
        println!("skipped: there is no systemd-analyze here");
        return;
    }
    // It insists that the program exists, so the copy names the one just built.
    let unit = UNIT.replace("/usr/bin/tidegate", env!("CARGO_BIN_EXE_tidegate"));
    let (understood, words) = analyze(&["verify"], &unit);
    // It may have words for other units of this machine too.
    let complaints: Vec<_> = words
        .lines()
        .filter(|line| line.contains("tidegate"))
        .collect();
    assert!(understood && complaints.is_empty(), "{words}");
}

#[test]
fn a_unit_that_systemd_does_not_understand_is_noticed() {
    if systemd_version().is_none() {
        println!("skipped: there is no systemd-analyze here");
        return;
    }
    let (_, words) = analyze(&["verify"], &UNIT.replace("UMask=", "UMaks="));
    assert!(words.contains("UMaks"), "{words}");
}

#[test]
fn the_unit_stays_closed() {
    let version = systemd_version().unwrap_or(0);
    if version < OFFLINE_SINCE {
        println!("skipped: systemd-analyze {version} cannot rate a file");
        return;
    }
    let rate = ["security", "--offline=true", "--no-pager", EXPOSURE_MAX];
    let (closed, report) = analyze(&rate, UNIT);
    assert!(closed, "{report}");
    // The same unit without its user and its list of system calls must not pass.
    let opened = UNIT
        .replace("DynamicUser=yes", "")
        .replace("SystemCallFilter=", "#");
    let (closed, report) = analyze(&rate, &opened);
    assert!(!closed, "{report}");
}

#[test]
fn the_unit_says_what_the_daemon_relies_on() {
    for line in [
        "Type=notify",
        "KillMode=mixed",
        "DynamicUser=yes",
        "ProcSubset=all",
        "RestartPreventExitStatus=78 2",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "ExecStart=/usr/bin/tidegate run --config /etc/tidegate --jobs /etc/tidegate/jobs",
    ] {
        assert!(UNIT.lines().any(|found| found == line), "{line} is missing");
    }
}

/// The version of the `systemd-analyze` that is here.
fn systemd_version() -> Option<u32> {
    let output = Command::new("systemd-analyze")
        .arg("--version")
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Runs `systemd-analyze` on a copy of a unit: whether it succeeded, and all it said.
fn analyze(args: &[&str], unit: &str) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let file: &Path = &folder.path().join("tidegate.service");
    fs::write(file, unit).unwrap();
    let output = Command::new("systemd-analyze")
        .args(args)
        .arg(file)
        .output()
        .unwrap();
    let words = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&words).into_owned(),
    )
}
