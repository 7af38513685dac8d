//! The daemon: what starts in which order, and how it ends.
//!
//! Owns: wiring. Everything that runs is built here from a configuration and a catalogue and handed what it needs.
//! Must not know how any of it works inside.

mod builder;
mod error;
mod forecast;
mod health;
pub mod intake;
mod parts;
pub mod probes;
mod publish;
mod reload;
mod run;
mod scope;
mod services;

pub use crate::catalog::NEVER_SHED;
pub use builder::Builder;
pub use error::DaemonError;
pub use run::{Options, run, stop};
pub use scope::{DEFAULT_QUEUE, queue_names};

use crate::cache::Cache;
use crate::catalog::{Catalog, CodeDefinition};
use crate::client::Client;
use crate::config::Config;
use crate::db::Database;
use crate::handlers::{Deps, HandlerKind, Handlers};
use crate::health::Monitor;
use crate::policy::gate::Rules;
use crate::queue::Queue;
use crate::queue::connection::Connection;
use crate::runner::{QueueContext, Registry, Runner, Shared};
use crate::services::forecast::Told;
use crate::services::orders::Obedience;
use crate::services::page::{Identity, Teller, Turns};
use crate::services::{limiter_store, server};
use crate::telemetry::alerts::AlertsTask;
use crate::telemetry::{Alert, Alerts, Metrics, Successes};
use arc_swap::ArcSwap;
use parts::{budgets, connect, inspect, obey, operations, slots};
use services::{start_admin, start_services};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long services and alerts may take to end.
const END_DEADLINE: Duration = Duration::from_secs(3);

/// A daemon at work.
pub struct Daemon {
    parts: Arc<Parts>,
    runner: Runner,
    admin_address: Option<SocketAddr>,
    alerts: AlertsTask,
    stop: CancellationToken,
    services: TaskTracker,
}

/// What the daemon's own files share.
struct Parts {
    config: ArcSwap<Config>,
    handlers: Handlers,
    /// Kinds that code defines.
    code: Vec<CodeDefinition>,
    deps: Deps,
    shared: Shared,
    queues: Vec<Arc<QueueContext>>,
    conn: Connection,
    teller: Arc<Teller>,
    stopping: AtomicBool,
}

impl Daemon {
    /// Connects, starts everything and returns when jobs are being taken. Signals and logging are the caller's.
    ///
    /// # Errors
    /// Redis can't be reached or is too old, a definition can't be used, or the admin address can't be bound.
    pub async fn start(
        config: Config,
        catalog: Catalog,
        handlers: &[HandlerKind],
    ) -> Result<Self, DaemonError> {
        Self::launch(config, catalog, Handlers::new(handlers), Vec::new()).await
    }

    /// A daemon with handlers of your own, to be put together:
    ///
    /// ```no_run
    /// use tidegate::embed::{Daemon, Data};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Mail { to: String }
    ///
    /// async fn send_mail(mail: Mail, sender: Data<String>) -> Result<(), std::io::Error> {
    ///     println!("{} writes to {}", *sender, mail.to);
    ///     Ok(())
    /// }
    ///
    /// # async fn start() -> Result<(), Box<dyn std::error::Error>> {
    /// Daemon::builder()
    ///     .redis_url("redis://127.0.0.1:6379/0")
    ///     .data("post@app.example".to_owned())
    ///     .handler("mail.send", send_mail)
    ///     .run()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder() -> Builder {
        Builder::default()
    }

    async fn launch(
        config: Config,
        catalog: Catalog,
        handlers: Handlers,
        code: Vec<CodeDefinition>,
    ) -> Result<Self, DaemonError> {
        let catalog = scope::own_kinds(&config, catalog, &code)?;
        let catalog = handlers.touching(catalog, &config);
        crate::tls::install();
        intake::check(&config)?;
        let conn = connect(&config).await?;
        let (alerts, alerts_task) =
            Alerts::start(&config.alerts).map_err(|e| DaemonError::setting(e.to_string()))?;
        let unsafe_settings = inspect(&conn, &alerts).await?;
        let deps = deps(&config, &conn)?;
        let metrics = Arc::new(Metrics::new());
        let (heard, orders) = watch::channel(Arc::default());
        let (monitor, view) =
            health::monitor(&config, &conn, deps.database.as_ref(), alerts.clone())?;
        let monitor = monitor.obeying(orders.clone());
        let slots = Arc::new(slots(&config, &catalog));
        let turns = Arc::new(Turns::default());
        let operations = operations(&config, &slots, Arc::clone(&turns), alerts.clone());
        let operations = Arc::new(operations);
        let budgets = Arc::new(budgets(&config, &metrics));
        let registry = Registry::build(catalog, &handlers, &deps, &operations, &budgets)
            .map_err(|problems| DaemonError::definitions(&problems))?;
        let kept = Arc::clone(&operations);
        let mut store = limiter_store::Store::new(conn.clone(), &config.redis.prefix, kept);
        store.resume().await;
        let obedience = obey(&config, &conn, heard, &operations).await;
        let rules = Rules::from(&config.gate);
        let shared = Shared {
            registry: Arc::new(ArcSwap::from_pointee(registry)),
            slots,
            operations,
            budgets,
            gate: health::gate(view.clone(), rules),
            standing: health::standing(view.clone(), rules.mode),
            shares: rules.shares,
            metrics,
            successes: Arc::new(Successes::new(config.log.successes_per_second)),
            alerts,
            suspect_turn: Arc::new(Semaphore::new(1)),
        };
        let queues = queues(&config, &conn, &shared);
        let teller = Arc::new(Teller {
            identity: Identity::new(),
            view,
            orders,
            operations: Arc::clone(&shared.operations),
            turns,
            slots: Arc::clone(&shared.slots),
            budgets: Arc::clone(&shared.budgets),
            rules,
            forecast: Told::default(),
            queues: queues.iter().map(|c| Arc::clone(&c.queue.name)).collect(),
            database: deps.database.clone(),
        });
        let parts = Arc::new(Parts {
            handlers,
            code,
            conn,
            deps,
            shared,
            queues: queues.clone(),
            teller,
            stopping: AtomicBool::new(false),
            config: ArcSwap::from_pointee(config),
        });
        let idle = Idle {
            parts,
            monitor,
            store,
            obedience,
            unsafe_settings,
        };
        idle.start(queues, alerts_task).await
    }

    /// Where the admin endpoints listen, if they do.
    #[must_use]
    pub const fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// Counters and histograms, as `/metrics` shows them.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.parts.shared.metrics
    }

    /// Health, as `/health` shows it.
    #[must_use]
    pub fn health(&self) -> serde_json::Value {
        self.parts.health_json()
    }

    /// The queues it serves.
    #[must_use]
    pub fn queues(&self) -> Vec<Queue> {
        self.parts.queues.iter().map(|c| c.queue.clone()).collect()
    }

    /// A client that knows to which queue each kind of this daemon goes.
    #[must_use]
    pub fn client(&self) -> Client {
        let catalog = self.parts.shared.registry.load().catalog.clone();
        Client::of(self.parts.conn.clone(), &self.parts.config.load(), catalog)
    }

    /// Stops claiming new jobs, or goes on with it.
    pub fn set_quiet(&self, quiet: bool) {
        self.runner.set_quiet(quiet);
    }

    /// Whether the claim loops turn and all their helpers live: what the watchdog goes by.
    ///
    /// # Errors
    /// Names what does not.
    pub fn is_live(&self) -> Result<(), String> {
        self.runner.is_whole()?;
        self.parts.is_live()
    }

    /// Takes over a new configuration and new definitions.
    ///
    /// # Errors
    /// A definition can't be used; everything stays as it was.
    pub fn reload(&self, config: Config, catalog: Catalog) -> Result<(), DaemonError> {
        reload::apply(&self.parts, config, catalog)
    }

    /// A reload was refused before it came to [`Daemon::reload`], or by it.
    pub fn reload_failed(&self, alert: Alert) {
        self.parts.shared.metrics.reload_failed();
        self.parts.shared.alerts.raise(alert);
    }

    /// Stops in two phases: running jobs may finish until `drain` has passed or `hurry` is cancelled, then they are
    /// handed back; nothing is left running.
    pub async fn stop(self, drain: Duration, hurry: CancellationToken) {
        self.parts.stopping.store(true, Ordering::Release);
        self.runner.stop(drain, hurry).await;
        self.stop.cancel();
        self.services.close();
        let _ = tokio::time::timeout(END_DEADLINE, self.services.wait()).await;
        self.parts.shared.successes.tick(u64::MAX);
        self.alerts.shutdown(END_DEADLINE).await;
        if let Some(database) = &self.parts.deps.database {
            let _ = tokio::time::timeout(END_DEADLINE, database.close()).await;
        }
        tracing::info!(event = "stopped", "stopped");
    }
}

/// A daemon that is put together and does nothing yet.
struct Idle {
    parts: Arc<Parts>,
    monitor: Monitor,
    store: limiter_store::Store,
    obedience: Obedience,
    unsafe_settings: BTreeSet<&'static str>,
}

impl Idle {
    /// The endpoints for operators first: an address that can't be had is told before any job runs.
    async fn start(
        self,
        queues: Vec<Arc<QueueContext>>,
        alerts: AlertsTask,
    ) -> Result<Daemon, DaemonError> {
        let parts = self.parts;
        let stop = CancellationToken::new();
        let services = TaskTracker::new();
        let admin_address = start_admin(&parts, &services, &stop).await?;
        services.spawn(self.monitor.run(stop.clone()));
        start_services(&parts, &parts.conn, self.obedience, &services, &stop);
        services.spawn(self.store.run(stop.clone()));
        services.spawn(server::run(
            parts.conn.clone(),
            parts.shared.alerts.clone(),
            self.unsafe_settings,
            stop.clone(),
        ));
        let runner = Runner::start(queues, &parts.config.load().redis);
        tracing::info!(
            event = "started",
            kinds = parts.shared.registry.load().catalog.len(),
            queues = parts.queues.len(),
            "taking jobs"
        );
        Ok(Daemon {
            parts,
            runner,
            admin_address,
            alerts,
            stop,
            services,
        })
    }
}

fn deps(config: &Config, conn: &Connection) -> Result<Deps, DaemonError> {
    let mut deps = Deps::new(Arc::new(config.clone()));
    if !config.database.url.is_empty() {
        let database = Database::open(&config.database)
            .map_err(|e| DaemonError::setting(format!("database.url: {e}")))?;
        deps.database = Some(database);
    }
    deps.cache = Some(Cache::new(
        conn.clone(),
        &config.cache,
        &config.redis.prefix,
    ));
    Ok(deps)
}

fn queues(config: &Config, conn: &Connection, shared: &Shared) -> Vec<Arc<QueueContext>> {
    let names = queue_names(config, &shared.registry.load().catalog);
    let metrics = Arc::clone(&shared.metrics);
    let observe = Arc::new(move |op, took| metrics.redis_command(op, took));
    let context = |name: &str| {
        let own = config.queue.iter().find(|q| q.name == name);
        let limit = own.and_then(|q| q.concurrency);
        Arc::new(QueueContext::new(
            Queue::new(name, conn.clone(), config).observed_by(Arc::clone(&observe) as _),
            limit,
            config.daemon.lease,
            config.daemon.poll,
            shared.clone(),
        ))
    };
    names.iter().map(|name| context(name)).collect()
}
