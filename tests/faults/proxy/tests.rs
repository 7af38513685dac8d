//! The proxy does what it says, on a real Redis.

use super::{Harm, Proxy, resp};
use redis::aio::MultiplexedConnection;
use std::time::Duration;
use tidegate::stack::{PrivateRedis, RedisOptions};

/// How long a call may take that is answered.
const SOON: Duration = Duration::from_secs(5);

struct Rig {
    proxy: Proxy,
    direct: MultiplexedConnection,
    _redis: PrivateRedis,
    _dir: tempfile::TempDir,
}

impl Rig {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = RedisOptions::new(dir.path().join("redis"));
        let redis = tokio::task::spawn_blocking(move || PrivateRedis::start(options).unwrap());
        let redis = redis.await.unwrap();
        Self {
            proxy: Proxy::start(redis.port()).await,
            direct: connect(&redis.url()).await.unwrap(),
            _redis: redis,
            _dir: dir,
        }
    }

    async fn value(&mut self) -> i64 {
        let get = redis::cmd("GET").arg("n").to_owned();
        let found: Option<i64> = get.query_async(&mut self.direct).await.unwrap();
        found.unwrap_or(0)
    }
}

async fn connect(url: &str) -> redis::RedisResult<MultiplexedConnection> {
    let client = redis::Client::open(url)?;
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(SOON / 5));
    client
        .get_multiplexed_async_connection_with_config(&config)
        .await
}

async fn add(conn: &mut MultiplexedConnection) -> redis::RedisResult<i64> {
    redis::cmd("INCR").arg("n").query_async(conn).await
}

pub async fn messages_end_where_they_end() {
    let whole: [&[u8]; 7] = [
        b"+OK\r\n",
        b"$-1\r\n",
        b"$5\r\na\r\nbc\r\n",
        b"*2\r\n$1\r\na\r\n*1\r\n:5\r\n",
        b"%1\r\n+a\r\n$1\r\nb\r\n",
        b"*0\r\n",
        b">2\r\n+invalidate\r\n*-1\r\n",
    ];
    for message in whole {
        assert_eq!(resp::length(message), Some(message.len()), "{message:?}");
        let followed = [message, b"+next\r\n"].concat();
        assert_eq!(resp::length(&followed), Some(message.len()));
        for end in 0..message.len() {
            assert_eq!(
                resp::length(&message[..end]),
                None,
                "{message:?} up to {end}"
            );
        }
    }
}

pub async fn a_cut_request_is_not_done_and_a_cut_reply_is() {
    let mut rig = Rig::new().await;
    for (harm, done) in [(Harm::CutRequest(1.0), 0), (Harm::CutReply(1.0), 1)] {
        rig.proxy.set(Harm::Nothing);
        let mut conn = connect(&rig.proxy.url()).await.unwrap();
        let before = rig.value().await;
        rig.proxy.set(harm);
        assert!(add(&mut conn).await.is_err(), "{harm:?}");
        assert_eq!(rig.value().await - before, done, "{harm:?}");
    }
    assert_eq!(rig.proxy.hits(), 2);
}

pub async fn a_split_batch_is_done_in_part() {
    let mut rig = Rig::new().await;
    let mut conn = connect(&rig.proxy.url()).await.unwrap();
    rig.proxy.set(Harm::Split(1.0));
    let mut pipe = redis::pipe();
    (0..4).for_each(|_| {
        pipe.cmd("INCR").arg("n");
    });
    assert!(pipe.query_async::<()>(&mut conn).await.is_err());
    let done = rig.value().await;
    assert!((1..4).contains(&done), "{done}");
}

pub async fn a_swallowed_direction_leaves_the_connection_open_and_new_ones_alone() {
    let mut rig = Rig::new().await;
    for (harm, done) in [(Harm::SwallowRequests, 0), (Harm::SwallowReplies, 1)] {
        rig.proxy.set(Harm::Nothing);
        let mut old = connect(&rig.proxy.url()).await.unwrap();
        let before = rig.value().await;
        rig.proxy.set(harm);
        let answer = add(&mut old).await;
        assert!(answer.is_err_and(|e| e.is_timeout()), "{harm:?}");
        assert_eq!(rig.value().await - before, done, "{harm:?}");
        let mut new = connect(&rig.proxy.url()).await.unwrap();
        assert_eq!(add(&mut new).await.unwrap() - before, done + 1);
    }
}

pub async fn a_delay_is_felt_and_nobody_gets_through_a_cut() {
    let rig = Rig::new().await;
    let mut conn = connect(&rig.proxy.url()).await.unwrap();
    let wait = Duration::from_millis(100);
    rig.proxy.set(Harm::Delay(wait, wait * 2));
    let began = std::time::Instant::now();
    add(&mut conn).await.unwrap();
    assert!(
        began.elapsed() >= wait * 2,
        "both ways: {:?}",
        began.elapsed()
    );
    rig.proxy.set(Harm::Cut);
    assert!(add(&mut conn).await.is_err());
    assert!(connect(&rig.proxy.url()).await.is_err());
    rig.proxy.set(Harm::Nothing);
    add(&mut connect(&rig.proxy.url()).await.unwrap())
        .await
        .unwrap();
}
