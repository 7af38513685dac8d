//! Bounds, cost, and what somebody else put where the cache expects its own.

use super::*;
use tidegate::stack::{PrivateRedis, RedisOptions, Scratch};

/// A Redis of one's own, for tests that count commands or change the server.
fn own_redis(extra_args: &[&str]) -> (Scratch, PrivateRedis) {
    let scratch = Scratch::new().unwrap();
    let mut options = RedisOptions::new(scratch.path().join("redis"));
    options.extra_args = extra_args.iter().map(|a| (*a).to_owned()).collect();
    let redis = PrivateRedis::start(options).unwrap();
    (scratch, redis)
}

/// How often the server ran a command since `CONFIG RESETSTAT`.
async fn calls(rig: &Rig, command: &str) -> u64 {
    let stats: String = rig.raw(&["INFO", "commandstats"]).await;
    let line = format!("cmdstat_{command}:calls=");
    let found = stats.lines().find_map(|l| l.strip_prefix(&line));
    found.map_or(0, |l| l.split(',').next().unwrap().parse().unwrap())
}

#[tokio::test]
async fn a_tag_on_20_000_entries_is_invalidated_by_one_command_of_one_script() {
    let (_scratch, redis) = own_redis(&[]);
    let rig = Rig::on(redis.url(), |_| ()).await;
    let region = rig.region("eu");
    let stamp = region.begin().await.unwrap();
    let fills: Vec<Fill> = (0..20_000)
        .map(|n| fill(&format!("p:{n}"), &["shop"], "x"))
        .collect();
    let stored = region.put_many(&fills, HOUR, &stamp).await.unwrap();
    assert_eq!((stored.written, stored.refused), (20_000, 0));
    assert_eq!(get(&region, "p:19999").await, hit("x"));
    region
        .invalidate(&tags(&["first"]), &[], false)
        .await
        .unwrap();
    let entries: u64 = rig.raw(&["DBSIZE"]).await;

    rig.raw::<()>(&["CONFIG", "RESETSTAT"]).await;
    region
        .invalidate(&tags(&["shop"]), &[], false)
        .await
        .unwrap();
    assert_eq!(
        (calls(&rig, "evalsha").await, calls(&rig, "zadd").await),
        (1, 1)
    );
    for walking in ["del", "unlink", "scan", "sscan", "smembers", "keys"] {
        assert_eq!(calls(&rig, walking).await, 0, "{walking}");
    }
    assert_eq!(rig.raw::<u64>(&["DBSIZE"]).await, entries);
    for n in (0..20_000).step_by(997) {
        assert_eq!(
            get(&region, &format!("p:{n}")).await,
            miss(Miss::Invalidated)
        );
    }
}

#[tokio::test]
async fn five_thousand_tags_go_in_six_bounded_calls() {
    let (_scratch, redis) = own_redis(&[]);
    let rig = Rig::on(redis.url(), |_| ()).await;
    let region = rig.region("eu");
    rebuild(&region, "first", &["t:0"], "x").await;
    rebuild(&region, "last", &["t:4999"], "x").await;
    rebuild(&region, "none", &["t:5000"], "x").await;
    region
        .invalidate(&tags(&["first"]), &[], false)
        .await
        .unwrap();
    let many: Vec<Tag> = (0..5_000).map(|n| tag(&format!("t:{n}"))).collect();
    rig.raw::<()>(&["CONFIG", "RESETSTAT"]).await;
    region.invalidate(&many, &[], false).await.unwrap();
    assert_eq!(calls(&rig, "evalsha").await, 6);
    assert_eq!(get(&region, "first").await, miss(Miss::Invalidated));
    assert_eq!(get(&region, "last").await, miss(Miss::Invalidated));
    assert_eq!(get(&region, "none").await, hit("x"));
}

#[tokio::test]
async fn a_server_that_forgot_the_scripts_is_given_them_again() {
    let (_scratch, redis) = own_redis(&[]);
    let rig = Rig::on(redis.url(), |_| ()).await;
    let region = rig.region("eu");
    rebuild(&region, "p:1", &["shop"], "one").await;
    rig.raw::<()>(&["SCRIPT", "FLUSH"]).await;
    region
        .invalidate(&tags(&["shop"]), &[], false)
        .await
        .unwrap();
    rig.raw::<()>(&["SCRIPT", "FLUSH"]).await;
    region.collect_garbage(10).await.unwrap();
    assert_eq!(get(&region, "p:1").await, miss(Miss::Invalidated));
}

#[tokio::test]
async fn on_a_cluster_all_keys_of_a_log_are_in_one_slot() {
    let (_scratch, redis) = own_redis(&["--cluster-enabled", "yes"]);
    let rig = Rig::on(redis.url(), |_| ()).await;
    rig.raw::<()>(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"])
        .await;
    crate::support::wait_until("the cluster serves", crate::support::DEADLINE, async || {
        rig.raw::<String>(&["CLUSTER", "INFO"])
            .await
            .contains("cluster_state:ok")
    })
    .await;
    let region = rig.region("eu");
    rebuild(&region, "p:1", &["shop"], "one").await;
    assert_eq!(get(&region, "p:1").await, hit("one"));
    region
        .invalidate(&tags(&["shop"]), &[], false)
        .await
        .unwrap();
    region.collect_garbage(10).await.unwrap();
    assert_eq!(get(&region, "p:1").await, miss(Miss::Invalidated));
}

#[tokio::test]
async fn entries_over_a_limit_are_refused() {
    let rig = Rig::on(redis_url(), |c| c.max_entry = 1_024).await;
    let region = rig.region("eu");
    let stamp = region.begin().await.unwrap();
    let long = "x".repeat(2_000);
    let names: Vec<String> = (0..65).map(|n| format!("t:{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (large, tagged) = (fill("large", &[], &long), fill("tagged", &names, "x"));
    for bad in [&large, &tagged] {
        let error = region.put(bad, HOUR, &stamp).await.unwrap_err();
        assert!(matches!(error, CacheError::Limit(_)), "{error:?}");
    }
    let fine = fill("fine", &["a"], "x");
    for ttl in [Duration::ZERO, rig.config.max_ttl * 2] {
        let error = region.put(&fine, ttl, &stamp).await.unwrap_err();
        assert!(matches!(error, CacheError::Limit(_)), "{error:?}");
    }
    let stored = region
        .put_many(&[large, fine, tagged], HOUR, &stamp)
        .await
        .unwrap();
    assert_eq!((stored.written, stored.refused), (1, 2));
    assert!(stored.reason.unwrap().contains("\"large\""));
    assert_eq!(get(&region, "fine").await, hit("x"));
    let error = region.invalidate(&[], &[], false).await.unwrap_err();
    assert!(matches!(error, CacheError::Limit(_)), "{error:?}");
}

#[tokio::test]
async fn entries_live_as_long_as_asked_give_or_take_a_tenth() {
    let rig = Rig::shared().await;
    let region = rig.region("eu");
    let stamp = region.begin().await.unwrap();
    let fills: Vec<Fill> = (0..50).map(|n| fill(&format!("p:{n}"), &[], "x")).collect();
    region.put_many(&fills, HOUR, &stamp).await.unwrap();
    let mut lives = Vec::new();
    for n in 0..50 {
        let key = rig.entry_key("eu", &format!("p:{n}"));
        lives.push(rig.raw::<i64>(&["PTTL", &key]).await);
    }
    let (least, most) = (*lives.iter().min().unwrap(), *lives.iter().max().unwrap());
    assert!(
        least > 3_600_000 * 89 / 100 && most <= 3_600_000 * 110 / 100,
        "{least} {most}"
    );
    assert!(
        most - least > 60_000,
        "all expire together: {least} to {most}"
    );
}

#[tokio::test]
async fn what_is_no_entry_is_a_miss() {
    let rig = Rig::on(redis_url(), |c| c.max_entry = 1_024).await;
    let region = rig.region("eu");
    rebuild(&region, "p:1", &[], "one").await;
    let key = rig.entry_key("eu", "p:1");
    let long = "x".repeat(5_000);
    for foreign in ["plain", "{}\nx", "\n", "{\"v\":2}\nx", "\u{0}", &long] {
        rig.raw::<()>(&["SET", &key, foreign]).await;
        assert_eq!(get(&region, "p:1").await, miss(Miss::Unreadable));
    }
    let counts = rig.cache.counts();
    assert_eq!((counts.hits, counts.missed(Miss::Unreadable)), (0, 6));
    rebuild(&region, "p:1", &[], "two").await;
    assert_eq!(get(&region, "p:1").await, hit("two"));
    assert_eq!(rig.cache.counts().hits, 1);
}

#[tokio::test]
async fn keys_of_another_type_are_told_and_left_alone() {
    for part in ["seq", "inv", "floor", "epoch"] {
        let rig = Rig::shared().await;
        let region = rig.region("eu");
        rebuild(&region, "p:1", &["shop"], "one").await;
        let key = rig.log_key(part, "eu");
        rig.raw::<()>(&["DEL", &key]).await;
        rig.raw::<()>(&["RPUSH", &key, "mine"]).await;
        assert_foreign(region.begin().await, part);
        assert_foreign(region.get(&super::key("p:1")).await, part);
        assert_foreign(region.invalidate(&tags(&["shop"]), &[], false).await, part);
        assert_foreign(region.collect_garbage(10).await, part);
        let kept: Vec<String> = rig.raw(&["LRANGE", &key, "0", "-1"]).await;
        assert_eq!(kept, ["mine"], "{part}");
    }
}

#[tokio::test]
async fn an_entry_of_another_type_is_told() {
    let rig = Rig::shared().await;
    let region = rig.region("eu");
    rig.raw::<()>(&["RPUSH", &rig.entry_key("eu", "p:1"), "mine"])
        .await;
    assert_foreign(region.get(&key("p:1")).await, "entry");
}

#[tokio::test]
async fn numbers_that_are_none_are_told_and_left_alone() {
    for part in ["seq", "floor"] {
        let rig = Rig::shared().await;
        let region = rig.region("eu");
        rebuild(&region, "p:1", &["shop"], "one").await;
        let key = rig.log_key(part, "eu");
        rig.raw::<()>(&["SET", &key, "many"]).await;
        assert_foreign(region.begin().await, part);
        assert_foreign(region.get(&super::key("p:1")).await, part);
        assert_foreign(region.invalidate(&tags(&["shop"]), &[], false).await, part);
        assert_foreign(region.collect_garbage(10).await, part);
        assert_eq!(rig.raw::<String>(&["GET", &key]).await, "many");
    }
}
