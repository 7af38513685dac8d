//! What a job is: the envelope an app sends, its identity, its priority, what came of it.
//!
//! Owns: the public wire form (envelope v1), the typed arguments a definition declares, and the words the rest of the
//! house uses for a job. Pure: must not know tokio, Redis, SQL, clocks or configuration.

pub mod args;
pub mod envelope;
pub mod history;
pub mod id;
pub mod merge;
mod outcome;
mod outgoing;
pub mod partition;
mod priority;
pub mod progress;
mod reject;
mod strict;
pub mod ties;
pub mod unique;

pub use args::{ArgSpec, ArgType};
pub use envelope::Envelope;
pub use history::{AttemptError, Event, History, What};
pub use id::JobId;
pub use outcome::{Blame, Failure, Outcome};
pub use outgoing::Outgoing;
pub use partition::KeyExpr;
pub use priority::Priority;
pub use progress::Progress;
pub use reject::{Reject, RejectCode};
pub use ties::Parent;

use serde_json::{Map, Value};
use std::sync::Arc;

/// One delivery of a job to a handler: everything the handler may know about it.
#[derive(Debug, Clone)]
pub struct Job {
    /// The job's id, unique within its queue.
    pub id: JobId,
    /// What it is: the name of its definition.
    pub kind: Arc<str>,
    /// The queue it came in by.
    pub queue: Arc<str>,
    /// Its priority class.
    pub priority: Priority,
    /// Arguments, checked against the definition, defaults filled in.
    pub args: Map<String, Value>,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// The last attempt it is allowed.
    pub max_attempts: u32,
    /// W3C trace context of the enqueuer, if it sent one.
    pub traceparent: Option<String>,
    /// What came before it in its chain or group, with the results; empty for a job of its own.
    pub parents: Vec<Parent>,
    /// The fencing token of this delivery: no other delivery of any job ever has the same.
    pub token: Arc<str>,
}

impl Job {
    /// The JSON object handed to `exec` children and web apps: `{"id","kind","args","attempt"}`, and `parents` where there
    /// are any.
    #[must_use]
    pub fn payload(&self) -> Value {
        let mut payload = serde_json::json!({
            "id": self.id.as_str(),
            "kind": &*self.kind,
            "args": self.args,
            "attempt": self.attempt,
        });
        if !self.parents.is_empty() {
            payload["parents"] = serde_json::json!(self.parents);
        }
        payload
    }
}
