//! What must never become a job, or stop the others from running.

use super::rig::{Rig, envelope};
use tidegate::queue::Verdict;

/// Entries with the code under which they are set aside.
fn hostile() -> Vec<(&'static str, Vec<u8>)> {
    let args = |inner: &str| format!(r#"{{"kind":"app.a","args":{inner}}}"#).into_bytes();
    let field = |text: &str| format!(r#"{{"kind":"app.a",{text}}}"#).into_bytes();
    let deep = |n: usize| {
        args(&format!(
            r#"{{"n":1,"x":{}{}}}"#,
            "[".repeat(n),
            "]".repeat(n)
        ))
    };
    let mut list = vec![
        ("malformed", b"".to_vec()),
        ("malformed", b"{\"kind\":\"app.a\"".to_vec()),
        ("malformed", b"\0\xff\xfe garbage".to_vec()),
        ("malformed", b"\xef\xbb\xbf{\"kind\":\"app.a\"}".to_vec()),
        (
            "malformed",
            b"{\"kind\":\"app.a\",\"args\":{\"n\":\"\xff\"}}".to_vec(),
        ),
        ("malformed", b"{\"kind\":\"app.a\"} trailing".to_vec()),
        ("malformed", b"{\"kind\":\"app\0a\"}".to_vec()),
        (
            "malformed",
            "{\"kind\":\"app.\u{202e}a\"}".as_bytes().to_vec(),
        ),
        ("malformed", deep(33)),
        ("malformed", deep(100_000)),
        ("unknown_kind", br#"{"kind":"no.such"}"#.to_vec()),
        ("unknown_field", field(r#""colour":"red""#)),
        (
            "malformed",
            field(r#""unique":{"key":"x","until":"never"}"#),
        ),
        ("malformed", field(r#""then":{"kind":"app.a","then":[]}"#)),
        ("bad_args", field(r#""unique":{"args":["m"]}"#)),
        ("unknown_version", field(r#""v":2"#)),
        ("wrong_queue", field(r#""queue":"other""#)),
        ("bad_args", args(r#"{"n":"one"}"#)),
        ("bad_args", args(r#"{"n":1,"other":2}"#)),
        (
            "too_large",
            args(&format!(r#"{{"n":"{}"}}"#, "x".repeat(256 * 1024))),
        ),
    ];
    for text in [
        r#"{"n":"\ud800"}"#,
        r#"{"n":1,"n":2}"#,
        r#"{"n":NaN}"#,
        r#"{"n":1e400}"#,
    ] {
        list.push(("malformed", args(text)));
    }
    for text in [
        r#""kind":"app.a""#,
        r#""delay_ms":-1"#,
        r#""delay_ms":31536000001"#,
        r#""run_at":9007199254740992"#,
        r#""expires_at":9007199254740992"#,
        r#""priority":-1"#,
        r#""priority":999"#,
        r#""max_attempts":1000000000"#,
        r#""timeout_ms":0"#,
        r#""queue":"a:b""#,
        r#""queue":"{x}""#,
        r#""queue":"""#,
        r#""queue":"..""#,
        r#""queue":"a\r\nb""#,
        r#""id":"a:b""#,
        r#""id":"a\u0000b""#,
    ] {
        list.push(("malformed", field(text)));
    }
    list
}

#[tokio::test]
async fn each_hostile_entry_is_set_aside_as_it_came_and_the_others_run() {
    let rig = Rig::new().await;
    let list = hostile();
    let mut entries = Vec::new();
    for (n, (_, raw)) in list.iter().enumerate() {
        entries.push(raw.clone());
        entries.push(envelope("app.a", n as u64, "").into_bytes());
    }
    rig.push(&entries).await;
    let (verdicts, doubles) = rig.admit().await;
    assert_eq!((verdicts.len(), doubles.len()), (entries.len(), 0));
    assert_eq!(rig.take(1_000).await.len(), list.len());
    let kept = rig.queue.quarantined("", 1_000).await.unwrap();
    for ((code, raw), entry) in list.iter().zip(&kept) {
        let shown = String::from_utf8_lossy(&raw[..raw.len().min(60)]);
        assert_eq!(entry.code, *code, "{shown}: {}", entry.reason);
        assert_eq!(entry.raw, *raw, "{shown}");
        assert!(entry.reason.len() <= 512 && entry.at_ms > 0);
    }
    assert_eq!(kept.len(), list.len());
    assert_eq!(rig.stat("quarantined").await, list.len() as u64);
}

#[tokio::test]
async fn an_entry_too_large_to_look_at_is_cut_inside_redis() {
    let rig = Rig::new().await;
    let limit = 384 * 1024;
    let padded = |n: usize| format!(r#"{{"kind":"app.a"}}{}"#, " ".repeat(n - 16));
    let entries = [
        envelope("app.a", 1, ""),
        "x".repeat(20 << 20),
        padded(limit + 1),
        padded(limit),
        envelope("app.a", 2, ""),
    ];
    rig.push(&entries).await;
    let (verdicts, _) = rig.admit().await;
    assert_eq!(verdicts.len(), 3, "the two were never handed out");
    assert!(verdicts.iter().all(|v| matches!(v, Verdict::Ready { .. })));
    let kept = rig.queue.quarantined("", 10).await.unwrap();
    assert_eq!(kept.len(), 2);
    for entry in &kept {
        assert_eq!((entry.code.as_str(), entry.raw.len()), ("too_large", 4096));
    }
    assert!(kept[0].reason.starts_with("20971520 bytes"));
    assert_eq!(rig.stat("quarantined").await, 2);
    assert_eq!(rig.redis::<u64>("GET", &[&rig.queue.keys().taken]).await, 5);
}

#[tokio::test]
async fn one_look_at_the_inbox_is_bounded_in_bytes() {
    let rig = Rig::new().await;
    let entry = format!(r#"{{"kind":"app.a"}}{}"#, " ".repeat(300 * 1024));
    rig.push(&vec![entry; 40]).await;
    let peeked = rig.queue.peek().await.unwrap();
    let bytes: usize = peeked.entries.iter().map(Vec::len).sum();
    assert!((1 << 20..2 << 20).contains(&bytes), "{bytes}");
}

#[tokio::test]
async fn the_quarantine_is_bounded() {
    let rig = Rig::with(|c| c.retention.quarantine_max = 200).await;
    rig.put(&vec!["garbage"; 2_000]).await;
    let kept = rig.queue.counts().await.unwrap().quarantine;
    // Redis trims whole nodes of a stream, of a hundred entries.
    assert!((200..=300).contains(&kept), "{kept}");
    assert_eq!(rig.stat("quarantined").await, 2_000);
}

#[tokio::test]
async fn garbage_in_private_storage_does_not_stop_the_queue() {
    let rig = Rig::new().await;
    rig.put(&[envelope("app.a", 1, "")]).await;
    let keys = rig.queue.keys();
    let home = keys.flow(&super::rig::flow(tidegate::job::Priority::Normal, "app.a"));
    for junk in ["x", "", "not-a-time:id", "99999999999999999:id", "\u{fffd}"] {
        rig.redis::<()>("LPUSH", &[&home, junk]).await;
    }
    rig.redis::<()>("ZADD", &[&keys.ready[2], "inf", "no.such"])
        .await;
    rig.redis::<()>("HSET", &[&keys.stats, "admitted", "junk"])
        .await;
    rig.put(&[envelope("app.b", 2, "")]).await;
    let mut taken = Vec::new();
    for _ in 0..8 {
        taken.extend(rig.take(1).await);
    }
    taken.sort_unstable();
    assert_eq!(taken, [1, 2]);
    // Somebody wrote a token; whoever sweeps hands the job back under it.
    rig.put(&[envelope("app.a", 3, "")]).await;
    let mut job = rig.claim(1).await.remove(0);
    rig.redis::<()>("HSET", &[&keys.running, &job.id, "junk"])
        .await;
    job.token = "junk".to_owned();
    let back = super::rig::handed_back(super::rig::flow(tidegate::job::Priority::Normal, "app.a"));
    let settled = rig.settle(&[super::rig::settlement(&job, back)]).await;
    assert_eq!(settled.stale, Vec::<usize>::new());
    assert_eq!(rig.take(1).await, [3]);
}

#[tokio::test]
async fn times_that_are_none_are_set_aside() {
    let rig = Rig::new().await;
    let delayed = |n: u64| envelope("app.a", n, &format!(r#","id":"d{n}","delay_ms":3600000"#));
    rig.put(&(0..6).map(delayed).collect::<Vec<_>>()).await;
    let keys = rig.queue.keys();
    let scores = ["inf", "-inf", "-5", "1e300", "12.5"];
    for (n, score) in scores.iter().enumerate() {
        rig.redis::<()>("ZADD", &[&keys.delayed, score, &format!("d{n}")])
            .await;
    }
    rig.redis::<()>("ZADD", &[&keys.delayed, "1", "no-such-job"])
        .await;
    rig.redis::<()>("HSET", &[&keys.jobs, "d5", "garbage"])
        .await;
    rig.redis::<()>("ZADD", &[&keys.delayed, "1", "d5"]).await;
    rig.promote().await;
    assert_eq!(rig.quarantine().await["malformed"], 6);
    let left: u64 = rig.redis("EXISTS", &[&keys.delayed, &keys.jobs]).await;
    assert_eq!(left, 0);
    // An operator lets one go again: it is judged by its envelope, not by what was written over it.
    let entry = rig.queue.quarantined("", 1).await.unwrap().remove(0);
    assert_eq!(rig.queue.release(&[entry.id]).await.unwrap(), 1);
    rig.admit().await;
    assert_eq!(rig.queue.counts().await.unwrap().delayed, 1);
}
