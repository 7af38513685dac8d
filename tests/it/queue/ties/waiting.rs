//! What a waiting job takes over from later ones: replace, merge, debounce.

use super::{args_of, finished, rig, unique};
use crate::queue::rig::{Rig, envelope, number_in, settlement};
use serde_json::json;
use tidegate::job::{History, What};
use tidegate::queue::claim::RawDelivery;
use tidegate::queue::operate::Cancelled;

const REPLACE: &str = r#""key":"k","on_conflict":"replace""#;
const MERGE: &str = r#""key":"k","until":"claimed","on_conflict":"merge""#;

async fn only(rig: &Rig) -> RawDelivery {
    let mut jobs = rig.claim(9).await;
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    jobs.remove(0)
}

#[tokio::test]
async fn the_waiting_one_takes_the_place_of_the_new_one_and_keeps_its_id() {
    let rig = rig().await;
    rig.put(&[
        unique(1, REPLACE, r#","id":"a","result_ttl_ms":60000"#),
        envelope("app.a", 9, ""),
    ])
    .await;
    // From normal to high, then to later, then back to now; each in a batch of its own, or together.
    rig.put(&[unique(2, REPLACE, r#","id":"b","priority":"high""#)])
        .await;
    assert_eq!(rig.state("a").await.as_deref(), Some("pending"));
    rig.put(&[unique(3, REPLACE, r#","delay_ms":3600000"#)])
        .await;
    assert_eq!(rig.state("a").await.as_deref(), Some("delayed"));
    assert_eq!(rig.take(9).await, [9], "what it left behind is dropped");
    rig.put(&[
        unique(4, REPLACE, r#","priority":"low""#),
        unique(5, REPLACE, r#","priority":"bulk""#),
    ])
    .await;
    let job = only(&rig).await;
    assert_eq!((job.id.as_str(), job.home.priority.as_str()), ("a", "bulk"));
    assert_eq!(args_of(&rig, &job), json!({"n": 5, "to": "all"}));
    rig.push(&[unique(6, REPLACE, "")]).await;
    assert_eq!(rig.admit().await.1, [0], "one that runs is not replaced");
    assert_eq!(rig.stat("unique_replaced").await, 4);
    assert_eq!(rig.stat("unique_skipped").await, 1);
    let settled = rig
        .settle(&[settlement(&job, finished(&job, "done"))])
        .await;
    assert_eq!(settled.stale, Vec::<usize>::new());
    let told: Vec<String> = rig
        .redis("LRANGE", &[&rig.queue.keys().result("a"), "0", "-1"])
        .await;
    assert_eq!(told.len(), 1, "whoever waits for the first is told still");
    assert!(rig.left_over().await.is_empty());
    let tombs: u64 = rig.redis("EXISTS", &[&rig.queue.keys().tomb]).await;
    assert_eq!(tombs, 0, "every tombstone found its entry");
}

#[tokio::test]
async fn the_waiting_one_takes_in_the_arrays_of_later_ones() {
    let rig = rig().await;
    let tags = |n: u64, tags: &str| {
        format!(r#"{{"kind":"app.a","args":{{"n":{n},"tags":{tags}}},"unique":{{{MERGE}}}}}"#)
    };
    rig.put(&[tags(1, r#"["x","y"]"#), tags(2, r#"["y","z"]"#)])
        .await;
    rig.put(&[tags(3, r#"["w"]"#)]).await;
    let job = only(&rig).await;
    let united = json!({"n": 3, "tags": ["x", "y", "z", "w"], "to": "all"});
    assert_eq!(args_of(&rig, &job), united);
    // A delivery that came to nothing loses none of it, and what comes now is the next job's.
    rig.put(&[tags(4, r#"["v"]"#)]).await;
    let next = only(&rig).await;
    let home = crate::queue::rig::flow(tidegate::job::Priority::Normal, "app.a");
    let back = crate::queue::rig::handed_back(home);
    assert_eq!(
        rig.settle(&[settlement(&job, back)]).await.stale,
        Vec::<usize>::new()
    );
    let again = only(&rig).await;
    assert_eq!((again.id.clone(), args_of(&rig, &again)), (job.id, united));
    assert_eq!(
        args_of(&rig, &next),
        json!({"n": 4, "tags": ["v"], "to": "all"})
    );
    rig.done(&again).await;
    rig.done(&next).await;
    assert_eq!(rig.stat("unique_merged").await, 2);
    assert!(rig.left_over().await.is_empty());
}

#[tokio::test]
async fn what_follows_an_entry_is_not_lost_when_it_gives_way() {
    let rig = rig().await;
    let with = |n: u64, rule: &str, then: &str| {
        let then = match then {
            "" => String::new(),
            kind => format!(r#","then":{{"kind":"{kind}"}}"#),
        };
        unique(n, rule, &then)
    };
    rig.push(&[
        with(1, MERGE, "app.b"),
        with(2, MERGE, "app.b"),
        with(3, MERGE, ""),
        // Something else follows it: a job of its own, and the one to merge with from then on.
        with(4, MERGE, "app.kept"),
        with(5, MERGE, ""),
    ])
    .await;
    assert_eq!(rig.admit().await.1, [1, 2, 4]);
    let jobs = rig.claim(9).await;
    let taken: Vec<_> = jobs
        .iter()
        .map(|job| args_of(&rig, job)["n"].clone())
        .collect();
    assert_eq!(taken, [3, 5]);
    for job in &jobs {
        super::chains::end_with(&rig, job, json!(1)).await;
    }
    rig.admit().await;
    for job in rig.claim(9).await {
        rig.done(&job).await;
    }
    // One that is skipped is no job, and nothing follows it. That is counted.
    let skip = r#""key":"s""#;
    rig.put(&[with(6, skip, ""), with(7, skip, "app.b"), with(8, skip, "")])
        .await;
    assert_eq!(rig.stat("unique_skipped").await, 2);
    assert_eq!(rig.stat("then_skipped").await, 1);
    rig.done(&only(&rig).await).await;
    assert!(rig.left_over().await.is_empty());
}

#[tokio::test]
async fn what_later_ones_did_to_a_job_stands_in_its_history() {
    let rig = rig().await;
    rig.put(&[unique(1, REPLACE, r#","id":"a""#)]).await;
    rig.later("a").await;
    for n in 2..=200 {
        rig.put(&[unique(n, REPLACE, "")]).await;
    }
    // All that it left behind in the flow is dropped on the way.
    let job = rig.claim(500).await.remove(0);
    let history = History::parse(&job.history).unwrap();
    assert_eq!((history.attempts, history.errors.len()), (0, 1), "afresh");
    let last = history.events.last().unwrap();
    assert_eq!((last.event, last.times), (What::Replaced, Some(199)));
    let failed = history.events.iter().filter(|e| e.event == What::Failed);
    assert_eq!(failed.count(), 1, "what was before is told still");
    rig.done(&job).await;
    let found = rig.queue.find("a").await.unwrap().unwrap();
    let events = found.history.events;
    assert!(
        events.iter().any(|e| e.event == What::Replaced),
        "{events:?}"
    );

    rig.put(&[unique(1, MERGE, r#","id":"m""#), unique(2, MERGE, "")])
        .await;
    let job = only(&rig).await;
    let history = History::parse(&job.history).unwrap();
    assert_eq!(history.kind.as_deref(), Some("app.a"));
    assert_eq!(history.events[0].event, What::Merged);
}

#[tokio::test]
async fn what_is_replaced_takes_with_it_what_was_merged_into_it() {
    let rig = rig().await;
    let replace = r#""key":"k","until":"claimed","on_conflict":"replace""#;
    rig.put(&[
        unique(1, MERGE, ""),
        unique(2, MERGE, ""),
        unique(3, replace, ""),
    ])
    .await;
    let job = only(&rig).await;
    assert_eq!(args_of(&rig, &job)["n"], 3, "the newest counts");
    rig.done(&job).await;
    assert!(rig.left_over().await.is_empty());
}

#[tokio::test]
async fn what_was_merged_into_a_job_is_set_aside_with_it() {
    for way in ["quarantined at the claim", "quarantined at promotion"] {
        let rig = rig().await;
        rig.put(&[
            unique(1, MERGE, r#","id":"m""#),
            unique(2, MERGE, ""),
            unique(3, MERGE, ""),
        ])
        .await;
        rig.end("m", way).await;
        let kept = rig.queue.quarantined("", 9).await.unwrap();
        let numbers: Vec<u64> = kept.iter().map(|e| number_in(&e.raw)).collect();
        assert_eq!(numbers, [1, 2, 3], "{way}");
        let ids: Vec<String> = kept.into_iter().map(|e| e.id).collect();
        assert_eq!(rig.queue.release(&ids).await.unwrap(), 3);
        rig.admit().await;
        let job = only(&rig).await;
        assert_eq!(args_of(&rig, &job)["n"], 3, "they are one again");
        rig.done(&job).await;
        assert!(rig.left_over().await.is_empty());
    }
}

#[tokio::test]
async fn what_would_not_fit_any_more_becomes_a_job_of_its_own() {
    let rig = rig().await;
    let large = |n: u64| {
        let tag = format!("{n}{}", "x".repeat(100_000));
        format!(r#"{{"kind":"app.a","args":{{"n":{n},"tags":["{tag}"]}},"unique":{{{MERGE}}}}}"#)
    };
    let all: Vec<String> = (0..5).map(large).collect();
    rig.push(&all).await;
    assert_eq!(
        rig.admit().await.1,
        [1, 2, 4],
        "the fourth takes the lock over"
    );
    let jobs = rig.claim(9).await;
    let counts: Vec<usize> = jobs
        .iter()
        .map(|job| args_of(&rig, job)["tags"].as_array().unwrap().len())
        .collect();
    assert_eq!(counts, [3, 2]);
}

#[tokio::test]
async fn of_debounced_jobs_the_last_runs_when_none_came_for_a_while() {
    let rig = rig().await;
    let one = |n: u64, wait: u64, most: u64| {
        let rule = format!(r#"{{"key":"k","wait_ms":{wait},"max_wait_ms":{most}}}"#);
        envelope("app.a", n, &format!(r#","debounce":{rule}"#))
    };
    rig.put(&[one(1, 3_600_000, 7_200_000)]).await;
    let due = async || -> u64 {
        let all: Vec<String> = rig
            .redis(
                "ZRANGE",
                &[&rig.queue.keys().delayed, "0", "-1", "WITHSCORES"],
            )
            .await;
        assert_eq!(all.len(), 2, "{all:?}");
        all[1].parse().unwrap()
    };
    let (first, now) = (due().await, rig.queue.look().await.unwrap().now_ms);
    assert!(first <= now + 3_600_000 && first + 60_000 > now + 3_600_000);
    rig.put(&[one(2, 7_000_000, 7_200_000)]).await;
    assert!(due().await > first, "put off again");
    rig.put(&[one(3, 80_000_000, 80_000_000)]).await;
    // At most its own longest wait after the first one.
    let capped = due().await;
    assert!(
        capped.abs_diff(first + 80_000_000 - 3_600_000) < 5_000,
        "{capped} {first}"
    );
    rig.put(&[one(4, 1, 1)]).await;
    // Its time is over: it stays where it is, with the last arguments.
    assert_eq!(due().await, capped);
    let by_definition = |n| envelope("app.debounced", n, r#","priority":"high""#);
    rig.put(&[by_definition(1), by_definition(2)]).await;
    assert_eq!(
        rig.redis::<u64>("ZCARD", &[&rig.queue.keys().delayed])
            .await,
        2
    );
    let ids: Vec<String> = rig
        .redis("ZRANGE", &[&rig.queue.keys().delayed, "0", "-1"])
        .await;
    for id in &ids {
        rig.redis::<()>("ZADD", &[&rig.queue.keys().delayed, "1", id])
            .await;
    }
    rig.promote().await;
    let jobs = rig.claim(9).await;
    assert_eq!(
        jobs.iter()
            .map(|j| args_of(&rig, j)["n"].clone())
            .collect::<Vec<_>>(),
        [2, 4]
    );
    for job in &jobs {
        rig.done(job).await;
    }
    assert!(rig.left_over().await.is_empty());
}

#[tokio::test]
async fn the_id_of_one_that_was_replaced_is_remembered_if_an_app_gave_it() {
    let rig = rig().await;
    let debounced = |n: u64, more: &str| {
        let rule = r#""debounce":{"key":"d","wait_ms":3600000}"#;
        envelope("app.a", n, &format!(",{rule}{more}"))
    };
    rig.put(&[
        unique(1, REPLACE, r#","id":"kept""#),
        debounced(2, r#","id":"ended""#),
    ])
    .await;
    rig.put(&[unique(3, REPLACE, ""), debounced(4, "")]).await;
    let job = only(&rig).await;
    let delivery = job.open(&rig.queue, &rig.catalog, job.ready_ms).unwrap();
    assert!(delivery.given, "kept");
    rig.done(&job).await;
    // Whoever cancels it sees the later envelope, which gives no id.
    let record = crate::queue::rig::record("ended", "cancelled");
    let cancelled = rig.queue.cancel(&record, false, None, "ann").await.unwrap();
    assert_eq!(cancelled, Cancelled::Done);
    rig.push(&[
        envelope("app.a", 5, r#","id":"kept""#),
        envelope("app.a", 6, r#","id":"ended""#),
    ])
    .await;
    assert_eq!(rig.admit().await.1, [0, 1], "both have run, or were to");
    // A minted one is nobody's, whatever the later one says of itself.
    rig.put(&[
        unique(7, REPLACE, ""),
        unique(8, REPLACE, r#","id":"late""#),
    ])
    .await;
    let job = only(&rig).await;
    assert_ne!(job.id, "late");
    let delivery = job.open(&rig.queue, &rig.catalog, job.ready_ms).unwrap();
    assert!(!delivery.given, "{}", job.id);
}

#[tokio::test]
async fn the_name_of_a_lock_is_not_taken_for_a_wish_for_the_result() {
    let rig = rig().await;
    let one = |n: u64| {
        unique(
            n,
            r#""key":"order7","on_conflict":"replace""#,
            r#","id":"a""#,
        )
    };
    rig.put(&[one(1)]).await;
    rig.put(&[one(2).replace(r#""id":"a""#, r#""id":"b""#)])
        .await;
    let job = only(&rig).await;
    assert_eq!(rig.stat("unique_replaced").await, 1);
    let delivery = job.open(&rig.queue, &rig.catalog, job.ready_ms).unwrap();
    assert!(!delivery.keeps_result, "{:?}", job.ties);
}
