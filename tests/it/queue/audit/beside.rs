//! What is kept beside jobs: histories, ties, locks, groups, slots, reserved ids.

use super::{given, repaired, sweep, take_all, tally};
use crate::queue::rig::{ME, Rig, catalog_of, done, envelope, settlement};
use tidegate::queue::audit::{Damage, Findings};
use tidegate::queue::claim::RawDelivery;
use tidegate::queue::{FlowAllowance, Terms};

#[tokio::test]
async fn what_is_kept_for_jobs_that_are_gone_is_removed() {
    let rig = Rig::new().await;
    rig.put(&[given(1)]).await;
    let keys = rig.queue.keys();
    for key in [&keys.meta, &keys.progress, &keys.cancels, &keys.archive] {
        rig.redis::<()>("HSET", &[key, "gone", "{}"]).await;
    }
    rig.redis::<()>("ZADD", &[&keys.archived, "1700000000000", "other"])
        .await;
    for key in [&keys.ties, &keys.merges] {
        rig.redis::<()>("HSET", &[key, "gone", "flock"]).await;
    }
    rig.redis::<()>("HSET", &[&keys.ties, "x1", "fb"]).await;
    // Locks: of a job that is gone, of one that is there, reserved for one that comes, one that outlives its job.
    let locks = [
        ["a", "gone|f|0|1"],
        ["b", "x1|f|0|1"],
        ["c", "soon|f|9000000000000|1"],
        ["d", "gone|t|9000000000000|1"],
        // Of a job that is there, and knows nothing of it.
        ["e", "x1|f|0|1"],
    ];
    for [name, lock] in locks {
        rig.redis::<()>("HSET", &[&keys.locks, name, lock]).await;
    }
    repaired(&rig, Damage::Orphan, 9).await;
    let left: u64 = rig.redis("HLEN", &[&keys.locks]).await;
    assert_eq!(left, 3);
    let left: u64 = rig
        .redis(
            "EXISTS",
            &[
                &keys.meta,
                &keys.progress,
                &keys.cancels,
                &keys.archive,
                &keys.archived,
            ],
        )
        .await;
    assert_eq!(left, 0);
}

#[tokio::test]
async fn an_id_reserved_for_an_entry_that_never_came_is_released() {
    let rig = Rig::new().await;
    let job = given(1).into_bytes();
    rig.queue.enqueue(&[("x1", job)]).await.unwrap();
    assert_eq!(
        sweep(&rig, true).await,
        Findings::default(),
        "it is in the inbox"
    );
    rig.redis::<()>("DEL", &[&rig.queue.keys().inbox]).await;
    repaired(&rig, Damage::Reservation, 1).await;
    rig.put(&[given(1)]).await;
    assert_eq!(take_all(&rig).await, [1]);
}

/// A kind of which one job of a key, and two in all, may run at once.
async fn limited() -> Rig {
    let mut rig = Rig::new().await;
    let args = "[args]\nn = { type = \"integer\" }\nt = { type = \"string\", default = \"\" }\n";
    let limits = format!("[concurrency]\nlimit = 1\nkey = \"args.t\"\ntotal = 2\n{args}");
    rig.catalog = catalog_of(&[("app.a", &limits)]);
    rig
}

fn of_key(key: &str, n: u64) -> String {
    envelope(
        "app.a",
        n,
        &format!(r#","id":"x{n}","concurrency_key":"{key}""#),
    )
}

/// Claims under the limits, as a daemon does.
async fn claim(rig: &Rig, number: u64) -> Vec<RawDelivery> {
    let look = rig.queue.look().await.unwrap();
    let spec = rig.catalog.get("app.a").unwrap();
    let flows: Vec<FlowAllowance> = look
        .heads
        .into_iter()
        .map(|(flow, _)| FlowAllowance {
            terms: Terms::of(&flow, spec, &look.control),
            flow,
            allowance: 10,
        })
        .collect();
    let claimed = rig.queue.claim(ME, number, 10, &flows).await;
    claimed.unwrap().jobs
}

#[tokio::test]
async fn slots_of_jobs_that_do_not_run_are_given_back() {
    let rig = limited().await;
    let keys = rig.queue.keys().clone();
    rig.put(&[of_key("a", 1), of_key("a", 2), of_key("b", 3)])
        .await;
    // Held by nobody that is known, and by one that is written down.
    rig.redis::<()>("SADD", &[&keys.slots("app.a@a"), "ghost"])
        .await;
    rig.redis::<()>("HSET", &[&keys.holds, "spook", "app.a@gone\napp.a"])
        .await;
    for slot in ["app.a@gone", "app.a"] {
        rig.redis::<()>("SADD", &[&keys.slots(slot), "spook"]).await;
    }
    let ran = claim(&rig, 1).await;
    assert_eq!(ran.len(), 1, "the ghost keeps a out");
    repaired(&rig, Damage::Slot, 2).await;
    assert_eq!(claim(&rig, 2).await.len(), 1, "a was put in line again");
    assert_eq!(rig.queue.holders("app.a").await.unwrap(), 2);
    assert_eq!(sweep(&rig, true).await, Findings::default());
}

#[tokio::test]
async fn a_running_job_that_is_not_counted_is_counted_again() {
    let rig = limited().await;
    let keys = rig.queue.keys().clone();
    rig.put(&[of_key("a", 1), of_key("a", 2)]).await;
    let job = claim(&rig, 1).await.remove(0);
    rig.redis::<()>("DEL", &[&keys.slots("app.a@a"), &keys.slots("app.a")])
        .await;
    repaired(&rig, Damage::Slot, 1).await;
    assert_eq!(claim(&rig, 2).await.len(), 0, "its slot is taken");
    rig.settle(&[settlement(&job, done(&job))]).await;
    assert_eq!(claim(&rig, 3).await.len(), 1);
    assert_eq!(sweep(&rig, true).await, Findings::default());
}

#[tokio::test]
async fn flows_that_nobody_would_wake_are_put_in_line() {
    let rig = limited().await;
    let keys = rig.queue.keys().clone();
    rig.put(&[of_key("a", 1)]).await;
    rig.redis::<()>("ZREM", &[&keys.ready[2], "app.a@a"]).await;
    let line = "3:app.a@a:1700000000000.000";
    rig.redis::<()>("HSET", &[&keys.parked, "app.a@a", line, "app.a", ""])
        .await;
    assert!(tally(&rig).await.is_whole(), "the counts do not tell");
    repaired(&rig, Damage::Parked, 2).await;
    assert_eq!(claim(&rig, 1).await.len(), 1);
}

#[tokio::test]
async fn a_group_whose_members_are_gone_is_told_so() {
    let rig = Rig::new().await;
    let keys = rig.queue.keys().clone();
    let member = |n: u64, group: &str| {
        let group = format!(r#""group":{{"id":"{group}","size":2,"when":"always"}}"#);
        envelope("app.a", n, &format!(r#","id":"m{n}",{group}"#))
    };
    rig.put(&[
        member(1, "g"),
        member(2, "g"),
        member(3, "h"),
        member(4, "h"),
    ])
    .await;
    assert_eq!(
        sweep(&rig, true).await,
        Findings::default(),
        "all are there"
    );
    // Of one its ties are lost, of one everything but them.
    rig.redis::<()>("HDEL", &[&keys.ties, "m1"]).await;
    repaired(&rig, Damage::Group, 1).await;
    let flow = keys.flow(&crate::queue::rig::flow(Default::default(), "app.a"));
    rig.redis::<()>("HDEL", &[&keys.jobs, "m3"]).await;
    let entries: Vec<String> = rig.redis("LRANGE", &[&flow, "0", "-1"]).await;
    let entry = entries.iter().find(|e| e.ends_with(":m3")).unwrap();
    rig.redis::<()>("LREM", &[&flow, "1", entry]).await;
    repaired(&rig, Damage::Orphan, 1).await;
    for job in rig.claim(9).await {
        rig.done(&job).await;
    }
    for group in ["g", "h"] {
        let told = rig.queue.group(group).await.unwrap().unwrap();
        assert_eq!(
            (told.state, told.done, told.failed),
            ("done", 1, 1),
            "{group}"
        );
    }
    assert_eq!(sweep(&rig, true).await, Findings::default());
}
