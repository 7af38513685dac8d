//! The invariants of `docs/ARCHITECTURE.md` that the compiler does not hold.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Each room of `src/` with the rooms it may import from. What is not listed here does not exist.
const ROOMS: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("tls", &[]),
    ("stack", &[]),
    ("job", &[]),
    ("config", &["job"]),
    ("policy", &["job", "config"]),
    ("catalog", &["job", "config", "policy"]),
    ("telemetry", &["job", "config", "clock", "tls"]),
    ("queue", &["job", "config", "policy", "catalog", "clock"]),
    ("health", &["job", "config", "policy", "clock", "tls"]),
    ("cache", &["job", "config", "policy", "clock", "queue"]),
    ("db", &["job", "config", "policy", "clock"]),
    (
        "handlers",
        &[
            "job", "config", "policy", "catalog", "clock", "tls", "cache", "db",
        ],
    ),
    (
        "runner",
        &[
            "job",
            "config",
            "policy",
            "catalog",
            "clock",
            "telemetry",
            "queue",
            "handlers",
        ],
    ),
    (
        "services",
        &[
            "job",
            "config",
            "policy",
            "catalog",
            "clock",
            "telemetry",
            "queue",
            "health",
            "db",
            "runner",
        ],
    ),
    ("admin", &["config", "telemetry"]),
    ("client", &["job", "config", "catalog", "clock", "queue"]),
    ("embed", &["job", "config", "client", "daemon", "handlers"]),
    (
        "testing",
        &[
            "job", "config", "catalog", "clock", "stack", "queue", "handlers", "client", "daemon",
        ],
    ),
    (
        "daemon",
        &[
            "client",
            "config",
            "policy",
            "catalog",
            "clock",
            "tls",
            "telemetry",
            "queue",
            "health",
            "cache",
            "db",
            "handlers",
            "runner",
            "services",
            "admin",
        ],
    ),
    (
        "cli",
        &[
            "job",
            "config",
            "policy",
            "catalog",
            "clock",
            "telemetry",
            "queue",
            "health",
            "db",
            "handlers",
            "services",
            "daemon",
            "stack",
        ],
    ),
];

/// Names that only some rooms may utter: the word, and where.
const WORDS: &[(&str, &[&str])] = &[
    ("redis::", &["queue", "cache", "cli/bench"]),
    ("sqlx", &["db"]),
    (
        "tokio",
        &[
            "queue",
            "health",
            "cache",
            "db",
            "handlers",
            "runner",
            "services",
            "admin",
            "telemetry",
            "daemon",
            "testing",
            "cli",
            "main",
        ],
    ),
    ("Instant::now", &["clock"]),
    ("SystemTime::now", &["clock"]),
    ("Utc::now", &["clock"]),
    (".elapsed()", &["clock"]),
    ("process::exit", &["main"]),
];

/// A source file: its path below `src/`, and its code without comments and tests.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|x| x == "rs") && !path.ends_with("tests.rs") {
                let name = path.strip_prefix(&root).unwrap().display().to_string();
                found.push((name, code(&fs::read_to_string(&path).unwrap())));
            }
        }
    }
    assert!(found.len() > 50, "the sources were found");
    found
}

fn code(text: &str) -> String {
    let before_tests = text.split("#[cfg(test)]\nmod ").next().unwrap();
    let lines = before_tests
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Whether the word stands there by itself, not as the end of a longer name.
fn utters(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_') || word.starts_with('.')
    })
}

fn room(file: &str) -> &str {
    file.split('/').next().unwrap().trim_end_matches(".rs")
}

#[test]
fn imports_point_down() {
    let rooms: BTreeMap<&str, &[&str]> = ROOMS.iter().copied().collect();
    let mut wrong = Vec::new();
    for (file, code) in sources() {
        let here = room(&file);
        if matches!(here, "lib" | "main") {
            continue;
        }
        let allowed = rooms
            .get(here)
            .unwrap_or_else(|| panic!("{here} is no known room"));
        for part in code.split("crate::").skip(1) {
            let named: String = part
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            if rooms.contains_key(named.as_str())
                && named != here
                && !allowed.contains(&named.as_str())
            {
                wrong.push(format!("{file} imports {named}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn only_their_rooms_name_redis_sql_clocks_and_exits() {
    let mut wrong = Vec::new();
    for (file, code) in sources() {
        for (word, allowed) in WORDS {
            let may = allowed.iter().any(|place| file.starts_with(place));
            if utters(&code, word) && !may {
                wrong.push(format!("{file} names {word}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_room_says_what_it_owns() {
    for (file, _) in sources() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("src")
            .join(&file);
        let text = fs::read_to_string(path).unwrap();
        assert!(
            text.starts_with("//!"),
            "{file} does not open with what it is"
        );
    }
}
