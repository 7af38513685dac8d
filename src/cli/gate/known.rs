//! Which resources and operations there are to give orders about.

use super::super::CliError;
use super::super::fleet::Fleet;
use super::super::store::Store;
use crate::health::{HOST, MEMORY, QUEUE_REDIS};
use crate::policy::gate::{Aspect, Target, Will};
use std::collections::BTreeSet;

/// Names shown of those there are.
const SHOWN: usize = 20;
/// How alike a name must be to be suggested, 0 to 1.
const ALIKE: f64 = 0.8;

/// Refuses an order about what neither definitions nor daemons know, or that does not suit its target.
///
/// # Errors
/// Says what does not fit, or which names there are.
pub(super) fn check(
    store: &Store,
    fleet: &Fleet,
    target: &Target,
    will: Will,
) -> Result<(), CliError> {
    let suits = matches!(
        (target, will.aspect()),
        (Target::Resource(_), Aspect::State)
            | (Target::Operation { .. }, Aspect::Breaker | Aspect::Limit)
    );
    if !suits {
        let message = match target {
            Target::Resource(name) => format!(
                "{will} is for an operation, a handler on a resource: {}",
                example(store, fleet, name)
            ),
            Target::Operation { resource, .. } => {
                format!("a state is for a resource, not for an operation: {resource}")
            }
        };
        return Err(CliError::Usage(message));
    }
    let known = match target {
        Target::Resource(_) => resources(store, fleet),
        Target::Operation { .. } => operations(store, fleet),
    };
    let name = target.to_string();
    if known.contains(&name) {
        return Ok(());
    }
    // Without definitions and daemons nobody knows which there are.
    if !store.defined && fleet.health.is_none() {
        return Ok(());
    }
    Err(CliError::NotFound(unknown(target, &known)))
}

fn unknown(target: &Target, known: &BTreeSet<String>) -> String {
    let what = match target {
        Target::Resource(_) => "resource",
        Target::Operation { .. } => "operation",
    };
    let name = target.to_string();
    let nearest = known
        .iter()
        .map(|other| (strsim::jaro_winkler(&name, other), other))
        .filter(|(alike, _)| *alike >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let hint = nearest.map_or_else(String::new, |(_, other)| {
        format!(" (did you mean {other}?)")
    });
    if known.is_empty() {
        return format!("there is no {what} {name}: no definition has `resources`");
    }
    let mut some: Vec<&str> = known.iter().take(SHOWN).map(String::as_str).collect();
    if known.len() > SHOWN {
        some.push("…");
    }
    format!(
        "there is no {what} {name}{hint}; there are {}",
        some.join(", ")
    )
}

fn example(store: &Store, fleet: &Fleet, resource: &str) -> String {
    let of_it = |name: &String| name.split_once('@').is_some_and(|(_, r)| r == resource);
    let found = operations(store, fleet).into_iter().find(of_it);
    found.unwrap_or_else(|| format!("HANDLER@{resource}"))
}

/// Resources that are probed, and those that definitions declare.
pub(super) fn resources(store: &Store, fleet: &Fleet) -> BTreeSet<String> {
    let probed = fleet.resources().map(|(name, _)| name.to_owned());
    let declared = store.catalog.iter().flat_map(|spec| spec.resources.iter());
    let declared = declared.map(|name| name.to_string());
    let own = [HOST, MEMORY, QUEUE_REDIS].map(str::to_owned);
    probed.chain(declared).chain(own).collect()
}

/// Handlers on the resources that their kinds declare, and those that daemons tell of.
pub(super) fn operations(store: &Store, fleet: &Fleet) -> BTreeSet<String> {
    let each = store.catalog.iter().flat_map(|spec| {
        let of = |resource| format!("{}@{resource}", spec.handler);
        spec.resources.iter().map(of)
    });
    let text = |entry: &serde_json::Value, field: &str| entry[field].as_str().map(str::to_owned);
    let told = fleet.each("breakers").chain(fleet.each("limiters"));
    let told =
        told.filter_map(|e| Some(format!("{}@{}", text(e, "handler")?, text(e, "resource")?)));
    each.chain(told).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested() {
        let known: BTreeSet<String> = ["postgres:primary", "redis:main"].map(str::to_owned).into();
        let said = |name: &str| unknown(&Target::parse(name), &known);
        assert_eq!(
            said("postgres:primry"),
            "there is no resource postgres:primry (did you mean postgres:primary?); \
             there are postgres:primary, redis:main"
        );
        assert!(!said("smtp:x").contains("did you mean"));
        assert!(unknown(&Target::parse("a@b:c"), &BTreeSet::new()).contains("no operation a@b:c"));
    }
}
