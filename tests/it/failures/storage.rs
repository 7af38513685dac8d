//! How Redis is set up, and whether the scripts keep to what they say they touch.

use super::private;
use crate::daemon::process::{Site, append_to};
use crate::queue::model;
use crate::queue::rig::{Rig, envelope};
use crate::support::{DEADLINE, wait_until};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use tidegate::queue::board;

/// Commands within a script that touch no key, or a channel.
const KEYLESS: [&str; 2] = ["time", "publish"];

/// A server's account of every command, those inside scripts included.
struct Monitor(BufReader<TcpStream>);

impl Monitor {
    fn of(port: u16) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(b"MONITOR\r\n").unwrap();
        Self(BufReader::new(stream))
    }

    /// Reads on until somebody echoes `word`; returns the calls of scripts, and what each touched without saying so.
    fn undeclared(&mut self, word: &str) -> (usize, BTreeSet<String>) {
        let (mut declared, mut calls, mut found) = (BTreeSet::new(), 0, BTreeSet::new());
        let mut line = String::new();
        loop {
            line.clear();
            self.0.read_line(&mut line).unwrap();
            let Some((from, words)) = line.split_once(" [").and_then(|(_, l)| l.split_once("] "))
            else {
                continue;
            };
            let words = quoted(words);
            let name = words[0].to_ascii_lowercase();
            if name == "echo" && words[1] == word {
                return (calls, found);
            }
            if !from.ends_with(" lua") {
                declared.clear();
                if name == "evalsha" {
                    calls += 1;
                    let count: usize = words[2].parse().unwrap();
                    declared.extend(words[3..3 + count].iter().cloned());
                }
            } else if !declared.is_empty()
                && !KEYLESS.contains(&&*name)
                && !declared.contains(&words[1])
            {
                found.insert(format!("{name} {}", words[1]));
            }
        }
    }
}

/// The words of a command as MONITOR writes them. Keys hold nothing that it would escape.
fn quoted(text: &str) -> Vec<String> {
    let (mut words, mut word, mut inside, mut escaped) = (Vec::new(), String::new(), false, false);
    for c in text.chars() {
        match c {
            _ if escaped => {
                word.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' if inside => {
                words.push(std::mem::take(&mut word));
                inside = false;
            }
            '"' => inside = true,
            _ if inside => word.push(c),
            _ => {}
        }
    }
    words
}

#[tokio::test(flavor = "multi_thread")]
async fn f14_eviction_and_cluster_slots() {
    // A cluster refuses a script whose keys are not all in one slot, or that reaches into another.
    let server = private(|o| o.extra_args = vec!["--cluster-enabled".to_owned(), "yes".to_owned()]);
    let mut conn = redis::Client::open(server.redis.url())
        .unwrap()
        .get_multiplexed_async_connection()
        .await
        .unwrap();
    redis::cmd("CLUSTER")
        .arg(&["ADDSLOTSRANGE", "0", "16383"])
        .query_async::<()>(&mut conn)
        .await
        .unwrap();
    wait_until("the cluster is up", DEADLINE, || async {
        let info: String = redis::cmd("CLUSTER")
            .arg("INFO")
            .query_async(&mut conn.clone())
            .await
            .unwrap();
        info.contains("cluster_state:ok")
    })
    .await;
    let apart = redis::cmd("EVAL")
        .arg("#!lua\nreturn redis.call('GET', 'b')")
        .arg(&["1", "a"])
        .query_async::<()>(&mut conn)
        .await;
    assert!(apart.is_err(), "this server holds scripts to their slot");
    // Everything that can be done to a queue is done, and the server tells which keys were touched. First of a script
    // that does not say what it touches, so that we know it would be found.
    let mut monitor = Monitor::of(server.redis.port());
    let sly: String = redis::cmd("SCRIPT")
        .arg(&["LOAD", "return redis.call('GET', 'b')"])
        .query_async(&mut conn)
        .await
        .unwrap();
    redis::pipe()
        .cmd("EVALSHA")
        .arg(&[&*sly, "1", "a"])
        .cmd("ECHO")
        .arg("the beginning")
        .query_async::<(Option<String>, String)>(&mut conn)
        .await
        .unwrap();
    let (_, undeclared) = monitor.undeclared("the beginning");
    assert_eq!(undeclared, BTreeSet::from(["get b".to_owned()]));
    let url = server.redis.url();
    tokio::task::spawn_blocking(move || model::some(&url, 40))
        .await
        .unwrap();
    redis::cmd("ECHO")
        .arg("the end")
        .query_async::<()>(&mut conn)
        .await
        .unwrap();
    let (calls, undeclared) = monitor.undeclared("the end");
    assert!(calls > 500, "{calls} calls of scripts");
    assert_eq!(
        undeclared,
        BTreeSet::new(),
        "touched without being declared"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn f14_a_server_that_evicts_is_told_of_at_the_start_and_later() {
    let server = private(|o| {
        o.append_only = true;
        o.max_memory = Some(64 << 20);
    });
    let out = tempfile::NamedTempFile::new().unwrap();
    let rig = Rig::on(&server.redis.url(), |_| {}).await;
    let site = Site::on(&server.redis.url(), "", &[&append_to(out.path(), "")]);
    let daemon = site.start("a");
    daemon.wait_for_event("started").await;
    assert_eq!(daemon.events("redis_unsafe").len(), 0, "it is set up well");
    // Somebody changes it under a running daemon.
    rig.redis::<()>("CONFIG", &["SET", "maxmemory-policy", "allkeys-lru"])
        .await;
    daemon.wait_for_event("redis_unsafe").await;
    assert_eq!(
        daemon.events("redis_unsafe")[0]["setting"],
        "maxmemory-policy"
    );
    let again = site.start("b");
    again.wait_for_event("redis_unsafe").await;
    // And with noeviction, a full server refuses what is new and still ends what it has.
    rig.redis::<()>("CONFIG", &["SET", "maxmemory-policy", "noeviction"])
        .await;
    let server = board::inspect_server(&rig.conn).await.unwrap();
    assert_eq!(server.unsafe_settings, []);
    rig.put(&[envelope("app.a", 1, "")]).await;
    let job = rig.claim(1).await.remove(0);
    rig.redis::<()>("CONFIG", &["SET", "maxmemory", "1mb"])
        .await;
    let refused = rig
        .queue
        .enqueue(&[("x", envelope("app.a", 2, r#","id":"x""#).into_bytes())])
        .await;
    assert!(refused.is_err());
    rig.done(&job).await;
}
