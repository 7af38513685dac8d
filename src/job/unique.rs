//! What an envelope may say about whom it must not stand beside: `unique` and `debounce`.
//!
//! Owns: their form and ranges. Must not know how the queue keeps to them.

use super::partition::MAX_KEY_BYTES;
use super::ties::Fault;
use serde::{Deserialize, Serialize};

/// The longest a lock may outlive the admission of its job: a year, in milliseconds.
pub const MAX_LOCK_MS: u64 = super::envelope::MAX_AHEAD_MS;
/// The longest a job may be debounced: a day, in milliseconds.
pub const MAX_DEBOUNCE_MS: u64 = 86_400_000;
/// Until when the lock of a unique job is held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Until {
    /// Until it is taken by a daemon: at most one waits.
    Claimed,
    /// Until its end, whichever that is: at most one waits or runs.
    #[default]
    Finished,
    /// Until its time is over, even if the job is done before: at most one succeeds in that time.
    Ttl,
}

/// What becomes of a job whose lock another one holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnConflict {
    /// It is dropped.
    #[default]
    Skip,
    /// The waiting one takes its arguments, time and priority. If that one runs, as `skip`.
    Replace,
    /// The waiting one takes its arguments in as well: arrays are united, of the rest the newest counts.
    Merge,
}

/// `unique`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unique {
    /// What no other job of the kind may have.
    #[serde(default, deserialize_with = "super::envelope::present")]
    pub key: Option<String>,
    /// The arguments that make up the key, instead: none for one job of the kind at all. All of them if neither is given.
    #[serde(default, deserialize_with = "super::envelope::present")]
    pub args: Option<Vec<String>>,
    /// Until when it holds.
    #[serde(default)]
    pub until: Until,
    /// The lock is gone after this many ms in any case.
    #[serde(default, deserialize_with = "super::envelope::present")]
    pub ttl_ms: Option<u64>,
    /// What becomes of the second one.
    #[serde(default)]
    pub on_conflict: OnConflict,
}

/// `debounce`: of jobs with the same key that follow each other closely, the last one runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Debounce {
    /// What belongs together.
    pub key: String,
    /// Runs after this many ms without another one.
    pub wait_ms: u64,
    /// But at the latest this many ms after the first one.
    #[serde(default, deserialize_with = "super::envelope::present")]
    pub max_wait_ms: Option<u64>,
}

impl Unique {
    pub(super) fn check(&self) -> Result<(), Fault> {
        if let Some(key) = &self.key {
            check_key(key).map_err(|e| ("unique", format!("key {e}")))?;
            if self.args.is_some() {
                return Err(("unique", "give key or args, not both".to_owned()));
            }
        }
        self.check_rule().map_err(|e| ("unique", e))
    }

    /// What can't work, whatever the key.
    ///
    /// # Errors
    /// Says which fields contradict each other.
    pub fn check_rule(&self) -> Result<(), String> {
        if self.ttl_ms.is_some_and(|ms| ms == 0 || ms > MAX_LOCK_MS) {
            return Err(format!("ttl must be 1 to {MAX_LOCK_MS} ms"));
        }
        if self.until == Until::Ttl && self.ttl_ms.is_none() {
            return Err("until = \"ttl\" needs a ttl".to_owned());
        }
        if self.on_conflict == OnConflict::Merge && self.until != Until::Claimed {
            return Err(
                "on_conflict = \"merge\" needs until = \"claimed\": what runs takes nothing in any more"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

impl Debounce {
    pub(super) fn check(&self) -> Result<(), Fault> {
        check_key(&self.key).map_err(|e| ("debounce", format!("key {e}")))?;
        self.check_rule().map_err(|e| ("debounce", e))
    }

    /// What can't work, whatever the key.
    ///
    /// # Errors
    /// Says which field is out of range.
    pub fn check_rule(&self) -> Result<(), String> {
        if self.wait_ms == 0 || self.wait_ms > MAX_DEBOUNCE_MS {
            return Err(format!("wait must be 1 to {MAX_DEBOUNCE_MS} ms"));
        }
        match self.max_wait_ms {
            Some(max) if max < self.wait_ms || max > MAX_DEBOUNCE_MS => Err(format!(
                "max_wait must be at least wait, and at most {MAX_DEBOUNCE_MS} ms"
            )),
            _ => Ok(()),
        }
    }
}

/// A key that may stand in the name of a lock.
///
/// # Errors
/// Says what is allowed.
pub fn check_key(key: &str) -> Result<(), String> {
    // What begins with '#' stands for a hash.
    if key.is_empty()
        || key.len() > MAX_KEY_BYTES
        || key.contains(char::is_control)
        || key.starts_with('#')
    {
        return Err(format!(
            "must be 1 to {MAX_KEY_BYTES} bytes without control characters, and not begin with '#'"
        ));
    }
    Ok(())
}
