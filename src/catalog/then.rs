//! `[then]`: what follows each job of a kind that is done and names nothing itself.

use super::JobSpec;
use super::load::Problem;
use crate::job::Envelope;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// `[then]`, checked as far as it goes by itself.
#[derive(Debug, Clone)]
pub struct ThenSpec {
    /// The envelope that follows.
    pub text: Arc<str>,
    /// The kinds of the steps, the next one first.
    pub kinds: Vec<String>,
}

impl ThenSpec {
    /// # Errors
    /// Names the field that can't be used.
    pub(super) fn parse(table: toml::Table) -> Result<Self, String> {
        for field in ["id", "group", "run_at", "expires_at", "workflow", "parents"] {
            if table.contains_key(field) {
                return Err(format!(
                    "then.{field}: is one job's own, and this follows every job of the kind"
                ));
            }
        }
        let text = serde_json::to_string(&table).map_err(|e| format!("then: {e}"))?;
        let mut kinds = Vec::new();
        let mut step = Some(envelope(&text)?);
        while let Some(envelope) = step {
            let next = envelope.then.as_ref().map(|then| then.get().to_owned());
            kinds.push(envelope.kind);
            step = next.as_deref().map(self::envelope).transpose()?;
        }
        Ok(Self {
            text: text.into(),
            kinds,
        })
    }
}

fn envelope(text: &str) -> Result<Envelope, String> {
    Envelope::parse(text.as_bytes()).map_err(|reject| format!("then: {}", reject.message))
}

/// What is wrong with what follows what: kinds that are not there or in another queue, arguments that do not fit, and
/// chains that come back to where they began. Kinds of `code` are defined elsewhere.
pub(super) fn problems(specs: &BTreeMap<Arc<str>, JobSpec>, code: &[&str]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for spec in specs.values() {
        let Some(then) = &spec.then else { continue };
        let found = then_problem(spec, &then.text, specs, code).or_else(|| circle(spec, specs));
        problems.extend(found.map(|message| spec.problem(format!("then: {message}"))));
    }
    problems
}

/// What is wrong with the steps of one definition.
fn then_problem(
    of: &JobSpec,
    text: &str,
    specs: &BTreeMap<Arc<str>, JobSpec>,
    code: &[&str],
) -> Option<String> {
    let mut step = Envelope::parse(text.as_bytes()).ok();
    while let Some(mut envelope) = step {
        let kind = envelope.kind.clone();
        match specs.get(&*kind) {
            None if code.contains(&&*kind) => {}
            None => return Some(format!("kind: {kind:?} is not defined here")),
            Some(spec) if spec.queue != of.queue => {
                return Some(format!(
                    "kind: {kind:?} is of the queue {:?}; a workflow lives in one queue, here {:?}",
                    spec.queue, of.queue
                ));
            }
            Some(spec) => {
                if let Err(e) = spec.bind(&mut envelope.take_args()) {
                    return Some(format!("{kind}: {e}"));
                }
            }
        }
        let next = envelope.then.take();
        step = next.and_then(|then| Envelope::parse(then.get().as_bytes()).ok());
    }
    None
}

/// The way back to a kind that follows itself in the end: such a chain would never be over.
fn circle(from: &JobSpec, specs: &BTreeMap<Arc<str>, JobSpec>) -> Option<String> {
    let (mut way, mut seen) = (vec![from.kind.to_string()], BTreeSet::new());
    let mut at = from;
    while let Some(then) = &at.then {
        way.extend(then.kinds.iter().cloned());
        // What the last step says itself is nothing: then its definition speaks.
        at = specs.get(then.kinds.last()?.as_str())?;
        if at.kind == from.kind {
            return Some(format!("goes round in a circle: {}", way.join(", then ")));
        }
        if !seen.insert(&at.kind) {
            return None;
        }
    }
    None
}
