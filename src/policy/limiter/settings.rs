//! The constants of a limiter, each with its source, all of them configurable.

use std::time::Duration;

use super::anchor::MAX_RAISE;

/// What a limiter goes by. [`LimiterConfig::checked`] brings any values into their ranges.
///
/// Sources: *notes* are our notes on the gate and their simulated plant; *sim* is `make sim`, whose
/// tuning plants the value was chosen on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LimiterConfig {
    /// The limit never falls below this; at least 1, so that `critical` work always has a slot.
    pub min: usize,
    /// The limit never rises above this: the slots there are. Also the limit of operations that
    /// are too slow to be judged by their latency.
    pub max: usize,
    /// The limit of an operation that nothing is known of. Low enough to measure an unhurried
    /// latency with, high enough that slow jobs say something soon. (sim: 8)
    pub initial: usize,
    /// Jobs are counted in buckets of this length, or half of an undisturbed job if that is
    /// longer; one decision per bucket at most. 100 ms to 15 s. (notes: 1 s)
    pub bucket: Duration,
    /// An anchor is taken from this many jobs … (notes: 50)
    pub anchor_jobs: u32,
    /// … or from this many, if more do not come within [`LimiterConfig::patience`]; also the
    /// fewest jobs a decision is made on. (notes: 10)
    pub few_jobs: u32,
    /// The longest time given to measure an anchor. (notes: 30 s)
    pub patience: Duration,
    /// How often the anchor is measured again by running at a fraction of the limit. Our notes
    /// took 60 s; as doubt brings a measurement about at once, five minutes do (sim), and cost a
    /// fifth of the throughput lost to them.
    pub anchor_every: Duration,
    /// The limit is divided by this while the anchor is measured. (notes: 4)
    pub drain_divisor: usize,
    /// The largest factor by which one measurement may raise the anchor, so that a dependency that
    /// is slow because of others does not soon count as healthy. 1 to 3. (notes: 1.5)
    pub max_raise: f64,
    /// The anchor is raised at most once in this time. (notes: 60 s)
    pub raise_every: Duration,
    /// How many standard errors evidence must be clear by. Consecutive jobs wait in the same
    /// queue, so their waits are no independent witnesses: hence more than the usual two. (sim: 3)
    pub sure: f64,
    /// A queue within the dependency shorter than this many times √load, or than half a job, is a
    /// sign of room. (sim: 0.1; the root is the natural noise of a queue, Halfin and Whitt 1981)
    pub headroom: f64,
    /// A queue longer than this many times √load, or than 1.75 jobs, is congestion:
    /// one job too many always has to be borne, or a limit would never rest. (sim: 0.3)
    pub tolerance: f64,
    /// A limit grows only if jobs used at least this share of it. (notes: 0.9, of the peak; this
    /// is the share of the mean, which falls short of the peak while jobs are claimed)
    pub used: f64,
    /// One decision divides the limit by at most this much. (sim: 4)
    pub max_cut: f64,
    /// Undisturbed jobs that usually take longer than this are not limited by latency: what it
    /// says would come too late. The signals of the resource limit them. (notes: 30 s)
    pub slow: Duration,
}

impl Default for LimiterConfig {
    fn default() -> Self {
        Self {
            min: 1,
            max: 200,
            initial: 8,
            bucket: Duration::from_secs(1),
            anchor_jobs: 50,
            few_jobs: 10,
            patience: Duration::from_secs(30),
            anchor_every: Duration::from_secs(300),
            drain_divisor: 4,
            max_raise: 1.5,
            raise_every: Duration::from_secs(60),
            sure: 3.0,
            headroom: 0.1,
            tolerance: 0.3,
            used: 0.75,
            max_cut: 4.0,
            slow: Duration::from_secs(30),
        }
    }
}

impl LimiterConfig {
    /// The same with every value in its range, so that no configuration can stop work for good or
    /// make the arithmetic meaningless.
    pub fn checked(self) -> Self {
        let min = self.min.max(1);
        let max = self.max.max(min);
        let within = |value: f64, low: f64, high: f64, default: f64| match value.is_finite() {
            true => value.clamp(low, high),
            false => default,
        };
        let usual = Self::default();
        Self {
            min,
            max,
            initial: self.initial.clamp(min, max),
            bucket: self
                .bucket
                .clamp(Duration::from_millis(100), Duration::from_secs(15)),
            anchor_jobs: self.anchor_jobs.max(2),
            few_jobs: self.few_jobs.max(2),
            patience: self.patience.max(Duration::from_secs(1)),
            anchor_every: self.anchor_every.max(Duration::from_secs(10)),
            drain_divisor: self.drain_divisor.max(1),
            max_raise: within(self.max_raise, 1.0, MAX_RAISE, usual.max_raise),
            raise_every: self.raise_every,
            sure: within(self.sure, 1.0, 10.0, usual.sure),
            headroom: within(self.headroom, 0.0, 1.0, usual.headroom),
            tolerance: within(self.tolerance, 0.0, 10.0, usual.tolerance),
            used: within(self.used, 0.0, 1.0, usual.used),
            max_cut: within(self.max_cut, 1.1, 100.0, usual.max_cut),
            slow: self.slow.max(Duration::from_secs(1)),
        }
    }
}
