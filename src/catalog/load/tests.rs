//! Definitions as they stand in files.

#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;

const FULL: &str = r#"
kind = "app.append"
handler = "exec"
queue = "default"
priority = "high"
timeout = "30s"
resources = ["postgres:primary"]

[retry]
max_attempts = 5
strategy = "exponential"
base = "1s"
factor = 2.0
max = "10m"
jitter = "full"

[concurrency]
limit = 4

[args]
n = { type = "integer", default = 1, min = 0 }

[schedule]
cron = "0 15 1 * * *"

[exec]
command = ["/bin/true"]
"#;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exec {
    command: Vec<String>,
}

fn parse_text(text: &str) -> Result<JobSpec, Vec<Problem>> {
    parse(Path::new("jobs/a.toml"), text, &["exec", "db.purge"], &[])
}

#[test]
fn a_full_definition_is_read() {
    let spec = parse_text(FULL).unwrap();
    assert_eq!(spec.priority, crate::job::Priority::High);
    assert_eq!(spec.concurrency.limit, Some(4));
    assert_eq!(spec.section::<Exec>().unwrap().command, ["/bin/true"]);
    assert!(spec.schedule.is_some());
}

#[test]
fn kind_and_handler_are_enough() {
    let spec = parse_text("kind = \"a\"\nhandler = \"exec\"").unwrap();
    assert_eq!(&*spec.queue, "default");
    assert_eq!(spec.timeout.as_secs(), 60);
}

#[test]
fn problems_name_file_line_and_field() {
    let with = |from: &str, to: &str| FULL.replace(from, to);
    for (text, parts) in [
        (
            with("timeout = \"30s\"", "timeuot = \"30s\""),
            &["jobs/a.toml:6", "timeuot"][..],
        ),
        (with("limit = 4", "limit = 0"), &["concurrency.limit", "0"]),
        (
            with("limit = 4", "limit = 4\ntotal = 0\nkey = \"args.n\""),
            &["concurrency.total", "0"],
        ),
        (
            with("limit = 4", "limit = 4\ntotal = 9"),
            &["concurrency.total", "key"],
        ),
        (
            with("limit = 4", "key = \"args.n\""),
            &["concurrency.key", "limit"],
        ),
        (
            with("limit = 4", "limit = 4\nkey = \"args.m\""),
            &["concurrency.key", "declares no \"m\""],
        ),
        (
            with("limit = 4", "limit = 4\nkey = \"args.n.x\""),
            &["concurrency.key", "must lead to"],
        ),
        (
            with("[retry]", "[rate]\nlimit = 0\nper = \"1s\"\n[retry]"),
            &["rate.limit", "0"],
        ),
        (
            with("[retry]", "[rate]\nlimit = 1\nper = \"0s\"\n[retry]"),
            &["rate.per", "1ms"],
        ),
        (
            with("[retry]", "[rate]\nlimit = 20\nper = \"1ms\"\n[retry]"),
            &["rate.limit", "a second"],
        ),
        (
            with("limit = 4", "limit = 4\nkey = \"args.n\"")
                .replace("timeout =", "fairness = \"args.m\"\ntimeout =")
                .replace("[args]", "[args]\nm = { type = \"string\" }"),
            &["fairness", "not the same as concurrency.key"],
        ),
        (with("factor = 2.0", "factor = 0.5"), &["retry.", "factor"]),
        (
            with("handler = \"exec\"", "handler = \"exce\""),
            &["jobs/a.toml:3", "exce", "exec, db.purge"],
        ),
        (with("0 15 1 * * *", "0 0 0 30 2 *"), &["schedule.cron"]),
        (with("0 15 1 * * *", "60 * * * *"), &["schedule.cron"]),
        (
            with("cron = ", "catch_up = 5\ncron = "),
            &["schedule.catch_up", "misfire"],
        ),
        (
            with("cron = ", "misfire = \"all\"\ncatch_up = 0\ncron = "),
            &["schedule.catch_up", "1 to 10000"],
        ),
        (
            with("cron = ", "timezone = \"Mars/Base\"\ncron = "),
            &["schedule.timezone", "Mars/Base"],
        ),
        (
            with("default = 1, ", "required = true, ")
                .replace("timeout =", "before_peak = true\ntimeout ="),
            &["before_peak", "args.n is required"],
        ),
        (
            with("default = 1, ", "required = true, "),
            &["args.n", "required"],
        ),
        (
            with("\"postgres:primary\"", "\"primary\""),
            &["resources", "class:name"],
        ),
        (
            with("\"postgres:primary\"", "\"a:b\", \"a:b\""),
            &["resources", "\"a:b\" twice"],
        ),
        (
            with("kind = \"app.append\"", "kind = \"App\""),
            &["kind", "App"],
        ),
        (with("[retry]", "[retry"), &["jobs/a.toml:9"]),
    ] {
        let problems = parse_text(&text).map(|_| ()).unwrap_err();
        let told = problems.iter().map(Problem::to_string).collect::<String>();
        for part in parts {
            assert!(told.contains(part), "{told:?} lacks {part:?}");
        }
    }
}

#[test]
fn a_handlers_section_is_strict_too_and_names_its_line() {
    let spec = parse_text(&FULL.replace("command = [", "comand = [")).unwrap();
    let told = spec.section::<Exec>().unwrap_err().to_string();
    assert!(
        told.contains("jobs/a.toml:27") && told.contains("comand"),
        "{told}"
    );
}

#[test]
fn a_folder_is_taken_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("a.toml", FULL);
    write("notes.txt", "not a definition");
    assert_eq!(load(dir.path(), &["exec"]).unwrap().len(), 1);
    write("b.toml", FULL);
    let error = load(dir.path(), &["exec"]).unwrap_err().to_string();
    assert!(error.contains("already defined in"), "{error}");
    std::fs::remove_file(dir.path().join("b.toml")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", dir.path().join("c.toml")).unwrap();
    assert!(
        load(dir.path(), &["exec"])
            .unwrap_err()
            .to_string()
            .contains("out of its folder")
    );
}
