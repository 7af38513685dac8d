//! The history of the fleet's load, on a real server.

use crate::support::{fresh_prefix, redis_url};
use std::collections::BTreeMap;
use tidegate::config::{self, Secret, Sources};
use tidegate::job::Priority;
use tidegate::policy::forecast::{ClassLoad, DAY, SlotLoad};
use tidegate::queue::connection;
use tidegate::queue::load_history::LoadHistory;

async fn history() -> LoadHistory {
    let mut config = config::load(&Sources::default()).unwrap();
    config.redis.move_to(Secret::new(redis_url()));
    let conn = connection::connect(&config.redis).await.unwrap();
    LoadHistory::new(conn, &fresh_prefix())
}

fn load(up_ms: i64, jobs: i64, busy_ms: i64) -> SlotLoad {
    let mut load = SlotLoad {
        up_ms,
        ..SlotLoad::default()
    };
    load.classes[Priority::Bulk.index()] = ClassLoad { jobs, busy_ms };
    load
}

#[tokio::test]
async fn daemons_add_up_and_a_repeated_batch_changes_nothing() {
    let history = history().await;
    let last_of_day = 20_000 * DAY + DAY - 1;
    let batch: BTreeMap<u64, SlotLoad> = [
        (last_of_day, load(60_000, 2, 5_000)),
        (last_of_day + 1, load(1_000, 0, 0)),
    ]
    .into();
    for _ in 0..3 {
        let fleet = history.add("a", 8, 1, &batch).await.unwrap();
        assert_eq!((fleet.daemons, fleet.slots), (1, 8));
    }
    let fleet = history.add("b", 4, 1, &batch).await.unwrap();
    assert_eq!((fleet.daemons, fleet.slots), (2, 12));
    // Late work was counted where it ran.
    let moved: BTreeMap<u64, SlotLoad> = [(last_of_day, load(0, -1, -2_000))].into();
    history.add("a", 8, 2, &moved).await.unwrap();
    let read = history.read(20_000..=20_001).await.unwrap();
    assert_eq!(
        read,
        [
            (last_of_day, load(120_000, 3, 8_000)),
            (last_of_day + 1, load(2_000, 0, 0)),
        ]
    );
    history.leave("b").await.unwrap();
    let fleet = history.add("a", 8, 3, &BTreeMap::new()).await.unwrap();
    assert_eq!((fleet.daemons, fleet.slots), (1, 8));
    assert!(history.read(19_000..=19_999).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_key_of_another_type_refuses_the_whole_batch() {
    let mut config = config::load(&Sources::default()).unwrap();
    config.redis.move_to(Secret::new(redis_url()));
    let conn = connection::connect(&config.redis).await.unwrap();
    let prefix = fresh_prefix();
    let history = LoadHistory::new(conn, &prefix);
    let client = redis::Client::open(redis_url()).unwrap();
    let mut raw = client.get_multiplexed_async_connection().await.unwrap();
    redis::cmd("RPUSH")
        .arg(format!("{prefix}:load:{{fleet}}:101"))
        .arg("x")
        .query_async::<()>(&mut raw)
        .await
        .unwrap();
    let batch = [100, 101].map(|day| (day * DAY, load(1, 1, 1))).into();
    assert!(history.add("a", 1, 1, &batch).await.is_err());
    assert!(history.read(100..=100).await.unwrap().is_empty());
    assert!(history.read(101..=101).await.is_err());
}

#[tokio::test]
async fn who_finds_a_peak_a_little_later_means_the_same_one() {
    let history = history().await;
    assert_eq!(history.agree_on_peak(5_000).await.unwrap(), 5_000);
    assert_eq!(history.agree_on_peak(5_003).await.unwrap(), 5_000);
    assert_eq!(history.agree_on_peak(4_990).await.unwrap(), 5_000);
    assert_eq!(history.agree_on_peak(5_040).await.unwrap(), 5_040);
}
