//! Carries operations out on a real queue, and tells the model what was done.

use super::bonds::group_rule;
use super::check::check;
use super::expected::{Model, Place};
use super::limits::kind;
use super::op::{Bond, Case, DAEMONS, Entry, Form, Op, Rule};
use super::schedules::Known;
use super::snapshot::Snapshot;
use crate::queue::rig::{Rig, envelope};
use std::time::Duration;
use tidegate::job::Priority;
use tidegate::queue::claim::RawDelivery;
use tidegate::queue::operate::{Enqueued, NewJob};
use tidegate::queue::promote::Holds;
use tidegate::queue::{Admission, Flow, FlowAllowance, Peeked, Terms, Verdict};

/// Tells every retry to wait for an hour.
struct HoldAll;

impl Holds for HoldAll {
    fn watches(&self, _: &str) -> bool {
        true
    }

    fn wait(&mut self, _: &Flow) -> Option<Duration> {
        Some(Duration::from_secs(3_600))
    }

    fn had_gone(&mut self, _: &Flow) {
        panic!("none was let go");
    }
}

#[derive(Default)]
pub(super) struct Daemon {
    pub incarnation: String,
    pub batch: u64,
    pub held: Vec<RawDelivery>,
    /// What it claimed without hearing of it.
    pub lost: Vec<RawDelivery>,
    /// What it holds no more: settling these must be refused.
    pub past: Vec<RawDelivery>,
    pub peeked: Option<Peeked>,
    /// What it knew last of the schedule.
    pub known: Known,
}

pub struct World<'a> {
    pub(super) rig: &'a Rig,
    pub(super) daemons: Vec<Daemon>,
    pub(super) model: Model,
    /// Reports of progress.
    pub(super) told: u64,
    born: u64,
    pushed: u64,
    /// Entries of cancelled jobs that may come up in a claim.
    stones: usize,
}

impl<'a> World<'a> {
    /// Carries out a case, looking after each operation whether everything is as it must be.
    pub async fn run(rig: &'a Rig, case: &Case) {
        rig.redis::<()>("FLUSHDB", &[]).await;
        let mut world = Self {
            rig,
            daemons: Vec::new(),
            model: Model {
                remember: case.remember,
                ..Model::default()
            },
            told: 0,
            born: 0,
            pushed: 0,
            stones: 0,
        };
        for _ in 0..DAEMONS {
            let daemon = world.born().await;
            world.daemons.push(daemon);
        }
        for (n, op) in case.ops.iter().enumerate() {
            world.step(op).await;
            world.look(&format!("operation {n}, {op:?}")).await;
        }
        world.drain().await;
    }

    pub(super) async fn look(&mut self, what: &str) {
        let found = Snapshot::of(self.rig).await;
        self.model.adopt(found.list("inbox"));
        self.stones = check(&self.model, &found, what);
    }

    pub(super) async fn born(&mut self) -> Daemon {
        self.born += 1;
        let incarnation = format!("incarnation-{}", self.born);
        self.rig.queue.heartbeat(&incarnation, true).await.unwrap();
        Daemon {
            incarnation,
            ..Daemon::default()
        }
    }

    pub(super) async fn step(&mut self, op: &Op) {
        let who = |who: &u8| usize::from(*who) % DAEMONS;
        match op {
            Op::Push(entries) => self.push(entries).await,
            Op::Enqueue(entries) => self.enqueue(entries).await,
            Op::Peek(w) => {
                let peeked = self.rig.queue.peek().await.unwrap();
                self.daemons[who(w)].peeked = Some(peeked);
            }
            Op::Admit(w) => self.admit(who(w)).await,
            Op::Claim {
                who: w,
                limit,
                closed,
                lost,
            } => self.claim(who(w), *limit, *closed, *lost).await,
            Op::Settle {
                who: w,
                ends,
                asked,
            } => self.settle(who(w), ends, *asked).await,
            Op::SettlePast(w) => self.settle_the_past(who(w)).await,
            Op::Tell { who: w, pick } => self.tell(who(w), *pick).await,
            Op::Sweep(w) => self.sweep(who(w)).await,
            Op::Promote(w) => self.promote(who(w)).await,
            Op::PromoteBut(w) => self.promote_but(who(w)).await,
            Op::ComesDue(pick) => self.comes_due(*pick).await,
            Op::Forget(pick) => self.forget(*pick).await,
            Op::Cancel(pick) => self.cancel(*pick).await,
            Op::Requeue(pick) => self.requeue(*pick).await,
            Op::Bury(pick) => self.bury(*pick).await,
            Op::Shelve(pick) => self.shelve(*pick).await,
            Op::Release(pick) => self.release(*pick).await,
            Op::Pause(what) => self.pause(*what).await,
            Op::Limit { kind, limits } => self.limit(*kind, *limits).await,
            Op::Pace { kind, starts } => self.pace(*kind, *starts).await,
            Op::Refill(pick) => self.refill(*pick).await,
            Op::Tick { who: w, early } => self.tick(who(w), *early).await,
            Op::PauseSchedule => self.pause_schedule().await,
            Op::Audit => self.audit().await,
            Op::Die(w) => self.die(who(w)).await,
        }
    }

    fn write(&mut self, entry: &Entry) -> String {
        self.pushed += 1;
        let class = Priority::ALL[usize::from(entry.class)];
        let mut more = format!(r#","priority":"{class}""#);
        if let Some(id) = entry.given() {
            more += &format!(r#","id":"{id}""#);
        }
        more += match entry.form {
            // A debounced job says when it runs by that.
            Form::Later if entry.is_debounced() => "",
            Form::Now => "",
            Form::Later => r#","delay_ms":3600000"#,
            Form::Broken => r#","nonsense":1"#,
        };
        if entry.result {
            more += r#","result_ttl_ms":3600000"#;
        }
        if entry.then > 0 {
            more += &format!(r#","then":{}"#, step(entry.then - 1));
        }
        more += &entry.bond.map(bond).unwrap_or_default();
        if let Some(key) = entry.partition() {
            more += &format!(r#","concurrency_key":"{key}""#);
        }
        envelope(kind(entry.kind), self.pushed, &more)
    }

    async fn push(&mut self, entries: &[Entry]) {
        let raws: Vec<String> = entries.iter().map(|entry| self.write(entry)).collect();
        self.rig.push(&raws).await;
        for (entry, raw) in entries.iter().zip(raws) {
            self.model.pushed(entry, raw);
        }
    }

    async fn enqueue(&mut self, entries: &[Entry]) {
        let raws: Vec<String> = entries.iter().map(|entry| self.write(entry)).collect();
        let names: Vec<(String, String)> = entries
            .iter()
            .map(|e| {
                (
                    e.given().unwrap_or_default(),
                    e.reserves().unwrap_or_default(),
                )
            })
            .collect();
        let jobs: Vec<NewJob> = names
            .iter()
            .zip(&raws)
            .map(|((id, lock), raw)| NewJob {
                id,
                lock,
                envelope: raw.as_bytes(),
            })
            .collect();
        let answers = self.rig.queue.enqueue_all(&jobs).await.unwrap();
        for ((entry, raw), answer) in entries.iter().zip(raws).zip(answers) {
            let answer = match answer {
                Enqueued::Created => "created".to_owned(),
                Enqueued::Duplicate(state) | Enqueued::Held { state, .. } => state,
            };
            let expected = self.model.enqueued(entry, raw);
            assert_eq!(answer, expected, "enqueue of {entry:?}");
        }
    }

    /// Admits what was peeked, perhaps long ago.
    pub(super) async fn admit(&mut self, who: usize) {
        let daemon = &mut self.daemons[who];
        let peeked = match daemon.peeked.take() {
            Some(peeked) => peeked,
            None => self.rig.queue.peek().await.unwrap(),
        };
        if peeked.entries.is_empty() {
            return;
        }
        let verdicts = self.rig.judge(&peeked);
        let incarnation = &daemon.incarnation;
        let admission = self.rig.queue.admit(incarnation, &peeked, &verdicts).await;
        let current = peeked.taken == self.model.taken;
        match admission.unwrap() {
            Admission::Done { duplicates, .. } => {
                assert!(current, "admitted what was taken by another daemon");
                let entries = peeked.entries.iter();
                let entries: Vec<String> = entries
                    .map(|raw| String::from_utf8_lossy(raw).into_owned())
                    .collect();
                self.model.adopt(&entries);
                let ids: Vec<Option<String>> = verdicts.iter().map(id_of).collect();
                for (verdict, sent) in verdicts.iter().zip(&self.model.inbox) {
                    let reject = matches!(verdict, Verdict::Rejected { .. });
                    let broken = sent.entry.form == Form::Broken;
                    assert_eq!(reject, broken, "{verdict:?} of {sent:?}");
                }
                assert_eq!(duplicates, self.model.admitted(&ids));
            }
            Admission::Moved => assert!(!current, "nobody else took any"),
        }
    }

    async fn claim(&mut self, who: usize, limit: u8, closed: Option<u8>, lost: bool) {
        let limit = usize::from(limit.max(1));
        let look = self.rig.queue.look().await.unwrap();
        let closed_kind = closed.map(kind);
        let catalog = &self.rig.catalog;
        let open = look.heads.into_iter().map(|(flow, _)| flow);
        let plan: Vec<FlowAllowance> = open
            .filter(|flow| Some(&*flow.kind) != closed_kind && !look.control.is_paused(&flow.kind))
            .map(|flow| FlowAllowance {
                terms: Terms::of(&flow, catalog.get(&flow.kind).unwrap(), &look.control),
                flow,
                allowance: limit,
            })
            .collect();
        let incarnation = self.daemons[who].incarnation.clone();
        let jobs = self.rig.claim_from(&incarnation, limit, &plan).await;
        let mut waiting = self.model.claimable(closed);
        waiting.truncate(limit);
        let taken: Vec<u8> = jobs
            .iter()
            .map(|job| job.home.priority.index() as u8)
            .collect();
        if self.stones == 0 {
            assert_eq!(taken, waiting, "classes of what was claimed");
        } else {
            // Each stone that came up took the place of a job.
            let most = waiting.len();
            let least = most.saturating_sub(self.stones);
            assert!(
                (least..=most).contains(&taken.len()),
                "{taken:?} of {waiting:?}"
            );
        }
        let ids: Vec<String> = jobs.iter().map(|job| job.id.clone()).collect();
        for job in jobs {
            self.model.claimed(&job.id, &job.token);
            assert_eq!(
                job.raw,
                self.model.jobs[&job.id]
                    .sent
                    .raw
                    .as_ref()
                    .unwrap()
                    .as_bytes()
            );
            let daemon = &mut self.daemons[who];
            if lost {
                daemon.lost.push(job);
            } else {
                daemon.held.push(job);
            }
        }
        if self.stones == 0 && closed.is_none() && self.model.paused.is_empty() {
            self.model.check_turns(&ids);
        }
    }

    pub(super) async fn promote(&mut self, who: usize) {
        let look = self.rig.queue.look().await.unwrap();
        let by = &self.daemons[who].incarnation;
        let catalog = &self.rig.catalog;
        self.rig
            .queue
            .promote(by, &look.due, catalog)
            .await
            .unwrap();
        self.model.promoted();
    }

    async fn promote_but(&mut self, who: usize) {
        let look = self.rig.queue.look().await.unwrap();
        let by = &self.daemons[who].incarnation;
        let (queue, catalog) = (&self.rig.queue, &self.rig.catalog);
        queue
            .promote_but(by, &look.due, catalog, look.now_ms, &mut HoldAll)
            .await
            .unwrap();
        self.model.promoted_but_retries();
    }

    /// Lets the time pass until a job is due: its time is brought forward instead.
    async fn comes_due(&mut self, pick: u8) {
        let later = |place: &Place| *place == Place::Delayed { due: false };
        let Some(id) = self.pick(pick, later) else {
            return;
        };
        let (seconds, micros): (u64, u64) = self.rig.redis("TIME", &[]).await;
        let now = (seconds * 1_000 + micros / 1_000).to_string();
        let delayed = &self.rig.queue.keys().delayed;
        self.rig
            .redis::<()>("ZADD", &[delayed, "XX", &now, &id])
            .await;
        self.model.jobs.get_mut(&id).unwrap().place = Place::Delayed { due: true };
    }

    async fn forget(&mut self, pick: u8) {
        let ids: Vec<&String> = self.model.remembered.keys().collect();
        let Some(id) = nth(&ids, pick).map(|id| (*id).clone()) else {
            return;
        };
        let key = &self.rig.queue.keys().ids;
        self.rig.redis::<()>("ZADD", &[key, "XX", "2", &id]).await;
        self.model.forgot(&id);
    }

    /// One of the jobs in some place, if there are any.
    pub(super) fn pick(&self, pick: u8, wanted: impl Fn(&Place) -> bool) -> Option<String> {
        let jobs = self.model.jobs.iter().filter(|(_, job)| wanted(&job.place));
        let ids: Vec<&String> = jobs.map(|(id, _)| id).collect();
        nth(&ids, pick).map(|id| (*id).clone())
    }

    /// The flow in which a job waits.
    pub(super) fn home(&self, id: &str) -> Flow {
        let entry = &self.model.jobs[id].sent.entry;
        let class = Priority::ALL[usize::from(entry.class)];
        Flow::of(class, &entry.member())
    }
}

pub(super) fn nth<T>(list: &[T], pick: u8) -> Option<&T> {
    list.get(usize::from(pick) % list.len().max(1))
}

/// An envelope with so many steps after it.
fn step(then: u8) -> String {
    match then {
        0 => r#"{"kind":"app.a"}"#.to_owned(),
        more => format!(r#"{{"kind":"app.a","then":{}}}"#, step(more - 1)),
    }
}

/// The fields of an envelope that ask for it.
fn bond(bond: Bond) -> String {
    match bond {
        Bond::Unique { lock, rule } => {
            let rule = match rule {
                Rule::Debounce => {
                    return format!(r#","debounce":{{"key":"k{lock}","wait_ms":3600000}}"#);
                }
                Rule::Skip => "",
                Rule::SkipClaimed => r#","until":"claimed""#,
                Rule::Replace => r#","on_conflict":"replace""#,
                Rule::Merge => r#","until":"claimed","on_conflict":"merge""#,
                Rule::TimedReplace => r#","until":"ttl","ttl_ms":3600000,"on_conflict":"replace""#,
                Rule::Timed => r#","until":"ttl","ttl_ms":3600000"#,
            };
            format!(r#","unique":{{"key":"k{lock}"{rule}}}"#)
        }
        Bond::Group { group, then } => {
            let (size, always) = group_rule(group);
            let when = if always { "always" } else { "success" };
            let then = if then {
                format!(r#","then":{}"#, step(0))
            } else {
                String::new()
            };
            format!(r#","group":{{"id":"g{group}","size":{size},"when":"{when}"{then}}}"#)
        }
    }
}

fn id_of(verdict: &Verdict) -> Option<String> {
    match verdict {
        Verdict::Ready { id, .. } | Verdict::Delayed { id, .. } => Some(id.as_str().to_owned()),
        Verdict::Rejected { .. } => None,
    }
}
