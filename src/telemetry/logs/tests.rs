#![allow(clippy::unwrap_used, clippy::panic)]
use super::*;
use parking_lot::Mutex;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is written while `act` runs.
fn logged(format: Format, filter: &str, act: impl FnOnce()) -> String {
    let sink = Sink::default();
    let writer = LogWriter::spawn(format, Box::new(sink.clone())).unwrap();
    let subscriber = subscriber(
        format,
        EnvFilter::new(filter),
        LineMaker::new(writer.handle()),
    );
    tracing::subscriber::with_default(subscriber, act);
    assert!(writer.close(Duration::from_secs(30)));
    String::from_utf8(sink.0.lock().clone()).unwrap()
}

/// The events of `act`, from debug up, as they would be logged.
pub(in crate::telemetry) fn events(act: impl FnOnce()) -> Vec<Value> {
    logged(Format::Json, "debug", act)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

const HOSTILE: &str = "boom\n{\"level\":\"ERROR\",\"event\":\"fake\"}\r\u{1b}[2J\u{9b}1m\u{202e}";

fn log_hostile_text() {
    tracing::warn!(
        event = "job_failed",
        error = HOSTILE,
        n = 7_u64,
        "{HOSTILE}"
    );
    tracing::warn!(shown = %HOSTILE, debugged = ?HOSTILE);
}

#[test]
fn json_is_one_flat_object_a_line() {
    let text = logged(Format::Json, "info", || {
        let span = tracing::info_span!("noise", secret = "span field");
        let _in_span = span.enter();
        log_hostile_text();
    });
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2, "{text}");
    let first = lines[0].as_object().unwrap();
    assert_eq!(first["level"], "WARN");
    assert_eq!(first["event"], "job_failed");
    assert_eq!(first["n"], 7);
    assert_eq!(first["error"], HOSTILE, "escaping loses nothing");
    assert_eq!(first["message"], HOSTILE);
    assert_eq!(lines[1]["shown"], HOSTILE);
    assert!(first.values().all(|v| !v.is_object() && !v.is_array()));
    assert!(!text.contains("noise") && !text.contains("span field"));

    let at = first["timestamp"].as_str().unwrap();
    assert!(chrono::DateTime::parse_from_rfc3339(at).is_ok(), "{at}");
    assert_eq!(at.len(), "2026-01-31T12:00:00.000Z".len());
}

#[test]
fn no_text_can_fake_a_line_in_either_format() {
    for format in [Format::Json, Format::Pretty] {
        let text = logged(format, "info", log_hostile_text);
        assert_eq!(text.lines().count(), 2, "{text}");
        let acts = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!text.contains(acts), "{text:?}");
        assert!(text.contains("boom"));
    }
}

#[test]
fn pretty_tells_level_message_and_fields() {
    let text = logged(Format::Pretty, "info", || {
        tracing::info!(event = "job_done", duration_ms = 1.5, "done");
    });
    assert!(
        text.ends_with("Z  INFO done event=\"job_done\" duration_ms=1.5\n"),
        "{text}"
    );
}

#[test]
fn the_level_filters() {
    let text = logged(Format::Json, "warn,tidegate::telemetry=debug", || {
        tracing::debug!("kept");
        tracing::info!(target: "elsewhere", "left out");
        tracing::warn!(target: "elsewhere", "also kept");
    });
    assert_eq!(text.lines().count(), 2, "{text}");
}

#[test]
fn auto_is_pretty_on_a_terminal_alone() {
    assert_eq!(Format::choose(LogFormat::Auto, true), Format::Pretty);
    assert_eq!(Format::choose(LogFormat::Auto, false), Format::Json);
    assert_eq!(Format::choose(LogFormat::Json, true), Format::Json);
    assert_eq!(Format::choose(LogFormat::Pretty, false), Format::Pretty);
}

const CHILD: &str = "telemetry::logs::tests::as_a_process";
const LINES: u64 = 5_000;

/// Sets up the log of this process for good: run by the test below, in a process of its own.
#[test]
#[ignore = "run by the test below, as a child"]
fn as_a_process() {
    let config = LogConfig {
        format: LogFormat::Auto,
        level: "info".to_owned(),
        successes_per_second: 100,
    };
    let logs = init(&config, Stream::Stdout).unwrap();
    assert!(matches!(
        init(&config, Stream::Stdout),
        Err(LogError::Twice(_))
    ));
    let panicked = std::thread::spawn(|| std::panic::panic_any("boom\nfake")).join();
    assert!(panicked.is_err());
    for n in 0..LINES {
        tracing::info!(event = "counted", n);
    }
    drop(logs);
    std::process::exit(7);
}

#[test]
fn a_process_that_exits_has_written_everything() {
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture", CHILD])
        .output()
        .unwrap();
    assert_eq!(child.status.code(), Some(7), "{child:?}");
    let stdout = String::from_utf8(child.stdout).unwrap();
    // The test harness prints to stdout as well.
    let logged: Vec<Value> = stdout
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(logged[0]["event"], "panic");
    assert_eq!(logged[0]["error"], "boom\nfake");
    assert_eq!(logged[0]["level"], "ERROR");
    let counted: Vec<u64> = logged[1..]
        .iter()
        .map(|line| line["n"].as_u64().unwrap())
        .collect();
    assert_eq!(counted, (0..LINES).collect::<Vec<_>>());
}
