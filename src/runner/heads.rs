//! What a daemon knows of the flows of a queue: which hold jobs, and since when their heads wait.

use crate::job::Priority;
use crate::policy::aging::{Head, claim_order};
use crate::queue::Flow;
use crate::queue::look::Cursor;
use std::collections::BTreeMap;
use std::time::Duration;

/// Pages behind the first flows of a class that are read in vain at most between two polls.
const VAIN_PAGES: usize = 8;
/// Open flows that are enough to plan with: no more are looked for behind them.
const ENOUGH: usize = 32;
/// The most flows known of a class of which not all are.
const KNOWN_MAX: usize = 5_000;

/// Whether waiting lifts the jobs of a flow.
pub type Ages = bool;

/// The flows known to hold jobs that may be claimed, with their places, ms: the ready time of the head, or the place in
/// line. Of a class with thousands a look shows the first ones alone. If most of these are closed, those behind them are
/// read page by page, and the open ones among them kept.
#[derive(Debug, Default)]
pub struct Heads {
    known: BTreeMap<Flow, u64>,
    deep: [Option<Deep>; 5],
}

/// How far a class is known of which a look shows the first flows alone. Passes through it follow each other: each meets
/// every flow that was there when it began, so none is left out for ever, however many closed ones stand before it.
#[derive(Debug, Clone, Copy)]
struct Deep {
    /// Behind what the look showed.
    horizon: Cursor,
    /// Up to there this pass has come.
    cursor: Cursor,
    /// Redis time when it began, ms: what stands behind that came later.
    until_ms: u64,
    over: bool,
    /// Pages that may still be read in vain before the next poll.
    pages: usize,
}

impl Deep {
    fn begin(horizon: Cursor, now_ms: u64) -> Self {
        Self {
            horizon,
            cursor: horizon,
            until_ms: now_ms,
            over: false,
            pages: VAIN_PAGES,
        }
    }
}

impl Heads {
    /// A look at `now_ms`. What is known of flows behind those it shows stays known.
    pub fn replace(&mut self, heads: Vec<(Flow, u64)>, horizon: [Option<Cursor>; 5], now_ms: u64) {
        let is_behind = |flow: &Flow, place: u64| {
            horizon[flow.priority.index()].is_some_and(|horizon| place > horizon.from_ms)
        };
        self.known.retain(|flow, place| is_behind(flow, *place));
        self.known.extend(heads);
        for (deep, horizon) in self.deep.iter_mut().zip(horizon) {
            *deep = horizon.map(|horizon| match *deep {
                Some(deep) if deep.cursor.from_ms >= horizon.from_ms => Deep { horizon, ..deep },
                Some(deep) => Deep {
                    horizon,
                    cursor: horizon,
                    ..deep
                },
                None => Deep::begin(horizon, now_ms),
            });
        }
    }

    /// At each poll more pages may be read, and a pass that is over is followed by the next one.
    pub fn poll(&mut self, now_ms: u64) {
        for deep in self.deep.iter_mut().flatten() {
            if deep.over {
                *deep = Deep::begin(deep.horizon, now_ms);
            }
            deep.pages = VAIN_PAGES;
        }
    }

    /// Where more flows of a class are to be read, if too few are known that `open` lets through.
    #[must_use]
    pub fn next_page(
        &self,
        class: Priority,
        mut open: impl FnMut(&Flow) -> bool,
    ) -> Option<Cursor> {
        let deep = self.deep[class.index()].filter(|deep| !deep.over && deep.pages > 0)?;
        let before = |(flow, place): &(&Flow, &u64)| {
            flow.priority == class && **place <= deep.cursor.from_ms
        };
        let known = self.known.iter().filter(before);
        let open = known.filter(|(flow, _)| open(flow)).take(ENOUGH).count();
        (open < ENOUGH).then_some(deep.cursor)
    }

    /// A page was read, and the next one begins at `next`. Behind what looks show, only those stay known that `open` lets
    /// through.
    pub fn read_on(
        &mut self,
        class: Priority,
        page: Vec<(Flow, u64)>,
        next: Option<Cursor>,
        mut open: impl FnMut(&Flow) -> bool,
    ) {
        let Some(deep) = &mut self.deep[class.index()] else {
            return;
        };
        match next.filter(|next| next.from_ms <= deep.until_ms) {
            Some(next) => deep.cursor = next,
            None => deep.over = true,
        }
        let shown = deep.horizon.from_ms;
        self.known
            .retain(|flow, place| flow.priority != class || *place <= shown || open(flow));
        let known = self.known.len();
        let open = page.into_iter().filter(|(flow, _)| open(flow));
        self.known.extend(open);
        if self.known.len() < known + ENOUGH {
            deep.pages = deep.pages.saturating_sub(1);
        }
        self.forget_last(class);
    }

    /// Those of a class that are last in line are forgotten where there are too many: they are met again.
    fn forget_last(&mut self, class: Priority) {
        let of_class = |(flow, _): &(&Flow, &u64)| flow.priority == class;
        let mut places: Vec<u64> = self
            .known
            .iter()
            .filter(of_class)
            .map(|(_, place)| *place)
            .collect();
        if places.len() > KNOWN_MAX {
            let (_, last, _) = places.select_nth_unstable(KNOWN_MAX);
            let last = *last;
            self.known
                .retain(|flow, place| flow.priority != class || *place < last);
        }
    }

    /// Whether there is a class of which not every flow is known.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.deep.iter().any(Option::is_some)
    }

    /// Jobs came to a flow; its place stays what it was, if it had one.
    pub fn arrived(&mut self, flow: &Flow, place_ms: u64) {
        let is_cut = self.deep[flow.priority.index()].is_some();
        let room = !is_cut || self.known.len() < KNOWN_MAX;
        if room && !self.known.contains_key(flow) {
            self.known.insert(flow.clone(), place_ms);
        }
    }

    /// A claim showed the place of a flow, or that it has none now.
    pub fn seen(&mut self, flow: &Flow, place: Option<u64>) {
        match place {
            Some(place_ms) => self.known.insert(flow.clone(), place_ms),
            None => self.known.remove(flow),
        };
    }

    /// Whether no flow is known to hold a job.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty() && !self.is_cut()
    }

    /// The first `n` of the flows that `open` lets through, in the order in which they are to be claimed. `open` says of
    /// those whether waiting lifts them.
    #[must_use]
    pub fn first(
        &self,
        n: usize,
        now_ms: u64,
        aging_after: Duration,
        mut open: impl FnMut(&Flow) -> Option<Ages>,
    ) -> Vec<Flow> {
        let known: Vec<(&Flow, u64, Ages)> = self
            .known
            .iter()
            .filter_map(|(flow, ready)| Some((flow, *ready, open(flow)?)))
            .collect();
        let head = |(index, (flow, ready, ages)): (usize, &(&Flow, u64, Ages))| Head {
            flow: index,
            priority: flow.priority,
            ready_ms: *ready,
            ages: *ages,
        };
        let mut heads: Vec<Head> = known.iter().enumerate().map(head).collect();
        claim_order(&mut heads, now_ms, aging_after, n)
            .map(|index| known[index].0.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::queue::look::{LOOK_FLOWS, page_of};

    /// The flows of a class as Redis has them.
    struct Line(BTreeMap<Flow, u64>);

    fn flow(kind: &str, n: u64) -> Flow {
        Flow::of(Priority::Normal, &format!("{kind}@{n:06}"))
    }

    fn is_open(flow: &Flow) -> bool {
        &*flow.kind == "open"
    }

    impl Line {
        /// `closed` flows, one more each millisecond.
        fn closed(closed: u64) -> Self {
            Self((0..closed).map(|n| (flow("closed", n), n)).collect())
        }

        fn in_order(&self) -> Vec<(Flow, u64)> {
            let mut line: Vec<(Flow, u64)> = self.0.iter().map(|(f, p)| (f.clone(), *p)).collect();
            line.sort_by_key(|(flow, place)| (*place, flow.clone()));
            line
        }

        /// A poll, and all the reading it allows; returns the pages read.
        fn poll(&self, heads: &mut Heads, now_ms: u64) -> usize {
            let line = self.in_order();
            let (first, next) = page_of(&line, None);
            let mut horizon = [None; 5];
            horizon[Priority::Normal.index()] = next;
            heads.replace(first, horizon, now_ms);
            heads.poll(now_ms);
            self.read(heads)
        }

        fn read(&self, heads: &mut Heads) -> usize {
            let line = self.in_order();
            let mut pages = 0;
            while let Some(from) = heads.next_page(Priority::Normal, is_open) {
                let (page, next) = page_of(&line, Some(from));
                heads.read_on(Priority::Normal, page, next, is_open);
                pages += 1;
            }
            pages
        }
    }

    fn first(heads: &Heads, now_ms: u64) -> Vec<Flow> {
        let hour = Duration::from_secs(3600);
        heads.first(32, now_ms, hour, |flow| is_open(flow).then_some(true))
    }

    #[test]
    fn who_stands_behind_any_number_of_closed_flows_is_met_a_few_pages_at_a_time() {
        let mut line = Line::closed(100_000);
        line.0.insert(flow("open", 1), 99_000);
        let mut heads = Heads::default();
        let mut polls = 0;
        while first(&heads, 100_000).is_empty() {
            let pages = line.poll(&mut heads, 100_000);
            assert!(pages <= VAIN_PAGES, "{pages}");
            assert_eq!(line.read(&mut heads), 0, "no more until the next poll");
            polls += 1;
            assert!(polls < 10);
        }
        assert!(heads.known.len() <= KNOWN_MAX);
        // Whoever of the closed ones comes meanwhile does not take its place.
        for n in 200_000..210_000 {
            heads.arrived(&flow("closed", n), n);
        }
        // It stays known through all looks, and is at once known to have moved on.
        line.poll(&mut heads, 100_001);
        heads.seen(&flow("open", 1), Some(100_001));
        line.0.insert(flow("open", 1), 100_001);
        line.poll(&mut heads, 100_002);
        assert_eq!(first(&heads, 100_002), [flow("open", 1)]);
    }

    /// Tenants that always have jobs come again and again behind each other; one that was parked is put where it stood.
    #[test]
    fn who_comes_back_to_an_old_place_is_met_though_others_never_end() {
        let mut line = Line::closed(10_000);
        line.0
            .extend((0..9_000).map(|n| (flow("open", n), 10_000 + n)));
        let late = flow("open", 999_999);
        let mut heads = Heads::default();
        let mut now_ms = 20_000;
        for poll in 0.. {
            assert!(poll < 200, "it starves");
            if poll == 20 {
                line.0.insert(late.clone(), 5_000);
            }
            line.poll(&mut heads, now_ms);
            // Some hundred claims, each flow's turn ends behind all others.
            for _ in 0..30 {
                line.read(&mut heads);
                let turn = first(&heads, now_ms);
                assert!(!turn.is_empty());
                if turn.contains(&late) {
                    return;
                }
                for flow in turn {
                    now_ms += 1;
                    line.0.insert(flow.clone(), now_ms);
                    heads.seen(&flow, Some(now_ms));
                }
            }
        }
    }

    #[test]
    fn turns_go_round_where_nothing_is_closed() {
        let mut line = Line((0..7_000).map(|n| (flow("open", n), n)).collect());
        let mut heads = Heads::default();
        let mut turns: BTreeMap<Flow, usize> = BTreeMap::new();
        let mut now_ms = 7_000;
        line.poll(&mut heads, now_ms);
        for claim in 0..7_000 / 32 {
            if claim % 50 == 0 {
                line.poll(&mut heads, now_ms);
            }
            line.read(&mut heads);
            for flow in first(&heads, now_ms) {
                now_ms += 1;
                line.0.insert(flow.clone(), now_ms);
                heads.seen(&flow, Some(now_ms));
                *turns.entry(flow).or_default() += 1;
            }
        }
        assert!(turns.values().all(|turns| *turns == 1), "nobody twice");
        assert_eq!(turns.len(), 7_000 / 32 * 32);
    }

    #[test]
    fn what_a_look_shows_whole_is_all_there_is() {
        let line = Line::closed(LOOK_FLOWS as u64 - 1);
        let mut heads = Heads::default();
        assert_eq!(line.poll(&mut heads, 9_999), 0);
        heads.arrived(&flow("open", 1), 9_999);
        assert_eq!(first(&heads, 9_999), [flow("open", 1)]);
        assert_eq!(line.poll(&mut heads, 10_000), 0);
        assert_eq!(first(&heads, 10_000), []);
    }
}
