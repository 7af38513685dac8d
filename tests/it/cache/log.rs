//! The log: what is invalidated by what, what is lost and recovered, what is forgotten and when.

use super::*;

#[tokio::test]
async fn an_entry_is_served_until_its_tag_key_or_region_is_invalidated() {
    let rig = Rig::shared().await;
    let region = rig.region("eu");
    for (tags, keys, all) in [
        (tags(&["shop"]), vec![], false),
        (vec![], vec![key("p:1")], false),
        (tags(&["other", "user:7"]), vec![key("p:9")], false),
        (vec![], vec![], true),
    ] {
        rebuild(&region, "p:1", &["shop", "user:7"], "one").await;
        rebuild(&region, "p:2", &["depot"], "two").await;
        assert_eq!(get(&region, "p:1").await, hit("one"));
        region.invalidate(&tags, &keys, all).await.unwrap();
        assert_eq!(get(&region, "p:1").await, miss(Miss::Invalidated));
        let untouched = if all {
            miss(Miss::Invalidated)
        } else {
            hit("two")
        };
        assert_eq!(get(&region, "p:2").await, untouched);
    }
    assert_eq!(get(&region, "p:3").await, miss(Miss::Absent));
}

#[tokio::test]
async fn a_fill_that_began_before_an_invalidation_never_counts() {
    let rig = Rig::shared().await;
    let region = rig.region("eu");
    let stamp = region.begin().await.unwrap();
    region
        .invalidate(&tags(&["shop"]), &[], false)
        .await
        .unwrap();
    region
        .put(&fill("p:1", &["shop"], "old"), HOUR, &stamp)
        .await
        .unwrap();
    assert_eq!(get(&region, "p:1").await, miss(Miss::Invalidated));
    // The same stamp is good for what was not invalidated.
    region
        .put(&fill("p:2", &["depot"], "two"), HOUR, &stamp)
        .await
        .unwrap();
    assert_eq!(get(&region, "p:2").await, hit("two"));
    rebuild(&region, "p:1", &["shop"], "new").await;
    assert_eq!(get(&region, "p:1").await, hit("new"));
}

#[tokio::test]
async fn regions_share_neither_entries_nor_invalidations() {
    let rig = Rig::shared().await;
    let (eu, us) = (rig.region("eu"), rig.region("us"));
    rebuild(&eu, "p:1", &["shop"], "eu").await;
    rebuild(&us, "p:1", &["shop"], "us").await;
    eu.invalidate(&tags(&["shop"]), &[key("p:1")], false)
        .await
        .unwrap();
    eu.invalidate(&[], &[], true).await.unwrap();
    assert_eq!(get(&eu, "p:1").await, miss(Miss::Invalidated));
    assert_eq!(get(&us, "p:1").await, hit("us"));
}

#[tokio::test]
async fn another_epoch_makes_every_entry_miss() {
    let rig = Rig::shared().await;
    let region = rig.region("eu");
    rebuild(&region, "p:1", &["shop"], "one").await;
    rig.raw::<()>(&["SET", &rig.log_key("epoch", "eu"), "another"])
        .await;
    assert_eq!(get(&region, "p:1").await, miss(Miss::OtherEpoch));
    rebuild(&region, "p:1", &["shop"], "two").await;
    assert_eq!(get(&region, "p:1").await, hit("two"));
}

#[tokio::test]
async fn a_log_that_lost_any_part_misses_all_and_recovers() {
    for lost in ["seq", "inv", "floor", "epoch"] {
        let rig = Rig::shared().await;
        let region = rig.region("eu");
        for _ in 0..5 {
            region
                .invalidate(&tags(&["warm-up"]), &[], false)
                .await
                .unwrap();
        }
        rebuild(&region, "p:1", &["shop"], "one").await;
        rebuild(&region, "p:2", &[], "two").await;
        rig.raw::<()>(&["DEL", &rig.log_key(lost, "eu")]).await;
        assert_eq!(get(&region, "p:1").await, miss(Miss::LogLost), "{lost}");
        assert_eq!(get(&region, "p:2").await, miss(Miss::LogLost), "{lost}");

        rebuild(&region, "p:1", &["shop"], "new").await;
        assert_eq!(get(&region, "p:1").await, hit("new"), "{lost}");
        // Not even when a counter that began anew has passed the old stamps.
        for _ in 0..10 {
            region
                .invalidate(&tags(&["warm-up"]), &[], false)
                .await
                .unwrap();
        }
        assert_eq!(get(&region, "p:2").await, miss(Miss::OtherEpoch), "{lost}");
        assert_eq!(get(&region, "p:1").await, hit("new"), "{lost}");
    }
}

#[tokio::test]
async fn an_invalidation_of_a_lost_log_opens_it_anew() {
    for lost in ["seq", "inv"] {
        let rig = Rig::shared().await;
        let region = rig.region("eu");
        let stamp = region.begin().await.unwrap();
        region
            .put(&fill("p:1", &["shop"], "old"), HOUR, &stamp)
            .await
            .unwrap();
        rig.raw::<()>(&["DEL", &rig.log_key(lost, "eu")]).await;
        region
            .invalidate(&tags(&["depot"]), &[], false)
            .await
            .unwrap();
        assert_eq!(get(&region, "p:1").await, miss(Miss::OtherEpoch), "{lost}");
        // A rebuild that began in the lost epoch must not slip into the new one.
        region
            .put(&fill("p:1", &["shop"], "old"), HOUR, &stamp)
            .await
            .unwrap();
        assert_eq!(get(&region, "p:1").await, miss(Miss::OtherEpoch), "{lost}");
    }
}

#[tokio::test]
async fn a_counter_that_a_failover_set_back_is_noticed() {
    let rig = Rig::shared().await;
    let region = rig.region("eu");
    rebuild(&region, "p:1", &["shop"], "one").await;
    for _ in 0..3 {
        region
            .invalidate(&tags(&["depot"]), &[], false)
            .await
            .unwrap();
    }
    rebuild(&region, "p:2", &["shop"], "two").await;
    let inv = rig.log_key("inv", "eu");
    // The new primary has not heard of the last two.
    rig.raw::<()>(&["SET", &rig.log_key("seq", "eu"), "1"])
        .await;
    rig.raw::<()>(&["ZADD", &inv, "1", "depot"]).await;
    assert_eq!(get(&region, "p:1").await, miss(Miss::LogLost));

    // A process that never saw the lost tail still refuses what is younger than the counter.
    let stranger = rig.other_process().await.region(region.name());
    assert_eq!(get(&stranger, "p:2").await, miss(Miss::AheadOfLog));

    let before: String = rig.raw(&["GET", &rig.log_key("epoch", "eu")]).await;
    rebuild(&region, "p:1", &["shop"], "new").await;
    let after: String = rig.raw(&["GET", &rig.log_key("epoch", "eu")]).await;
    assert_ne!(before, after);
    assert_eq!(get(&region, "p:1").await, hit("new"));
    assert_eq!(get(&stranger, "p:2").await, miss(Miss::OtherEpoch));
}

#[tokio::test]
async fn garbage_goes_once_no_entry_can_need_it_step_by_step() {
    let rig = Rig::shared().await;
    let region = rig.region("eu");
    let (inv, marks) = (rig.log_key("inv", "eu"), rig.log_key("marks", "eu"));
    rebuild(&region, "p:old", &[], "old").await;
    let old: Vec<Tag> = (0..25).map(|n| tag(&format!("old:{n}"))).collect();
    let reached = region.invalidate(&old, &[], false).await.unwrap();
    let first = region.collect_garbage(10).await.unwrap();
    assert_eq!((first.removed, first.left), (0, 0), "nothing is old yet");

    // As if that look had been longer ago than any entry can live.
    rig.raw::<()>(&["ZADD", &marks, "1", &reached.to_string()])
        .await;
    rebuild(&region, "p:new", &["young"], "new").await;
    region
        .invalidate(&tags(&["young"]), &[], false)
        .await
        .unwrap();
    let mut steps = Vec::new();
    for _ in 0..4 {
        let step = region.collect_garbage(10).await.unwrap();
        steps.push((step.removed, step.left));
    }
    assert_eq!(steps, [(10, 15), (10, 5), (5, 0), (0, 0)]);
    let left: Vec<String> = rig.raw(&["ZRANGE", &inv, "0", "-1"]).await;
    assert_eq!(left, ["young", "!"]);
    assert_eq!(get(&region, "p:old").await, miss(Miss::BelowFloor));
    assert_eq!(get(&region, "p:new").await, miss(Miss::Invalidated));
    rebuild(&region, "p:new", &["old:1"], "newer").await;
    assert_eq!(get(&region, "p:new").await, hit("newer"));
}

#[tokio::test]
async fn a_log_over_its_cap_forgets_the_oldest_and_only_misses_result() {
    let rig = Rig::on(redis_url(), |c| c.log_max = 100).await;
    let region = rig.region("eu");
    rebuild(&region, "p:old", &["t:0"], "old").await;
    for n in 0..250 {
        region
            .invalidate(&[tag(&format!("t:{n}"))], &[], false)
            .await
            .unwrap();
    }
    rebuild(&region, "p:new", &["t:0"], "new").await;
    assert_eq!(get(&region, "p:old").await, miss(Miss::Invalidated));
    let collected = region.collect_garbage(10_000).await.unwrap();
    assert_eq!((collected.removed, collected.left), (150, 0));
    let size: u64 = rig.raw(&["ZCARD", &rig.log_key("inv", "eu")]).await;
    assert_eq!(size, 101, "the cap and the sentinel");
    assert_eq!(get(&region, "p:old").await, miss(Miss::BelowFloor));
    assert_eq!(get(&region, "p:new").await, hit("new"));
}

#[tokio::test]
async fn marks_of_time_stay_few() {
    let rig = Rig::on(redis_url(), |c| c.max_ttl = Duration::from_millis(64)).await;
    let region = rig.region("eu");
    for n in 0..300 {
        region
            .invalidate(&[tag(&format!("t:{n}"))], &[], false)
            .await
            .unwrap();
        region.collect_garbage(10_000).await.unwrap();
        let marks: u64 = rig.raw(&["ZCARD", &rig.log_key("marks", "eu")]).await;
        assert!(marks <= 34, "{marks} marks");
    }
}

#[tokio::test]
async fn listeners_hear_the_counter_of_each_invalidation() {
    use futures::StreamExt;
    let rig = Rig::shared().await;
    let client = redis::Client::open(redis_url()).unwrap();
    let mut listener = client.get_async_pubsub().await.unwrap();
    let channel = format!("{}:changed", rig.log_key("inv", "eu"));
    listener.subscribe(channel).await.unwrap();
    let seq = rig
        .region("eu")
        .invalidate(&tags(&["shop"]), &[], false)
        .await
        .unwrap();
    let mut messages = listener.on_message();
    let heard = tokio::time::timeout(crate::support::DEADLINE, messages.next());
    let heard: u64 = heard.await.unwrap().unwrap().get_payload().unwrap();
    assert_eq!(heard, seq);
}
