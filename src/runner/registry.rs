//! The catalogue made runnable: each kind with its handler, its operations and its retry budgets. Replaced whole on
//! reload.

use super::budgets::{Budget, Budgets};
use super::operations::{Operation, Operations};
use crate::catalog::{Catalog, JobSpec, Problem};
use crate::handlers::{Deps, Handler, Handlers};
use std::collections::HashMap;
use std::sync::Arc;

/// A kind that can run.
pub struct Kind {
    /// Its definition.
    pub spec: Arc<JobSpec>,
    /// What runs it.
    pub handler: Arc<dyn Handler>,
    /// What its runs do to resources: they pass each of these. None for what is never held back.
    pub operations: Vec<Arc<Operation>>,
    /// The budgets its retries come from; likewise.
    pub budgets: Vec<Arc<Budget>>,
}

/// All kinds.
pub struct Registry {
    /// The definitions alone, for admission.
    pub catalog: Catalog,
    kinds: HashMap<Arc<str>, Arc<Kind>>,
}

impl Registry {
    /// Builds the handler of every definition.
    ///
    /// # Errors
    /// Every definition whose handler can't be built.
    pub fn build(
        catalog: Catalog,
        handlers: &Handlers,
        deps: &Deps,
        operations: &Operations,
        budgets: &Budgets,
    ) -> Result<Self, Vec<Problem>> {
        let mut kinds = HashMap::new();
        let mut problems = Vec::new();
        for spec in catalog.iter() {
            match handlers.build(spec, deps) {
                Ok(handler) => {
                    // A late invalidation is a wrong answer: what fails is tried again, what could run does.
                    let resources = match spec.is_never_shed() {
                        true => &[][..],
                        false => &spec.resources[..],
                    };
                    let kind = Kind {
                        spec: Arc::clone(spec),
                        handler,
                        operations: operations.of(&spec.handler.as_str().into(), resources),
                        budgets: budgets.of(resources),
                    };
                    kinds.insert(Arc::clone(&spec.kind), Arc::new(kind));
                }
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() {
            Ok(Self { catalog, kinds })
        } else {
            Err(problems)
        }
    }

    /// A kind by name.
    #[must_use]
    pub fn get(&self, kind: &str) -> Option<&Arc<Kind>> {
        self.kinds.get(kind)
    }
}
