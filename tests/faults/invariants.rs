//! The invariants, looked at when a trial is over: the fault is healed, the load is acknowledged, the queue is drained.

use crate::bed::Bed;
use crate::oracle::Oracle;
use crate::receiver::{overlaps, starts};
use crate::row::{Broken, Failure, Outcome, Verdict};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tidegate::queue::audit::{KnownFlows, Options};

/// What the drain may take beyond lease and backoff: the work itself, on a machine that does other things too.
const GRACE: Duration = Duration::from_secs(15);

/// The most that is told of one problem, bytes.
const LONGEST: usize = 1_000;

/// What the fault of a row allows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Terms {
    /// Leases may expire, so jobs may run twice: as often as they were recovered.
    pub leases_expire: bool,
    /// Runs may be broken off and handed back in good order.
    pub handed_back: bool,
    /// Attempts may fail that would not without the fault.
    pub attempts_fail: bool,
    /// Acknowledged jobs may be gone: how many is told, and not held against it.
    pub may_lose: bool,
    /// Entries that must be in quarantine.
    pub quarantined: u64,
    /// Somebody wrote to private storage: the auditor may repair, and counters may be off.
    pub meddled: bool,
    /// Jobs of others than the load, by the first part of their ids.
    pub strangers: &'static [&'static str],
}

/// How the jobs ended.
struct Ends {
    /// Records of jobs that are done: how often each.
    done: BTreeMap<String, u32>,
    dead: BTreeSet<String>,
    skipped: BTreeSet<String>,
}

/// Drains and checks. `recovery` is what the row measured.
pub async fn check(bed: &mut Bed, terms: Terms, recovery: Option<Duration>) -> Outcome {
    let healed = Instant::now();
    bed.sent().await?;
    // The one from before may have met the fault.
    bed.queue = bed.site.queue("default").await;
    pause_schedule(bed).await?;
    let drained = drain(bed, healed).await;
    let mut problems = Vec::new();
    if let Err(e) = drained {
        problems.push(e);
    }
    let drain = healed.elapsed();
    let oracle = std::mem::take(&mut *bed.oracle.lock());
    let ends = read_ends(bed).await;
    let mut verdict = Verdict {
        recovery,
        drain,
        stale: bed.events("stale_settlement").len(),
        ..Verdict::default()
    };
    // With work left undone, everything else would fail as well and say nothing new.
    if problems.is_empty() {
        verdict.lost = nothing_lost(&oracle, &ends, terms, bed, &mut problems);
        nothing_unexpected(&oracle, &ends, terms, bed, &mut problems).await;
        one_place(bed, terms, &mut problems).await;
        one_completion(&ends, &mut problems);
        verdict.duplicated = duplicates(bed, terms, &mut problems).await;
        counters(&oracle, &ends, terms, bed, &mut problems).await;
    }
    if problems.is_empty() {
        Ok(verdict)
    } else {
        for problem in &mut problems {
            problem.truncate(problem.floor_char_boundary(LONGEST));
        }
        // What is wrong with a build that is broken on purpose is known.
        if bed.program.env.is_empty() {
            problems.push(keep(bed));
        }
        Err(Failure::Broken(Broken(problems)))
    }
}

/// Keeps the folder of a trial that failed; says where it is.
fn keep(bed: &Bed) -> String {
    let from = bed.site.dir.path();
    let to = std::env::temp_dir().join(format!("tidegate-fault-{:016x}", bed.seed));
    let _ = std::fs::remove_dir_all(&to);
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(&to)
        .status();
    match copied {
        Ok(status) if status.success() => format!("logs and configuration: {}", to.display()),
        _ => "its folder could not be kept".to_owned(),
    }
}

async fn pause_schedule(bed: &Bed) -> Result<(), Broken> {
    let now = bed.queue.glance_at_schedules().await;
    let now_ms = now
        .map_err(|e| Broken::new(format!("Redis after the fault: {e}")))?
        .now_ms;
    let paused = bed.queue.pause_schedule("load.tick", now_ms).await;
    paused
        .map(|_| ())
        .map_err(|e| Broken::new(format!("pause of the schedule: {e}")))
}

/// I6: nothing is left to do, within a bound.
async fn drain(bed: &Bed, healed: Instant) -> Result<(), String> {
    let keys = bed.queue.keys();
    let mut conn = bed.site.redis().await;
    let bound = bed.lease + GRACE;
    loop {
        let counted: Result<(u64, u64, u64), _> = redis::pipe()
            .atomic()
            .cmd("LLEN")
            .arg(&keys.inbox)
            .cmd("HLEN")
            .arg(&keys.jobs)
            .cmd("ZCARD")
            .arg(&keys.dead)
            .query_async(&mut conn)
            .await;
        match counted {
            Ok((0, jobs, dead)) if jobs == dead && bed.receiver.open() == 0 => return Ok(()),
            _ if healed.elapsed() < bound => tokio::time::sleep(Duration::from_millis(20)).await,
            Ok((inbox, jobs, dead)) => {
                let running = bed.running().await;
                return Err(format!(
                    "I6: not drained within {bound:?}: {inbox} in the inbox, {jobs} jobs, {dead} of them dead, running: {running:?}"
                ));
            }
            Err(e) => return Err(format!("I6: Redis does not answer after the fault: {e}")),
        }
    }
}

async fn read_ends(bed: &Bed) -> Ends {
    let keys = bed.queue.keys();
    let mut conn = bed.site.redis().await;
    let (recent, dead, ids): (Vec<String>, Vec<String>, Vec<(String, f64)>) = redis::pipe()
        .cmd("LRANGE")
        .arg(&keys.recent)
        .arg(0)
        .arg(-1)
        .cmd("ZRANGE")
        .arg(&keys.dead)
        .arg(0)
        .arg(-1)
        .cmd("ZRANGE")
        .arg(&keys.ids)
        .arg(0)
        .arg(-1)
        .arg("WITHSCORES")
        .query_async(&mut conn)
        .await
        .unwrap();
    let mut done = BTreeMap::new();
    for record in &recent {
        let mut fields = record.split('\t');
        let id = fields.next().unwrap().to_owned();
        if fields.next() == Some("done") {
            *done.entry(id).or_default() += 1;
        }
    }
    // How a remembered job ended stands in the fraction of its score; 4 is for one that gave way.
    let skipped = ids
        .into_iter()
        .filter(|(_, score)| score.fract() * 8.0 == 4.0);
    Ends {
        done,
        dead: dead.into_iter().collect(),
        skipped: skipped.map(|(id, _)| id).collect(),
    }
}

/// I1: what was acknowledged has ended, as it should, and what is done has been done.
fn nothing_lost(
    oracle: &Oracle,
    ends: &Ends,
    terms: Terms,
    bed: &Bed,
    problems: &mut Vec<String>,
) -> usize {
    let mut lost = Vec::new();
    let runs = bed.receiver.runs();
    let finished: BTreeSet<&str> = runs
        .iter()
        .filter(|r| r.succeeded)
        .map(|r| r.id.as_str())
        .collect();
    let commands = commands(bed, 'e');
    for (id, expected) in oracle.acknowledged_ids() {
        let chain = (1..=expected.followers).map(|n| format!("{id}-t{n}"));
        for id in std::iter::once(id.to_owned()).chain(chain) {
            let is_done = ends.done.contains_key(&id);
            let over = is_done || ends.dead.contains(&id) || ends.skipped.contains(&id);
            if !over {
                lost.push(id);
                continue;
            }
            let well = match (expected.dies, expected.may_be_skipped) {
                (true, _) => ends.dead.contains(&id),
                (_, true) => is_done || ends.skipped.contains(&id),
                _ => is_done,
            };
            if !well {
                problems.push(format!("I1: {id} ended in another way than it should"));
            }
            let ran = finished.contains(id.as_str()) || commands.contains_key(&id);
            if is_done && !ran {
                problems.push(format!(
                    "I1: {id} is done, but no run of it came to its end"
                ));
            }
        }
    }
    if !lost.is_empty() && !terms.may_lose {
        problems.push(format!("I1: lost although acknowledged: {lost:?}"));
    }
    lost.len()
}

/// I2: nothing ended, ran or was set aside that nobody sent.
async fn nothing_unexpected(
    oracle: &Oracle,
    ends: &Ends,
    terms: Terms,
    bed: &Bed,
    problems: &mut Vec<String>,
) {
    let runs = bed.receiver.runs();
    let ended = ends.done.keys().chain(&ends.dead).chain(&ends.skipped);
    let seen = ended.chain(runs.iter().map(|run| &run.id));
    let known = |id: &str| {
        id.starts_with("cron-load-tick-")
            || terms.strangers.iter().any(|s| id.starts_with(s))
            || oracle.expected(id).is_some()
    };
    let strange: BTreeSet<&String> = seen.filter(|id| !known(id)).collect();
    if !strange.is_empty() {
        problems.push(format!("I2: nobody sent {strange:?}"));
    }
    let wrongly_dead = ends.dead.iter().filter(|id| {
        !terms.strangers.iter().any(|s| id.starts_with(s))
            && !oracle.expected(id).is_some_and(|e| e.dies)
    });
    let wrongly_dead: Vec<&String> = wrongly_dead.collect();
    if !wrongly_dead.is_empty() {
        problems.push(format!(
            "I2: dead, but nothing was wrong with {wrongly_dead:?}"
        ));
    }
    let found = bed.queue.counts().await.unwrap().quarantine;
    if found != terms.quarantined {
        problems.push(format!(
            "I2: {found} entries are in quarantine, not {}",
            terms.quarantined
        ));
    }
}

/// I3: each job is in exactly one structure, and nothing is kept for jobs that are gone.
async fn one_place(bed: &Bed, terms: Terms, problems: &mut Vec<String>) {
    let handlers = ["http", "exec", "db.purge"];
    let catalog = tidegate::catalog::load(&bed.site.path("jobs"), &handlers);
    let catalog = catalog.unwrap_or_default();
    let mut flows = KnownFlows::default();
    flows.add(&catalog);
    let tally = bed.queue.tally(&mut flows).await.unwrap();
    if let Some(tally) = tally.filter(|t| t.mismatch() != 0) {
        problems.push(format!("I3: the counts do not fit: {tally:?}"));
    }
    let look = Options {
        repair: false,
        pace: Duration::ZERO,
    };
    let findings = bed.queue.sweep(&catalog, look).await.unwrap();
    if !findings.is_empty() {
        problems.push(format!("I3: not whole: {findings:?}"));
    }
    let repairs = bed.events("audit_repair");
    if !repairs.is_empty() && !terms.meddled {
        problems.push(format!("I3: the auditor had to repair: {repairs:?}"));
    }
    let doubtful = bed.queue.doubtful_slots().await.unwrap();
    if !doubtful.is_empty() {
        problems.push(format!(
            "I3: slots are held by nobody who runs: {doubtful:?}"
        ));
    }
}

/// I4: a job is done at most once.
fn one_completion(ends: &Ends, problems: &mut Vec<String>) {
    let twice: Vec<_> = ends.done.iter().filter(|(_, times)| **times > 1).collect();
    if !twice.is_empty() {
        problems.push(format!("I4: completed more than once: {twice:?}"));
    }
}

/// I5: nothing ran again but what was recovered from a lost lease, or handed back.
async fn duplicates(bed: &Bed, terms: Terms, problems: &mut Vec<String>) -> u64 {
    let runs = bed.receiver.runs();
    let again = |times: &u32| u64::from(times.saturating_sub(1));
    let posted: u64 = starts(&runs).values().map(again).sum();
    let started: u64 = commands(bed, 'b').values().map(again).sum();
    let duplicated = posted + started;
    let stats = bed.queue.counts().await.unwrap().sizes.stats;
    let count = |name: &str| stats.get(name).copied().unwrap_or(0);
    let lost_leases = bed.events("lease_lost").len();
    if !terms.leases_expire && (count("recovered") > 0 || lost_leases > 0) {
        problems.push(format!(
            "I5: {} jobs were recovered and {lost_leases} leases lost, though nobody was dead",
            count("recovered")
        ));
    }
    let mut allowed = count("recovered") + count("poisoned");
    if terms.handed_back {
        allowed += count("handed_back");
    }
    if duplicated > allowed && !terms.may_lose {
        problems.push(format!(
            "I5: {duplicated} runs were repeated, {allowed} may be"
        ));
    }
    let overlapped = overlaps(&runs);
    if overlapped.len() as u64 > count("recovered") {
        problems.push(format!(
            "I5: ran at the same time despite a limit of one: {overlapped:?}"
        ));
    }
    duplicated
}

/// I7: the counters say what happened.
async fn counters(
    oracle: &Oracle,
    ends: &Ends,
    terms: Terms,
    bed: &Bed,
    problems: &mut Vec<String>,
) {
    if terms.meddled || terms.may_lose {
        return;
    }
    let stats = bed.queue.counts().await.unwrap().sizes.stats;
    let count = |name: &str| stats.get(name).copied().unwrap_or(0);
    let mut is = |name: &str, expected: u64, exactly: bool| {
        let found = count(name);
        if found != expected && (exactly || found < expected) {
            problems.push(format!("I7: the counter {name} is {found}, not {expected}"));
        }
    };
    is("completed", ends.done.len() as u64, true);
    let dead = ends.dead.len() as u64;
    is("dead", dead - count("poisoned").min(dead), true);
    is("admitted", ends.done.len() as u64 + dead, true);
    let failures = |id: &String| oracle.expected(id).map_or(0, |e| e.failures);
    let ended = ends.done.keys().chain(&ends.dead);
    let failed: u64 = ended.map(|id| u64::from(failures(id))).sum();
    is(
        "retried",
        failed - (dead - count("poisoned").min(dead)),
        !terms.attempts_fail,
    );
}

/// What the commands wrote down: how often each attempt of each job came to this point.
pub fn commands(bed: &Bed, point: char) -> BTreeMap<String, u32> {
    let text = std::fs::read_to_string(bed.site.path("receipts")).unwrap_or_default();
    let mut found: BTreeMap<String, u32> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        if words.next() == Some(&point.to_string()) {
            let (id, attempt) = (
                words.next().unwrap_or_default(),
                words.next().unwrap_or_default(),
            );
            let key = if point == 'e' {
                id.to_owned()
            } else {
                format!("{id} {attempt}")
            };
            *found.entry(key).or_default() += 1;
        }
    }
    found
}
