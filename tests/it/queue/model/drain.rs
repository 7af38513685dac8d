//! The end of a case: everything is brought to its end, and nothing is left but what is kept on purpose.

use super::expected::Place;
use super::op::{DAEMONS, End, Op};
use super::snapshot::Snapshot;
use super::world::World;
use std::collections::BTreeSet;

impl World<'_> {
    /// Everything that lives is brought to its end; then nothing is left but what is kept on purpose.
    pub(super) async fn drain(&mut self) {
        for who in 0..DAEMONS {
            self.step(&Op::Die(who as u8)).await;
        }
        while !self.model.inbox.is_empty() {
            self.admit(0).await;
        }
        self.look("the last admission").await;
        self.go_on().await;
        // Newly dead ones may come from what is rescued or dropped: ids, not places.
        while let Some(id) = self.put_off() {
            let home = self.home(&id);
            assert!(
                self.rig
                    .queue
                    .requeue(&id, &home, None, "ann")
                    .await
                    .unwrap()
            );
            assert!(self.model.requeued(&id));
        }
        self.look("the last requeue").await;
        // Entries of cancelled jobs take a turn each, and what follows a job comes after it.
        for _ in 0..2_000 {
            while !self.model.inbox.is_empty() {
                self.admit(0).await;
            }
            self.refill_all().await;
            let claim = Op::Claim {
                who: 0,
                limit: 200,
                closed: None,
                lost: false,
            };
            self.step(&claim).await;
            let all: Vec<_> = (0..self.daemons[0].held.len())
                .map(|_| (0, End::Done))
                .collect();
            self.settle(0, &all, 1).await;
            self.look("an end").await;
            let idle = self.rig.queue.look().await.unwrap().heads.is_empty();
            if idle && self.model.inbox.is_empty() && !self.rates_wait().await {
                break;
            }
        }
        assert_eq!(self.model.jobs.len(), 0, "everything has ended");
        self.look("the end").await;
        let kept = [
            "ids",
            "quarantine",
            "recent",
            "settled",
            "stats",
            "taken",
            "archive",
            "archived",
            "audit",
            "rates",
            "ticks",
            "schedules_rev",
            // Groups that wait for members, and what waits for them.
            "group_results",
            "group_then",
            "group_times",
            "groups",
            // Locks that are held until long after.
            "lock_ends",
            "locks",
            "workers",
        ];
        let found = Snapshot::of(self.rig).await;
        let left: BTreeSet<&str> = found
            .names()
            .filter(|name| !kept.contains(name) && !name.starts_with("result:"))
            .collect();
        assert_eq!(left, BTreeSet::new(), "what outlived the jobs");
    }

    fn put_off(&self) -> Option<String> {
        let jobs = self.model.jobs.iter();
        let mut off =
            jobs.filter(|(_, job)| matches!(job.place, Place::Delayed { .. } | Place::Dead));
        off.next().map(|(id, _)| id.clone())
    }
}
