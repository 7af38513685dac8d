//! Where a job waits: by the definition of its kind or, for who does not know that, by what is stored with the job. Pure.

use super::Flow;
use super::admit::flow_of;
use super::ties::mark_of;
use crate::catalog::Catalog;
use crate::job::{Envelope, History};

/// The flow of a job with these stored ties and this history. Of a kind that is not defined here, its ties say the class
/// and key since it came in delayed, its history since it was put off; where neither does, it is told apart by nothing, or
/// by what only its definition knows.
#[must_use]
pub fn home_of(
    envelope: &Envelope,
    catalog: &Catalog,
    ties: &str,
    history: Option<&History>,
) -> Flow {
    let known = catalog.get(&envelope.kind).is_some();
    let stored = || match mark_of(ties) {
        Some(mark) => Flow::marked(&envelope.kind, mark),
        None => Some(Flow {
            priority: history?.priority.or(envelope.priority)?,
            kind: envelope.kind.as_str().into(),
            key: history?.key.clone(),
        }),
    };
    (!known)
        .then(stored)
        .flatten()
        .unwrap_or_else(|| flow_of(envelope, catalog))
}
