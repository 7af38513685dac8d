//! `jobs`: many jobs at once, by what they have in common.

use super::{JOBS, admit_all, at, json_at};
use crate::daemon::process::Site;
use crate::support::{DEADLINE, wait_until};
use serde_json::{Value, json};
use tidegate::job::{Event, History, What};
use tidegate::queue::Queue;
use tidegate::queue::scan::{Shelved, State};

/// Pending a1, a2 and b1, delayed d1, dead x1 ("Connection refused", an hour ago) and x2 ("bad input", now).
async fn site() -> (Site, Queue) {
    let site = Site::new("[[queue]]\nname = \"slow\"\n", &JOBS);
    let queue = site.queue("default").await;
    let plain =
        |kind: &str, id: &str, more: &str| format!(r#"{{"kind":"{kind}","id":"{id}"{more}}}"#);
    let old = r#","enqueued_at":1700000000000"#;
    site.push(&[
        plain("app.ok", "a1", old),
        plain("app.ok", "a2", ""),
        plain("app.bad", "b1", &format!("{old},\"priority\":\"low\"")),
        plain(
            "app.ok",
            "d1",
            &format!("{old},\"delay_ms\":3600000,\"queue\":\"default\""),
        ),
        plain("app.bad", "x1", ""),
        plain("app.bad", "x2", ""),
        r#"{"kind":"app.ok"}"#.to_owned(),
    ])
    .await;
    admit_all(&site, &queue).await;
    for (id, error) in [("x1", "Connection refused"), ("x2", "bad input")] {
        let mut history = History::default();
        history.fail(1, error);
        let dead = (id, history, Event::new(1, What::Dead));
        assert_eq!(
            queue.shelve(State::Pending, &[dead]).await.unwrap(),
            [Shelved::Taken]
        );
    }
    let hour_ago = queue.stored_count().await.unwrap().1 - 3_600_001;
    redis::cmd("ZADD")
        .arg(&queue.keys().dead)
        .arg(hour_ago)
        .arg("x1")
        .query_async::<()>(&mut site.redis().await)
        .await
        .unwrap();
    (site, queue)
}

fn jobs(site: &Site, args: &[&str]) -> Value {
    json_at(site, &[&["jobs"], args].concat()).ok()
}

/// The ids that a filter leaves, in order; the minted one as `minted`.
fn ids(site: &Site, filter: &[&str]) -> Vec<String> {
    let answer = jobs(site, &[&["list"], filter].concat());
    let list = answer["jobs"].as_array().unwrap().iter();
    let mut ids: Vec<String> = list
        .map(|job| match job["id"].as_str().unwrap() {
            id if id.len() == 36 => "minted".to_owned(),
            id => id.to_owned(),
        })
        .collect();
    ids.sort();
    ids
}

async fn state(queue: &Queue, id: &str) -> Option<String> {
    queue.find(id).await.unwrap().map(|found| found.state)
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_leave_what_they_say() {
    let (site, _) = site().await;
    for (filter, left) in [
        (&[][..], "a1 a2 b1 d1 minted x1 x2"),
        (&["--state", "pending"], "a1 a2 b1 minted"),
        (
            &["--state", "pending,dead", "--kind", "app.bad"],
            "b1 x1 x2",
        ),
        (&["--state", "delayed"], "d1"),
        (&["--state", "running"], ""),
        (&["--error", "REFUSED"], "x1"),
        (&["--older-than", "1h"], "a1 b1 d1 x1"),
        (&["--older-than", "1h", "--kind", "app.ok"], "a1 d1"),
        (&["--state", "dead", "--older-than", "2h"], ""),
        (&["--queue", "slow"], ""),
    ] {
        let left: Vec<&str> = left.split_whitespace().collect();
        assert_eq!(ids(&site, filter), left, "{filter:?}");
    }
    let unknown = jobs(&site, &["count", "--older-than", "1h"]);
    // a2: given, and nobody said when.
    assert_eq!(
        (&unknown["matching"], &unknown["age_unknown"]),
        (&json!(4), &json!(1))
    );
    let census = jobs(&site, &["count", "--state", "dead"]);
    assert_eq!(
        census["by"],
        json!([{"queue": "default", "state": "dead", "kind": "app.bad", "jobs": 2}])
    );
    let more = jobs(&site, &["list", "--state", "dead", "--limit", "1"]);
    assert_eq!(
        (&more["more"], &more["jobs"][0]["id"]),
        (&json!(true), &json!("x1")),
        "the oldest first"
    );
    assert!(at(&site, &["jobs", "count"]).out.ends_with("7 jobs\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_yes_nothing_is_changed() {
    let (site, queue) = site().await;
    for verb in [
        &["retry", "--state", "dead,delayed"][..],
        &["delete", "--state", "dead,delayed,pending"],
        &["move", "--state", "pending", "--to", "slow"],
    ] {
        let answer = jobs(&site, verb);
        assert_eq!(answer["dry_run"], true, "{verb:?}");
        assert!(answer["matching"].as_u64().unwrap() >= 3, "{answer}");
        let told = at(&site, &[&["jobs"], verb].concat());
        assert_eq!(told.code, 0);
        assert!(
            told.out.contains("nothing was changed: add --yes"),
            "{told:?}"
        );
    }
    assert_eq!(ids(&site, &[]).len(), 7);
    assert_eq!(site.queue("slow").await.counts().await.unwrap().inbox, 0);
    assert_eq!(state(&queue, "d1").await.as_deref(), Some("delayed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn chosen_jobs_are_retried() {
    let (site, queue) = site().await;
    let done = jobs(
        &site,
        &["retry", "--state", "dead", "--error", "refused", "--yes"],
    );
    assert_eq!((&done["retried"], &done["changed"]), (&json!(1), &json!(0)));
    let done = jobs(
        &site,
        &["retry", "--state", "delayed,dead", "--limit", "1", "--yes"],
    );
    assert_eq!(done["retried"], 1);
    let states = [
        state(&queue, "x1").await,
        state(&queue, "d1").await,
        state(&queue, "x2").await,
    ];
    assert_eq!(
        states,
        ["pending", "pending", "dead"].map(|s| Some(s.to_owned()))
    );
    // What was shelved and comes back at once is not dropped with its old entry.
    let _daemon = site.start("a");
    wait_until("both have run", DEADLINE, || async {
        let states = [state(&queue, "d1").await, state(&queue, "x1").await];
        states == ["done", "dead"].map(|s| Some(s.to_owned()))
    })
    .await;
    let died_again = queue.find("x1").await.unwrap().unwrap();
    assert_eq!(
        (died_again.state.as_str(), died_again.history.attempts),
        ("dead", 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn chosen_jobs_are_deleted_and_leave_nothing() {
    let (site, queue) = site().await;
    let done = jobs(
        &site,
        &[
            "delete", "--state", "pending", "--kind", "app.ok", "--limit", "2", "--yes",
        ],
    );
    assert_eq!(done["deleted"], 2);
    let done = jobs(
        &site,
        &["delete", "--state", "pending,delayed,dead", "--yes"],
    );
    assert_eq!((&done["deleted"], &done["changed"]), (&json!(5), &json!(0)));
    assert_eq!(ids(&site, &[]), [""; 0]);
    assert_eq!(state(&queue, "a1").await.as_deref(), Some("cancelled"));
    let _daemon = site.start("a");
    wait_until("the flows are empty", DEADLINE, || async {
        queue.look().await.unwrap().heads.is_empty()
    })
    .await;
    let keys = queue.keys();
    let left: u64 = redis::cmd("EXISTS")
        .arg(&[
            &keys.jobs,
            &keys.meta,
            &keys.dead,
            &keys.delayed,
            &keys.tomb,
            &keys.running,
        ])
        .query_async(&mut site.redis().await)
        .await
        .unwrap();
    assert_eq!(left, 0);
    let stats = queue.counts().await.unwrap().sizes.stats;
    assert_eq!(stats.get("completed"), None, "none of them ran");
    assert_eq!(stats.get("dead_bytes").copied().unwrap_or(0), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_changed_meanwhile_are_left_alone() {
    let (site, queue) = site().await;
    // As a step finds them that was planned a moment ago.
    let job = |id| (id, History::default(), Event::new(1, What::Moving));
    for (state, id) in [
        (State::Delayed, "a1"),
        (State::Pending, "d1"),
        (State::Pending, "x1"),
        (State::Dead, "none"),
    ] {
        assert_eq!(
            queue.shelve(state, &[job(id)]).await.unwrap(),
            [Shelved::Changed],
            "{id}"
        );
    }
    let flow = crate::queue::rig::flow(tidegate::job::Priority::Normal, "app.bad");
    assert!(
        !queue
            .requeue_if(State::Delayed, "x1", &flow, None, "me")
            .await
            .unwrap()
    );
    assert!(
        queue
            .requeue_if(State::Dead, "x1", &flow, None, "me")
            .await
            .unwrap()
    );
    let record = crate::queue::rig::record("d1", "cancelled");
    assert!(
        !queue
            .cancel_if(State::Pending, &record, true, None, "me")
            .await
            .unwrap()
    );
    assert!(
        queue
            .cancel_if(State::Delayed, &record, true, None, "me")
            .await
            .unwrap()
    );
    drop(site);
}

#[tokio::test(flavor = "multi_thread")]
async fn chosen_jobs_are_moved_and_run_in_the_other_queue() {
    let (site, queue) = site().await;
    let slow = site.queue("slow").await;
    site.push(&[r#"{"kind":"app.ok","id":"twin"}"#.to_owned()])
        .await;
    admit_all(&site, &queue).await;
    slow.enqueue(&[("twin", br#"{"kind":"app.ok","id":"twin"}"#.to_vec())])
        .await
        .unwrap();
    let due = queue.find("d1").await.unwrap().unwrap().at_ms;
    let done = jobs(
        &site,
        &[
            "move",
            "--state",
            "pending,delayed,dead",
            "--to",
            "slow",
            "--yes",
        ],
    );
    assert_eq!(
        (&done["moved"], &done["known_there"], &done["changed"]),
        (&json!(7), &json!(1), &json!(0))
    );
    assert_eq!(ids(&site, &["--queue", "default"]), ["twin"]);
    admit_all(&site, &slow).await;
    assert_eq!(slow.counts().await.unwrap().quarantine, 0);
    let stats = queue.counts().await.unwrap().sizes.stats;
    assert_eq!(stats["dead_bytes"], 0, "what was on its way is gone");
    let moved = slow.find("d1").await.unwrap().unwrap();
    assert_eq!(
        (moved.state.as_str(), moved.at_ms),
        ("delayed", due),
        "due when it was due"
    );
    assert_eq!(slow.find("b1").await.unwrap().unwrap().state, "pending");
    let low = slow.counts().await.unwrap().lanes[3];
    assert_eq!(low, 1, "what its envelope says goes with it");
    let _daemon = site.start("a");
    // The two others of app.bad die there; the minted one has kept its id.
    wait_until("they ran in the other queue", DEADLINE, || async {
        let counts = slow.counts().await.unwrap();
        counts.stats.get("completed") == Some(&4) && counts.dead == 3
    })
    .await;
    let here = queue.find("a1").await.unwrap().unwrap();
    assert_eq!(
        (
            here.state.as_str(),
            here.history.events.last().unwrap().event
        ),
        ("moved", What::Moved)
    );
    assert_eq!(
        json_at(&site, &["job", "show", "a1"]).ok()["queue"],
        "slow",
        "shown where it is"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_was_cut_short_is_finished_by_the_next_one() {
    let (site, queue) = site().await;
    let slow = site.queue("slow").await;
    let due = queue.find("d1").await.unwrap().unwrap().at_ms.unwrap();
    let begun = |id| {
        (
            id,
            History::default(),
            Event::new(1, What::Moving).note("slow"),
        )
    };
    // Killed after the first step, and after the second one.
    let mut delayed = begun("d1");
    delayed.2.due = Some(due);
    for (state, job) in [
        (State::Pending, begun("a1")),
        (State::Delayed, delayed),
        (State::Pending, begun("a2")),
    ] {
        assert_eq!(queue.shelve(state, &[job]).await.unwrap(), [Shelved::Taken]);
    }
    slow.enqueue(&[("a2", br#"{"kind":"app.ok","id":"a2"}"#.to_vec())])
        .await
        .unwrap();
    // It may be there already, so nobody starts it afresh here.
    let retried = jobs(
        &site,
        &["retry", "--state", "dead", "--kind", "app.ok", "--yes"],
    );
    assert_eq!(
        (&retried["retried"], &retried["changed"]),
        (&json!(0), &json!(3))
    );

    let done = jobs(
        &site,
        &[
            "move", "--state", "pending", "--kind", "app.none", "--to", "slow", "--yes",
        ],
    );
    assert_eq!(done["moved"], 3);
    assert_eq!(
        slow.counts().await.unwrap().inbox,
        3,
        "none is lost, none comes twice"
    );
    admit_all(&site, &slow).await;
    let moved = slow.find("d1").await.unwrap().unwrap();
    assert_eq!((moved.state.as_str(), moved.at_ms), ("delayed", Some(due)));
    assert_eq!(
        ids(&site, &["--queue", "default"]),
        ["b1", "minted", "x1", "x2"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused() {
    let site = Site::new("", &JOBS);
    for (args, code, exit) in [
        (&["retry", "--state", "pending"][..], "usage", 2),
        (&["delete", "--state", "running"], "usage", 2),
        (&["delete"], "usage", 2),
        (&["count", "--state", "lost"], "usage", 2),
        (&["move", "--state", "dead", "--to", "default"], "usage", 2),
        (
            &["move", "--state", "dead", "--to", "nowhere"],
            "unknown_queue",
            1,
        ),
    ] {
        let ran = json_at(&site, &[&["jobs"], args].concat());
        assert_eq!(
            (ran.code, &ran.json()["error"]),
            (exit, &json!(code)),
            "{args:?}: {ran:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_jobs_are_changed_in_bounded_steps_while_a_daemon_works() {
    let site = Site::new(
        "[daemon]\nconcurrency = 4\n[[queue]]\nname = \"slow\"\n",
        &JOBS,
    );
    let queue = site.queue("default").await;
    let slow = site.queue("slow").await;
    let total = 600;
    let jobs_in: Vec<String> = (0..total)
        .map(|n| format!(r#"{{"kind":"app.ok","id":"j{n}"}}"#))
        .collect();
    let _daemon = site.start("a");
    site.push(&jobs_in).await;
    wait_until("they are admitted", DEADLINE, || async {
        queue.counts().await.unwrap().inbox == 0
    })
    .await;
    let done = jobs(
        &site,
        &["move", "--state", "pending", "--to", "slow", "--yes"],
    );
    let moved = done["moved"].as_u64().unwrap();
    assert!(moved > 0, "{done}");
    wait_until("each has run once, here or there", DEADLINE, || async {
        let (here, there) = (queue.counts().await.unwrap(), slow.counts().await.unwrap());
        let completed = |stats: &std::collections::BTreeMap<String, u64>| {
            stats.get("completed").copied().unwrap_or(0)
        };
        completed(&here.stats) + completed(&there.stats) == total
            && completed(&there.stats) == moved
            && here.dead + there.dead == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_depend_on_stays_and_a_lock_is_given_up_by_a_move() {
    let site = Site::new("[[queue]]\nname = \"slow\"\n", &JOBS);
    let queue = site.queue("default").await;
    site.push(&[
        r#"{"kind":"app.ok","id":"g1","group":{"id":"g","size":2}}"#.to_owned(),
        r#"{"kind":"app.ok","id":"u1","unique":{"key":"k"}}"#.to_owned(),
    ])
    .await;
    admit_all(&site, &queue).await;
    assert_eq!(queue.counts().await.unwrap().quarantine, 0);
    let keys = queue.keys();
    let held = || async {
        let mut redis = site.redis().await;
        let locks: u64 = redis::cmd("HLEN")
            .arg(&keys.locks)
            .query_async(&mut redis)
            .await
            .unwrap();
        let ties: Vec<String> = redis::cmd("HKEYS")
            .arg(&keys.ties)
            .query_async(&mut redis)
            .await
            .unwrap();
        (
            locks,
            ties.contains(&"g1".to_owned()),
            ties.contains(&"u1".to_owned()),
        )
    };
    assert_eq!(held().await, (1, true, true));
    let done = jobs(
        &site,
        &["move", "--state", "pending", "--to", "slow", "--yes"],
    );
    assert_eq!(
        (&done["moved"], &done["bound"]),
        (&json!(1), &json!(1)),
        "{done}"
    );
    assert_eq!(held().await, (0, true, false));
    assert_eq!(ids(&site, &["--queue", "default"]), ["g1"]);
    let done = jobs(&site, &["delete", "--state", "pending", "--yes"]);
    assert_eq!(done["deleted"], 1);
    assert_eq!(
        held().await,
        (0, false, false),
        "a member that is deleted counts as over"
    );
}
