//! What runs by itself in a queue: the schedules of definitions, and those that operators added.

use super::spec::RawSchedule;
use super::{Catalog, ScheduleSpec};
use crate::job::{Priority, id};
use crate::policy::schedule::Misfire;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::Arc;

/// The most schedules operators may add to one queue.
pub const MAX_ADDED: usize = 1_000;
/// The longest name of an added schedule.
pub const MAX_NAME_LEN: usize = 100;
/// The largest arguments of an added schedule, bytes of JSON: every daemon holds them.
pub const MAX_ARGS_BYTES: usize = 16 * 1024;

/// A schedule that an operator added, as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddedSchedule {
    /// What it runs.
    pub kind: String,
    /// When.
    pub cron: String,
    /// In which time zone.
    pub timezone: String,
    /// What becomes of missed ticks.
    pub misfire: Misfire,
    /// With `misfire = "all"`: how many are made up for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catch_up: Option<usize>,
    /// What each job is given.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub args: Map<String, Value>,
    /// The class of its jobs; the definition's if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
}

impl AddedSchedule {
    /// The schedule in it.
    ///
    /// # Errors
    /// Names the field that can't be used.
    pub fn spec(&self) -> Result<ScheduleSpec, String> {
        RawSchedule {
            cron: self.cron.clone(),
            timezone: Some(self.timezone.clone()),
            misfire: self.misfire,
            catch_up: self.catch_up,
        }
        .parse()
    }
}

/// Where a schedule comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The definition of its kind.
    Definition,
    /// An operator.
    Added,
}

/// A schedule of a queue.
#[derive(Debug, Clone)]
pub struct Scheduled {
    /// Its name: the kind, for that of a definition.
    pub name: Arc<str>,
    /// What it runs.
    pub kind: Arc<str>,
    /// When.
    pub spec: ScheduleSpec,
    /// What each job is given; the defaults if empty.
    pub args: Map<String, Value>,
    /// The class of its jobs; the definition's if absent.
    pub priority: Option<Priority>,
    /// Where it comes from.
    pub source: Source,
}

/// An added schedule that can't be served here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unserved {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// The schedules of a queue in order of name, and those of the added ones that can't be served with this catalogue.
/// `added` are names with what is stored under them.
#[must_use]
pub fn of_queue(
    catalog: &Catalog,
    queue: &str,
    added: &[(String, Vec<u8>)],
) -> (Vec<Scheduled>, Vec<Unserved>) {
    let of_definition = |spec: &Arc<super::JobSpec>| {
        Some(Scheduled {
            name: Arc::clone(&spec.kind),
            kind: Arc::clone(&spec.kind),
            spec: spec.schedule.clone()?,
            args: Map::new(),
            priority: None,
            source: Source::Definition,
        })
    };
    let here = catalog.iter().filter(|spec| &*spec.queue == queue);
    let mut schedules: Vec<Scheduled> = here.filter_map(of_definition).collect();
    let mut unserved = Vec::new();
    for (name, stored) in added {
        match read_added(catalog, name, stored) {
            Ok(scheduled) => schedules.push(scheduled),
            Err(reason) => unserved.push(Unserved {
                name: name.clone(),
                reason,
            }),
        }
    }
    schedules.sort_by(|a, b| a.name.cmp(&b.name));
    unserved.sort_by(|a, b| a.name.cmp(&b.name));
    (schedules, unserved)
}

fn read_added(catalog: &Catalog, name: &str, stored: &[u8]) -> Result<Scheduled, String> {
    check_name(name, catalog)?;
    let added: AddedSchedule = serde_json::from_slice(stored).map_err(|e| e.to_string())?;
    let kind = catalog
        .get(&added.kind)
        .ok_or_else(|| format!("kind: {:?} is not defined here", added.kind))?;
    Ok(Scheduled {
        name: name.into(),
        kind: Arc::clone(&kind.kind),
        spec: added.spec()?,
        args: added.args,
        priority: added.priority,
        source: Source::Added,
    })
}

/// Checks the name of an added schedule: that of a kind is taken by its definition.
///
/// # Errors
/// Says what is allowed.
pub fn check_name(name: &str, catalog: &Catalog) -> Result<(), String> {
    if name.len() > MAX_NAME_LEN {
        return Err(format!("name: longer than {MAX_NAME_LEN} characters"));
    }
    id::check_kind(name).map_err(|e| format!("name: {name:?} {e}"))?;
    if catalog.get(name).is_some() {
        return Err(format!(
            "name: {name:?} is the kind of a definition; choose another one, like {name}.extra"
        ));
    }
    Ok(())
}
