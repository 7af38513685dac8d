//! What a job is tied to besides its flow: a lock, a group, a workflow, somebody who wants its result.
//!
//! Owns: which ties an envelope and its definition ask for, the names of locks, and how ties are written down. The rules
//! of keeping to them stand in `lua/admit.lua` (taking) and `lua/lib/ties.lua` (letting go).

use super::settle::Ending;
use crate::catalog::{DebounceSpec, JobSpec, UniqueSpec};
use crate::job::ties::{
    Debounce, Group, NO_MEMBER, OnConflict, Unique, Until, When, group_then_id, id_was_made,
    next_id, outcome,
};
use crate::job::{Envelope, JobId, Reject, RejectCode, envelope};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// The ties of one job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ties {
    /// What it must hold to be a job of its own.
    pub lock: Option<Lock>,
    /// What it is a member of.
    pub group: Option<Member>,
    /// How long its result is kept, ms.
    pub result_ttl_ms: Option<u64>,
    /// The first job of its chain, or the group before it.
    pub workflow: Option<JobId>,
    /// The mark of its flow, while it is delayed and its envelope alone does not say to which flow it goes: who promotes
    /// it may not know its kind.
    pub flow: Option<String>,
    /// A hash of what follows it, if it has a lock.
    pub then: Option<String>,
    /// The queue made its id: it can't be meant to be another job's.
    pub made: bool,
}

/// A lock, and what holds for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// `<kind>:<key>`, or `<kind>:#<hash of arguments>`.
    pub name: String,
    /// Until when it is held.
    pub until: Until,
    /// After how many ms it is gone in any case; 0 for never.
    pub ttl_ms: u64,
    /// What becomes of a second one.
    pub on_conflict: OnConflict,
    /// How many ms it waits for another one, and at most; 0 for not, and for no bound.
    pub debounce: (u64, u64),
}

/// Membership in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The group.
    pub id: JobId,
    /// How many members it has.
    pub size: u32,
    /// When what follows runs.
    pub when: When,
    /// What follows: an envelope without its last brace.
    pub then: Option<String>,
}

impl Ties {
    /// The ties that an envelope asks for. `args` are its arguments with the definition's defaults.
    ///
    /// # Errors
    /// What is asked for can't be had, naming the field.
    pub(super) fn of(
        envelope: &Envelope,
        spec: &JobSpec,
        args: &Map<String, Value>,
    ) -> Result<Option<Box<Self>>, Reject> {
        let lock = lock(envelope, spec, args)?;
        let group = envelope.group.as_ref().map(member);
        if lock.is_some() && group.is_some() {
            return Err(bad(format!("group: {NO_MEMBER}; {} is", spec.kind)));
        }
        let locked = lock.is_some();
        let of_spec = || spec.result_ttl.map(super::millis);
        let ties = Self {
            lock,
            group,
            result_ttl_ms: envelope.result_ttl_ms.or_else(of_spec).filter(|ms| *ms > 0),
            workflow: envelope.workflow.clone(),
            flow: None,
            then: envelope
                .then
                .as_ref()
                .filter(|_| locked)
                .map(|then| digest(then.get())),
            made: id_was_made(envelope),
        };
        Ok((ties != Self::default()).then(|| Box::new(ties)))
    }

    /// How many ms it waits for another one to take its place.
    pub(super) fn wait_ms(&self) -> u64 {
        self.lock.as_ref().map_or(0, |lock| lock.debounce.0)
    }

    /// As the admission script reads them: one line each, the first letter says what it is.
    pub(super) fn written(&self) -> String {
        let letter = |until| match until {
            Until::Claimed => 'c',
            Until::Finished => 'f',
            Until::Ttl => 't',
        };
        let lines = [
            self.lock
                .as_ref()
                .map(|l| format!("{}{}", letter(l.until), l.name)),
            self.group.as_ref().map(|g| format!("g{}", g.id)),
            self.workflow.as_ref().map(|w| format!("w{w}")),
            self.result_ttl_ms.map(|ms| format!("r{ms}")),
            self.flow.as_ref().map(|mark| format!("k{mark}")),
            self.then
                .as_ref()
                .filter(|_| self.merges())
                .map(|hash| format!("n{hash}")),
            self.made.then(|| "d".to_owned()),
        ];
        lines.into_iter().flatten().collect::<Vec<_>>().join("\n")
    }

    fn merges(&self) -> bool {
        let lock = self.lock.as_ref();
        lock.is_some_and(|lock| lock.on_conflict == OnConflict::Merge)
    }

    /// What holds for the lock, as the admission script reads it.
    pub(super) fn lock_rule(&self) -> String {
        self.lock.as_ref().map_or_else(String::new, |lock| {
            let action = match lock.on_conflict {
                OnConflict::Skip => 's',
                OnConflict::Replace => 'r',
                OnConflict::Merge => 'm',
            };
            let (wait, most) = lock.debounce;
            let then = if self.then.is_some() { "|t" } else { "" };
            format!("{action}|{}|{wait}|{most}{then}", lock.ttl_ms)
        })
    }

    /// What holds for the group, as the admission script reads it.
    pub(super) fn group_rule(&self) -> String {
        self.group.as_ref().map_or_else(String::new, Member::rule)
    }
}

impl Member {
    /// The group that a rejected envelope names, with what follows it if that fits.
    pub(super) fn of_rejected(group: &Group, fits: impl FnOnce(&str) -> bool) -> Self {
        let mut member = member(group);
        if !group.then.as_ref().is_some_and(|then| fits(then.get())) {
            member.then = None;
        }
        member
    }

    /// What holds for the group, as the admission script reads it.
    pub(super) fn rule(&self) -> String {
        let when = match self.when {
            When::Success => 's',
            When::Always => 'a',
        };
        let then = self.then.as_deref().unwrap_or_default();
        format!("{}|{when}|{then}", self.size)
    }
}

/// The mark of the flow of a job with these stored ties, where they say it.
pub(super) fn mark_of(stored: &str) -> Option<&str> {
    stored.lines().find_map(|line| line.strip_prefix('k'))
}

/// Whether the end of a job with these stored ties means anything to others.
pub(super) fn binds(stored: &str) -> bool {
    stored.lines().any(|line| !line.starts_with('k'))
}

/// Whether somebody wants the result of a job with these stored ties.
pub(super) fn keeps_result(stored: &str) -> bool {
    stored.lines().any(|line| line.starts_with('r'))
}

/// Whether an app gave the id of a job with these stored ties: its envelope says so, or did before that of a later job
/// under its lock took its place.
pub(crate) fn id_was_given(id: &str, stored: &str, envelope: &Envelope) -> bool {
    envelope.gives(id) || stored.lines().any(|line| line == "i")
}

/// What is told, and to whom, when a job ends.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Notice {
    /// How it ended, as [`crate::job::ties::outcome`] says it; none if nobody asked.
    pub outcome: Option<String>,
    /// Whether somebody waits for that at the job's result list.
    pub result: bool,
    /// What is told if nobody had asked when the run began, but somebody has since; none if its ending says it all.
    pub late: Option<String>,
    /// The envelope that follows: it goes to the inbox in the same step.
    pub follow: Option<String>,
}

/// What is told of a job with these stored ties that ended without having run just now.
#[must_use]
pub fn notice_unrun(id: &str, kind: &str, stored: &str, ending: &Ending, now_ms: u64) -> Notice {
    let (state, error) = match ending {
        Ending::Finished { counter, .. } => (*counter, None),
        Ending::Dead { history, .. } => ("dead", history.errors.last().map(|e| e.error.clone())),
        Ending::Quarantined(reject) => ("quarantined", Some(reject.to_string())),
        Ending::Later { .. } | Ending::HandedBack { .. } => return Notice::default(),
    };
    match JobId::parse(id) {
        Ok(id) if !stored.is_empty() => Notice {
            outcome: Some(outcome(&id, kind, state, now_ms, None, error.as_deref())),
            result: keeps_result(stored),
            ..Notice::default()
        },
        _ => Notice::default(),
    }
}

/// The envelope that follows a job which is done.
#[must_use]
pub fn next_step(then: &str, id: &JobId, workflow: Option<&JobId>, outcome: &str) -> String {
    let next = following(
        then,
        &next_id(id.as_str(), workflow),
        workflow.unwrap_or(id),
    );
    format!(r#"{next},"parents":[{outcome}]}}"#)
}

/// Tells texts apart.
fn digest(text: &str) -> String {
    hex::encode(&Sha256::digest(text)[..16])
}

fn bad(message: String) -> Reject {
    Reject::new(RejectCode::BadArgs, message)
}

/// The lock of a job: the envelope's, or else the definition's.
fn lock(
    envelope: &Envelope,
    spec: &JobSpec,
    args: &Map<String, Value>,
) -> Result<Option<Lock>, Reject> {
    if let Some(debounce) = &envelope.debounce {
        return Ok(Some(debounced(spec, &debounce.key, debounce)));
    }
    if let Some(unique) = &envelope.unique {
        let key = match &unique.key {
            Some(key) => key.clone(),
            None => hashed(unique, spec, args)?,
        };
        return Ok(Some(locked(spec, &key, unique)));
    }
    if let Some(DebounceSpec {
        key,
        wait_ms,
        max_wait_ms,
    }) = &spec.debounce
    {
        let rule = Debounce {
            key: String::new(),
            wait_ms: *wait_ms,
            max_wait_ms: *max_wait_ms,
        };
        let key = key
            .key(args, None)
            .map_err(|e| bad(format!("debounce: {e}")))?;
        return Ok(Some(debounced(spec, &key, &rule)));
    }
    if let Some(UniqueSpec { key, rule }) = &spec.unique {
        let key = match key {
            Some(key) => key
                .key(args, None)
                .map_err(|e| bad(format!("unique: {e}")))?
                .to_string(),
            None => hashed(rule, spec, args)?,
        };
        return Ok(Some(locked(spec, &key, rule)));
    }
    Ok(None)
}

fn locked(spec: &JobSpec, key: &str, unique: &Unique) -> Lock {
    Lock {
        name: format!("{}:{key}", spec.kind),
        until: unique.until,
        ttl_ms: unique.ttl_ms.unwrap_or(0),
        on_conflict: unique.on_conflict,
        debounce: (0, 0),
    }
}

/// A debounced job waits under a lock, and every further one replaces it.
fn debounced(spec: &JobSpec, key: &str, debounce: &Debounce) -> Lock {
    Lock {
        name: format!("{}:{key}", spec.kind),
        until: Until::Claimed,
        ttl_ms: 0,
        on_conflict: OnConflict::Replace,
        debounce: (debounce.wait_ms, debounce.max_wait_ms.unwrap_or(0)),
    }
}

/// A key of the arguments that are to make it up.
fn hashed(unique: &Unique, spec: &JobSpec, args: &Map<String, Value>) -> Result<String, Reject> {
    let mut digest = Sha256::new();
    let mut add = |name: &str| {
        if let Some(value) = args.get(name) {
            digest.update(format!("{name}={value}\n"));
        }
    };
    match &unique.args {
        None => spec.args.keys().for_each(|name| add(name)),
        Some(names) => {
            let mut names: Vec<&String> = names.iter().collect();
            names.sort();
            if let Some(unknown) = names.iter().find(|name| !spec.args.contains_key(**name)) {
                let message = format!("unique: args.{unknown} is not declared by {}", spec.kind);
                return Err(bad(message));
            }
            names.into_iter().for_each(|name| add(name));
        }
    }
    Ok(format!("#{}", hex::encode(&digest.finalize()[..16])))
}

fn member(group: &Group) -> Member {
    Member {
        id: group.id.clone(),
        size: group.size,
        when: group.when,
        then: group.then.as_ref().map(|then| {
            let fallback = group_then_id(&group.id);
            following(then.get(), &fallback, &group.id)
        }),
    }
}

/// The envelope of what follows, without its last brace, with an id and the workflow it belongs to.
pub(super) fn following(then: &str, fallback_id: &str, workflow: &JobId) -> String {
    let open = then.trim_end().strip_suffix('}').unwrap_or(then);
    let id = match envelope::id_alone(then.as_bytes()) {
        Some(_) => String::new(),
        None => format!(r#","id":"{fallback_id}""#),
    };
    format!(r#"{open}{id},"workflow":"{workflow}""#)
}
