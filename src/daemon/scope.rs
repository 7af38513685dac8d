//! Which queues and kinds a daemon serves.

use super::DaemonError;
use crate::catalog::{Catalog, CodeDefinition, JobSpec};
use crate::config::Config;
use std::collections::BTreeSet;

/// The queue there is when none is named anywhere.
pub const DEFAULT_QUEUE: &str = "default";

/// Every queue that the configuration or a definition names; [`DEFAULT_QUEUE`] when none does.
#[must_use]
pub fn queue_names(config: &Config, catalog: &Catalog) -> BTreeSet<String> {
    let configured = config.queue.iter().map(|q| q.name.clone());
    let defined = catalog.iter().map(|spec| spec.queue.to_string());
    let mut names: BTreeSet<String> = configured.chain(defined).collect();
    if names.is_empty() {
        names.insert(DEFAULT_QUEUE.to_owned());
    }
    names
}

/// The kinds that this program can run. Those whose function only another one has are left to that, queue and all; in a
/// queue that is served here their jobs would be taken for unknown, so that is refused.
pub(super) fn own_kinds(
    config: &Config,
    catalog: Catalog,
    code: &[CodeDefinition],
) -> Result<Catalog, DaemonError> {
    let (own, others) = catalog.with_code(code)?.split_code();
    let served = queue_names(config, &own);
    let (clashing, left): (Vec<_>, Vec<_>) = others
        .iter()
        .partition(|spec| served.contains(&*spec.queue));
    if !clashing.is_empty() {
        let problems: Vec<_> = clashing.iter().map(|spec| clash(spec)).collect();
        return Err(DaemonError::definitions(&problems));
    }
    if !left.is_empty() {
        let kinds: Vec<&str> = left.iter().map(|spec| &*spec.kind).collect();
        tracing::warn!(
            event = "left_to_others",
            kinds = kinds.join(", "),
            "this program has no function for these kinds"
        );
    }
    Ok(own)
}

fn clash(spec: &JobSpec) -> crate::catalog::Problem {
    let function = spec.function.as_deref().unwrap_or_default();
    spec.problem(format!(
        "handler: this program registers no function {function:?}, yet it serves queue {:?}: give the kind a queue of \
         its own, like queue = \"{function}\"",
        spec.queue
    ))
}
