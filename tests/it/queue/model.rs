//! Random operations of several daemons and apps, held against a model: each job in exactly one place, none lost.

mod check;

use super::rig::{Rig, done, envelope, failures, handed_back, record, settlement};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tidegate::job::Priority;
use tidegate::queue::admit::flow_of;
use tidegate::queue::claim::RawDelivery;
use tidegate::queue::operate::{Cancelled, Enqueued};
use tidegate::queue::settle::Ending;
use tidegate::queue::{Admission, Flow, Peeked, Settlement, Verdict};

const DAEMONS: usize = 3;
const IDS: u32 = 40;
const STEPS: usize = 300;
const TIME: Duration = Duration::from_secs(8);

/// Where the model has a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Waiting,
    Delayed,
    Running,
    Dead,
}

struct Daemon {
    incarnation: String,
    batch: u64,
    held: Vec<RawDelivery>,
    /// What it holds no more: settling these must be refused.
    past: Vec<RawDelivery>,
    peeked: Option<Peeked>,
}

struct World {
    rig: Rig,
    rng: StdRng,
    daemons: Vec<Daemon>,
    born: u64,
    pushed: u64,
    /// id → place, of every job that lives.
    live: BTreeMap<String, (Place, Flow)>,
    remembered: BTreeSet<String>,
    reserved: BTreeSet<String>,
    admitted: u64,
    ended: u64,
    duplicates: u64,
    quarantined: u64,
    window: bool,
}

#[tokio::test]
async fn each_job_is_in_one_place_and_none_is_lost() {
    let start = Instant::now();
    let mut rounds = 0;
    while rounds < 2 || (start.elapsed() < TIME && rounds < 40) {
        round(rounds).await;
        rounds += 1;
    }
}

async fn round(seed: u64) {
    let window = seed.is_multiple_of(2);
    let rig = Rig::with(|c| {
        if !window {
            c.dedupe.window = Duration::ZERO;
        }
    })
    .await;
    let mut world = World {
        rig,
        rng: StdRng::seed_from_u64(seed),
        daemons: Vec::new(),
        born: 0,
        pushed: 0,
        live: BTreeMap::new(),
        remembered: BTreeSet::new(),
        reserved: BTreeSet::new(),
        admitted: 0,
        ended: 0,
        duplicates: 0,
        quarantined: 0,
        window,
    };
    for _ in 0..DAEMONS {
        let daemon = world.born().await;
        world.daemons.push(daemon);
    }
    for step in 0..STEPS {
        world.step().await;
        if step % 10 == 0 {
            world.check(seed, step).await;
        }
    }
    world.drain().await;
    world.check(seed, STEPS).await;
    assert_eq!(world.live.len(), 0, "seed {seed}: everything has ended");
    let accounted = world.admitted + world.duplicates + world.quarantined;
    assert_eq!(world.pushed, accounted, "seed {seed}: pushed entries");
    assert_eq!(world.admitted, world.ended, "seed {seed}: ends");
}

impl World {
    async fn born(&mut self) -> Daemon {
        self.born += 1;
        let incarnation = format!("incarnation-{}", self.born);
        self.rig.queue.heartbeat(&incarnation, true).await.unwrap();
        Daemon {
            incarnation,
            batch: 0,
            held: Vec::new(),
            past: Vec::new(),
            peeked: None,
        }
    }

    async fn step(&mut self) {
        let daemon = self.rng.random_range(0..self.daemons.len());
        match self.rng.random_range(0..100) {
            0..20 => self.push().await,
            20..26 => self.enqueue().await,
            26..32 => self.peek(daemon).await,
            32..46 => self.admit(daemon).await,
            46..62 => self.claim(daemon).await,
            62..78 => self.settle(daemon).await,
            78..81 => self.settle_the_past(daemon).await,
            81..86 => self.promote().await,
            86..91 => self.cancel().await,
            91..95 => self.requeue().await,
            95..97 => self.bury().await,
            _ => self.crash(daemon).await,
        }
    }

    /// An envelope and its id, if it has one.
    fn entry(&mut self, given: bool) -> (Option<String>, String) {
        let kind = super::rig::KINDS[self.rng.random_range(0..3)];
        let class = Priority::ALL[self.rng.random_range(0..5)];
        let mut more = format!(r#","priority":"{class}""#);
        let id = given.then(|| format!("id-{}", self.rng.random_range(0..IDS)));
        if let Some(id) = &id {
            more += &format!(r#","id":"{id}""#);
        }
        match self.rng.random_range(0..10) {
            0 => more += r#","delay_ms":3600000"#,
            1 => more += r#","delay_ms":1"#,
            2 => more += r#","nonsense":1"#,
            _ => {}
        }
        self.pushed += 1;
        (id, envelope(kind, self.pushed, &more))
    }

    async fn push(&mut self) {
        for _ in 0..self.rng.random_range(1..8) {
            let given = self.rng.random_bool(0.6);
            let (_, entry) = self.entry(given);
            self.rig.push(&[entry]).await;
        }
    }

    async fn enqueue(&mut self) {
        let (id, entry) = self.entry(true);
        let id = id.unwrap();
        let answer = self.rig.queue.enqueue(&[(&id, entry.into_bytes())]).await;
        let taken = self.live.contains_key(&id)
            || self.remembered.contains(&id)
            || self.reserved.contains(&id);
        let created = answer.unwrap() == [Enqueued::Created];
        assert_eq!(created, !taken, "{id}");
        if created {
            self.reserved.insert(id);
        } else {
            self.pushed -= 1;
        }
    }

    async fn peek(&mut self, daemon: usize) {
        self.daemons[daemon].peeked = Some(self.rig.queue.peek().await.unwrap());
    }

    /// Admits what was peeked, perhaps long ago.
    async fn admit(&mut self, daemon: usize) {
        if self.daemons[daemon].peeked.is_none() {
            self.peek(daemon).await;
        }
        let peeked = self.daemons[daemon].peeked.take().unwrap();
        if peeked.entries.is_empty() {
            return;
        }
        let verdicts = self.rig.judge(&peeked);
        let incarnation = self.daemons[daemon].incarnation.clone();
        let admission = self.rig.queue.admit(&incarnation, &peeked, &verdicts).await;
        if let Admission::Done { duplicates, .. } = admission.unwrap() {
            for (index, (verdict, raw)) in verdicts.iter().zip(&peeked.entries).enumerate() {
                self.admitted(verdict, raw, duplicates.contains(&index));
            }
        }
    }

    fn admitted(&mut self, verdict: &Verdict, raw: &[u8], duplicate: bool) {
        let envelope = tidegate::job::Envelope::parse(raw);
        let (id, given, place) = match verdict {
            Verdict::Rejected { id, .. } => {
                self.quarantined += 1;
                if let Some(id) = id {
                    self.reserved.remove(id.as_str());
                }
                return;
            }
            Verdict::Ready { id, given, .. } => (id, *given, Place::Waiting),
            Verdict::Delayed { id, given, .. } => (id, *given, Place::Delayed),
        };
        let id = id.as_str().to_owned();
        let taken = given && (self.live.contains_key(&id) || self.remembered.contains(&id));
        assert_eq!(duplicate, taken, "{id}");
        if duplicate {
            self.duplicates += 1;
        } else {
            let home = flow_of(&envelope.unwrap(), &self.rig.catalog);
            self.admitted += 1;
            self.reserved.remove(&id);
            self.live.insert(id, (place, home));
        }
    }

    async fn claim(&mut self, daemon: usize) {
        let limit = self.rng.random_range(1..12);
        let incarnation = self.daemons[daemon].incarnation.clone();
        for job in self.rig.claim_as(&incarnation, limit).await {
            let (place, _) = self.live.get_mut(&job.id).unwrap();
            assert_eq!(*place, Place::Waiting, "{}", job.id);
            *place = Place::Running;
            self.daemons[daemon].held.push(job);
        }
    }

    async fn settle(&mut self, daemon: usize) {
        let many = self.rng.random_range(1..8);
        let mut batch = Vec::new();
        for _ in 0..many.min(self.daemons[daemon].held.len()) {
            let at = self.rng.random_range(0..self.daemons[daemon].held.len());
            let job = self.daemons[daemon].held.swap_remove(at);
            let ending = self.ending(&job);
            self.end(&job, &ending);
            batch.push(settlement(&job, ending));
            self.daemons[daemon].past.push(job);
        }
        if batch.is_empty() {
            return;
        }
        self.daemons[daemon].batch += 1;
        let (who, number) = {
            let d = &self.daemons[daemon];
            (d.incarnation.clone(), d.batch)
        };
        // Now and then the reply is lost, and the call is made again.
        for _ in 0..self.rng.random_range(1..3) {
            let settled = self.rig.queue.settle(&who, number, &batch).await.unwrap();
            assert_eq!(settled.stale, Vec::<usize>::new());
        }
    }

    fn ending(&mut self, job: &RawDelivery) -> Ending {
        let home = self.live[&job.id].1.clone();
        match self.rng.random_range(0..8) {
            0..4 => done(job),
            4 => Ending::Later {
                delay: Duration::from_millis(self.rng.random_range(0..3)),
                history: failures(1),
                counter: "retried",
            },
            5 => Ending::Dead {
                history: failures(2),
                given: true,
                counter: "dead",
            },
            _ => handed_back(home),
        }
    }

    fn end(&mut self, job: &RawDelivery, ending: &Ending) {
        let (place, _) = self.live.get_mut(&job.id).unwrap();
        assert_eq!(*place, Place::Running);
        match ending {
            Ending::Later { .. } => *place = Place::Delayed,
            Ending::Dead { .. } => *place = Place::Dead,
            Ending::HandedBack { .. } => *place = Place::Waiting,
            Ending::Finished { .. } | Ending::Quarantined(_) => self.over(&job.id, true),
        }
    }

    fn over(&mut self, id: &str, remember: bool) {
        self.live.remove(id).unwrap();
        self.ended += 1;
        if remember && self.window {
            self.remembered.insert(id.to_owned());
        }
    }

    async fn settle_the_past(&mut self, daemon: usize) {
        let past: Vec<Settlement> = self.daemons[daemon]
            .past
            .iter()
            .take(100)
            .map(|job| settlement(job, done(job)))
            .collect();
        if !past.is_empty() {
            let who = &self.daemons[daemon].incarnation;
            let settled = self.rig.queue.settle(who, 0, &past).await.unwrap();
            assert_eq!(
                settled.stale.len(),
                past.len(),
                "a past delivery was accepted"
            );
        }
    }

    async fn promote(&mut self) {
        let look = self.rig.queue.look().await.unwrap();
        let by = &self.daemons[0].incarnation;
        self.rig
            .queue
            .promote(by, &look.due, &self.rig.catalog)
            .await
            .unwrap();
        // Redis knows best which were due.
        for (id, (place, _)) in &mut self.live {
            if *place == Place::Delayed {
                let found = self.rig.queue.find(id).await.unwrap().unwrap();
                if found.state == "pending" {
                    *place = Place::Waiting;
                }
            }
        }
    }

    fn any_live(&mut self) -> Option<String> {
        let at = self.rng.random_range(0..self.live.len().max(1));
        self.live.keys().nth(at).cloned()
    }

    async fn cancel(&mut self) {
        let Some(id) = self.any_live() else { return };
        let answer = self.rig.queue.cancel(&record(&id, "cancelled"), true).await;
        let expected = match self.live[&id].0 {
            Place::Waiting | Place::Delayed => Cancelled::Done,
            Place::Running => Cancelled::Asked,
            Place::Dead => Cancelled::Dead,
        };
        assert_eq!(answer.unwrap(), expected, "{id}");
        if expected == Cancelled::Done {
            self.over(&id, true);
        }
    }

    async fn requeue(&mut self) {
        let Some(id) = self.any_live() else { return };
        let (place, home) = self.live[&id].clone();
        let done = self.rig.queue.requeue(&id, &home, None).await.unwrap();
        assert_eq!(done, matches!(place, Place::Dead | Place::Delayed), "{id}");
        if done {
            self.live.insert(id, (Place::Waiting, home));
        }
    }

    async fn bury(&mut self) {
        let Some(id) = self.any_live() else { return };
        let dead = self.live[&id].0 == Place::Dead;
        let buried = self
            .rig
            .queue
            .bury(std::slice::from_ref(&id))
            .await
            .unwrap();
        assert_eq!(buried, u64::from(dead));
        if dead {
            self.over(&id, true);
        }
    }
}
