//! Reading the folder of definitions.

use super::spec::RawSpec;
use super::{Catalog, JobSpec};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

/// The largest definition, bytes.
const MAX_FILE_BYTES: u64 = 256 * 1024;
/// The most definitions in one folder.
const MAX_FILES: usize = 10_000;

/// One thing that is wrong with a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1, where it is known.
    pub line: Option<usize>,
    /// What is wrong and what is allowed.
    pub message: String,
}

impl Problem {
    pub(super) fn from_toml(path: &Path, text: &str, e: &toml::de::Error) -> Self {
        let line = e.span().map(|span| line_of(text, span.start));
        Self {
            path: path.to_owned(),
            line,
            message: e.message().trim_end().replace('\n', " "),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.path.display(), self.message),
            None => write!(f, "{}: {}", self.path.display(), self.message),
        }
    }
}

/// Everything that is wrong with the definitions.
#[derive(Debug)]
pub struct CatalogError {
    /// In order of file.
    pub problems: Vec<Problem>,
}

impl fmt::Display for CatalogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.problems.iter().map(Problem::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for CatalogError {}

/// Reads every `*.toml` of a folder. `handlers` are the names of the handlers there are.
///
/// # Errors
/// Every problem of every file; nothing is loaded if there is one.
pub fn load(dir: &Path, handlers: &[&str]) -> Result<Catalog, CatalogError> {
    load_with_code(dir, handlers, &[])
}

/// The same, where definitions may also name handlers of `code`: those have no section of their own.
///
/// # Errors
/// As [`load`].
pub fn load_with_code(
    dir: &Path,
    handlers: &[&str],
    code: &[&str],
) -> Result<Catalog, CatalogError> {
    let paths = list(dir).map_err(|e| CatalogError {
        problems: vec![Problem {
            path: dir.to_owned(),
            line: None,
            message: e,
        }],
    })?;
    let mut problems = Vec::new();
    let mut specs: BTreeMap<Arc<str>, JobSpec> = BTreeMap::new();
    for path in paths {
        match read(&path).and_then(|text| parse(&path, &text, handlers, code)) {
            Ok(spec) => {
                if let Some(first) = specs.get(&spec.kind) {
                    problems.push(spec.problem(format!(
                        "kind {:?} is already defined in {}",
                        spec.kind,
                        first.path.display()
                    )));
                } else {
                    specs.insert(Arc::clone(&spec.kind), spec);
                }
            }
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() {
        Ok(Catalog::new(specs.into_values()))
    } else {
        Err(CatalogError { problems })
    }
}

fn list(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir)
        .map_err(|e| e.to_string())?
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|p| p.extension().is_some_and(|x| x == "toml"))
        .take(MAX_FILES + 1)
        .collect();
    if paths.len() > MAX_FILES {
        return Err(format!("more than {MAX_FILES} definitions"));
    }
    paths.sort();
    Ok(paths)
}

/// A definition decides which commands run, so it is read only from a plain file inside the folder that not everybody
/// may write to.
fn read(path: &Path) -> Result<String, Vec<Problem>> {
    let fail = |message: String| {
        vec![Problem {
            path: path.to_owned(),
            line: None,
            message,
        }]
    };
    let folder = path.parent().and_then(|p| p.canonicalize().ok());
    let real = path.canonicalize().map_err(|e| fail(e.to_string()))?;
    if real.parent() != folder.as_deref() {
        return Err(fail(format!(
            "leads out of its folder, to {}",
            real.display()
        )));
    }
    let meta = std::fs::metadata(&real).map_err(|e| fail(e.to_string()))?;
    if !meta.is_file() {
        return Err(fail("is not a regular file".to_owned()));
    }
    if meta.len() > MAX_FILE_BYTES {
        return Err(fail(format!("larger than {MAX_FILE_BYTES} bytes")));
    }
    if std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o002 != 0 {
        return Err(fail("is writable by everybody; chmod o-w it".to_owned()));
    }
    std::fs::read_to_string(&real).map_err(|e| fail(e.to_string()))
}

/// Parses one definition.
///
/// # Errors
/// Every problem found in it.
pub(super) fn parse(
    path: &Path,
    text: &str,
    handlers: &[&str],
    code: &[&str],
) -> Result<JobSpec, Vec<Problem>> {
    let toml = |e: toml::de::Error| vec![Problem::from_toml(path, text, &e)];
    let plain = |message: String| Problem {
        path: path.to_owned(),
        line: None,
        message,
    };
    let mut table = DeTable::parse(text).map_err(toml)?;
    let handler = handler_name(&table);
    let known = |name: &str| handlers.contains(&name) || code.contains(&name);
    if let Some((name, at)) = &handler
        && !known(name)
    {
        return Err(vec![Problem {
            path: path.to_owned(),
            line: Some(line_of(text, *at)),
            message: format!(
                "handler: {name:?} is not known; there are {}",
                [handlers, code].concat().join(", ")
            ),
        }]);
    }
    if let Some(section) = handler
        .as_ref()
        .filter(|(name, _)| handlers.contains(&name.as_str()))
        .and_then(|(name, _)| name.split('.').next())
    {
        table.get_mut().remove(section);
    }
    let mut raw = RawSpec::deserialize(Deserializer::from(table)).map_err(toml)?;
    raw.typed = code.contains(&raw.handler.as_str());
    raw.check(path.to_owned(), text.into())
        .map_err(|found| found.into_iter().map(plain).collect())
}

/// The handler a definition names, and where in the text.
fn handler_name(table: &Spanned<DeTable<'_>>) -> Option<(String, usize)> {
    let value = table.get_ref().get("handler")?;
    let name = value.get_ref().as_str()?;
    Some((name.to_owned(), value.span().start))
}

/// The line, from 1, on which a byte stands.
fn line_of(text: &str, at: usize) -> usize {
    let before = &text.as_bytes()[..at.min(text.len())];
    before.iter().filter(|b| **b == b'\n').count() + 1
}

/// The value of a handler's section, with its place in the text; an empty table when it is not there.
pub(super) fn section_value<'t>(
    text: &'t str,
    handler: &str,
) -> Result<Spanned<DeValue<'t>>, toml::de::Error> {
    let table = DeTable::parse(text)?;
    let mut value = Spanned::new(table.span(), DeValue::Table(table.into_inner()));
    for word in handler.split('.') {
        let inner = match value.into_inner() {
            DeValue::Table(mut table) => table.remove(word),
            _ => None,
        };
        value = inner.unwrap_or_else(|| Spanned::new(0..0, DeValue::Table(DeTable::new())));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
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
                with("default = 1, ", "required = true, "),
                &["args.n", "required"],
            ),
            (
                with("\"postgres:primary\"", "\"primary\""),
                &["resources", "class:name"],
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
}
