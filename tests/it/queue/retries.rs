//! Due retries that are told to wait: they are due later, and nothing else happens to them.

use super::rig::{ME, Rig, envelope, failures, number_of, settlement};
use std::collections::BTreeSet;
use std::time::Duration;
use tidegate::queue::promote::Holds;
use tidegate::queue::settle::Ending;
use tidegate::queue::{Flow, Queue};

/// Lets so many retries of one kind go, and counts what it was asked.
#[derive(Default)]
struct Budget {
    left: usize,
    asked: usize,
    had_gone: usize,
}

impl Holds for Budget {
    fn watches(&self, kind: &str) -> bool {
        kind == "app.a"
    }

    fn wait(&mut self, flow: &Flow) -> Option<Duration> {
        assert_eq!(&*flow.kind, "app.a");
        self.asked += 1;
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                None
            }
            None => Some(Duration::from_secs(30)),
        }
    }

    fn had_gone(&mut self, _: &Flow) {
        self.had_gone += 1;
    }
}

async fn promote(rig: &Rig, budget: &mut Budget) -> u64 {
    let look = rig.queue.look().await.unwrap();
    let queue: &Queue = &rig.queue;
    let now_ms = look.now_ms;
    queue
        .promote_but(ME, &look.due, &rig.catalog, now_ms, budget)
        .await
        .unwrap();
    now_ms
}

/// Jobs that failed once and are due again, and some that come for the first time, of two kinds.
async fn failed_and_new(rig: &Rig) {
    let entries: Vec<String> = (0..20)
        .map(|n| {
            envelope(
                if n < 10 { "app.a" } else { "app.b" },
                n,
                r#","delay_ms":1"#,
            )
        })
        .collect();
    let retried: Vec<String> = (0..20)
        .map(|n| envelope(if n < 10 { "app.a" } else { "app.b" }, 100 + n, ""))
        .collect();
    rig.put(&retried).await;
    let jobs = rig.claim(100).await;
    let again = |job| {
        let ending = Ending::Later {
            delay: Duration::ZERO,
            history: failures(1),
            counter: "retried",
        };
        settlement(job, ending)
    };
    rig.settle(&jobs.iter().map(again).collect::<Vec<_>>())
        .await;
    rig.put(&entries).await;
    while rig.queue.look().await.unwrap().due.len() < 40 {}
}

#[tokio::test]
async fn retries_over_the_budget_wait_and_hold_up_nobody() {
    let rig = Rig::new().await;
    failed_and_new(&rig).await;
    let mut budget = Budget {
        left: 3,
        ..Budget::default()
    };
    let now_ms = promote(&rig, &mut budget).await;
    assert_eq!((budget.asked, budget.had_gone), (10, 0));
    let look = rig.queue.look().await.unwrap();
    assert!(look.due.is_empty(), "those that wait are out of the way");
    assert_eq!(look.next_due_ms, Some(now_ms + 30_000));
    let counts = rig.queue.counts().await.unwrap();
    assert_eq!((counts.delayed, counts.lanes[2]), (7, 33));
    let mut taken: Vec<u64> = rig.claim(100).await.iter().map(number_of).collect();
    taken.sort_unstable();
    let expected: Vec<u64> = (0..20).chain(100..103).chain(110..120).collect();
    let (taken, expected): (BTreeSet<_>, BTreeSet<_>) =
        (taken.into_iter().collect(), expected.into_iter().collect());
    assert_eq!(taken.len(), 33);
    // Which three of the ten went is told by when they were due, to the millisecond.
    let others = |set: &BTreeSet<u64>| set.iter().filter(|n| !(100..110).contains(*n)).count();
    assert_eq!(others(&taken), others(&expected));
    // What waits is as it was, but for its time.
    let waits: Vec<String> = rig
        .redis("ZRANGE", &[&rig.queue.keys().delayed, "0", "-1"])
        .await;
    for id in waits {
        let found = rig.queue.find(&id).await.unwrap().unwrap();
        assert_eq!(
            (found.state.as_str(), found.history.attempts),
            ("delayed", 1)
        );
        assert_eq!(found.history.events.len(), 1, "no event for each wait");
        assert_eq!(found.at_ms, Some(now_ms + 30_000));
    }
}

#[tokio::test]
async fn of_two_that_promote_the_same_retries_one_uses_its_budget() {
    let rig = Rig::new().await;
    failed_and_new(&rig).await;
    let look = rig.queue.look().await.unwrap();
    let [mut one, mut other] = [8, 8].map(|left| Budget {
        left,
        ..Budget::default()
    });
    for budget in [&mut one, &mut other] {
        rig.queue
            .promote_but(ME, &look.due, &rig.catalog, look.now_ms, budget)
            .await
            .unwrap();
    }
    assert_eq!((one.had_gone, other.had_gone), (0, 8));
    let counts = rig.queue.counts().await.unwrap();
    assert_eq!((counts.delayed, counts.lanes[2]), (2, 38));
}
