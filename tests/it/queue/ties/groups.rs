//! Groups: what follows runs once, when the last member has ended, whichever way that is.

use super::chains::{done_with, end_with};
use super::{WAYS_OUT, dead, rig, rig_with};
use crate::queue::rig::{ME, Rig, envelope, flow};
use serde_json::{Value, json};
use std::time::Duration;
use tidegate::job::Priority;
use tidegate::queue::Settlement;
use tidegate::queue::workflow::belongs_to;

const THEN: &str = r#"{"kind":"app.b","args":{"n":9}}"#;

/// Member `n` of group `g`; the first carries what follows.
fn member(n: u64, size: u32, when: &str) -> String {
    let then = if n == 1 {
        format!(r#","then":{THEN}"#)
    } else {
        String::new()
    };
    let group = format!(r#"{{"id":"g","size":{size},"when":"{when}"{then}}}"#);
    envelope("app.a", n, &format!(r#","id":"m-{n}","group":{group}"#))
}

async fn inbox(rig: &Rig) -> Vec<Value> {
    let entries: Vec<String> = rig
        .redis("LRANGE", &[&rig.queue.keys().inbox, "0", "-1"])
        .await;
    entries
        .iter()
        .map(|e| serde_json::from_str(e).unwrap())
        .collect()
}

async fn state(rig: &Rig) -> (&'static str, u32, u32, u32) {
    let group = rig.queue.group("g").await.unwrap().unwrap();
    (group.state, group.members, group.done, group.failed)
}

#[tokio::test]
async fn what_follows_comes_with_the_last_member_and_knows_their_results() {
    let rig = rig().await;
    rig.put(&[member(1, 3, "success"), member(2, 3, "success")])
        .await;
    for job in rig.claim(9).await {
        end_with(&rig, &job, json!({"of": job.id})).await;
    }
    assert_eq!(state(&rig).await, ("open", 2, 2, 0));
    assert!(inbox(&rig).await.is_empty(), "one has not even come");
    rig.put(&[member(3, 3, "success")]).await;
    end_with(&rig, &rig.claim(9).await[0], json!("three")).await;
    assert_eq!(state(&rig).await, ("done", 3, 3, 0));
    rig.admit().await;
    let jobs = rig.claim(9).await;
    assert_eq!(jobs.len(), 1);
    assert_eq!(
        (jobs[0].id.as_str(), jobs[0].ties.as_str()),
        ("g-then", "wg")
    );
    let delivery = jobs[0].open(&rig.queue, &rig.catalog, 1).unwrap();
    let parents = json!(delivery.job.parents);
    let sum = json!({"size": 3, "done": 3, "failed": 0, "cut": false});
    assert_eq!(
        (
            &parents[0]["id"],
            &parents[0]["state"],
            &parents[0]["result"]
        ),
        (&json!("g"), &json!("group"), &sum)
    );
    assert_eq!(parents[1]["result"], json!({"of": "m-1"}));
    assert_eq!(parents[3]["result"], "three");
    assert_eq!(delivery.job.payload()["parents"], parents);
    end_with(&rig, &jobs[0], Value::Null).await;
    assert_eq!(
        rig.left_over().await,
        ["group_times", "groups"].map(str::to_owned).into()
    );
}

#[tokio::test]
async fn every_way_out_counts_once() {
    for when in ["success", "always"] {
        for way in WAYS_OUT {
            let rig = rig_with(|c| c.retention.dead_max = 1).await;
            rig.put(&[member(1, 2, when)]).await;
            end_with(&rig, &rig.claim(9).await[0], Value::Null).await;
            rig.put(&[member(2, 2, when)]).await;
            rig.end("m-2", way).await;
            let entries = inbox(&rig).await;
            let expected = usize::from(when == "always");
            assert_eq!(entries.len(), expected, "{when}, {way}: {entries:?}");
            let ended = match (when, way) {
                // It may be run again still.
                ("success", "dead") => ("open", 2, 1, 0),
                ("success", _) => ("failed", 2, 1, 1),
                _ => ("done", 2, 1, 1),
            };
            assert_eq!(state(&rig).await, ended, "{when}, {way}");
            if way == "dead" {
                rig.queue
                    .bury(&["m-2".to_owned()], Some("me"))
                    .await
                    .unwrap();
            }
            let left = rig.left_over().await;
            assert_eq!(
                left,
                ["group_times", "groups"].map(str::to_owned).into(),
                "{when}, {way}"
            );
            assert_eq!(inbox(&rig).await.len(), expected, "{when}, {way}");
            for entry in entries {
                let parents = entry["parents"].as_array().unwrap();
                assert_eq!(parents.len(), 3, "{parents:?}");
                assert_eq!(parents[2]["id"], "m-2");
                rig.admit().await;
                let why = rig.queue.quarantined("", 9).await.unwrap().pop();
                let ids: Vec<String> = rig.claim(9).await.into_iter().map(|j| j.id).collect();
                assert_eq!(ids, ["g-then"], "{way}: it is a job: {why:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_dead_member_that_is_run_again_may_still_make_it() {
    let rig = rig().await;
    rig.put(&[member(1, 1, "success")]).await;
    rig.settle_one(dead()).await;
    assert_eq!(state(&rig).await, ("open", 1, 0, 0));
    assert!(
        rig.queue
            .requeue("m-1", &flow(Priority::Normal, "app.a"), None, "me")
            .await
            .unwrap()
    );
    end_with(&rig, &rig.claim(9).await[0], Value::Null).await;
    assert_eq!(inbox(&rig).await.len(), 1);
    let always = rig_with(|_| {}).await;
    always.put(&[member(1, 1, "always")]).await;
    always.settle_one(dead()).await;
    assert!(
        always
            .queue
            .requeue("m-1", &flow(Priority::Normal, "app.a"), None, "me")
            .await
            .unwrap()
    );
    // The group is over: what it was told stands.
    let job = always.claim(9).await.remove(0);
    end_with(&always, &job, Value::Null).await;
    assert_eq!(inbox(&always).await.len(), 1);
    assert_eq!(state(&always).await, ("done", 1, 0, 1));
}

#[tokio::test]
async fn however_settlements_are_repeated_or_come_late_the_group_ends_once() {
    let rig = rig().await;
    let size = 40;
    rig.put(
        &(1..=size)
            .map(|n| member(n, 40, "success"))
            .collect::<Vec<_>>(),
    )
    .await;
    let first = rig.claim(99).await;
    // A daemon died with all of them; another one runs them.
    let home = flow(Priority::Normal, "app.a");
    let back =
        |job| crate::queue::rig::settlement(job, crate::queue::rig::handed_back(home.clone()));
    rig.settle(&first.iter().map(back).collect::<Vec<_>>())
        .await;
    let again = rig.claim(99).await;
    assert_eq!(again.len(), 40);
    let ends = |jobs: &[_]| -> Vec<Settlement> {
        jobs.iter()
            .map(|job| done_with(&rig, job, json!(1)))
            .collect()
    };
    let (late, right) = (ends(&first), ends(&again));
    for (number, batch) in right.chunks(7).enumerate() {
        for _ in 0..2 {
            let number = number as u64 + 1;
            assert_eq!(
                rig.queue.settle(ME, number, batch).await.unwrap().stale,
                Vec::<usize>::new()
            );
        }
        let stale = rig.queue.settle(ME, 0, &late).await.unwrap().stale;
        assert_eq!(stale.len(), late.len());
        assert_eq!(
            rig.queue.settle(ME, 0, batch).await.unwrap().stale.len(),
            batch.len()
        );
    }
    let entries = inbox(&rig).await;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0]["parents"].as_array().unwrap().len(), 41);
}

#[tokio::test]
async fn more_members_than_a_group_has_are_set_aside() {
    let rig = rig().await;
    rig.put(&[
        member(1, 2, "success"),
        member(2, 3, "success"),
        member(3, 2, "success"),
        member(4, 2, "success"),
    ])
    .await;
    let kept = rig.queue.quarantined("", 9).await.unwrap();
    let told: Vec<&str> = kept.iter().map(|e| e.reason.as_str()).collect();
    assert_eq!(
        told,
        [
            "group: g was begun with size 2",
            "group: g has all its 2 members already",
            "group: g has all its 2 members already"
        ],
        "whoever names another size counts all the same, or nobody would come in its place"
    );
    for job in rig.claim(9).await {
        end_with(&rig, &job, Value::Null).await;
    }
    rig.put(&[member(5, 2, "success")]).await;
    assert_eq!(rig.quarantine().await["malformed"], 4, "after its end too");
    assert_eq!(state(&rig).await, ("failed", 2, 1, 1));
    // The same member again is a duplicate, not another one.
    rig.put(&[member(1, 2, "success")]).await;
    assert_eq!(rig.stat("duplicates").await, 1);
}

#[tokio::test]
async fn results_beyond_the_limit_are_left_out_and_that_is_told() {
    let rig = rig().await;
    rig.put(&(1..=6).map(|n| member(n, 6, "success")).collect::<Vec<_>>())
        .await;
    for job in rig.claim(9).await {
        end_with(&rig, &job, Value::String("x".repeat(60_000))).await;
    }
    let entry = inbox(&rig).await.remove(0);
    assert_eq!(
        entry["parents"][0]["result"],
        json!({"size": 6, "done": 6, "failed": 0, "cut": true})
    );
    assert_eq!(
        entry["parents"].as_array().unwrap().len(),
        5,
        "the sum and four of six"
    );
    rig.admit().await;
    assert_eq!(rig.claim(9).await[0].id, "g-then");
}

#[tokio::test]
async fn a_cancelled_group_takes_no_member_and_nothing_follows_it() {
    let rig = rig().await;
    rig.put(&(1..=3).map(|n| member(n, 9, "always")).collect::<Vec<_>>())
        .await;
    let running = rig.claim(1).await.remove(0);
    assert_eq!(rig.queue.stop_workflow("g").await.unwrap(), Some("open"));
    rig.push(&[member(4, 9, "always")]).await;
    assert_eq!(
        rig.admit().await.1,
        [0],
        "who comes later is cancelled at once"
    );
    let (_, tied) = rig.queue.walk_ties(0).await.unwrap();
    let mut members: Vec<String> = tied
        .into_iter()
        .filter(|(_, ties)| belongs_to(ties, "g"))
        .map(|(id, _)| id)
        .collect();
    members.sort();
    assert_eq!(members, ["m-1", "m-2", "m-3"]);
    for id in members.iter().filter(|id| **id != running.id) {
        rig.cancel(id).await;
    }
    end_with(&rig, &running, Value::Null).await;
    assert_eq!(state(&rig).await, ("cancelled", 3, 1, 2));
    assert!(inbox(&rig).await.is_empty());
    assert_eq!(
        rig.left_over().await,
        ["group_times", "groups"].map(str::to_owned).into()
    );
}

/// Member `n` of `g`, of which no daemon of this rig knows the kind.
fn stranger(n: u64, size: u32, when: &str) -> String {
    member(n, size, when).replacen("app.a", "app.new", 1)
}

#[tokio::test]
async fn a_member_that_is_set_aside_counts_as_failed() {
    let rig = rig().await;
    rig.put(&[member(2, 3, "always")]).await;
    end_with(&rig, &rig.claim(9).await[0], Value::Null).await;
    // Without an id, and with a field that nobody knows; it is the one that says what follows.
    let first = member(1, 3, "always").replace(r#""id":"m-1""#, r#""colour":"red""#);
    rig.put(&[first]).await;
    assert_eq!(state(&rig).await, ("open", 2, 1, 1));
    rig.put(&[stranger(3, 3, "always")]).await;
    assert_eq!(state(&rig).await, ("done", 3, 1, 2));
    let parents = follower(&rig).await;
    assert_eq!(
        (&parents[2]["id"], &parents[2]["state"]),
        (&json!("m-3"), &json!("quarantined"))
    );
}

/// What the one job that followed the group is told.
async fn follower(rig: &Rig) -> Value {
    let jobs = rig.claim(9).await;
    let ids: Vec<&str> = jobs.iter().map(|job| &*job.id).collect();
    assert_eq!(ids, ["g-then"]);
    let delivery = jobs[0].open(&rig.queue, &rig.catalog, 1).unwrap();
    json!(delivery.job.parents)
}

async fn release_all(rig: &Rig) {
    let kept = rig.queue.quarantined("", 9).await.unwrap();
    let ids: Vec<String> = kept.into_iter().map(|entry| entry.id).collect();
    rig.queue.release(&ids).await.unwrap();
    rig.admit().await;
}

#[tokio::test]
async fn a_member_that_comes_back_from_quarantine_counts_once() {
    for by_itself in [false, true] {
        for id in [true, false] {
            let mut rig = rig().await;
            let mut back = stranger(2, 3, "success");
            if !id {
                back = back.replace(r#","id":"m-2""#, "");
            }
            rig.put(&[member(1, 3, "success"), back.clone()]).await;
            assert_eq!(state(&rig).await, ("open", 2, 0, 1));
            if by_itself && id {
                rig.put(&[back.clone()]).await;
                assert_eq!(state(&rig).await, ("open", 2, 0, 1), "and again");
            }
            let args = "[args]\nn = { type = \"integer\" }\n";
            let kinds = ["app.a", "app.b", "app.new"].map(|kind| (kind, args));
            rig.catalog = crate::queue::rig::catalog_of(&kinds);
            if by_itself && id {
                // The app sends it anew; then an operator lets the others go as well.
                rig.put(&[back]).await;
                assert_eq!(state(&rig).await, ("open", 2, 0, 0));
            }
            release_all(&rig).await;
            assert_eq!(state(&rig).await, ("open", 2, 0, 0));
            rig.put(&[member(3, 3, "success")]).await;
            for job in rig.claim(9).await {
                end_with(&rig, &job, Value::Null).await;
            }
            assert_eq!(state(&rig).await, ("done", 3, 3, 0));
            assert_eq!(inbox(&rig).await.len(), 1);
            assert!(rig.quarantine().await.is_empty());
        }
    }
}

#[tokio::test]
async fn a_member_that_comes_back_after_its_group_has_ended_runs_and_ends_it_no_second_time() {
    for way in ["quarantined at the claim", "quarantined at promotion"] {
        let rig = rig().await;
        rig.put(&[member(1, 1, "always")]).await;
        rig.end("m-1", way).await;
        assert_eq!(state(&rig).await, ("done", 1, 0, 1));
        release_all(&rig).await;
        let jobs = rig.claim(9).await;
        let mut ids: Vec<&str> = jobs.iter().map(|job| &*job.id).collect();
        ids.sort_unstable();
        assert_eq!(ids, ["g-then", "m-1"], "{way}");
        for job in &jobs {
            end_with(&rig, job, Value::Null).await;
        }
        assert_eq!(state(&rig).await, ("done", 1, 1, 0));
        assert!(inbox(&rig).await.is_empty());
        let left = rig.left_over().await;
        assert_eq!(left, ["group_times", "groups"].map(str::to_owned).into());
    }
}

#[tokio::test]
async fn a_member_whose_id_is_taken_counts_as_failed_unless_it_is_the_same_member() {
    for ended in [false, true] {
        let rig = rig().await;
        rig.put(&[
            envelope("app.b", 7, r#","id":"m-2""#),
            member(1, 2, "always"),
        ])
        .await;
        if ended {
            for job in rig.claim(9).await {
                end_with(&rig, &job, Value::Null).await;
            }
        }
        // Sent twice, as after a reply that was lost: while it lives, or after its end.
        rig.put(&[member(1, 2, "always")]).await;
        let before = ("open", 1, u32::from(ended), 0);
        assert_eq!(state(&rig).await, before);
        rig.put(&[member(2, 2, "always"), member(2, 2, "always")])
            .await;
        let after = if ended { "done" } else { "open" };
        assert_eq!(state(&rig).await, (after, 2, u32::from(ended), 1));
        if !ended {
            for job in rig.claim(9).await {
                end_with(&rig, &job, Value::Null).await;
            }
            rig.admit().await;
        }
        assert_eq!(state(&rig).await, ("done", 2, 1, 1));
        let parents = follower(&rig).await;
        let told = parents.as_array().unwrap();
        assert!(told.iter().any(|p| p["state"] == "duplicate"), "{parents}");
    }
}

#[tokio::test]
async fn a_step_of_a_cancelled_chain_counts_in_its_group() {
    let rig = rig().await;
    let next = member(2, 2, "always");
    rig.put(&[
        member(1, 2, "always"),
        envelope("app.a", 5, &format!(r#","id":"chain","then":{next}"#)),
    ])
    .await;
    for job in rig.claim(9).await {
        end_with(&rig, &job, Value::Null).await;
    }
    rig.queue.stop_workflow("chain").await.unwrap();
    rig.admit().await;
    assert_eq!(state(&rig).await, ("done", 2, 1, 1));
    assert_eq!(follower(&rig).await[2]["state"], "cancelled");
}

#[tokio::test]
async fn groups_that_never_complete_are_forgotten() {
    let rig = rig().await;
    let with_id = |id: u64| {
        let group = format!(r#","group":{{"id":"g-{id}","size":2,"then":{THEN}}}"#);
        envelope("app.a", id, &group)
    };
    rig.put(&(0..20).map(with_id).collect::<Vec<_>>()).await;
    let (long, none) = (Duration::from_secs(3_600), Duration::ZERO);
    let later = async || {
        let since = rig.queue.look().await.unwrap().now_ms;
        while rig.queue.look().await.unwrap().now_ms <= since + 1 {}
    };
    later().await;
    for most in [100, 15] {
        let pruned = rig.queue.prune_ties(none, most).await.unwrap();
        assert_eq!(pruned.groups, 0, "their members live: {pruned:?}");
    }
    for job in rig.claim(99).await {
        end_with(&rig, &job, Value::Null).await;
    }
    assert_eq!(rig.queue.prune_ties(long, 100).await.unwrap().groups, 0);
    let pruned = rig.queue.prune_ties(long, 15).await.unwrap();
    assert_eq!((pruned.groups, pruned.open), (5, 5), "too many");
    assert!(pruned.open_name.starts_with("g-"), "{pruned:?}");
    later().await;
    let pruned = rig.queue.prune_ties(none, 100).await.unwrap();
    assert_eq!((pruned.groups, pruned.open), (15, 15));
    assert_eq!(rig.stat("groups_dropped").await, 20);
    assert!(rig.left_over().await.is_empty());
}
