//! Which daemon publishes for all, on a real server.

use crate::support::{fresh_prefix, redis_url};
use std::time::Duration;
use tidegate::config::{self, Secret, Sources};
use tidegate::queue::connection::{self, Connection};
use tidegate::queue::pages::{Desk, index_key, page_key, read};

const SECOND: Duration = Duration::from_secs(1);
const TTL: Duration = Duration::from_secs(10);

struct Bed {
    conn: Connection,
    raw: redis::aio::MultiplexedConnection,
    prefix: String,
}

async fn bed() -> Bed {
    let mut config = config::load(&Sources::default()).unwrap();
    config.redis.move_to(Secret::new(redis_url()));
    let client = redis::Client::open(redis_url()).unwrap();
    Bed {
        conn: connection::connect(&config.redis).await.unwrap(),
        raw: client.get_multiplexed_async_connection().await.unwrap(),
        prefix: fresh_prefix(),
    }
}

impl Bed {
    fn desk(&self, instance: &str) -> Desk {
        Desk::new(&self.conn, &self.prefix, instance, SECOND, TTL)
    }

    /// A daemon that published so many milliseconds from now, by the time of Redis, and no more since.
    async fn published(&self, instance: &str, ahead_ms: i64) {
        let mut redis = self.raw.clone();
        let time: (i64, i64) = redis::cmd("TIME").query_async(&mut redis).await.unwrap();
        let at = time.0 * 1_000 + time.1 / 1_000 + ahead_ms;
        redis::pipe()
            .cmd("ZADD")
            .arg(index_key(&self.prefix))
            .arg(at)
            .arg(instance)
            .cmd("SET")
            .arg(page_key(&self.prefix, instance))
            .arg("{}")
            .query_async::<()>(&mut redis)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn the_first_in_order_of_name_publishes_for_all() {
    let bed = bed().await;
    bed.published("a", 0).await;
    let mut desk = bed.desk("b");
    desk.publish("{}", None).await.unwrap();
    assert!(!desk.leads());
    let mut first = bed.desk("0");
    first.publish("{}", None).await.unwrap();
    assert!(first.leads());
    let heard = first.publish("{}", Some("{}")).await.unwrap();
    assert_eq!(heard.others.len(), 2);
}

#[tokio::test]
async fn who_published_at_a_time_that_is_still_to_come_silences_nobody() {
    let bed = bed().await;
    for (name, ahead_ms) in [("a", 3_600_000), ("aa", 6_000), ("aaa", -6_000)] {
        bed.published(name, ahead_ms).await;
    }
    let mut desk = bed.desk("b");
    desk.publish("{}", None).await.unwrap();
    assert!(
        desk.leads(),
        "the clock of Redis was ahead, and is right by now"
    );
    let pages = read(&bed.conn, &bed.prefix).await.unwrap();
    assert_eq!(pages.len(), 3, "what is an hour ahead is gone: {pages:?}");
}

#[tokio::test]
async fn a_page_is_read_with_the_time_it_was_published_at() {
    let bed = bed().await;
    let mut desk = bed.desk("a");
    let heard = desk.publish("{\"v\":1}", None).await.unwrap();
    let pages = read(&bed.conn, &bed.prefix).await.unwrap();
    assert_eq!((pages.len(), &*pages[0].page), (1, "{\"v\":1}"));
    let age = heard.now_ms.abs_diff(pages[0].at_ms);
    assert!(age < 1_000, "{age} ms");
    desk.leave().await.unwrap();
    assert!(read(&bed.conn, &bed.prefix).await.unwrap().is_empty());
}
