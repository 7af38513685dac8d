//! How much slower than usual things are that are done again and again, like the statements of a database.
//!
//! Owns what is usual: learned from the first times, and let drift only so far, so that a system that gets slower and
//! slower is not taken for one that always was. It must not know what is done. Times are monotonic milliseconds. The
//! limit of the drift is that of our notes on the gate, the rest is our choice.

use std::collections::{BTreeMap, VecDeque};

/// So many first times make what is usual …
const LEARNED: u32 = 20;
/// … of no less than this long: the first seconds of a daemon are like no others.
const LEARN_MS: u64 = 60_000;
/// How fast what is usual follows what is seen, per time.
const FOLLOW: f64 = 0.01;
/// What is usual may drift upwards to so much of what was learned.
const DRIFT: f64 = 1.5;
/// Different things that are told apart; further ones are not watched.
const MAX_SHAPES: usize = 256;
/// Times that are judged together: those of so long,
const WINDOW_MS: u64 = 60_000;
/// at most so many,
const MAX_RECENT: usize = 256;
/// and no fewer.
const MIN_RECENT: usize = 10;

/// What is usual for one thing.
#[derive(Debug, Clone, Copy)]
struct Usual {
    since_ms: u64,
    seen: u32,
    learned: f64,
    cost: f64,
}

impl Usual {
    /// The ratio of a cost to what is usual; none while that is being learned.
    fn judge(&mut self, now_ms: u64, cost: f64) -> Option<f64> {
        if self.seen < LEARNED || now_ms.saturating_sub(self.since_ms) < LEARN_MS {
            self.seen = self.seen.saturating_add(1);
            self.learned += (cost - self.learned) / f64::from(self.seen);
            self.cost = self.learned;
            return None;
        }
        let ratio = cost / self.cost;
        self.cost += FOLLOW * (cost - self.cost);
        // Faster than it was learned is the new measure: then it was learned on a bad day.
        self.learned = self.learned.min(self.cost);
        self.cost = self.cost.min(DRIFT * self.learned);
        Some(ratio)
    }
}

/// What was done lately, against what is usual for each thing.
#[derive(Debug, Clone, Default)]
pub struct Slowdown {
    usual: BTreeMap<u64, Usual>,
    recent: VecDeque<(u64, f64)>,
}

impl Slowdown {
    /// Takes in that the thing `shape` cost so much, in any unit, more than nothing.
    pub fn note(&mut self, now_ms: u64, shape: u64, cost: f64) {
        if !(cost.is_finite() && cost > 0.0) {
            return;
        }
        let known = self.usual.contains_key(&shape);
        if !known && self.usual.len() >= MAX_SHAPES {
            return;
        }
        let usual = self.usual.entry(shape).or_insert(Usual {
            since_ms: now_ms,
            seen: 0,
            learned: 0.0,
            cost: 0.0,
        });
        if let Some(ratio) = usual.judge(now_ms, cost) {
            self.recent.push_back((now_ms, ratio));
            let excess = self.recent.len().saturating_sub(MAX_RECENT);
            self.recent.drain(..excess);
        }
    }

    /// What 95 of 100 times of the last minute stayed below, in times of what is usual; none if too few are known.
    pub fn p95(&mut self, now_ms: u64) -> Option<f64> {
        let old = |at: u64| now_ms.saturating_sub(at) > WINDOW_MS;
        while self.recent.front().is_some_and(|(at, _)| old(*at)) {
            self.recent.pop_front();
        }
        if self.recent.len() < MIN_RECENT {
            return None;
        }
        let mut ratios: Vec<f64> = self.recent.iter().map(|(_, ratio)| *ratio).collect();
        ratios.sort_by(f64::total_cmp);
        ratios.get((ratios.len() * 95).div_ceil(100) - 1).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(costs: impl IntoIterator<Item = (u64, f64)>) -> (Slowdown, u64) {
        let mut slowdown = Slowdown::default();
        let mut now_ms = 0;
        for (n, (shape, cost)) in costs.into_iter().enumerate() {
            now_ms += if n == LEARNED as usize { LEARN_MS } else { 100 };
            slowdown.note(now_ms, shape, cost);
        }
        (slowdown, now_ms)
    }

    #[test]
    fn each_thing_is_judged_by_what_is_usual_for_it() {
        let usual = (0..60).flat_map(|_| [(1, 2.0), (2, 200.0)]);
        let (mut slowdown, now) = noted(usual);
        assert_eq!(slowdown.p95(now), Some(1.0));
        for n in 1..=100 {
            slowdown.note(now + n, 1, 6.0);
        }
        assert!(
            slowdown.p95(now + 100).is_some_and(|p95| p95 > 1.9),
            "{slowdown:?}"
        );
    }

    #[test]
    fn too_few_or_too_old_tell_nothing() {
        let (mut slowdown, now) = noted((0..LEARNED + 9).map(|_| (1, 2.0)));
        assert_eq!(slowdown.p95(now), None);
        slowdown.note(now, 1, 2.0);
        assert_eq!(slowdown.p95(now), Some(1.0));
        assert_eq!(slowdown.p95(now + WINDOW_MS + 1), None);
        for odd in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            slowdown.note(now, 1, odd);
        }
        assert_eq!(slowdown.recent.len(), 0);
    }

    #[test]
    fn a_slow_decay_is_not_taken_for_usual_and_a_bad_start_is_forgotten() {
        let decay = (0..2_000).map(|n| (1, 2.0 + f64::from(n) / 200.0));
        let (mut slowdown, now) = noted(decay);
        assert!(slowdown.p95(now).is_some_and(|p95| p95 > 3.5));
        let recovery = (0..1_000).map(|n| (1, if n < 30 { 50.0 } else { 2.0 }));
        let (mut slowdown, now) = noted(recovery.chain((0..500).map(|_| (1, 6.0))));
        assert!(slowdown.p95(now).is_some_and(|p95| p95 > 1.9));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let many = (0..10_000_u64).map(|n| (n % 1_000, 1.0));
        let (mut slowdown, now) = noted(many.chain((0..1_000).map(|_| (1, 1.0))));
        assert_eq!(slowdown.usual.len(), MAX_SHAPES);
        assert!(slowdown.recent.len() <= MAX_RECENT);
        assert_eq!(slowdown.p95(now), Some(1.0));
    }
}
