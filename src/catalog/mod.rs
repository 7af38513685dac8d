//! The catalogue: which kinds of jobs there are, read from `jobs/*.toml`.
//!
//! Owns: the form of a definition, its checks, and errors that name file, line and field. Must not know what a handler
//! does: the list of handler names is handed in, and a handler reads its own section through [`JobSpec::section`].

mod code;
mod limits;
mod load;
mod once;
pub mod schedules;
mod spec;
mod then;

pub use code::{CODE, CodeDefinition};
pub use limits::{Concurrency, Rate};
pub use load::{CatalogError, Problem, load, load_with_code};
pub use once::{DebounceSpec, UniqueSpec};
pub use spec::{HistorySpec, JobSpec, NEVER_SHED, ScheduleSpec, TypedArgs};
pub use then::ThenSpec;

use crate::job::Priority;
use std::collections::BTreeMap;
use std::sync::Arc;

/// All definitions, by kind.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    specs: BTreeMap<Arc<str>, Arc<JobSpec>>,
}

impl Catalog {
    /// A catalogue of the given definitions; of two with the same kind the last one counts.
    #[must_use]
    pub fn new(specs: impl IntoIterator<Item = JobSpec>) -> Self {
        let specs = specs
            .into_iter()
            .map(|s| (Arc::clone(&s.kind), Arc::new(s)))
            .collect();
        Self { specs }
    }

    /// The same, where each definition also names these resources.
    #[must_use]
    pub fn touching(mut self, resources: impl Fn(&JobSpec) -> Vec<String>) -> Self {
        for spec in self.specs.values_mut() {
            for resource in resources(spec) {
                if !spec.resources.iter().any(|known| **known == *resource) {
                    Arc::make_mut(spec).resources.push(resource.into());
                }
            }
        }
        self
    }

    /// The definition of a kind.
    #[must_use]
    pub fn get(&self, kind: &str) -> Option<&Arc<JobSpec>> {
        self.specs.get(kind)
    }

    /// Whether there is a kind of critical jobs.
    #[must_use]
    pub fn has_critical(&self) -> bool {
        self.iter().any(|spec| spec.priority == Priority::Critical)
    }

    /// All definitions in order of kind.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<JobSpec>> {
        self.specs.values()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.specs.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.specs.is_empty()
    }
}
