//! What one daemon tells of itself: its health, and its page.

use super::forecast::Told;
use crate::clock;
use crate::db::Database;
use crate::health::{HealthView, slots_for};
use crate::job::Priority;
use crate::policy::gate::{Orders, Rules};
use crate::runner::budgets::Budgets;
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

/// When breakers, by handler and resource, and retry budgets, by resource, last changed their states, and why.
#[derive(Debug, Default)]
pub struct Turns(Mutex<BTreeMap<String, Turn>>);

/// The last change of one.
#[derive(Debug, Clone)]
struct Turn {
    at_ms: u64,
    reason: String,
}

impl Turns {
    /// A breaker changed its state now.
    pub fn note(&self, handler: &str, resource: &str, reason: &str) {
        self.put(operation(handler, resource), reason);
    }

    /// A retry budget began or ended to hold retries back.
    pub fn note_budget(&self, resource: &str, reason: &str) {
        self.put(resource.to_owned(), reason);
    }

    fn put(&self, what: String, reason: &str) {
        let turn = Turn {
            at_ms: clock::unix_ms(),
            reason: reason.to_owned(),
        };
        self.0.lock().insert(what, turn);
    }

    /// Adds to what is told of one since when it is in its state and why, if it ever changed.
    fn tell(&self, what: &str, told: &mut Value) {
        if let Some(turn) = self.0.lock().get(what) {
            told["since"] = turn.at_ms.into();
            told["because"] = turn.reason.as_str().into();
        }
    }
}

fn operation(handler: &str, resource: &str) -> String {
    format!("{handler}@{resource}")
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
    /// When breakers and budgets last changed.
    pub turns: Arc<Turns>,
    /// The slots.
    pub slots: Arc<Slots>,
    /// The retry budgets.
    pub budgets: Arc<Budgets>,
    /// What health decides.
    pub rules: Rules,
    /// What the forecaster told last.
    pub forecast: Told,
    /// The queues it serves.
    pub queues: Vec<Arc<str>>,
    /// The pool of connections that jobs share.
    pub database: Option<Database>,
}

impl Teller {
    /// Version 1 of health as this daemon sees it: what `/health` answers.
    #[must_use]
    pub fn health(&self) -> Value {
        let view = Arc::clone(&self.view.borrow());
        let mut health = view.to_json();
        health["breakers"] = self.breakers();
        health["limiters"] = json!(self.operations.limiters());
        health["budgets"] = self.budgets();
        health["reserve"] = self.reserve();
        if let Some(database) = &self.database {
            let pool = database.gauges();
            let busy = pool.size.saturating_sub(pool.idle);
            health["pool"] = json!({"max": pool.max, "open": pool.size, "busy": busy});
        }
        let forecast = self.forecast.load();
        if !forecast.is_null() {
            health["forecast"] = (**forecast).clone();
        }
        health["orders"] = json!(**self.orders.borrow());
        health["mode"] = json!(self.rules.mode);
        health["gate"] = json!(self.rules);
        health["instance"] = self.identity.instance.as_str().into();
        health["published_at"] = clock::unix_ms().into();
        health
    }

    fn budgets(&self) -> Value {
        let each = self.budgets.snapshots().into_iter();
        let told = each.map(|(resource, budget)| {
            let mut told = json!({"resource": resource, "budget": budget});
            self.turns.tell(&resource, &mut told);
            told
        });
        told.collect()
    }

    fn reserve(&self) -> Value {
        let slots = &self.slots;
        let lend_below = slots.lend_below().as_millis();
        json!({
            "slots": slots.total(),
            "reserved": slots.reserved(),
            "lend_below_ms": u64::try_from(lend_below).unwrap_or(u64::MAX),
            "busy": slots.busy(),
            "long": slots.busy_long(),
        })
    }

    /// Each breaker, since when it is in its state and why, if it ever changed.
    fn breakers(&self) -> Value {
        let each = self.operations.snapshots().into_iter();
        let told = each.map(|(handler, resource, snapshot)| {
            let mut told = json!({"handler": handler, "resource": resource, "breaker": snapshot});
            self.turns.tell(&operation(&handler, &resource), &mut told);
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
            let (limit, by) = slots_for::<&str>(view, class, &[], total, &self.rules);
            let share = self.rules.share(class, state);
            let told = json!({"used": used, "limit": limit, "share": share, "by": by});
            (class.as_str().to_owned(), told)
        });
        Value::Object(each.collect::<Map<String, Value>>())
    }
}
