//! What must hold between the steps; the death of a daemon; bringing everything to its end.

use super::{Place, World};
use crate::queue::rig::{done, flow, handed_back, settlement};
use std::collections::{BTreeMap, BTreeSet};
use tidegate::job::Priority;
use tidegate::queue::ties::Told;
use tidegate::queue::{Flow, QueueError, Settlement};

impl World {
    /// A daemon dies; another one fences it and returns its jobs.
    pub(super) async fn crash(&mut self, daemon: usize) {
        let next = self.born().await;
        let dead = std::mem::replace(&mut self.daemons[daemon], next);
        self.rig.queue.deregister(&dead.incarnation).await.unwrap();
        let refused = self.rig.queue.claim(&dead.incarnation, 1, 1, &[]).await;
        assert!(matches!(refused, Err(QueueError::LeaseLost)));
        let by = self.daemons[daemon].incarnation.clone();
        let (mut cursor, mut back) = (0, Vec::new());
        loop {
            let (next, entries) = self.rig.queue.sweep_running(cursor).await.unwrap();
            for entry in entries {
                if entry.owner().unwrap().0 == dead.incarnation {
                    back.push(Settlement {
                        id: entry.id.as_str().into(),
                        ending: handed_back(self.live[&entry.id].1.clone()),
                        token: entry.token.into(),
                        told: Told::default(),
                    });
                }
            }
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        assert_eq!(back.len(), dead.held.len());
        for step in back.chunks(500) {
            let settled = self.rig.queue.settle(&by, 0, step).await.unwrap();
            assert_eq!(settled.stale, Vec::<usize>::new());
        }
        for entry in back {
            self.live.get_mut(&*entry.id).unwrap().0 = Place::Waiting;
        }
        let held = dead.held.into_iter().chain(dead.past);
        self.daemons[daemon].past.extend(held);
    }

    /// Every job of the model is in Redis in its one place, and nothing else is there.
    pub(super) async fn check(&mut self, seed: u64, step: usize) {
        let keys = self.rig.queue.keys().clone();
        let ids = async |command: &str, key: &str| -> BTreeSet<String> {
            let args: &[&str] = match command {
                "ZRANGE" => &[key, "0", "-1"],
                _ => &[key],
            };
            self.rig.redis(command, args).await
        };
        let stored = ids("HKEYS", &keys.jobs).await;
        let live: BTreeSet<String> = self.live.keys().cloned().collect();
        assert_eq!(stored, live, "seed {seed} step {step}: stored jobs");
        let mut places = vec![
            (Place::Running, ids("HKEYS", &keys.running).await),
            (Place::Delayed, ids("ZRANGE", &keys.delayed).await),
            (Place::Dead, ids("ZRANGE", &keys.dead).await),
        ];
        places.push((Place::Waiting, self.waiting(&live).await));
        for (place, found) in places {
            let expected: BTreeSet<String> = self
                .live
                .iter()
                .filter(|(_, (at, _))| *at == place)
                .map(|(id, _)| id.clone())
                .collect();
            assert_eq!(found, expected, "seed {seed} step {step}: {place:?}");
        }
        assert_eq!(self.rig.stat("admitted").await, self.admitted);
        assert_eq!(self.rig.stat("duplicates").await, self.duplicates);
        assert_eq!(self.rig.stat("quarantined").await, self.quarantined);
    }

    /// Ids in flows, without what cancelled jobs left there. Each stands once, in a flow that is listed as ready.
    async fn waiting(&self, live: &BTreeSet<String>) -> BTreeSet<String> {
        let keys = self.rig.queue.keys();
        let tomb: BTreeMap<String, String> = self.rig.redis("HGETALL", &[&keys.tomb]).await;
        let mut found = BTreeSet::new();
        for (class, ready) in Priority::ALL.iter().zip(&keys.ready) {
            for kind in crate::queue::rig::KINDS {
                let home = keys.flow(&flow(*class, kind));
                let entries: Vec<String> = self.rig.redis("LRANGE", &[&home, "0", "-1"]).await;
                let listed: Option<f64> = self.rig.redis("ZSCORE", &[ready, kind]).await;
                assert!(
                    listed.is_some() || entries.is_empty(),
                    "{home} is not listed"
                );
                for entry in entries {
                    let (at, id) = entry.split_once(':').unwrap();
                    let stone = tomb.get(id).and_then(|s| s.split_once(':'));
                    if stone.is_some_and(|(_, until)| at <= until) {
                        continue;
                    }
                    assert!(live.contains(id), "{id} waits but is no job");
                    assert!(found.insert(id.to_owned()), "{id} waits twice");
                }
            }
        }
        found
    }

    /// Everything that lives is brought to its end.
    pub(super) async fn drain(&mut self) {
        for daemon in 0..self.daemons.len() {
            self.crash(daemon).await;
        }
        while self
            .rig
            .redis::<u64>("LLEN", &[&self.rig.queue.keys().inbox])
            .await
            > 0
        {
            self.admit(0).await;
        }
        let parked: Vec<(String, Flow)> = self
            .live
            .iter()
            .filter(|(_, (place, _))| matches!(place, Place::Delayed | Place::Dead))
            .map(|(id, (_, home))| (id.clone(), home.clone()))
            .collect();
        for (id, home) in parked {
            // A retry may have become ready since: then it is in a flow already.
            assert!(self.rig.queue.requeue(&id, &home, None).await.unwrap());
            self.live.insert(id, (Place::Waiting, home));
        }
        let who = self.daemons[0].incarnation.clone();
        while let jobs = self.rig.claim_as(&who, 100).await
            && !jobs.is_empty()
        {
            let ends: Vec<_> = jobs.iter().map(|j| settlement(j, done(j))).collect();
            let settled = self.rig.queue.settle(&who, 0, &ends).await.unwrap();
            assert_eq!(settled.stale, Vec::<usize>::new());
            for job in &jobs {
                self.live.get_mut(&job.id).unwrap().0 = Place::Running;
                self.over(&job.id, true);
            }
        }
    }
}
