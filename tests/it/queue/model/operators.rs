//! What operators do to jobs, to what is in quarantine, and to the queue as a whole.

use super::expected::Place;
use super::limits::{KINDS_IN_ALL, kind};
use super::world::World;
use std::time::Duration;
use tidegate::job::{Event, History, What};
use tidegate::queue::audit::{Findings, Options};
use tidegate::queue::control::Field;
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
    }
}

/// What pauses a kind or, by the number after the last kind, the queue.
fn field(what: u8) -> Field {
    Field::Pause((what < KINDS_IN_ALL).then(|| kind(what).to_owned()))
}
