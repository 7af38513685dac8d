//! What limiters have learnt, kept on a real server.

use crate::support::{fresh_prefix, redis_url};
use tidegate::config::{self, Secret, Sources};
use tidegate::queue::connection::{self, Connection};
use tidegate::queue::limiters::{field, key, read, tidy, write};

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

fn named(n: usize) -> String {
    field("http", &format!("http:app{n}.example:443"))
}

#[tokio::test]
async fn what_is_kept_is_read_again_and_what_nobody_has_any_more_is_forgotten() {
    let mut bed = bed().await;
    let fields: Vec<String> = (0..4).map(named).collect();
    let entries = [0, 1].map(|n| (named(n), format!("{{\"limit\": {n}}}")));
    write(&bed.conn, &bed.prefix, &entries).await.unwrap();
    let _: () = redis::cmd("HSET")
        .arg(key(&bed.prefix))
        .arg(&fields[2])
        .arg("1790000 {\"limit\": 2}")
        .arg(&fields[3])
        .arg("nonsense")
        .query_async(&mut bed.raw)
        .await
        .unwrap();
    let kept = read(&bed.conn, &bed.prefix, &fields).await.unwrap();
    let limit = |n: usize| Some(format!("{{\"limit\": {n}}}"));
    assert_eq!(kept, [limit(0), limit(1), limit(2), None]);
    assert_eq!(tidy(&bed.conn, &bed.prefix).await.unwrap(), 2);
    let kept = read(&bed.conn, &bed.prefix, &fields).await.unwrap();
    assert_eq!(kept, [limit(0), limit(1), None, None]);
    assert_eq!(tidy(&bed.conn, &bed.prefix).await.unwrap(), 0);
}

#[tokio::test]
async fn there_are_never_more_than_a_thousand_for_long_and_the_oldest_go() {
    let bed = bed().await;
    let entries = |range: std::ops::Range<usize>| -> Vec<(String, String)> {
        range.map(|n| (named(n), "{}".to_owned())).collect()
    };
    let mut redis = bed.raw.clone();
    let now: (u64, u64) = redis::cmd("TIME").query_async(&mut redis).await.unwrap();
    let day_ago = (now.0 - 86_400) * 1_000;
    let mut first = redis::cmd("HSET");
    first.arg(key(&bed.prefix));
    for (field, text) in (0..5).map(|n| (named(n), format!("{day_ago} {{}}"))) {
        first.arg(field).arg(text);
    }
    first.query_async::<()>(&mut redis).await.unwrap();
    write(&bed.conn, &bed.prefix, &entries(5..1_005))
        .await
        .unwrap();
    assert_eq!(tidy(&bed.conn, &bed.prefix).await.unwrap(), 5);
    let asked = [named(4), named(5), named(1_004)];
    let kept = read(&bed.conn, &bed.prefix, &asked).await.unwrap();
    assert_eq!(kept, [None, Some("{}".to_owned()), Some("{}".to_owned())]);
}

#[tokio::test]
async fn a_key_of_another_type_is_an_error_and_stays_as_it_is() {
    let mut bed = bed().await;
    redis::cmd("SET")
        .arg(key(&bed.prefix))
        .arg("mine")
        .query_async::<()>(&mut bed.raw)
        .await
        .unwrap();
    let fields = [named(1)];
    assert!(read(&bed.conn, &bed.prefix, &fields).await.is_err());
    let entries = [(named(1), "{}".to_owned())];
    assert!(write(&bed.conn, &bed.prefix, &entries).await.is_err());
    assert!(tidy(&bed.conn, &bed.prefix).await.is_err());
    let text: String = redis::cmd("GET")
        .arg(key(&bed.prefix))
        .query_async(&mut bed.raw)
        .await
        .unwrap();
    assert_eq!(text, "mine");
}
