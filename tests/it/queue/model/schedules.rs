//! The ticks of a schedule: served in order, each by one daemon, and by none that does not know how things stand.

use super::expected::{Model, Sent};
use super::snapshot::Snapshot;
use super::world::World;
use std::collections::BTreeMap;
use tidegate::queue::schedules::{Tick, Ticked, tick_id};

/// The schedule.
const NAME: &str = "app.beat";
/// Long ago, and long after; ms.
const LONG_AGO: u64 = 1_700_000_000_000;
const LONG_AFTER: u64 = 9_000_000_000_000;

/// How a daemon knows the schedule, or how it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// The record of the last tick; empty for none.
    pub record: String,
    /// Times it was paused or went on.
    pub revision: u64,
}

/// The schedule as it must be.
#[derive(Debug, Default)]
pub struct Ticks {
    pub stands: Known,
    pub paused: bool,
    /// Ticks ever served.
    pub served: u64,
}

impl World<'_> {
    pub(super) async fn tick(&mut self, who: usize, early: bool) {
        let stored = self.rig.queue.stored_schedules().await.unwrap();
        let known = self.daemons[who].known.clone();
        let number = self.model.ticks.served + 1;
        let tick_ms = LONG_AGO + number;
        let id = tick_id(NAME, tick_ms);
        let raw = format!(r#"{{"kind":"app.a","id":"{id}"}}"#);
        let tick = Tick {
            name: NAME.to_owned(),
            record: known.record.clone(),
            new: format!("{tick_ms} UTC * * * * *"),
            latest_ms: if early { LONG_AFTER } else { tick_ms },
            passed_over: 0,
            entries: vec![raw.clone().into_bytes()],
        };
        let revision = match known.revision {
            0 => String::new(),
            n => n.to_string(),
        };
        let new = tick.new.clone();
        let served = self.rig.queue.tick(&revision, &[tick]).await.unwrap();
        let stands = &mut self.model.ticks.stands;
        let expected = if known.revision != stands.revision {
            None
        } else if known.record != stands.record {
            Some(Ticked::Moved(stands.record.clone()))
        } else if early {
            Some(Ticked::Early)
        } else {
            stands.record = new;
            Some(Ticked::Served)
        };
        assert_eq!(served.map(|(_, mut answers)| answers.remove(0)), expected);
        if expected == Some(Ticked::Served) {
            self.daemons[who].known = stands.clone();
            self.model.ticks.served = number;
            self.model.ticked(id, raw);
            return;
        }
        // It looks anew.
        let record = stored.records.get(NAME).cloned().unwrap_or_default();
        let revision = stored.glance.revision.parse().unwrap_or(0);
        let looked = Known { record, revision };
        assert_eq!(looked, *stands, "what is stored of the schedule");
        self.daemons[who].known = looked;
    }

    pub(super) async fn pause_schedule(&mut self) {
        let queue = &self.rig.queue;
        let ticks = &mut self.model.ticks;
        let changed = if ticks.paused {
            // The ticks of the pause are not made up for.
            ticks.stands.record.clear();
            queue.resume_schedule(NAME).await
        } else {
            queue.pause_schedule(NAME, LONG_AGO).await
        };
        assert!(changed.unwrap());
        ticks.paused = !ticks.paused;
        ticks.stands.revision += 1;
    }
}

impl Model {
    /// A tick brings a job like one that an app sends.
    fn ticked(&mut self, id: String, raw: String) {
        self.count("ticks");
        self.inbox.push_back(Sent {
            id: Some(id),
            raw: Some(raw),
            ..Sent::step(0)
        });
    }
}

/// What is stored of the schedule is what was done last.
pub fn check_ticks(model: &Model, found: &Snapshot, what: &str) {
    let stands = &model.ticks.stands;
    let record = Some(&*stands.record).filter(|record| !record.is_empty());
    let wanted: BTreeMap<&str, &str> = record.map(|record| (NAME, record)).into_iter().collect();
    assert_eq!(found.pairs("ticks"), wanted, "ticks after {what}");
    let paused = found.members("schedules_paused").contains(NAME);
    assert_eq!(paused, model.ticks.paused, "the pause after {what}");
}
