//! The store of shared breakers: who is first decides, everybody hears, and all of it is bounded and expires.

use super::rig::Rig;
use tidegate::queue::QueueError;
use tidegate::queue::fleet::{Change, Fleet, NEWS_MAX};

fn store(rig: &Rig, who: &str) -> Fleet {
    Fleet::new(rig.conn.clone(), &rig.config.redis.prefix, who)
}

fn change(operation: &str, old: &str, new: &str) -> Change {
    let [operation, old, new] = [operation, old, new].map(str::to_owned);
    Change {
        operation,
        old,
        new,
    }
}

fn key(rig: &Rig, name: &str) -> String {
    format!("{}:gate:{{gate}}:{name}", rig.config.redis.prefix)
}

#[tokio::test]
async fn of_two_changes_made_from_the_same_decision_the_first_counts() {
    let rig = Rig::new().await;
    let (mut a, mut b) = (store(&rig, "a"), store(&rig, "b"));
    let first = a.turn("", &[change("op", "", "one")]).await.unwrap();
    assert_eq!(first.made, [true]);
    let late = b.turn("", &[change("op", "", "other")]).await.unwrap();
    assert_eq!(late.made, [false]);
    assert_eq!(late.decisions, [("op".to_owned(), "one".to_owned())]);
    let again = a.turn("", &[change("op", "", "one")]).await.unwrap();
    assert_eq!(again.made, [false], "repeated, it changes nothing");
    let both = [change("op", "one", "two"), change("else", "", "x")];
    let next = b.turn("", &both).await.unwrap();
    assert_eq!(next.made, [true, true]);
    let ttl: i64 = rig.redis("PTTL", &[&key(&rig, "breakers")]).await;
    assert!(ttl > 0, "it expires");
    let forgotten = a.turn("", &[change("op", "two", "")]).await.unwrap();
    assert_eq!(forgotten.decisions, [("else".to_owned(), "x".to_owned())]);
}

#[tokio::test]
async fn news_are_heard_once_by_everybody_with_the_time_of_the_server() {
    let rig = Rig::new().await;
    let (mut a, mut b) = (store(&rig, "a"), store(&rig, "b"));
    assert!(a.turn("", &[]).await.unwrap().news.is_empty());
    let told = a.turn("[1]", &[]).await.unwrap();
    let heard = b.turn("[2]", &[]).await.unwrap();
    let texts: Vec<(&str, &str)> = heard.news.iter().map(|n| (&*n.who, &*n.text)).collect();
    assert_eq!(texts, [("a", "[1]"), ("b", "[2]")]);
    assert_eq!(heard.news[0].at_ms, told.now_ms);
    let rest = a.turn("", &[]).await.unwrap();
    assert_eq!(rest.news.len(), 1, "its own it has heard");
    assert!(a.turn("", &[]).await.unwrap().news.is_empty());
    let ttl: i64 = rig.redis("PTTL", &[&key(&rig, "breakers:news")]).await;
    assert!(ttl > 0, "they expire");
    let too_long = "x".repeat(NEWS_MAX + 1);
    assert!(a.turn(&too_long, &[]).await.unwrap().news.is_empty());
}

#[tokio::test]
async fn a_thousand_news_and_a_thousand_decisions_are_all_there_is_room_for() {
    let rig = Rig::new().await;
    let mut a = store(&rig, "a");
    for _ in 0..1_100 {
        a.turn("[]", &[]).await.unwrap();
    }
    let length: u64 = rig.redis("XLEN", &[&key(&rig, "breakers:news")]).await;
    assert_eq!(length, 1_024);
    let made = |from: usize| -> Vec<Change> {
        let each = (from..from + 60).map(|n| change(&format!("op{n}"), "", "x"));
        each.collect()
    };
    for from in (0..1_200).step_by(60) {
        a.turn("", &made(from)).await.unwrap();
    }
    let turn = a.turn("", &[]).await.unwrap();
    assert_eq!(turn.decisions.len(), 1_000);
}

#[tokio::test]
async fn a_key_of_another_type_is_an_error_and_nothing_is_written() {
    let rig = Rig::new().await;
    let mut a = store(&rig, "a");
    let () = rig.redis("SET", &[&key(&rig, "breakers:news"), "x"]).await;
    let refused = a.turn("[1]", &[change("op", "", "one")]).await;
    assert!(
        matches!(refused, Err(QueueError::WrongType(_))),
        "{refused:?}"
    );
    let there: u64 = rig.redis("EXISTS", &[&key(&rig, "breakers")]).await;
    assert_eq!(there, 0);
}
