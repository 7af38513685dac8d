//! The layers of configuration, and how an error in one of them is told.

use super::Config;
use super::validate::{self, Problem};
use figment::Figment;
use figment::error::{Error as FigmentError, Kind};
use figment::providers::{Env, Format, Toml};
use std::fmt;
use std::path::{Path, PathBuf};

/// The defaults, compiled in.
const DEFAULTS: &str = include_str!("../../config/default.toml");
/// Prefix of environment variables that override settings.
const ENV_PREFIX: &str = "TIDEGATE_";
/// Variables of that prefix that are no settings: command-line flags, and what `tidegate dev` tells its command.
const ENV_FLAGS: [&str; 4] = ["config", "jobs", "dev_dir", "admin_url"];
/// The largest configuration file read, bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// The most files taken from a folder.
const MAX_FILES: usize = 100;

/// Where configuration comes from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// A file, or a folder whose `*.toml` files are taken in order of name. None: defaults and environment only.
    pub path: Option<PathBuf>,
}

/// Everything that is wrong with the configuration.
#[derive(Debug)]
pub struct ConfigError {
    /// One line each: source, key, what was given, what is allowed.
    pub problems: Vec<String>,
}

impl ConfigError {
    /// An error of one problem.
    #[must_use]
    pub fn one(problem: impl Into<String>) -> Self {
        Self {
            problems: vec![problem.into()],
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

/// Reads all layers and checks the result.
///
/// # Errors
/// Every problem found, each naming its source and key.
pub fn load(sources: &Sources) -> Result<Config, ConfigError> {
    let mut figment = Figment::from(Toml::string(DEFAULTS));
    for file in files(sources)? {
        figment = figment.merge(Toml::file_exact(file));
    }
    figment = figment.merge(Env::prefixed(ENV_PREFIX).ignore(&ENV_FLAGS).split("__"));
    let mut config: Config = figment.extract().map_err(|errors| ConfigError {
        problems: errors.into_iter().map(|e| explain(&e)).collect(),
    })?;
    let problems = validate::problems(&config);
    if problems.is_empty() {
        // A command that takes longer would cost the lease, however short that is.
        let longest = config.daemon.lease / 3;
        config.redis.command_timeout = config.redis.command_timeout.min(longest);
        return Ok(config);
    }
    Err(ConfigError {
        problems: problems.iter().map(|p| place(&figment, p)).collect(),
    })
}

fn files(sources: &Sources) -> Result<Vec<PathBuf>, ConfigError> {
    let Some(path) = &sources.path else {
        return Ok(Vec::new());
    };
    let unreadable =
        |p: &Path, e: &dyn fmt::Display| ConfigError::one(format!("{}: {e}", p.display()));
    let meta = std::fs::metadata(path).map_err(|e| unreadable(path, &e))?;
    let mut files = if meta.is_dir() {
        std::fs::read_dir(path)
            .map_err(|e| unreadable(path, &e))?
            .filter_map(|entry| entry.ok().map(|e| e.path()))
            .filter(|p| p.extension().is_some_and(|x| x == "toml"))
            .take(MAX_FILES + 1)
            .collect()
    } else {
        vec![path.clone()]
    };
    if files.len() > MAX_FILES {
        return Err(unreadable(path, &format!("more than {MAX_FILES} files")));
    }
    files.sort();
    for file in &files {
        let meta = std::fs::metadata(file).map_err(|e| unreadable(file, &e))?;
        if !meta.is_file() {
            return Err(unreadable(file, &"is not a regular file"));
        }
        if meta.len() > MAX_FILE_BYTES {
            return Err(unreadable(
                file,
                &format!("larger than {MAX_FILE_BYTES} bytes"),
            ));
        }
        std::fs::File::open(file).map_err(|e| unreadable(file, &e))?;
    }
    Ok(files)
}

/// A problem found by figment, in one line.
fn explain(e: &FigmentError) -> String {
    let source = e.metadata.as_ref().map_or_else(String::new, source_name);
    let key = e.path.join(".");
    let what = match &e.kind {
        Kind::UnknownField(field, known) => {
            // A setting from the environment stands in its own path already, one from a file does not.
            let key = match e.path.last() {
                None => field.clone(),
                Some(last) if last == field => key,
                Some(_) => format!("{key}.{field}"),
            };
            return format!("{source}{key}: unknown setting{}", suggestion(field, known));
        }
        // The given value may be a secret: only its type is shown.
        Kind::InvalidType(actual, expected) => {
            format!("got {}, expected {expected}", type_of(actual))
        }
        other => other.to_string(),
    };
    if key.is_empty() {
        format!("{source}{what}")
    } else {
        format!("{source}{key}: {what}")
    }
}

const fn type_of(actual: &figment::error::Actual) -> &'static str {
    use figment::error::Actual;
    match actual {
        Actual::Bool(_) => "a boolean",
        Actual::Unsigned(_) | Actual::Signed(_) => "a number",
        Actual::Float(_) => "a decimal number",
        Actual::Char(_) | Actual::Str(_) => "a text",
        Actual::Seq => "a list",
        Actual::Map => "a table",
        _ => "something else",
    }
}

fn suggestion(field: &str, known: &[&str]) -> String {
    let near = known
        .iter()
        .find(|k| k.starts_with(field) || field.starts_with(**k));
    match near {
        Some(near) => format!("; did you mean `{near}`?"),
        None => format!("; known here: {}", known.join(", ")),
    }
}

/// A problem found by validation, with the source its value came from.
fn place(figment: &Figment, p: &Problem) -> String {
    let source = figment
        .find_metadata(&p.key)
        .map_or_else(String::new, source_name);
    format!("{source}{}: {}", p.key, p.message)
}

fn source_name(meta: &figment::Metadata) -> String {
    match &meta.source {
        Some(figment::Source::File(path)) => format!("{}: ", path.display()),
        _ if meta.name.contains("environment") => format!("environment {ENV_PREFIX}*: "),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn with_file(text: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tidegate.toml");
        std::fs::write(&path, text).unwrap();
        load(&Sources { path: Some(path) })
    }

    #[test]
    fn defaults_alone_are_valid() {
        let config = load(&Sources::default()).unwrap();
        assert_eq!(config.daemon.lease.as_secs(), 10);
        assert_eq!(config.redis.prefix, "tidegate");
    }

    #[test]
    fn a_redis_url_alone_is_complete() {
        let config = with_file("[redis]\nurl = \"redis://h:1/2\"").unwrap();
        assert_eq!(config.redis.url.reveal(), "redis://h:1/2");
        assert_eq!(config.daemon.concurrency, 32);
    }

    #[test]
    fn errors_name_file_key_given_and_allowed() {
        for (text, parts) in [
            (
                "[daemon]\nlease = \"500ms\"",
                &["tidegate.toml", "daemon.lease", "500ms", "1s"][..],
            ),
            (
                "[daemon]\nleese = \"5s\"",
                &["tidegate.toml", "daemon.leese", "unknown setting", "lease"],
            ),
            ("[daemon]\nlease = 5", &["daemon.lease", "number", "string"]),
            (
                "[daemon]\nlease = \"5 parsecs\"",
                &["daemon.lease", "5 parsecs", "250ms"],
            ),
            ("colour = 1", &["colour", "unknown setting"]),
            ("[gate]\nmode = \"open\"", &["gate.mode", "open", "shadow"]),
            ("[redis]\nurl = \"http://x\"", &["redis.url", "redis://"]),
            (
                "[redis]\nsentinels = [\"redis://a:26379\", \"10.0.0.1:26379\"]",
                &["redis.sentinels", "redis://"],
            ),
            (
                "[redis]\nsentinels = [\"redis://a:26379\"]\nsentinel_name = \"\"",
                &["redis.sentinel_name"],
            ),
            (
                "[admin]\nlisten = \"0.0.0.0:80\"",
                &["admin.listen", "loopback", "admin.token"],
            ),
            ("[[queue]]\nname = \"a:b\"", &["queue.name", "a:b"]),
            (
                "[cache]\nprefix = \"tidegate\"",
                &["cache.prefix", "redis.prefix"],
            ),
            (
                "[gate.limits]\npsi_cpu = [60, 20]",
                &["tidegate.toml", "gate.limits.psi_cpu", "60", "20"],
            ),
            (
                "[gate.limits]\npsi_io_full = [5, nan]",
                &["gate.limits.psi_io_full"],
            ),
            (
                "[gate.limits]\nredis_rtt = [\"25ms\", \"5ms\"]",
                &["gate.limits.redis_rtt", "lower value first"],
            ),
            (
                "[gate.limits]\nredis_rtt = [\"5ms\"]",
                &["gate.limits.redis_rtt"],
            ),
            (
                "[gate]\nsample = \"20s\"",
                &["gate.stale_after", "gate.sample"],
            ),
            (
                "[gate.states]\nelevated = [0.3, 0.5]",
                &["gate.states.elevated", "0.3", "entered, left"],
            ),
            (
                "[gate.states]\noverloaded = [0.45, 0.4]",
                &["gate.states.overloaded", "more than elevated", "0.5"],
            ),
            (
                "[gate.states]\ncritical = [nan, 0.4]",
                &["gate.states.critical"],
            ),
            (
                "[gate.shares]\ncritical = [1.0, 1.0, 0.0]",
                &["gate.shares.critical", "no critical job waits"],
            ),
            (
                "[gate.shares]\nlow = [0.25, 0.75, 0.0]",
                &["gate.shares.low", "grow"],
            ),
            (
                "[gate.shares]\nbulk = [0.9, 0.0, 0.0]",
                &["gate.shares.bulk", "more than low keeps", "0.75"],
            ),
            (
                "[gate.shares]\nhigh = [1.5, 0.75, 0.0]",
                &["gate.shares.high", "1.5", "0 to 1"],
            ),
            (
                "[gate.smoothing]\nrelease = 0",
                &["gate.smoothing.release", "0.005"],
            ),
            ("[daemon", &["tidegate.toml"]),
        ] {
            let error = with_file(text).unwrap_err().to_string();
            for part in parts {
                assert!(
                    error.contains(part),
                    "{text:?} gave {error:?}, without {part:?}"
                );
            }
        }
    }

    #[test]
    fn a_short_lease_alone_is_valid_and_shortens_commands() {
        let config = with_file("[daemon]\nlease = \"1s\"").unwrap();
        assert!(config.redis.command_timeout * 3 <= config.daemon.lease);
        let config = with_file("[daemon]\nlease = \"5m\"").unwrap();
        assert_eq!(config.redis.command_timeout.as_secs(), 2);
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let error = with_file("[daemon]\nlease = \"500ms\"\nconcurrency = 0").unwrap_err();
        assert_eq!(error.problems.len(), 2, "{error}");
    }

    #[test]
    fn secrets_are_not_in_errors() {
        for text in [
            "[redis]\nurl = \"http://u:hunter2@x\"",
            "[database]\nurl = \"mysql://u:hunter2@x\"",
            "[admin]\ntoken = [\"hunter2\"]",
        ] {
            let error = with_file(text).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
