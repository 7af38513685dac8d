//! What becomes of an entry of an inbox: a job that may run now or later, or none.
//!
//! Pure. What a job is to be tied to is found in [`super::ties`]; whether its id and its lock are free, only the admission
//! script knows.

use super::ties::Member;
use super::{Flow, Ties};
use crate::catalog::{Catalog, JobSpec};
use crate::job::envelope::{self, Legible};
use crate::job::partition::safe_key;
use crate::job::ties::check_steps;
use crate::job::{Envelope, JobId, Reject, RejectCode};
use std::fmt::Write;
use std::sync::Arc;

/// What is to become of one entry.
#[derive(Debug)]
pub enum Verdict {
    /// It may run now.
    Ready {
        /// Where it waits.
        flow: Flow,
        /// Its id.
        id: JobId,
        /// Whether the app gave the id.
        given: bool,
        /// What it is to be tied to.
        ties: Option<Box<Ties>>,
    },
    /// It may run later.
    Delayed {
        /// When, ms.
        due_ms: u64,
        /// Where it will wait.
        flow: Flow,
        /// Its id.
        id: JobId,
        /// Whether the app gave the id.
        given: bool,
        /// What it is to be tied to.
        ties: Option<Box<Ties>>,
    },
    /// It can't be a job.
    Rejected {
        /// Why.
        reject: Reject,
        /// Its id, if that much could be read.
        id: Option<JobId>,
        /// How long somebody wants its result kept, ms; 0 if nobody does, or that could not be read.
        result_ttl_ms: u64,
        /// The group that would wait for it, if that could be read.
        group: Option<Box<Member>>,
    },
}

/// Decides about one entry of `queue`'s inbox. `random` feeds a minted id.
#[must_use]
pub fn judge(raw: &[u8], queue: &str, catalog: &Catalog, now_ms: u64, random: [u8; 10]) -> Verdict {
    let rejected = |reject| {
        let read = Legible::of(raw);
        let follows = |then: &str| follows(then, queue, catalog).is_ok();
        Verdict::Rejected {
            reject,
            id: read.id,
            result_ttl_ms: read.result_ttl_ms.unwrap_or(0),
            group: read
                .group
                .map(|group| Box::new(Member::of_rejected(&group, follows))),
        }
    };
    let mut envelope = match Envelope::parse(raw) {
        Ok(envelope) => envelope,
        Err(reject) => return rejected(reject),
    };
    let flow = flow_of(&envelope, catalog);
    let steps = |()| check_steps(&envelope).map_err(|e| Reject::new(RejectCode::TooLarge, e));
    let checked = within_a_year(&envelope, now_ms).and_then(steps);
    let mut ties = match checked.and_then(|()| fits(&mut envelope, queue, catalog)) {
        Ok(ties) => ties,
        Err(reject) => return rejected(reject),
    };
    let given = envelope.id.is_some();
    let says_class = envelope.priority.is_some();
    let wait_ms = ties.as_ref().map_or(0, |t| t.wait_ms());
    let due_ms = envelope
        .ready_at(now_ms)
        .max(now_ms.saturating_add(wait_ms));
    let id = envelope.id.unwrap_or_else(|| JobId::mint(now_ms, random));
    if due_ms > now_ms {
        if let Some(mark) = unsaid(&flow, says_class) {
            ties.get_or_insert_default().flow = Some(mark);
        }
        Verdict::Delayed {
            due_ms,
            flow,
            id,
            given,
            ties,
        }
    } else {
        Verdict::Ready {
            flow,
            id,
            given,
            ties,
        }
    }
}

/// The mark of a flow that the envelope alone does not tell: its key, or a class that only its definition says.
fn unsaid(flow: &Flow, says_class: bool) -> Option<String> {
    flow.mark().filter(|_| flow.key.is_some() || !says_class)
}

/// Absolute times may be as far ahead as relative ones.
///
/// # Errors
/// Names the one that is not.
pub fn within_a_year(envelope: &Envelope, now_ms: u64) -> Result<(), Reject> {
    let latest = now_ms.saturating_add(envelope::MAX_AHEAD_MS);
    let times = [
        ("run_at", envelope.run_at),
        ("expires_at", envelope.expires_at),
    ];
    for (field, at) in times {
        if at.is_some_and(|at| at > latest) {
            let message = format!("{field}: more than a year ahead");
            return Err(Reject::new(RejectCode::Malformed, message));
        }
    }
    Ok(())
}

/// Checks an envelope against its inbox and its definition, and those that follow it too; returns what it is to be tied
/// to.
fn fits(
    envelope: &mut Envelope,
    queue: &str,
    catalog: &Catalog,
) -> Result<Option<Box<Ties>>, Reject> {
    if let Some(named) = envelope.queue.as_deref().filter(|named| *named != queue) {
        let message = format!("queue: the envelope says {named:?}, but it came in by {queue:?}");
        return Err(Reject::new(RejectCode::WrongQueue, message));
    }
    let Some(spec) = catalog.get(&envelope.kind) else {
        let message = format!("kind: {:?} is not defined here", envelope.kind);
        return Err(Reject::new(RejectCode::UnknownKind, message));
    };
    let bad = |e| Reject::new(RejectCode::BadArgs, e);
    if envelope.concurrency_key.is_some() && spec.partition.is_none() {
        let message = format!(
            "concurrency_key: jobs of {} are not told apart; its definition has no [concurrency] key, [rate] key or fairness",
            spec.kind
        );
        return Err(bad(message));
    }
    key_of(envelope, spec).map_err(bad)?;
    let mut given = envelope.take_args();
    spec.bind(&mut given).map_err(bad)?;
    for (field, next) in envelope.following() {
        follows(next.get(), queue, catalog)
            .map_err(|reject| Reject::new(reject.code, format!("{field}: {}", reject.message)))?;
    }
    Ties::of(envelope, spec, &given)
}

/// Checks an envelope that is to follow another one.
fn follows(then: &str, queue: &str, catalog: &Catalog) -> Result<(), Reject> {
    let mut next = Envelope::parse(then.as_bytes())?;
    fits(&mut next, queue, catalog).map(drop)
}

/// What a job is told apart by; none if the jobs of its kind are not.
fn key_of(envelope: &Envelope, spec: &JobSpec) -> Result<Option<Arc<str>>, String> {
    let Some(expr) = &spec.partition else {
        return Ok(None);
    };
    if let Some(given) = &envelope.concurrency_key {
        return Ok(Some(safe_key(given)));
    }
    let declared = spec.args.get(expr.argument());
    let default = declared.and_then(|arg| arg.default.as_ref());
    expr.key(envelope.args(), default).map(Some)
}

/// The flow an envelope belongs to. A kind that is not defined here keeps its own priority, or the default one; what is
/// no key counts as none, as it can't be admitted.
#[must_use]
pub fn flow_of(envelope: &Envelope, catalog: &Catalog) -> Flow {
    let spec = catalog.get(&envelope.kind);
    Flow {
        priority: envelope
            .priority
            .or(spec.map(|s| s.priority))
            .unwrap_or_default(),
        kind: spec.map_or_else(|| envelope.kind.as_str().into(), |s| s.kind.clone()),
        key: spec.and_then(|s| key_of(envelope, s).unwrap_or_else(|_| Some("".into()))),
    }
}

impl Verdict {
    /// The verb of the script, as its header lists them.
    pub(super) fn write_verb(&self, verb: &mut String, flows: &[&Flow]) {
        let given = |given: &bool| if *given { "g" } else { "" };
        let tied = if self.is_tied() { "t" } else { "" };
        // Writing to a String can't fail.
        let _ = match self {
            Self::Ready { flow, given: g, .. } => {
                let number = flows.iter().position(|f| *f == flow).map_or(0, |n| n + 1);
                write!(verb, "{number}{}{tied}", given(g))
            }
            Self::Delayed { given: g, .. } => write!(verb, "d{}{tied}", given(g)),
            Self::Rejected { .. } => write!(verb, "q{tied}"),
        };
    }

    /// What it is to be tied to.
    pub(super) fn ties(&self) -> Option<&Ties> {
        match self {
            Self::Ready { ties, .. } | Self::Delayed { ties, .. } => ties.as_deref(),
            Self::Rejected { .. } => None,
        }
    }

    /// Who wants to know how it ends: its id, and for how many ms that is kept.
    pub(super) fn result_of(&self) -> Option<(&JobId, u64)> {
        match self {
            Self::Ready { id, ties, .. } | Self::Delayed { id, ties, .. } => {
                Some((id, ties.as_ref()?.result_ttl_ms?))
            }
            Self::Rejected {
                id, result_ttl_ms, ..
            } => id
                .as_ref()
                .map(|id| (id, *result_ttl_ms))
                .filter(|(_, ms)| *ms > 0),
        }
    }

    /// Whether the script is told more of it than where it goes.
    pub(super) fn is_tied(&self) -> bool {
        let refused = matches!(self, Self::Rejected { group: Some(_), .. });
        refused || self.ties().is_some() || self.result_of().is_some()
    }
}
