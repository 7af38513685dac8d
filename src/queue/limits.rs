//! What a claim keeps besides its allowances: slots across the fleet, rates, turns. Which of them hold for a flow follows
//! from the definition of its kind and from what operators changed live.

use super::Flow;
use super::control::{Control, Limits};
use crate::catalog::JobSpec;
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

/// One limit that holds across all daemons. A name without a key is of the whole kind, `<kind>@<key>` of one key.
#[derive(Debug, Clone, PartialEq)]
pub enum Gate {
    /// So many jobs may run at once.
    Slots {
        /// Whose slots.
        name: Arc<str>,
        /// How many there are.
        limit: usize,
    },
    /// A start uses up some time, of which a pause saves up some.
    Rate {
        /// Whose rate.
        name: Arc<str>,
        /// The time of one start, ms.
        every_ms: f64,
        /// Starts at once after a long pause.
        burst: usize,
    },
}

impl Gate {
    /// Whose it is.
    #[must_use]
    pub const fn name(&self) -> &Arc<str> {
        match self {
            Self::Slots { name, .. } | Self::Rate { name, .. } => name,
        }
    }

    /// As the claim script reads it.
    pub(super) fn write(&self, cmd: &mut redis::Cmd) {
        let letter = |wide, keyed| if self.is_wide() { wide } else { keyed };
        match self {
            Self::Slots { name, limit } => {
                cmd.arg(letter("S", "s")).arg(&**name).arg(*limit).arg(0)
            }
            Self::Rate {
                name,
                every_ms,
                burst,
            } => cmd
                .arg(letter("R", "r"))
                .arg(&**name)
                .arg(*every_ms)
                .arg(*burst),
        };
    }

    /// Whether it holds for a whole kind.
    #[must_use]
    pub fn is_wide(&self) -> bool {
        !self.name().contains('@')
    }
}

/// What holds for the jobs of one flow.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Terms {
    gates: Vec<Gate>,
    slots: Arc<[Arc<str>]>,
    fair: bool,
    still: bool,
}

impl Terms {
    /// What holds for a flow of a kind.
    #[must_use]
    pub fn of(flow: &Flow, spec: &JobSpec, control: &Control) -> Self {
        let limits = control.limits_of(spec);
        let mut gates = slot_gates(flow, spec, &limits);
        let slots = gates.iter().map(|gate| Arc::clone(gate.name())).collect();
        if let Some(rate) = &limits.rate {
            let keyed = spec.rate.as_ref().is_some_and(|r| r.key.is_some());
            gates.push(Gate::Rate {
                name: name(flow, keyed),
                every_ms: rate.every_ms(),
                burst: rate.burst(),
            });
        }
        Self {
            gates,
            slots,
            fair: spec.fair,
            still: false,
        }
    }

    /// The same, where `still`: then waiting does not lift the jobs of the flow.
    #[must_use]
    pub const fn stay(mut self, still: bool) -> Self {
        self.still = still;
        self
    }

    /// The limits.
    #[must_use]
    pub fn gates(&self) -> &[Gate] {
        &self.gates
    }

    /// The slots each job of the flow holds while it runs, by name.
    #[must_use]
    pub fn slots(&self) -> Arc<[Arc<str>]> {
        Arc::clone(&self.slots)
    }

    /// Whether the flow takes turns with the others of its kind.
    #[must_use]
    pub const fn fair(&self) -> bool {
        self.fair
    }
}

/// The limits of several flows, each once.
#[derive(Debug, Default)]
pub(super) struct Gates<'a> {
    list: Vec<&'a Gate>,
    numbers: HashMap<(bool, &'a str), usize>,
}

impl<'a> Gates<'a> {
    /// Those of some flows, whose definitions and live changes are of one moment.
    pub(super) fn of(terms: impl Iterator<Item = &'a Terms>) -> Self {
        let mut gates = Self::default();
        for gate in terms.flat_map(|terms| &terms.gates) {
            let list = &mut gates.list;
            gates.numbers.entry(identity(gate)).or_insert_with(|| {
                list.push(gate);
                list.len()
            });
        }
        gates
    }

    /// In the order of their numbers, which count from 1.
    pub(super) fn list(&self) -> &[&'a Gate] {
        &self.list
    }

    /// What holds for a flow, as the claim script reads it.
    pub(super) fn write(&self, terms: &Terms) -> String {
        let mut text = String::from(match (terms.fair, terms.still) {
            (false, false) => "",
            (true, false) => "f",
            (false, true) => "s",
            (true, true) => "fs",
        });
        let numbers = terms
            .gates
            .iter()
            .filter_map(|gate| self.numbers.get(&identity(gate)));
        for (at, number) in numbers.enumerate() {
            // Writing to a String can't fail.
            let _ = write!(text, "{}{number}", if at > 0 { "," } else { "" });
        }
        text
    }
}

/// Slots and a rate may have one name.
fn identity(gate: &Gate) -> (bool, &str) {
    (matches!(gate, Gate::Slots { .. }), gate.name())
}

/// How many slots of a name there are by now; none if nothing limits them. `name` is of the kind of `spec`.
#[must_use]
pub fn slot_limit(name: &str, spec: &JobSpec, control: &Control) -> Option<usize> {
    let limits = control.limits_of(spec);
    let keyed = spec.concurrency.key.is_some();
    match (name.contains('@'), keyed) {
        (false, false) | (true, true) => limits.limit,
        (false, true) => limits.total,
        (true, false) => None,
    }
}

fn slot_gates(flow: &Flow, spec: &JobSpec, limits: &Limits) -> Vec<Gate> {
    let keyed = spec.concurrency.key.is_some();
    let mut gates = Vec::new();
    let mut push = |name, limit: Option<usize>| {
        gates.extend(limit.map(|limit| Gate::Slots { name, limit }));
    };
    push(name(flow, keyed), limits.limit);
    if keyed {
        push(name(flow, false), limits.total);
    }
    gates
}

/// Whose limit it is. A flow without a key, of a kind that has got one since, is of the empty key.
fn name(flow: &Flow, keyed: bool) -> Arc<str> {
    if keyed {
        let key = flow.key.as_deref().unwrap_or_default();
        format!("{}@{key}", flow.kind).into()
    } else {
        Arc::clone(&flow.kind)
    }
}
