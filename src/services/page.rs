//! What one daemon tells of itself: its health, and its page.

use super::forecast::Told;
use crate::clock;
use crate::config::GateMode;
use crate::health::{HealthView, slots_for};
use crate::job::Priority;
use crate::policy::gate::{Orders, share};
use crate::runner::operations::Operations;
use crate::runner::slots::Slots;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

/// Which daemon it is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The machine, the process, and a word of its own, so that no two are alike: `web1:4242:9f2c`.
    pub instance: String,
    /// The machine's name.
    pub host: String,
    /// The process.
    pub pid: u32,
    /// The version of this program.
    pub version: &'static str,
    /// When it started, unix ms.
    pub started_ms: u64,
}

impl Identity {
    /// This process, which starts a daemon now.
    #[must_use]
    pub fn new() -> Self {
        let host = rustix::system::uname();
        let host = host.nodename().to_string_lossy().into_owned();
        let pid = std::process::id();
        Self {
            instance: format!("{host}:{pid}:{:04x}", rand::random::<u16>()),
            host,
            pid,
            version: env!("CARGO_PKG_VERSION"),
            started_ms: clock::unix_ms(),
        }
    }
}

impl Default for Identity {
    fn default() -> Self {
        Self::new()
    }
}

/// When breakers last changed their states, and why.
#[derive(Debug, Default)]
pub struct Turns(Mutex<BTreeMap<Names, Turn>>);

/// A handler and a resource.
type Names = (Arc<str>, Arc<str>);

/// The last change of a breaker.
#[derive(Debug, Clone)]
struct Turn {
    at_ms: u64,
    reason: String,
}

impl Turns {
    /// A breaker changed its state now.
    pub fn note(&self, handler: &Arc<str>, resource: &Arc<str>, reason: &str) {
        let turn = Turn {
            at_ms: clock::unix_ms(),
            reason: reason.to_owned(),
        };
        let key = (Arc::clone(handler), Arc::clone(resource));
        self.0.lock().insert(key, turn);
    }

    fn of(&self, handler: &Arc<str>, resource: &Arc<str>) -> Option<Turn> {
        let key = (Arc::clone(handler), Arc::clone(resource));
        self.0.lock().get(&key).cloned()
    }
}

/// Knows where everything is that a daemon tells of.
pub struct Teller {
    /// Which daemon it is.
    pub identity: Identity,
    /// Health as the monitor sees it.
    pub view: watch::Receiver<Arc<HealthView>>,
    /// Orders that hold.
    pub orders: watch::Receiver<Arc<Orders>>,
    /// The operations with their breakers.
    pub operations: Arc<Operations>,
    /// When the breakers last changed.
    pub turns: Arc<Turns>,
    /// The slots.
    pub slots: Arc<Slots>,
    /// Whether health decides what is claimed.
    pub mode: GateMode,
    /// What the forecaster told last.
    pub forecast: Told,
    /// The queues it serves.
    pub queues: Vec<Arc<str>>,
}

impl Teller {
    /// Version 1 of health as this daemon sees it: what `/health` answers.
    #[must_use]
    pub fn health(&self) -> Value {
        let view = Arc::clone(&self.view.borrow());
        let mut health = view.to_json();
        health["breakers"] = self.breakers();
        health["limiters"] = json!(self.operations.limiters());
        let forecast = self.forecast.load();
        if !forecast.is_null() {
            health["forecast"] = (**forecast).clone();
        }
        health["orders"] = json!(**self.orders.borrow());
        health["mode"] = json!(self.mode);
        health["instance"] = self.identity.instance.as_str().into();
        health["published_at"] = clock::unix_ms().into();
        health
    }

    /// Each breaker, since when it is in its state and why, if it ever changed.
    fn breakers(&self) -> Value {
        let each = self.operations.snapshots().into_iter();
        let told = each.map(|(handler, resource, snapshot)| {
            let mut told = json!({"handler": handler, "resource": resource, "breaker": snapshot});
            if let Some(turn) = self.turns.of(&handler, &resource) {
                told["since"] = turn.at_ms.into();
                told["because"] = turn.reason.into();
            }
            told
        });
        told.collect()
    }

    /// The page of this daemon: its health, and what concerns it alone.
    #[must_use]
    pub fn page(&self, mut health: Value) -> Value {
        let view = Arc::clone(&self.view.borrow());
        health["host"] = self.identity.host.as_str().into();
        health["pid"] = self.identity.pid.into();
        health["version"] = self.identity.version.into();
        health["started_at"] = self.identity.started_ms.into();
        health["queues"] = json!(self.queues);
        health["slots"] = json!({"total": self.slots.total(), "used": self.slots.busy()});
        health["classes"] = self.classes(&view);
        health["kinds"] = json!(self.slots.busy_kinds());
        health
    }

    /// What each class may use of the slots for jobs that declare no resources, and what that comes from.
    fn classes(&self, view: &HealthView) -> Value {
        let (state, _) = view.state_of::<&str>(&[]);
        let used = self.slots.busy_classes();
        let each = Priority::ALL.into_iter().zip(used).map(|(class, used)| {
            let total = self.slots.total();
            let (limit, by) = slots_for::<&str>(view, class, &[], total, self.mode);
            let share = share(class, self.mode.heeded(state));
            let told = json!({"used": used, "limit": limit, "share": share, "by": by});
            (class.as_str().to_owned(), told)
        });
        Value::Object(each.collect::<Map<String, Value>>())
    }
}
