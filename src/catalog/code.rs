//! A definition given in code instead of a file: the same keys, defaults and checks.

use super::load::{Problem, parse};
use super::spec::{JobSpec, TypedArgs};
use super::{Catalog, CatalogError};
use crate::job::id;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use toml::{Table, Value};

/// The handler of a definition whose function some program registers: the file holds the policy, the program the code.
pub const CODE: &str = "code";

/// `[code]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct CodeSection {
    /// The name under which the function is registered; the kind's own when absent.
    #[serde(default)]
    function: Option<String>,
}

/// Reads which function a definition with the handler [`CODE`] means. Its arguments are then for that function to check.
pub(super) fn read_function(spec: &mut JobSpec) -> Result<(), Problem> {
    let section: CodeSection = spec.section()?;
    let name = section.function.unwrap_or_else(|| spec.kind.to_string());
    id::check_kind(&name).map_err(|e| spec.problem(format!("code.function: {name:?} {e}")))?;
    spec.function = Some(name);
    spec.typed_args = Some(|_| Ok(()));
    Ok(())
}

/// A kind as code defines it. Its handler bears the kind's name.
#[derive(Debug, Clone)]
pub struct CodeDefinition {
    kind: String,
    table: Table,
    typed: Option<TypedArgs>,
    /// What could not be taken over.
    wrong: Vec<String>,
}

impl CodeDefinition {
    /// A kind with the defaults of a definition that names nothing else. `typed` checks the arguments if none are
    /// declared; with neither, anything goes.
    #[must_use]
    pub fn new(kind: &str, typed: Option<TypedArgs>) -> Self {
        let named = ["kind", "handler"].map(|key| (key.to_owned(), Value::from(kind)));
        Self {
            kind: kind.to_owned(),
            table: named.into_iter().collect(),
            typed,
            wrong: Vec::new(),
        }
    }

    /// The kind, and the name of its handler.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Sets one key, `section.key` for one of a section.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        let value = match key.split_once('.') {
            Some((section, key)) => {
                let inner = Table::from_iter([(key.to_owned(), value.into())]);
                return merge(
                    &mut self.table,
                    Table::from_iter([(section.to_owned(), inner.into())]),
                );
            }
            None => value.into(),
        };
        self.table.insert(key.to_owned(), value);
    }

    /// Takes over what stands in TOML, as a file would have it; `kind` and `handler` stay.
    pub fn read(&mut self, text: &str) {
        match text.parse::<Table>() {
            Ok(table) => {
                let fixed = ["kind", "handler"].into_iter();
                for key in fixed.filter(|key| table.contains_key(*key)) {
                    self.wrong
                        .push(format!("{key}: is given by the code already"));
                }
                merge(&mut self.table, table);
            }
            Err(e) => self.wrong.push(e.message().replace('\n', " ")),
        }
    }

    /// The definition, checked as one that stands in a file.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn check(&self) -> Result<JobSpec, Vec<Problem>> {
        let path = PathBuf::from(format!("kind {:?}, defined in code", self.kind));
        let problem = |message: &String| Problem {
            path: path.clone(),
            line: None,
            message: message.clone(),
        };
        if !self.wrong.is_empty() {
            return Err(self.wrong.iter().map(problem).collect());
        }
        let text = self.table.to_string();
        let parsed = parse(&path, &text, &[], &[&self.kind]);
        let mut spec = parsed.map_err(|mut problems| {
            // Nobody sees the text whose lines these are.
            problems.iter_mut().for_each(|p| p.line = None);
            problems
        })?;
        self.take_over(&mut spec).map_err(|problem| vec![problem])?;
        Ok(spec)
    }

    /// Gives a definition the check of its arguments.
    fn take_over(&self, spec: &mut JobSpec) -> Result<(), Problem> {
        spec.typed_args = Some(self.typed.unwrap_or(|_| Ok(())));
        if spec.schedule.is_none() {
            return Ok(());
        }
        let defaults = spec.bind(&mut serde_json::Map::new());
        defaults.map_err(|e| {
            spec.problem(format!(
                "schedule: a scheduled job takes its args from their defaults, and without any: {e}"
            ))
        })
    }
}

fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(known)), Value::Table(more)) => merge(known, more),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

impl Catalog {
    /// The same catalogue with the kinds that code defines. A file that defines such a kind, or names its handler for
    /// another kind, is what counts for it; the arguments are then those that the code takes, unless the file declares
    /// some.
    ///
    /// # Errors
    /// Everything that is wrong with the definitions in code; a file gives such a kind another handler.
    pub fn with_code(self, code: &[CodeDefinition]) -> Result<Self, CatalogError> {
        let by_name: BTreeMap<&str, &CodeDefinition> =
            code.iter().map(|c| (c.kind.as_str(), c)).collect();
        let mut specs: Vec<JobSpec> = self.iter().map(|spec| JobSpec::clone(spec)).collect();
        let mut problems = Vec::new();
        for spec in &mut specs {
            let function = spec.function.take_if(|name| by_name.contains_key(&**name));
            if let Some(function) = function {
                spec.handler = function;
            }
            if let Some(code) = by_name.get(spec.handler.as_str()) {
                problems.extend(code.take_over(spec).err());
            } else if by_name.contains_key(&*spec.kind) {
                problems.push(spec.problem(format!(
                    "handler: {:?} is not the handler that the code registers for this kind",
                    spec.handler
                )));
            }
        }
        for code in code.iter().filter(|code| self.get(&code.kind).is_none()) {
            match code.check() {
                Ok(spec) => specs.push(spec),
                Err(found) => problems.extend(found),
            }
        }
        if problems.is_empty() {
            Ok(Self::new(specs))
        } else {
            Err(CatalogError { problems })
        }
    }

    /// The kinds that can be run here, and those whose function only another program has.
    #[must_use]
    pub fn split_code(self) -> (Self, Vec<Arc<JobSpec>>) {
        let (others, own) = self
            .specs
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(_, spec)| spec.function.is_some());
        (Self { specs: own }, others.into_values().collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::job::Priority;
    use serde_json::json;

    fn told(definition: &CodeDefinition) -> String {
        let problems = definition.check().map(|_| ()).unwrap_err();
        problems.iter().map(Problem::to_string).collect()
    }

    #[test]
    fn a_kind_from_code_has_the_defaults_of_a_file_and_its_checks() {
        let mut code = CodeDefinition::new("mail.send", None);
        assert_eq!(code.check().unwrap().timeout.as_secs(), 60);
        code.set("priority", "high");
        code.set("retry.base", "3s");
        code.read("timeout = \"5s\"\n[retry]\nmax_attempts = 3");
        let spec = code.check().unwrap();
        assert_eq!((spec.priority, spec.timeout.as_secs()), (Priority::High, 5));
        assert_eq!((spec.retry.max_attempts, spec.retry.base.as_secs()), (3, 3));

        for (text, part) in [
            ("timeout = \"0s\"", "timeout"),
            ("tiemout = \"1s\"", "tiemout"),
            ("timeout = ", "in code"),
            ("handler = \"exec\"", "handler"),
            ("[mail.send]\nsmtp = 1", "mail"),
        ] {
            let mut wrong = code.clone();
            wrong.read(text);
            let told = told(&wrong);
            assert!(
                told.contains(part) && told.contains("mail.send"),
                "{text}: {told}"
            );
        }
        assert!(told(&CodeDefinition::new("No Kind", None)).contains("kind"));
    }

    fn file(text: &str) -> Result<JobSpec, Vec<Problem>> {
        parse(std::path::Path::new("a.toml"), text, &["exec"], &[])
    }

    #[test]
    fn a_file_may_leave_its_function_to_a_program() {
        let text = "kind = \"mail.send\"\nhandler = \"code\"\n";
        let spec = file(text).unwrap();
        assert_eq!(spec.function.as_deref(), Some("mail.send"));
        let mut args = json!({"to": 1}).as_object().unwrap().clone();
        assert_eq!(spec.bind(&mut args), Ok(()), "only the code knows");
        let (own, others) = Catalog::new([spec.clone()]).split_code();
        assert_eq!((own.len(), others.len()), (0, 1));

        let digest =
            "kind = \"mail.digest\"\nhandler = \"code\"\n[code]\nfunction = \"mail.send\"\n";
        let digest = file(digest).unwrap();
        let code = CodeDefinition::new("mail.send", Some(|_| Err("args: no".to_owned())));
        let both = Catalog::new([spec, digest]).with_code(&[code]).unwrap();
        let (own, others) = both.split_code();
        assert_eq!((own.len(), others.len()), (2, 0));
        for spec in own.iter() {
            assert_eq!(spec.handler, "mail.send");
            assert!(spec.bind(&mut args).is_err(), "it is asked");
        }

        for (more, part) in [
            ("[code]\nfunction = \"Mail\"\n", "code.function"),
            ("[code]\nfunktion = \"a\"\n", "a.toml:4"),
            ("[args]\nn = { type = \"intger\" }\n", "a.toml:4"),
        ] {
            let problems = file(&format!("{text}{more}")).map(|_| ()).unwrap_err();
            let told: String = problems.iter().map(Problem::to_string).collect();
            assert!(told.contains(part), "{told}");
        }
    }

    #[test]
    fn its_sections_stay_whatever_its_name_is() {
        let mut code = CodeDefinition::new("retry.now", None);
        code.set("retry.max_attempts", 7);
        assert_eq!(code.check().unwrap().retry.max_attempts, 7);
    }

    #[test]
    fn arguments_are_checked_by_the_code_unless_they_are_declared() {
        fn typed(args: &serde_json::Map<String, serde_json::Value>) -> Result<(), String> {
            let given = args.contains_key("to");
            given.then_some(()).ok_or_else(|| "args: no to".to_owned())
        }
        let mut code = CodeDefinition::new("mail.send", Some(typed));
        let bind = |code: &CodeDefinition, args: serde_json::Value| {
            let mut args = args.as_object().unwrap().clone();
            code.check().unwrap().bind(&mut args).map(|()| args)
        };
        assert!(bind(&code, json!({"to": 1, "more": 2})).is_ok());
        assert_eq!(bind(&code, json!({})).unwrap_err(), "args: no to");
        let mut scheduled = code.clone();
        scheduled.read("[schedule]\ncron = \"0 15 1 * * *\"");
        assert!(told(&scheduled).contains("args: no to"));
        let mut told_apart = code.clone();
        told_apart.read("[concurrency]\nlimit = 1\nkey = \"args.to\"");
        assert!(
            told_apart.check().is_ok(),
            "only the code knows what there is"
        );
        code.read("[args]\nto = { type = \"string\", default = \"all\" }");
        assert_eq!(bind(&code, json!({})).unwrap()["to"], "all");
        assert!(bind(&code, json!({"more": 2})).is_err());
    }
}
