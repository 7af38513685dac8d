//! The names of a queue's keys. All of one queue share a hash tag, so they live in one slot of a cluster.

use crate::job::Priority;
use std::borrow::Cow;
use std::sync::Arc;

/// Where a waiting job stands: one list per priority and kind, and key where the jobs of the kind are told apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flow {
    /// Its class.
    pub priority: Priority,
    /// Its kind.
    pub kind: Arc<str>,
    /// What limits and turns go by, as [`crate::job::partition::safe_key`] made it.
    pub key: Option<Arc<str>>,
}

impl Flow {
    /// How lists of flows name it within its class: `<kind>` or `<kind>@<key>`. A kind never holds an `@`.
    #[must_use]
    pub fn member(&self) -> Cow<'_, str> {
        match &self.key {
            None => Cow::Borrowed(&*self.kind),
            Some(key) => Cow::Owned(format!("{}@{key}", self.kind)),
        }
    }

    /// A flow by the number of its class, from 1, and its name, like `3:<kind>@<key>`: as scripts list it.
    #[must_use]
    pub fn named(text: &str) -> Option<Self> {
        let (class, member) = text.split_once(':')?;
        let class: usize = class.parse().ok()?;
        let priority = Priority::ALL.get(class.checked_sub(1)?)?;
        Some(Self::of(*priority, member))
    }

    /// What of it does not follow from the kind of a job alone: the number of its class, from 1, and `@` with its key.
    /// Nothing for a flow of the default class without a key.
    #[must_use]
    pub fn mark(&self) -> Option<String> {
        let class = self.priority.index() + 1;
        match &self.key {
            Some(key) => Some(format!("{class}@{key}")),
            None => (self.priority != Priority::default()).then(|| class.to_string()),
        }
    }

    /// The flow of a kind with such a mark.
    #[must_use]
    pub fn marked(kind: &str, mark: &str) -> Option<Self> {
        let (class, key) = match mark.split_once('@') {
            Some((class, key)) => (class, format!("@{key}")),
            None => (mark, String::new()),
        };
        Self::named(&format!("{class}:{kind}{key}"))
    }

    /// The reverse of [`Flow::member`].
    #[must_use]
    pub fn of(priority: Priority, member: &str) -> Self {
        let (kind, key) = match member.split_once('@') {
            Some((kind, key)) => (kind, Some(key.into())),
            None => (member, None),
        };
        Self {
            priority,
            kind: kind.into(),
            key,
        }
    }
}

/// The keys of one queue. Everything but `inbox` is private storage and may change with any version.
#[derive(Debug, Clone)]
pub struct Keys {
    base: String,
    /// What apps push to (list).
    pub inbox: String,
    /// Entries ever removed from the inbox (counter): who admits must have seen its latest value.
    pub taken: String,
    /// id → envelope as received (hash).
    pub jobs: String,
    /// id → history, once something went wrong (hash).
    pub meta: String,
    /// Given ids that are reserved (score 1) or remembered until a time (zset).
    pub ids: String,
    /// id by the time it is due (zset).
    pub delayed: String,
    /// id → token of the delivery that runs it (hash): the lease set is the active set.
    pub running: String,
    /// Incarnations by their last heartbeat (zset).
    pub workers: String,
    /// id by the time it died (zset); envelope and history stay where they are.
    pub dead: String,
    /// Entries that can't be jobs (stream).
    pub quarantine: String,
    /// Records of finished jobs, the newest first (list).
    pub recent: String,
    /// id → record and history of a job that ended, where there is more to tell than a record (hash).
    pub archive: String,
    /// id by the time it was put into the archive (zset).
    pub archived: String,
    /// Which daemon audits this queue (string that expires).
    pub auditor: String,
    /// Counters since ever, and sizes of what has a cap in bytes (hash).
    pub stats: String,
    /// id → entries a cancelled job left in flows (hash).
    pub tomb: String,
    /// Running jobs whose end was asked for (hash).
    pub cancels: String,
    /// id → how far a running job has come (hash).
    pub progress: String,
    /// id → the slots it holds, one a line (hash).
    pub holds: String,
    /// slot → the flows that wait for it, one a line: class, name, place (hash). Empty: somebody waits for a whole kind's.
    pub parked: String,
    /// Flows whose rate makes them wait, as class and name, by the time they may start (zset).
    pub resume: String,
    /// Rates by the time up to which they are used up, ms (zset).
    pub rates: String,
    /// What operators changed live: pauses and limits (hash).
    pub control: String,
    /// Who changed what (stream).
    pub audit: String,
    /// Where daemons are told to look at this queue (a pub/sub channel, no key).
    pub bell: String,
    /// incarnation → its last settlement, so that a repeated one is known (hash).
    pub settled: String,
    /// id → what a job is tied to besides its flow (hash).
    pub ties: String,
    /// Lock → who holds it, and until when (hash).
    pub locks: String,
    /// Locks that outlive their jobs, by the time they are gone (zset).
    pub lock_ends: String,
    /// id → envelopes to be united with its own at the claim (hash).
    pub merges: String,
    /// Group → how far it is (hash).
    pub groups: String,
    /// Group → the envelope that follows it (hash).
    pub group_then: String,
    /// Group → what is told of its members (hash).
    pub group_results: String,
    /// Groups by the time of their last change (zset).
    pub group_times: String,
    /// Workflows that were cancelled: what comes of them is not admitted; by the time they are forgotten (zset).
    pub stops: String,
    /// schedule → the last tick served, and by which expression (hash).
    pub ticks: String,
    /// name → schedule that an operator added, JSON (hash).
    pub schedules: String,
    /// schedule → since when it is paused, ms (hash).
    pub schedules_paused: String,
    /// Changes of the two before (counter): who serves ticks must have seen the latest one.
    pub schedules_rev: String,
    /// One zset per priority: flow by the ready time of the head of its flow.
    pub ready: [String; 5],
}

impl Keys {
    /// The keys of `queue` under the configured prefix.
    #[must_use]
    pub fn new(prefix: &str, queue: &str) -> Self {
        let base = format!("{prefix}:{{{queue}}}:");
        let key = |name: &str| format!("{base}{name}");
        Self {
            inbox: key("inbox"),
            taken: key("taken"),
            jobs: key("jobs"),
            meta: key("meta"),
            ids: key("ids"),
            delayed: key("delayed"),
            running: key("running"),
            workers: key("workers"),
            dead: key("dead"),
            quarantine: key("quarantine"),
            recent: key("recent"),
            auditor: key("auditor"),
            archive: key("archive"),
            archived: key("archived"),
            stats: key("stats"),
            tomb: key("tomb"),
            cancels: key("cancels"),
            progress: key("progress"),
            holds: key("holds"),
            parked: key("parked"),
            resume: key("resume"),
            rates: key("rates"),
            control: key("control"),
            audit: key("audit"),
            bell: key("bell"),
            settled: key("settled"),
            ties: key("ties"),
            locks: key("locks"),
            lock_ends: key("lock_ends"),
            merges: key("merges"),
            groups: key("groups"),
            group_then: key("group_then"),
            group_results: key("group_results"),
            group_times: key("group_times"),
            stops: key("stops"),
            ticks: key("ticks"),
            schedules: key("schedules"),
            schedules_paused: key("schedules_paused"),
            schedules_rev: key("schedules_rev"),
            ready: Priority::ALL.map(|p| key(&format!("ready:{p}"))),
            base,
        }
    }

    /// The list of one flow.
    #[must_use]
    pub fn flow(&self, flow: &Flow) -> String {
        format!("{}flow:{}:{}", self.base, flow.priority, flow.member())
    }

    /// Who holds the slots of a name (set of ids).
    #[must_use]
    pub fn slots(&self, name: &str) -> String {
        format!("{}slots:{name}", self.base)
    }

    /// What the scripts that tie and untie jobs have as their first keys.
    pub(super) fn of_ties(&self) -> [&String; 9] {
        [
            &self.ties,
            &self.locks,
            &self.lock_ends,
            &self.merges,
            &self.groups,
            &self.group_then,
            &self.group_results,
            &self.group_times,
            &self.inbox,
        ]
    }

    /// The list that holds the result of one job.
    #[must_use]
    pub fn result(&self, id: &str) -> String {
        format!("{}result:{id}", self.base)
    }

    /// A key of this queue by its bare name, for what has no field of its own.
    #[must_use]
    pub fn named(&self, name: &str) -> String {
        format!("{}{name}", self.base)
    }

    /// Every fixed key with the type it must have; `number` is a string that holds an integer.
    pub fn typed(&self) -> impl Iterator<Item = (&str, &'static str)> + Clone {
        let fixed = [
            (&self.inbox, "list"),
            (&self.taken, "number"),
            (&self.jobs, "hash"),
            (&self.meta, "hash"),
            (&self.ids, "zset"),
            (&self.delayed, "zset"),
            (&self.running, "hash"),
            (&self.workers, "zset"),
            (&self.dead, "zset"),
            (&self.quarantine, "stream"),
            (&self.recent, "list"),
            (&self.auditor, "string"),
            (&self.archive, "hash"),
            (&self.archived, "zset"),
            (&self.stats, "hash"),
            (&self.tomb, "hash"),
            (&self.cancels, "hash"),
            (&self.progress, "hash"),
            (&self.settled, "hash"),
            (&self.holds, "hash"),
            (&self.parked, "hash"),
            (&self.resume, "zset"),
            (&self.rates, "zset"),
            (&self.control, "hash"),
            (&self.audit, "stream"),
            (&self.ties, "hash"),
            (&self.locks, "hash"),
            (&self.lock_ends, "zset"),
            (&self.merges, "hash"),
            (&self.groups, "hash"),
            (&self.group_then, "hash"),
            (&self.group_results, "hash"),
            (&self.group_times, "zset"),
            (&self.stops, "zset"),
            (&self.ticks, "hash"),
            (&self.schedules, "hash"),
            (&self.schedules_paused, "hash"),
            (&self.schedules_rev, "number"),
        ];
        let ready = self.ready.iter().map(|key| (key.as_str(), "zset"));
        fixed.into_iter().map(|(k, t)| (k.as_str(), t)).chain(ready)
    }
}
