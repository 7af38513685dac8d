//! Looks ahead: records what the classes do, forecasts the load of the fleet, and prepares for peaks that are known.
//!
//! Owns: when the history is written and read, and what is done before a peak: more slots, open connections, jobs that
//! warm caches. What follows from a history is decided in [`crate::policy::forecast`]. In shadow mode all is recorded,
//! forecast and told, and nothing is changed.

mod ledger;
mod prepare;
mod rounds;
mod told;

pub use told::{Told, outlook_json, rounded};

use crate::clock::{Epoch, ServerClock};
use crate::config::{Config, ForecastMode};
use crate::db::Database;
use crate::health::HealthView;
use crate::policy::forecast::{
    Change, DAY, History, Outlook, Rules, SLOT_MS, Setting, Stance, StanceRules, Why, slot_at,
    slots_for,
};
use crate::policy::gate::GateState;
use crate::queue::QueueError;
use crate::queue::load_history::{DAYS, Fleet, LoadHistory};
use crate::runner::{QueueContext, Shared};
use crate::telemetry::events::{self, SlotsChange};
use ledger::Ledger;
use rounds::{Rounds, SPREAD_MS};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often health is looked at, and what was done is noted.
const TICK: Duration = Duration::from_secs(1);
/// What it works with.
pub struct Desk {
    /// The history.
    pub history: LoadHistory,
    /// What was configured at the start.
    pub config: Arc<Config>,
    /// How many slots are configured now.
    pub base: Arc<dyn Fn() -> usize + Send + Sync>,
    /// The slots, the definitions and the gauges.
    pub shared: Shared,
    /// The queues of this daemon.
    pub queues: Vec<Arc<QueueContext>>,
    /// Health as the monitor sees it.
    pub view: watch::Receiver<Arc<HealthView>>,
    /// The pool whose connections are opened ahead.
    pub database: Option<Database>,
    /// Where it tells how it sees things.
    pub told: Told,
}

/// Works until it is stopped. Must not be started when the mode is off.
pub async fn run(desk: Desk, stop: CancellationToken) {
    let mut forecaster = Forecaster::new(desk);
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = ticks.tick() => {}
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = forecaster.turn() => {}
        }
    }
    forecaster.leave().await;
}

/// One daemon's forecaster.
struct Forecaster {
    desk: Desk,
    /// Its name among those that write the history.
    daemon: String,
    rules: Rules,
    /// Slots of time that it looks ahead.
    lead: u64,
    /// Our own clock, for what has to wait: that of Redis may be put back.
    epoch: Epoch,
    clock: Option<ServerClock>,
    fleet: Option<Fleet>,
    ledger: Ledger,
    rounds: Rounds,
    history: Arc<History>,
    /// Whether the whole history was read; later only the last days are.
    is_read: bool,
    outlook: Option<Arc<Outlook>>,
    stance: Stance,
    /// The last raise or return, and when it was.
    last: Option<(Why, u64)>,
    prepared: prepare::Prepared,
    /// Why the history can't be written, or read, since the last time it could.
    trouble: [Option<String>; 2],
}

/// Which of the two has trouble.
const WRITING: usize = 0;
const READING: usize = 1;

impl Forecaster {
    fn new(desk: Desk) -> Self {
        let lead = desk.config.forecast.lead.as_millis() as u64;
        Self {
            daemon: uuid::Uuid::new_v4().to_string(),
            rules: Rules::from(&desk.config.forecast),
            lead: lead.div_ceil(SLOT_MS),
            epoch: Epoch::start(),
            clock: None,
            fleet: None,
            ledger: Ledger::default(),
            rounds: Rounds::new(rand::random::<u64>() % SPREAD_MS),
            history: Arc::default(),
            is_read: false,
            outlook: None,
            stance: Stance::new(StanceRules::from(&desk.config.forecast.slots)),
            last: None,
            prepared: prepare::Prepared::default(),
            trouble: [const { None }; 2],
            desk,
        }
    }

    fn acts(&self) -> bool {
        self.desk.config.forecast.mode == ForecastMode::On
    }

    async fn turn(&mut self) {
        if self.clock.is_none()
            && let Ok(now_ms) = self.desk.history.now_ms().await
        {
            self.clock = Some(ServerClock::at(now_ms));
        }
        let Some(now_ms) = self.clock.map(|clock| clock.now_ms()) else {
            return;
        };
        self.ledger
            .note(&self.desk.shared.slots.take_load(), now_ms);
        if self.rounds.is_write_due(self.epoch.now_ms()) {
            let written = self.write().await;
            let now_ms = self.clock.map_or(now_ms, |clock| clock.now_ms());
            let well = written.is_ok();
            self.rounds.wrote(self.epoch.now_ms(), now_ms, well);
            self.went(WRITING, written);
        }
        let now_ms = self.clock.map_or(now_ms, |clock| clock.now_ms());
        let made = self.outlook.as_ref().map(|outlook| outlook.now);
        if self.rounds.is_read_due(self.epoch.now_ms(), now_ms, made) {
            let read = self.look(now_ms).await;
            if read.is_err() {
                self.rounds.read_failed(self.epoch.now_ms());
            }
            self.went(READING, read);
        }
        let now_ms = self.clock.map_or(now_ms, |clock| clock.now_ms());
        self.take_stance(now_ms);
        self.prepare(now_ms).await;
        self.tell(now_ms);
    }

    /// Keeps why something could not be done until it can: it is tried again, and told once.
    fn went(&mut self, what: usize, result: Result<(), QueueError>) {
        let trouble = result.err().map(|e| e.to_string());
        if let (None, Some(error)) = (&self.trouble[what], &trouble) {
            events::forecast_blind(["record", "read"][what], error);
        }
        self.trouble[what] = trouble;
    }

    /// Writes what was noted, if Redis takes it. A batch whose answer was lost is repeated as it was.
    async fn write(&mut self) -> Result<(), QueueError> {
        let slots = (self.desk.base)();
        loop {
            let (batch, load) = self.ledger.batch();
            let fleet = self
                .desk
                .history
                .add(&self.daemon, slots, batch, load)
                .await?;
            self.clock = Some(ServerClock::at(fleet.now_ms));
            self.fleet = Some(fleet);
            if !self.ledger.written() {
                return Ok(());
            }
        }
    }

    /// Reads what is new and forecasts from it.
    async fn look(&mut self, now_ms: u64) -> Result<(), QueueError> {
        let now = slot_at(now_ms);
        let today = now / DAY;
        // Late work and late daemons may still change yesterday.
        let from = today.saturating_sub(if self.is_read { 1 } else { DAYS - 1 });
        let read = self.desk.history.read(from..=today).await?;
        self.is_read = true;
        let history = Arc::make_mut(&mut self.history);
        for (slot, load) in read {
            history.set(slot, &load);
        }
        let (history, rules, lead) = (Arc::clone(&self.history), self.rules, self.lead);
        let fitted = move || Outlook::of(&history, &rules, now, lead);
        match tokio::task::spawn_blocking(fitted).await {
            Ok(outlook) => self.outlook = Some(Arc::new(outlook)),
            Err(e) => tracing::error!(error = %e, "no forecast could be made"),
        }
        Ok(())
    }

    /// The slots that the forecast asks of this daemon: its part of those of the fleet, by what each has.
    fn wanted(&self, now_ms: u64) -> Option<usize> {
        let fleet = self.fleet?;
        let load = self.outlook.as_ref()?.wanted(slot_at(now_ms))?;
        let (all, base) = (slots_for(load) as u128, (self.desk.base)() as u128);
        let part = (all * base).div_ceil(u128::from(fleet.slots.max(1)));
        Some(usize::try_from(part).unwrap_or(usize::MAX))
    }

    /// What speaks against doing more.
    fn unwell(&self) -> Option<String> {
        let view = self.desk.view.borrow();
        match view.worst() {
            None => Some("health (nothing is known of it)".to_owned()),
            Some((_, resource)) if resource.state == GateState::Ok => None,
            Some((name, resource)) => Some(format!("{name} ({})", resource.state)),
        }
    }

    fn take_stance(&mut self, now_ms: u64) {
        let base = (self.desk.base)();
        let unwell = self.unwell();
        let slots = &self.desk.shared.slots;
        let setting = Setting {
            base,
            max: self.desk.config.forecast.max_slots(base),
            wanted: self.wanted(now_ms),
            unwell: unwell.as_deref(),
            full: slots.busy() >= slots.total(),
        };
        let change = self.stance.step(self.epoch.now_ms(), &setting);
        if self.acts() && slots.total() != self.stance.slots() {
            slots.set_total(self.stance.slots());
        }
        if let Some(change) = change {
            self.report(&change);
            self.last = Some((change.why, now_ms));
        }
    }

    fn report(&self, change: &Change) {
        let reason = change.why.to_string();
        let told = SlotsChange {
            from: change.from,
            to: change.to,
            reason: &reason,
            shadow: !self.acts(),
        };
        match change.why {
            Why::Peak => events::forecast_raised(told),
            Why::Over | Why::Unwell(_) | Why::Configured => events::forecast_returned(told),
        }
    }

    /// Writes what is left, and takes leave.
    async fn leave(mut self) {
        if let Some(clock) = self.clock {
            let load = self.desk.shared.slots.take_load();
            self.ledger.note(&load, clock.now_ms());
            let left = async {
                self.write().await?;
                self.desk.history.leave(&self.daemon).await
            };
            if let Err(e) = left.await {
                tracing::debug!(error = %e, "the last load is not recorded");
            }
        }
    }
}
