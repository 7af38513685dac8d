//! The `[exec]` section of a definition.
//!
//! Owns: its form, its bounds, and the child's environment as far as it is the same for every job. Everything is checked
//! when the definition is loaded, so that a job can only fail for reasons of its own. Must not start anything.

use crate::catalog::{JobSpec, Problem};
use crate::config::{Config, duration};
use rustix::fs::{Access, access};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The most words of a command.
const MAX_WORDS: usize = 256;
/// The largest command, and the largest environment, in bytes: well within what Linux gives both together (a quarter
/// of the stack limit, 2 MiB by default, and 128 KiB for a single string).
const MAX_BYTES: usize = 64 * 1024;
/// The most variables of a definition.
const MAX_VARIABLES: usize = 256;
/// The largest `max_output`, bytes.
const MAX_OUTPUT: usize = 1 << 20;
/// The longest `snooze`.
const MAX_SNOOZE: Duration = Duration::from_secs(86_400);
/// What every child gets of the daemon's own environment.
const INHERITED: [&str; 3] = ["PATH", "HOME", "LANG"];
/// Where programs are looked for when the daemon itself has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// Variables of this prefix are ours.
const RESERVED: &str = "TIDEGATE_";

/// The section as it stands in the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    command: Vec<String>,
    #[serde(default)]
    cwd: Option<PathBuf>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    secrets: Vec<String>,
    #[serde(default)]
    fatal_exit: Vec<i32>,
    #[serde(default = "default_snooze", with = "duration")]
    snooze: Duration,
    #[serde(default = "default_max_output")]
    max_output: usize,
    #[serde(default)]
    progress: bool,
}

const fn default_snooze() -> Duration {
    Duration::from_secs(30)
}

const fn default_max_output() -> usize {
    64 * 1024
}

/// A checked section.
pub(super) struct Definition {
    /// The program as the definition names it, for messages.
    pub(super) name: String,
    /// The program's file.
    pub(super) program: PathBuf,
    /// Its arguments.
    pub(super) args: Vec<String>,
    /// Where it runs; where the daemon does if not given.
    pub(super) cwd: Option<PathBuf>,
    /// Its whole environment, but for what differs from job to job. May hold secrets.
    pub(super) env: BTreeMap<String, String>,
    /// Exit codes that end the job.
    pub(super) fatal_exit: Vec<i32>,
    /// How long to wait after `EX_TEMPFAIL`.
    pub(super) snooze: Duration,
    /// How much of each output is kept, bytes.
    pub(super) max_output: usize,
    /// Whether the child may tell how far it has come.
    pub(super) progress: bool,
}

impl fmt::Debug for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Definition")
            .field("program", &self.program)
            .finish_non_exhaustive()
    }
}

impl Definition {
    /// Reads and checks the section of a definition.
    ///
    /// # Errors
    /// The first thing that is wrong with it, naming its field.
    pub(super) fn read(spec: &JobSpec, config: &Config) -> Result<Self, Problem> {
        let section: Section = spec.section()?;
        section
            .check(config)
            .map_err(|e| spec.problem(format!("exec.{e}")))
    }
}

impl Section {
    fn check(self, config: &Config) -> Result<Definition, String> {
        let env = self.environment(config)?;
        let mut words = self.command.into_iter();
        let name = words.next().unwrap_or_default();
        let args: Vec<String> = words.collect();
        let bytes = args.iter().map(String::len).sum::<usize>();
        if args.len() >= MAX_WORDS || bytes > MAX_BYTES || args.iter().any(|a| a.contains('\0')) {
            return Err(format!(
                "command: at most {MAX_WORDS} words of {MAX_BYTES} bytes together, without NUL"
            ));
        }
        let path = env.get("PATH").map_or(DEFAULT_PATH, String::as_str);
        let program = find(&name, path).map_err(|e| format!("command: {name:?} {e}"))?;
        if let Some(cwd) = &self.cwd
            && !(cwd.is_absolute() && cwd.is_dir())
        {
            return Err(format!("cwd: {cwd:?} is not an absolute path of a folder"));
        }
        let may_be_fatal = |code: &i32| (1..=255).contains(code) && *code != super::EX_TEMPFAIL;
        if let Some(code) = self.fatal_exit.iter().find(|code| !may_be_fatal(code)) {
            return Err(format!(
                "fatal_exit: {code} is not within 1 to 255, or is 75, which means try again later"
            ));
        }
        if self.snooze.is_zero() || self.snooze > MAX_SNOOZE {
            return Err("snooze: must be more than \"0s\" and at most \"1day\"".to_owned());
        }
        if self.max_output > MAX_OUTPUT {
            return Err(format!("max_output: at most {MAX_OUTPUT}"));
        }
        Ok(Definition {
            name,
            program,
            args,
            cwd: self.cwd,
            env,
            fatal_exit: self.fatal_exit,
            snooze: self.snooze,
            max_output: self.max_output,
            progress: self.progress,
        })
    }

    fn environment(&self, config: &Config) -> Result<BTreeMap<String, String>, String> {
        let mut env = inherited();
        for (name, value) in &self.env {
            check_variable(name, value).map_err(|e| format!("env.{name}: {e}"))?;
            env.insert(name.clone(), value.clone());
        }
        for secret in &self.secrets {
            let value = config.secrets.get(secret).ok_or_else(|| {
                format!("secrets: {secret:?} is not in the configuration's [secrets]")
            })?;
            let name = secret.to_ascii_uppercase();
            check_variable(&name, value.reveal())
                .map_err(|e| format!("secrets: {secret:?} {e}"))?;
            if env.insert(name, value.reveal().to_owned()).is_some() {
                return Err(format!("secrets: {secret:?} is already a variable"));
            }
        }
        let bytes: usize = env
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        if env.len() > MAX_VARIABLES || bytes > MAX_BYTES {
            return Err(format!(
                "env: at most {MAX_VARIABLES} variables of {MAX_BYTES} bytes together"
            ));
        }
        Ok(env)
    }
}

/// What every child has of the daemon's environment, and a `PATH` in any case.
pub(super) fn inherited() -> BTreeMap<String, String> {
    let inherited = INHERITED.iter().filter_map(|name| {
        let value = std::env::var(name).ok()?;
        Some(((*name).to_owned(), value))
    });
    let mut env: BTreeMap<_, _> = inherited.collect();
    env.entry("PATH".to_owned())
        .or_insert_with(|| DEFAULT_PATH.to_owned());
    env
}

/// Never shows the value: it may be a secret.
fn check_variable(name: &str, value: &str) -> Result<(), String> {
    let first = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    let other = |b: u8| first(b) || b.is_ascii_digit();
    if !name.bytes().next().is_some_and(first) || !name.bytes().all(other) {
        return Err("must be a name of letters, digits and _".to_owned());
    }
    if name.starts_with(RESERVED) {
        return Err(format!(
            "names that start with {RESERVED} are the daemon's own"
        ));
    }
    if value.contains('\0') {
        return Err("has a NUL in its value".to_owned());
    }
    Ok(())
}

/// The file of a program: an absolute path, or a bare name that is looked for on `path`.
pub(super) fn find(name: &str, path: &str) -> Result<PathBuf, &'static str> {
    if name.is_empty() || name.contains('\0') {
        return Err("must be a program's name or absolute path");
    }
    if name.contains('/') {
        let program = Path::new(name);
        return if !program.is_absolute() {
            Err("must be an absolute path, or a bare name that is found on PATH")
        } else if !program.exists() {
            Err("does not exist")
        } else if !executable(program) {
            Err("is not an executable file")
        } else {
            Ok(program.to_owned())
        };
    }
    std::env::split_paths(path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(|program| executable(program))
        .ok_or("is not found on PATH")
}

fn executable(program: &Path) -> bool {
    program.is_file() && access(program, Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::{Secret, Sources, load};
    use crate::handlers::testing::spec;

    fn config() -> Config {
        let mut config = load(&Sources::default()).unwrap();
        config
            .secrets
            .insert("api_key".to_owned(), Secret::new("hunter2"));
        config
            .secrets
            .insert("bad.name".to_owned(), Secret::new("hunter2"));
        config
    }

    fn read(section: &str) -> Result<Definition, String> {
        let text = format!("kind = \"a\"\nhandler = \"exec\"\n[exec]\n{section}");
        Definition::read(&spec("exec", &text), &config()).map_err(|e| e.to_string())
    }

    #[test]
    fn a_command_alone_is_enough() {
        let definition = read("command = [\"true\", \"--x\"]").unwrap();
        assert!(definition.program.is_absolute());
        assert_eq!(definition.args, ["--x"]);
        assert_eq!(definition.snooze.as_secs(), 30);
        assert_eq!(definition.max_output, 65_536);
    }

    #[test]
    fn the_environment_is_the_declared_one() {
        let definition =
            read("command = [\"true\"]\nenv = { A = \"1\" }\nsecrets = [\"api_key\"]").unwrap();
        assert_eq!(definition.env["A"], "1");
        assert_eq!(definition.env["API_KEY"], "hunter2");
        let extra = |name: &&String| !INHERITED.contains(&name.as_str());
        let names: Vec<_> = definition.env.keys().filter(extra).collect();
        assert_eq!(names, ["A", "API_KEY"]);
        assert!(!format!("{definition:?}").contains("hunter2"));
    }

    #[test]
    fn problems_name_the_field() {
        let not_executable = tempfile::NamedTempFile::new().unwrap();
        let file = not_executable.path().display();
        for (section, parts) in [
            ("command = []".to_owned(), &["exec.command"][..]),
            (
                "command = [\"/no/such\"]".into(),
                &["/no/such", "does not exist"],
            ),
            (
                "command = [\"no-such-program\"]".into(),
                &["not found on PATH"],
            ),
            ("command = [\"bin/true\"]".into(), &["absolute path"]),
            (format!("command = [\"{file}\"]"), &["not an executable"]),
            ("command = [\"/tmp\"]".into(), &["not an executable"]),
            ("command = [\"true\", \"a\\u0000\"]".into(), &["NUL"]),
            (
                "command = [\"true\"]\ncwd = \"/no/such\"".into(),
                &["exec.cwd"],
            ),
            (
                "command = [\"true\"]\nenv = { \"A=B\" = \"\" }".into(),
                &["exec.env.A=B"],
            ),
            (
                "command = [\"true\"]\nenv = { TIDEGATE_X = \"\" }".into(),
                &["TIDEGATE_"],
            ),
            (
                "command = [\"true\"]\nsecrets = [\"nope\"]".into(),
                &["exec.secrets", "nope"],
            ),
            (
                "command = [\"true\"]\nsecrets = [\"bad.name\"]".into(),
                &["bad.name"],
            ),
            (
                "command = [\"true\"]\nenv = { API_KEY = \"\" }\nsecrets = [\"api_key\"]".into(),
                &["already"],
            ),
            (
                "command = [\"true\"]\nfatal_exit = [0]".into(),
                &["fatal_exit", "0"],
            ),
            (
                "command = [\"true\"]\nfatal_exit = [75]".into(),
                &["fatal_exit", "75"],
            ),
            (
                "command = [\"true\"]\nsnooze = \"0s\"".into(),
                &["exec.snooze"],
            ),
            (
                "command = [\"true\"]\nmax_output = 9999999".into(),
                &["max_output"],
            ),
            ("comand = [\"true\"]".into(), &["a.toml:4", "comand"]),
            (String::new(), &["command"]),
        ] {
            let problem = read(&section).unwrap_err();
            for part in parts {
                assert!(
                    problem.contains(part),
                    "{section:?}: {problem:?} lacks {part:?}"
                );
            }
            assert!(!problem.contains("hunter2"), "{problem}");
        }
    }
}
