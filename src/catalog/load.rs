//! Reading the folder of definitions.

use super::code::{CODE, read_function};
use super::spec::RawSpec;
use super::{Catalog, JobSpec, then};
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
        problems = then::problems(&specs, code);
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
    let of_code = |name: &str| name == CODE || code.contains(&name);
    let sectioned = |name: &str| name == CODE || handlers.contains(&name);
    if let Some((name, at)) = &handler
        && !of_code(name)
        && !sectioned(name)
    {
        return Err(vec![Problem {
            path: path.to_owned(),
            line: Some(line_of(text, *at)),
            message: format!(
                "handler: {name:?} is not known; there are {}; a function of a program is \"{CODE}\"",
                [handlers, code].concat().join(", ")
            ),
        }]);
    }
    if let Some(section) = handler
        .as_ref()
        .filter(|(name, _)| sectioned(name))
        .and_then(|(name, _)| name.split('.').next())
    {
        table.get_mut().remove(section);
    }
    let mut raw = RawSpec::deserialize(Deserializer::from(table)).map_err(toml)?;
    raw.typed = of_code(&raw.handler);
    let checked = raw.check(path.to_owned(), text.into());
    let mut spec = checked.map_err(|found| found.into_iter().map(plain).collect::<Vec<_>>())?;
    if spec.handler == CODE {
        read_function(&mut spec).map_err(|problem| vec![problem])?;
    }
    Ok(spec)
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
mod tests;
