//! What operators do to jobs, to what is in quarantine, and to the queue as a whole.

use super::expected::Place;
use super::limits::{KINDS_IN_ALL, LIMITED, RATED, kind, limited, rated};
use super::world::{World, nth};
use std::time::Duration;
use tidegate::job::{Event, History, What};
use tidegate::queue::audit::{Findings, Options};
use tidegate::queue::control::{Field, LimitChange, RateChange};
use tidegate::queue::operate::Cancelled;
use tidegate::queue::scan::{Shelved, State};

impl World<'_> {
    /// However far things have come, the auditor must take nothing for broken.
    pub(super) async fn audit(&self) {
        let options = Options {
            repair: true,
            pace: Duration::ZERO,
        };
        let found = self.rig.queue.sweep(&self.rig.catalog, options).await;
        assert_eq!(found.unwrap(), Findings::default(), "the auditor");
    }

    pub(super) async fn cancel(&mut self, pick: u8) {
        let Some(id) = self.pick(pick, |_| true) else {
            return;
        };
        // As the envelope says, which may be that of a later one.
        let given = self.model.jobs[&id].sent.id.as_deref() == Some(&*id);
        let record = crate::queue::rig::record(&id, "cancelled");
        let answer = match self
            .rig
            .queue
            .cancel(&record, given, None, "ann")
            .await
            .unwrap()
        {
            Cancelled::Done => "cancelled",
            Cancelled::Asked => "asked",
            Cancelled::Dead => "dead",
            Cancelled::Unknown => "unknown",
        };
        assert_eq!(answer, self.model.cancelled(&id), "cancel of {id}");
    }

    pub(super) async fn requeue(&mut self, pick: u8) {
        let Some(id) = self.pick(pick, |_| true) else {
            return;
        };
        let home = self.home(&id);
        let done = self
            .rig
            .queue
            .requeue(&id, &home, None, "ann")
            .await
            .unwrap();
        assert_eq!(done, self.model.requeued(&id), "requeue of {id}");
    }

    pub(super) async fn bury(&mut self, pick: u8) {
        let Some(id) = self.pick(pick, |_| true) else {
            return;
        };
        let ids = std::slice::from_ref(&id);
        let buried = self.rig.queue.bury(ids, Some("ann")).await.unwrap();
        assert_eq!(buried == 1, self.model.buried(&id), "bury of {id}");
    }

    pub(super) async fn shelve(&mut self, pick: u8) {
        let Some(id) = self.pick(pick, |place| !matches!(place, Place::Running { .. })) else {
            return;
        };
        let state = match self.model.jobs[&id].place {
            Place::Delayed { .. } => State::Delayed,
            Place::Dead => State::Dead,
            _ => State::Pending,
        };
        let job = [(&*id, History::default(), Event::new(1, What::Moved))];
        let bound = self.model.shelved(&id);
        let answer = if bound {
            Shelved::Bound
        } else {
            Shelved::Taken
        };
        let others = State::ALL.into_iter().filter(|other| *other != state);
        for (state, is) in others
            .map(|s| (s, Shelved::Changed))
            .chain([(state, answer)])
        {
            assert_eq!(self.rig.queue.shelve(state, &job).await.unwrap(), [is]);
        }
    }

    pub(super) async fn release(&mut self, pick: u8) {
        let kept = self.rig.queue.quarantined("", 1_000).await.unwrap();
        if kept.is_empty() {
            return;
        }
        let index = usize::from(pick) % kept.len();
        let ids = [kept[index].id.clone()];
        assert_eq!(self.rig.queue.release(&ids).await.unwrap(), 1);
        self.model.released(index);
    }

    /// Pauses a kind or the whole queue, or lets it go on.
    pub(super) async fn pause(&mut self, what: u8) {
        let field = field(what);
        let goes_on = !self.model.paused.insert(field.to_string());
        if goes_on {
            self.model.paused.remove(&field.to_string());
        }
        let paused = r#"{"by":"ann","at":1}"#.to_owned();
        let new = |_: Option<&str>| (!goes_on).then(|| paused.clone());
        let before = self.rig.queue.change(&field, "ann", new).await.unwrap();
        assert_eq!(before.is_some(), goes_on, "{field}");
    }

    /// Ends all pauses.
    pub(super) async fn go_on(&mut self) {
        for what in 0..=KINDS_IN_ALL {
            if self.model.paused.contains(&field(what).to_string()) {
                self.pause(what).await;
            }
        }
        for kind in 0..LIMITED {
            self.limit(kind, None).await;
        }
        for kind in 0..RATED {
            self.pace(kind, None).await;
        }
        if self.model.ticks.paused {
            self.pause_schedule().await;
        }
    }

    /// Changes the limits of a kind, or gives them back; who is parked where there is room by now goes on.
    pub(super) async fn limit(&mut self, pick: u8, limits: Option<(u8, u8)>) {
        let kind = kind(limited(pick));
        let limits = limits.map(|(limit, total)| (Some(limit.into()), Some(total.into())));
        let value = limits.map(|(limit, total)| {
            let change = LimitChange {
                limit,
                total,
                ..LimitChange::default()
            };
            serde_json::to_string(&change).unwrap()
        });
        let field = Field::Limit(Some(kind.to_owned()));
        let change = self.rig.queue.change(&field, "ann", |_| value.clone());
        change.await.unwrap();
        match limits {
            Some(limits) => drop(self.model.limits.insert(kind.to_owned(), limits)),
            None => drop(self.model.limits.remove(kind)),
        }
        self.model.lowered = true;
        let doubtful = self.rig.queue.doubtful_slots().await.unwrap().into_iter();
        let doubtful: Vec<(String, Option<usize>)> = doubtful
            .map(|slot| (self.model.slot_limit(&slot), slot))
            .map(|(limit, slot)| (slot, Some(limit)))
            .collect();
        let by = &self.daemons[0].incarnation;
        let put_right = self.rig.queue.unpark(by, &doubtful).await.unwrap();
        assert_eq!(put_right.removed, 0, "holders that do not run");
    }

    /// Changes the rate of a kind, or gives it back; nobody waits any more for what the old one said.
    pub(super) async fn pace(&mut self, pick: u8, starts: Option<u8>) {
        let kind = rated(pick);
        let value = starts.map(|starts| {
            let rate = RateChange {
                limit: starts.into(),
                per_ms: 30 * 24 * 3_600_000,
                burst: None,
            };
            let change = LimitChange {
                rate: Some(rate),
                ..LimitChange::default()
            };
            serde_json::to_string(&change).unwrap()
        });
        let field = Field::Limit(Some(kind.to_owned()));
        let change = self.rig.queue.change(&field, "ann", |_| value.clone());
        change.await.unwrap();
        match starts {
            Some(starts) => drop(self.model.paces.insert(kind.to_owned(), starts.into())),
            None => drop(self.model.paces.remove(kind)),
        }
        self.rig.queue.end_rate_waits().await.unwrap();
        self.promote(0).await;
    }

    /// Lets the time pass that a rate is for: what is used up of it is forgotten, and who waits for it is due.
    pub(super) async fn refill(&mut self, pick: u8) {
        let rates: Vec<String> = self.model.used.keys().cloned().collect();
        let Some(rate) = nth(&rates, pick) else {
            return;
        };
        let keys = self.rig.queue.keys();
        self.rig.redis::<()>("ZREM", &[&keys.rates, rate]).await;
        for class in 1..=5 {
            let flow = format!("{class}:{rate}");
            self.rig
                .redis::<()>("ZADD", &[&keys.resume, "XX", "1", &flow])
                .await;
        }
        self.model.used.remove(rate);
        self.promote(0).await;
    }

    pub(super) async fn refill_all(&mut self) {
        while !self.model.used.is_empty() {
            self.refill(0).await;
        }
    }

    /// Whether flows wait for their rates.
    pub(super) async fn rates_wait(&self) -> bool {
        let resume = &self.rig.queue.keys().resume;
        self.rig.redis::<u64>("ZCARD", &[resume]).await > 0
    }
}

/// What pauses a kind or, by the number after the last kind, the queue.
fn field(what: u8) -> Field {
    Field::Pause((what < KINDS_IN_ALL).then(|| kind(what).to_owned()))
}
