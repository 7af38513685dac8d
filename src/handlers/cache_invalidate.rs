//! `cache.invalidate`: makes cache entries miss, by tag, by key, or a whole region.
//!
//! Owns: what of a definition and of a job's arguments is invalidated. An enqueuer names tags and keys, never Redis
//! keys; the region is the definition's unless it leaves the choice open. Must not know how a region keeps its log.

use super::template::Template;
use super::{Built, Context, Deps, Handler, HandlerKind};
use crate::cache::{Cache, CacheError, Key, RegionName, Tag, resource_of};
use crate::catalog::{JobSpec, Problem};
use crate::job::{ArgType, Outcome};
use futures::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Log members forgotten after an invalidation, at most. More than one can add, so the log stays within its bounds.
const COLLECT_STEP: usize = 10_000;

/// The `cache.invalidate` handler, as the list of handlers knows it.
pub const KIND: HandlerKind = HandlerKind {
    name: "cache.invalidate",
    check: |spec, _| Definition::read(spec).map(|_| ()),
    // Never held back: a breaker guards it only if its definition asks for one.
    touches: |_, _| Vec::new(),
    build: |spec, deps| Invalidate::build(spec, deps),
};

/// `[cache.invalidate]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    /// The region.
    region: Option<String>,
    /// The argument that names it, instead.
    region_arg: Option<String>,
    /// Tags, with `{arg}` in them.
    #[serde(default)]
    tags: Vec<String>,
    /// The argument that lists tags.
    tags_arg: Option<String>,
    /// Keys, with `{arg}` in them.
    #[serde(default)]
    keys: Vec<String>,
    /// The argument that lists keys.
    keys_arg: Option<String>,
    /// The whole region.
    #[serde(default)]
    all: bool,
}

/// A checked section.
#[derive(Debug)]
struct Definition {
    region: RegionChoice,
    tags: Names,
    keys: Names,
    all: bool,
}

#[derive(Debug)]
enum RegionChoice {
    Fixed(RegionName),
    Arg(String),
}

/// Where names come from: the definition's templates, and an argument.
#[derive(Debug)]
struct Names {
    templates: Vec<Template>,
    arg: Option<String>,
}

impl Definition {
    fn read(spec: &JobSpec) -> Result<Self, Problem> {
        let section: Section = spec.section()?;
        Self::check(section, spec).map_err(|e| spec.problem(format!("[cache.invalidate] {e}")))
    }

    fn check(section: Section, spec: &JobSpec) -> Result<Self, String> {
        let region = match (section.region, section.region_arg) {
            (Some(name), None) => {
                RegionChoice::Fixed(RegionName::parse(&name).map_err(|e| e.to_string())?)
            }
            (None, Some(arg)) => {
                check_single("region_arg", &arg, spec)?;
                RegionChoice::Arg(arg)
            }
            _ => return Err("needs either `region` or `region_arg`".to_owned()),
        };
        let names_something = !section.tags.is_empty()
            || !section.keys.is_empty()
            || section.tags_arg.is_some()
            || section.keys_arg.is_some();
        if section.all == names_something {
            return Err("needs either `all = true` or some tags or keys".to_owned());
        }
        Ok(Self {
            region,
            tags: Names::check("tags", &section.tags, section.tags_arg, spec)?,
            keys: Names::check("keys", &section.keys, section.keys_arg, spec)?,
            all: section.all,
        })
    }

    fn region(&self, args: &Map<String, Value>) -> Result<RegionName, String> {
        match &self.region {
            RegionChoice::Fixed(name) => Ok(name.clone()),
            RegionChoice::Arg(arg) => {
                let given = args.get(arg).and_then(Value::as_str).unwrap_or_default();
                RegionName::parse(given).map_err(|e| e.to_string())
            }
        }
    }
}

impl Names {
    fn check(
        what: &str,
        templates: &[String],
        arg: Option<String>,
        spec: &JobSpec,
    ) -> Result<Self, String> {
        let parse = |text: &String| {
            let template = Template::parse(text).map_err(|e| format!("{what}: {e}"))?;
            for name in template.names() {
                check_single(what, name, spec)?;
            }
            Ok(template)
        };
        if let Some(arg) = &arg {
            let strings = spec.args.get(arg).is_some_and(|a| {
                let items = a.items.as_ref().map(|items| items.ty);
                a.ty == ArgType::Array && items == Some(ArgType::String)
            });
            if !strings {
                return Err(format!(
                    "{what}_arg: [args] must declare `{arg}` = {{ type = \"array\", items = {{ type = \"string\" }} }}"
                ));
            }
        }
        Ok(Self {
            templates: templates.iter().map(parse).collect::<Result<_, String>>()?,
            arg,
        })
    }

    fn of(&self, args: &Map<String, Value>) -> Result<Vec<String>, String> {
        let mut names = Vec::new();
        for template in &self.templates {
            names.push(template.fill(args)?);
        }
        let listed = self.arg.as_ref().and_then(|arg| args.get(arg)?.as_array());
        for name in listed.into_iter().flatten() {
            // Admission has checked the items; a value of another type matches no name.
            names.push(name.as_str().unwrap_or_default().to_owned());
        }
        Ok(names)
    }
}

/// An argument that always has a single value: declared so, and required or with a default.
fn check_single(what: &str, arg: &str, spec: &JobSpec) -> Result<(), String> {
    let Some(declared) = spec.args.get(arg) else {
        return Err(format!("{what}: `{arg}` is not declared in [args]"));
    };
    if matches!(declared.ty, ArgType::Array | ArgType::Object) {
        return Err(format!("{what}: `{arg}` must be a single value"));
    }
    if !declared.required && declared.default.is_none() {
        return Err(format!(
            "{what}: `{arg}` must be required or have a default"
        ));
    }
    Ok(())
}

/// Invalidates what one definition says.
struct Invalidate {
    definition: Definition,
    cache: Cache,
    resource: String,
}

impl Invalidate {
    fn build(spec: &JobSpec, deps: &Deps) -> Built {
        let cache = deps
            .cache
            .clone()
            .ok_or_else(|| spec.problem("cache.invalidate needs Redis"))?;
        Ok(Arc::new(Self {
            definition: Definition::read(spec)?,
            cache,
            resource: resource_of(&spec.resources).to_owned(),
        }))
    }

    async fn deliver(&self, args: &Map<String, Value>) -> Outcome {
        let (region, tags, keys) = match self.names(args) {
            Ok(names) => names,
            Err(message) => return Outcome::fatal(message),
        };
        if !self.definition.all && tags.is_empty() && keys.is_empty() {
            return Outcome::Done(Some(
                json!({"region": region.as_str(), "tags": 0, "keys": 0}),
            ));
        }
        let region = self.cache.region(&region);
        let seq = match region.invalidate(&tags, &keys, self.definition.all).await {
            Ok(seq) => seq,
            Err(e) => return self.failed(e),
        };
        // The job is done by now; garbage that stays is taken next time.
        if let Err(error) = region.collect_garbage(COLLECT_STEP).await {
            tracing::warn!(%error, "cache garbage was not collected");
        }
        Outcome::Done(Some(json!({
            "region": region.name().as_str(),
            "seq": seq,
            "tags": tags.len(),
            "keys": keys.len(),
            "all": self.definition.all,
        })))
    }

    fn names(&self, args: &Map<String, Value>) -> Result<(RegionName, Vec<Tag>, Vec<Key>), String> {
        let region = self.definition.region(args)?;
        let tags = self.definition.tags.of(args)?;
        let tags = tags.iter().map(|t| Tag::parse(t));
        let keys = self.definition.keys.of(args)?;
        let keys = keys.iter().map(|k| Key::parse(k));
        Ok((
            region,
            tags.collect::<Result<_, _>>().map_err(|e| e.to_string())?,
            keys.collect::<Result<_, _>>().map_err(|e| e.to_string())?,
        ))
    }

    fn failed(&self, error: CacheError) -> Outcome {
        if error.is_passing() {
            Outcome::Failed(error.into_failure(&self.resource))
        } else {
            Outcome::fatal(error.to_string())
        }
    }
}

impl Handler for Invalidate {
    fn run<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Outcome> {
        Box::pin(self.deliver(&ctx.job.args))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing;
    use super::*;

    const HEAD: &str = r#"
kind = "a"
handler = "cache.invalidate"
[args]
user_id = { type = "integer", required = true }
maybe = { type = "string" }
place = { type = "string", default = "eu" }
tags = { type = "array", items = { type = "string" } }
loose = { type = "array" }
[cache.invalidate]
"#;

    fn read(section: &str) -> Result<Definition, String> {
        let spec = testing::spec("cache.invalidate", &format!("{HEAD}{section}"));
        Definition::read(&spec).map_err(|e| e.to_string())
    }

    #[test]
    fn sections_are_checked() {
        for good in [
            "region = \"eu\"\ntags = [\"user:{user_id}\"]",
            "region = \"eu\"\ntags_arg = \"tags\"\nkeys = [\"home\"]",
            "region_arg = \"place\"\nall = true",
        ] {
            assert!(read(good).is_ok(), "{good}: {:?}", read(good));
        }
        for (bad, part) in [
            ("", "`region`"),
            ("region = \"eu\"", "tags or keys"),
            ("region = \"eu\"\nall = true\ntags = [\"a\"]", "either"),
            ("region = \"EU\"\nall = true", "a-z"),
            (
                "region = \"eu\"\nregion_arg = \"place\"\nall = true",
                "either",
            ),
            ("region_arg = \"maybe\"\nall = true", "default"),
            ("region = \"eu\"\ntags = [\"{nobody}\"]", "not declared"),
            ("region = \"eu\"\ntags = [\"{maybe}\"]", "default"),
            ("region = \"eu\"\ntags = [\"{tags}\"]", "single value"),
            ("region = \"eu\"\nkeys = [\"a{\"]", "without its }"),
            ("region = \"eu\"\ntags_arg = \"loose\"", "items"),
            ("region = \"eu\"\ntags_arg = \"user_id\"", "array"),
            ("region = \"eu\"\ntag = [\"a\"]", "tag"),
        ] {
            let told = read(bad).unwrap_err();
            assert!(
                told.contains(part),
                "{bad:?} told {told:?}, without {part:?}"
            );
        }
    }

    #[test]
    fn names_come_from_templates_and_arguments() {
        let read = read("region_arg = \"place\"\ntags = [\"user:{user_id}\"]\ntags_arg = \"tags\"");
        let definition = read.unwrap();
        let args = serde_json::from_str(r#"{"user_id":7,"place":"us","tags":["a","b"]}"#).unwrap();
        assert_eq!(definition.tags.of(&args).unwrap(), ["user:7", "a", "b"]);
        assert_eq!(definition.region(&args).unwrap().as_str(), "us");
        let hostile = serde_json::from_str(r#"{"place":"us}:x"}"#).unwrap();
        assert!(definition.region(&hostile).is_err());
    }
}
