//! How deliveries end: settled, refused, found again, and the death of daemons.

use super::expected::{POISON, Place};
use super::op::End;
use super::snapshot::Snapshot;
use super::world::{World, nth};
use crate::queue::rig::{failures, flow, handed_back, record, settlement};
use std::sync::Arc;
use std::time::Duration;
use tidegate::job::ties::outcome;
use tidegate::job::{History, Priority, Reject, RejectCode};
use tidegate::queue::claim::{Delivery, RawDelivery};
use tidegate::queue::progress::Report;
use tidegate::queue::settle::Ending;
use tidegate::queue::ties::{Notice, next_step};
use tidegate::queue::{FlowAllowance, QueueError, Settlement};

impl World<'_> {
    pub(super) async fn settle(&mut self, who: usize, ends: &[(u8, End)], asked: u8) {
        let (mut batch, mut jobs) = (Vec::new(), Vec::new());
        for (pick, end) in ends {
            let held = &mut self.daemons[who].held;
            if held.is_empty() {
                break;
            }
            let at = usize::from(*pick) % held.len();
            let job = held.swap_remove(at);
            let mut ended = settlement(&job, self.ending(&job, *end));
            if matches!(end, End::Done) {
                ended.notice = self.notice(&job);
            }
            ended.told = self.model.jobs[&job.id].told.is_some();
            batch.push(ended);
            jobs.push((job, *end));
        }
        if batch.is_empty() {
            return;
        }
        let daemon = &mut self.daemons[who];
        daemon.batch += 1;
        let (by, number) = (daemon.incarnation.clone(), daemon.batch);
        for _ in 0..asked.max(1) {
            let settled = self.rig.queue.settle(&by, number, &batch).await.unwrap();
            assert_eq!(settled.stale, Vec::<usize>::new());
        }
        // One that arrives when a later one was heard is refused as a whole.
        let late = self.rig.queue.settle(&by, number - 1, &batch).await;
        assert_eq!(late.unwrap().stale.len(), batch.len());
        let died = jobs.iter().any(|(_, end)| matches!(end, End::Dead));
        for (job, end) in jobs {
            assert!(self.model.settled(&job.id, &job.token, end));
            self.daemons[who].past.push(job);
        }
        self.dead_give_way(died).await;
    }

    /// What others are told of a job that is done, and what follows it.
    fn notice(&self, job: &RawDelivery) -> Notice {
        let delivery = self.delivery(job);
        let id = &delivery.job.id;
        let text = outcome(id, &delivery.job.kind, "done", 1, None, None);
        let then = delivery.then.as_deref();
        Notice {
            follow: then.map(|then| next_step(then, id, delivery.workflow.as_ref(), &text)),
            outcome: delivery.tied.then_some(text),
            result: delivery.keeps_result,
            late: None,
        }
    }

    /// A claimed job as its daemon sees it.
    fn delivery(&self, job: &RawDelivery) -> Delivery {
        let (queue, catalog) = (&self.rig.queue, &self.rig.catalog);
        match job.open(queue, catalog, job.ready_ms) {
            Ok(delivery) => delivery,
            Err(unfit) => panic!("{} does not fit: {unfit:?}", job.id),
        }
    }

    /// What a daemon says of a delivery.
    fn ending(&self, job: &RawDelivery, end: End) -> Ending {
        let finished = |state, counter| Ending::Finished {
            record: record(&job.id, state).encode(),
            counter,
            given: self.delivery(job).given,
            history: (!job.history.is_empty()).then(|| history_of(job)),
        };
        let failed = || {
            let mut history = history_of(job);
            history.fail(1, "no luck");
            history
        };
        let later = |delay| Ending::Later {
            delay,
            history: failed(),
            counter: "retried",
        };
        match end {
            End::Done => finished("done", "completed"),
            End::Expired => finished("expired", "expired"),
            End::Cancelled => finished("cancelled", "cancelled"),
            End::Retry => later(Duration::ZERO),
            End::Snooze => later(Duration::from_secs(3_600)),
            End::Dead => Ending::Dead {
                history: failed(),
                given: self.delivery(job).given,
                counter: "dead",
            },
            End::HandBack => handed_back(self.home(&job.id)),
            End::Quarantine => Ending::Quarantined(Reject::new(RejectCode::BadArgs, "n: no")),
        }
    }

    /// When one died, the dead set is brought to its bound: which of those that died in the same millisecond went, only Redis knows.
    async fn dead_give_way(&mut self, died: bool) {
        let over = self
            .model
            .dead()
            .len()
            .saturating_sub(super::expected::DEAD_MAX);
        if over == 0 || !died {
            return;
        }
        let found = Snapshot::of(self.rig).await;
        let left = found.members("dead");
        let gone = self
            .model
            .dead()
            .into_iter()
            .filter(|id| !left.contains(id.as_str()));
        let gone: Vec<String> = gone.cloned().collect();
        assert_eq!(gone.len(), over, "dead jobs that gave way");
        for id in gone {
            self.model.dropped(&id);
        }
    }

    pub(super) async fn settle_the_past(&mut self, who: usize) {
        let past: Vec<Settlement> = self.daemons[who]
            .past
            .iter()
            .map(|job| {
                let ending = Ending::Finished {
                    record: record(&job.id, "done").encode(),
                    counter: "completed",
                    given: true,
                    history: Some(history_of(job)),
                };
                settlement(job, ending)
            })
            .collect();
        if past.is_empty() {
            return;
        }
        let by = &self.daemons[who].incarnation;
        let settled = self.rig.queue.settle(by, 0, &past).await.unwrap();
        assert_eq!(
            settled.stale.len(),
            past.len(),
            "a past delivery was accepted"
        );
    }

    pub(super) async fn tell(&mut self, who: usize, pick: u8) {
        self.told += 1;
        let json = format!(r#"{{"percent":{}}}"#, self.told);
        let daemon = &self.daemons[who];
        let (mut reports, mut stale) = (Vec::new(), Vec::new());
        let mut report = |job: &RawDelivery| {
            reports.push(Report {
                id: job.id.as_str().into(),
                token: job.token.as_str().into(),
                json: json.clone(),
            });
        };
        if let Some(job) = nth(&daemon.past, pick) {
            report(job);
            stale.push(0);
        }
        if let Some(job) = nth(&daemon.held, pick) {
            report(job);
            self.model.jobs.get_mut(&job.id).unwrap().told = Some(json.clone());
        }
        if !reports.is_empty() {
            let refused = self.rig.queue.report_progress(&reports).await.unwrap();
            assert_eq!(refused, stale);
        }
    }

    pub(super) async fn sweep(&mut self, who: usize) {
        let lost = std::mem::take(&mut self.daemons[who].lost);
        if lost.is_empty() {
            return;
        }
        let mut endings = Vec::new();
        for (job, slots) in lost.iter().zip(self.held_by(&lost).await) {
            let ended = settlement(job, self.ending(job, End::HandBack));
            endings.push(Settlement { slots, ..ended });
        }
        let by = &self.daemons[who].incarnation;
        let settled = self.rig.queue.settle(by, 0, &endings).await.unwrap();
        assert_eq!(settled.stale, Vec::<usize>::new());
        for job in &lost {
            assert!(self.model.settled(&job.id, &job.token, End::HandBack));
        }
        self.daemons[who].past.extend(lost);
    }

    /// The slots that jobs hold, as somebody finds out who did not claim them.
    async fn held_by(&self, jobs: &[RawDelivery]) -> Vec<Arc<[Arc<str>]>> {
        let ids: Vec<&str> = jobs.iter().map(|job| &*job.id).collect();
        self.rig.queue.held_by(&ids).await.unwrap()
    }

    /// A daemon dies. Another one fences it: from then on it is refused. Its jobs go back.
    pub(super) async fn die(&mut self, who: usize) {
        let next = self.born().await;
        let dead = std::mem::replace(&mut self.daemons[who], next);
        let queue = &self.rig.queue;
        let beats = queue
            .heartbeat(&self.daemons[who].incarnation, false)
            .await
            .unwrap();
        let seen = beats
            .workers
            .iter()
            .find(|(name, _)| *name == dead.incarnation);
        let seen_ms = seen.unwrap().1;
        assert!(!queue.fence(&dead.incarnation, seen_ms + 1).await.unwrap());
        assert!(queue.fence(&dead.incarnation, seen_ms).await.unwrap());
        assert!(!queue.fence(&dead.incarnation, seen_ms).await.unwrap());
        self.is_refused(&dead.incarnation, &dead.held).await;
        let mut back = Vec::new();
        let (mut cursor, mut found) = (0, Vec::new());
        loop {
            let (next, entries) = self.rig.queue.sweep_running(cursor).await.unwrap();
            found.extend(entries);
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        found.retain(|entry| entry.owner().unwrap().0 == dead.incarnation);
        let held: Vec<RawDelivery> = dead.held.into_iter().chain(dead.lost).collect();
        let names = |id: &String| held.iter().any(|job| job.id == *id);
        assert!(found.iter().all(|entry| names(&entry.id)));
        assert_eq!(found.len(), held.len());
        for (job, slots) in held.iter().zip(self.held_by(&held).await) {
            let ended = settlement(job, self.rescued(job));
            let told = true;
            back.push(Settlement {
                slots,
                told,
                ..ended
            });
        }
        if !back.is_empty() {
            let by = &self.daemons[who].incarnation;
            let settled = self.rig.queue.settle(by, 0, &back).await.unwrap();
            assert_eq!(settled.stale, Vec::<usize>::new());
        }
        held.iter().for_each(|job| self.model.crashed(&job.id));
        let died = held
            .iter()
            .any(|job| self.model.jobs[&job.id].place == Place::Dead);
        self.dead_give_way(died).await;
        let past = &mut self.daemons[who].past;
        past.extend(held.into_iter().chain(dead.past));
    }

    /// What becomes of a job whose daemon died.
    fn rescued(&self, job: &RawDelivery) -> Ending {
        let mut history = history_of(job);
        history.crash(1, "its daemon died");
        if history.crashes >= POISON {
            return Ending::Dead {
                history,
                given: self.delivery(job).given,
                counter: "poisoned",
            };
        }
        Ending::HandedBack {
            flow: self.home(&job.id),
            history: Some(history),
            counter: "recovered",
        }
    }

    async fn is_refused(&self, incarnation: &str, held: &[RawDelivery]) {
        let queue = &self.rig.queue;
        let any = FlowAllowance {
            flow: flow(Priority::Normal, "app.a"),
            allowance: 1,
            terms: Default::default(),
        };
        let claim = queue.claim(incarnation, u64::MAX, 1, &[any]).await;
        assert!(matches!(claim, Err(QueueError::LeaseLost)));
        let ends: Vec<_> = held
            .iter()
            .map(|job| settlement(job, self.ending(job, End::Done)))
            .collect();
        let settled = queue.settle(incarnation, 9_999, &ends).await;
        assert!(matches!(settled, Err(QueueError::LeaseLost)));
        let peeked = queue.peek().await.unwrap();
        let verdicts = self.rig.judge(&peeked);
        let admitted = queue.admit(incarnation, &peeked, &verdicts).await;
        assert!(matches!(admitted, Err(QueueError::LeaseLost)));
        let due = queue.look().await.unwrap().due;
        let promoted = queue.promote(incarnation, &due, &self.rig.catalog).await;
        assert!(matches!(promoted, Err(QueueError::LeaseLost)));
    }
}

fn history_of(job: &RawDelivery) -> Box<History> {
    if job.history.is_empty() {
        return failures(0);
    }
    Box::new(History::parse(&job.history).unwrap())
}
