//! Ageing and claim order: which of the waiting flows is served next.
//!
//! Strictly by priority class, first come first served within a class, but a job rises one class
//! for every `aging_after` it has waited, up to `high`, so that none of those classes starves. `critical` alone is never
//! shared: a backlog that has grown old would else stand before every urgent job that comes. While what a job touches is overloaded
//! its waiting lifts it no more: there is not enough for all, and the urgent ones come first. It must not know what a
//! flow holds or where it is stored: it sees the heads only.

use std::time::Duration;

use crate::job::Priority;

/// The class a job counts as after waiting: one up per whole `aging_after` since it became ready,
/// at most `high`.
///
/// `ready_ms` and `now_ms` are unix milliseconds of one clock; a job ready in the future has not
/// waited. An `aging_after` below a millisecond turns ageing off.
pub fn effective(
    priority: Priority,
    ready_ms: u64,
    now_ms: u64,
    aging_after: Duration,
) -> Priority {
    let step_ms = aging_after.as_millis();
    if step_ms == 0 {
        return priority;
    }
    let waited_ms = u128::from(now_ms.saturating_sub(ready_ms));
    let steps_up = usize::try_from(waited_ms / step_ms).unwrap_or(usize::MAX);
    let highest = priority.min(Priority::High);
    Priority::ALL[priority.index().saturating_sub(steps_up)].max(highest)
}

/// The head of one flow, as the claim planner sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The caller's index of the flow; what the plan consists of.
    pub flow: usize,
    /// The class its jobs were enqueued with.
    pub priority: Priority,
    /// When the job at its head became ready, unix milliseconds.
    pub ready_ms: u64,
    /// Whether waiting lifts it.
    pub ages: bool,
}

/// The claim order: the first `n` flows by effective class, then by ready time, then by flow index
/// (so that the order is the same on every run).
///
/// The heads are reordered in place and the answer reads from their front: nothing is allocated.
/// With fewer than `n` heads all of them are returned. Cost O(heads + n log n).
pub fn claim_order(
    heads: &mut [Head],
    now_ms: u64,
    aging_after: Duration,
    n: usize,
) -> impl ExactSizeIterator<Item = usize> {
    let rank = |head: &Head| {
        let aging_after = if head.ages {
            aging_after
        } else {
            Duration::ZERO
        };
        let class = effective(head.priority, head.ready_ms, now_ms, aging_after);
        (class, head.ready_ms, head.flow)
    };
    let n = n.min(heads.len());
    // Only the first n need an order: part them from the rest before sorting them.
    if 0 < n && n < heads.len() {
        heads.select_nth_unstable_by_key(n - 1, rank);
    }
    let first = &mut heads[..n];
    first.sort_unstable_by_key(rank);
    first.iter().map(|head| head.flow)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use Priority::{Bulk, Critical, High, Low, Normal};

    const MINUTE: Duration = Duration::from_secs(60);

    fn head(flow: usize, priority: Priority, ready_ms: u64) -> Head {
        Head {
            flow,
            priority,
            ready_ms,
            ages: true,
        }
    }

    #[test]
    fn a_waiting_job_rises_one_class_per_step() {
        let ready = 1_000_000;
        let expected = [
            (0, Bulk),
            (59_999, Bulk),
            (60_000, Low),
            (120_000, Normal),
            (180_000, High),
            (240_000, High),
        ];
        for (waited, class) in expected {
            assert_eq!(effective(Bulk, ready, ready + waited, MINUTE), class);
        }
        assert_eq!(effective(Bulk, ready, u64::MAX, MINUTE), High);
        assert_eq!(effective(Critical, ready, u64::MAX, MINUTE), Critical);
        assert_eq!(effective(High, ready, ready - 1, MINUTE), High);
        assert_eq!(effective(Low, 0, u64::MAX, Duration::ZERO), Low);
    }

    #[test]
    fn class_first_then_ready_time_then_aged() {
        let now = 1_000_000;
        let mut heads = [
            head(0, Bulk, now - 10),
            head(1, Normal, now - 5),
            head(2, Normal, now - 9),
            head(3, Critical, now - 1),
            head(4, Low, now - 60_000),
        ];
        // Flow 4 has aged from low to normal, and is the oldest there.
        let order: Vec<_> = claim_order(&mut heads, now, MINUTE, 9).collect();
        assert_eq!(order, [3, 4, 2, 1, 0]);
        let order: Vec<_> = claim_order(&mut heads, now, MINUTE, 2).collect();
        assert_eq!(order, [3, 4]);
        heads.iter_mut().for_each(|head| head.ages = head.flow != 4);
        let order: Vec<_> = claim_order(&mut heads, now, MINUTE, 9).collect();
        assert_eq!(
            order,
            [3, 2, 1, 4, 0],
            "what does not age stays in its class"
        );
        assert_eq!(claim_order(&mut heads, now, MINUTE, 0).len(), 0);
        assert_eq!(claim_order(&mut [], now, MINUTE, 3).len(), 0);
    }

    fn heads() -> impl Strategy<Value = Vec<Head>> {
        let head = (0..5_usize, 0..300_000_u64);
        prop::collection::vec(head, 0..60).prop_map(|list| {
            let number = |(flow, (class, ready_ms))| head_of(flow, class, ready_ms);
            list.into_iter().enumerate().map(number).collect()
        })
    }

    fn head_of(flow: usize, class: usize, ready_ms: u64) -> Head {
        head(flow, Priority::ALL[class], ready_ms)
    }

    proptest! {
        #[test]
        fn the_plan_is_a_prefix_of_the_full_order(mut heads in heads(), n in 0..70_usize) {
            let now = 300_000;
            let mut whole = heads.clone();
            whole.sort_by_key(|h| (effective(h.priority, h.ready_ms, now, MINUTE), h.ready_ms, h.flow));
            let whole: Vec<_> = whole.iter().map(|h| h.flow).take(n).collect();
            let plan: Vec<_> = claim_order(&mut heads, now, MINUTE, n).collect();
            prop_assert_eq!(plan, whole);
        }

        #[test]
        fn waiting_never_lowers_a_class(class in 0..5_usize, waited in 0..1_000_000_u64, more in 0..1_000_000_u64) {
            let before = effective(Priority::ALL[class], 0, waited, MINUTE);
            let after = effective(Priority::ALL[class], 0, waited + more, MINUTE);
            prop_assert!(after <= before && before <= Priority::ALL[class]);
        }
    }
}
