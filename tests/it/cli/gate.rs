//! `gate show`, `force`, `release` and `log`, with daemons that obey.

use super::{at, json_at};
use crate::daemon::process::{Process, Site};
use crate::support::{DEADLINE, wait_until};
use serde_json::{Value, json};
use tidegate::queue::{board, connection, pages};

/// Daemons that tell and hear often, and whom a busy machine does not make hold jobs back.
pub const QUICK: &str = "[gate]\nsample = \"200ms\"\nhold = \"1s\"\nfailure_hold = \"0s\"\n[gate.limits]\nredis_rtt = [\"10s\", \"20s\"]\npsi_memory_some = [99.0, 100.0]\npsi_memory_full = [99.0, 100.0]\nmemory = [99.0, 100.0]\n[daemon]\npoll = \"100ms\"\n";
/// A kind that shedding hits first, on a resource that nobody probes.
const BULK: &str = "kind = \"app.bulk\"\nhandler = \"exec\"\npriority = \"bulk\"\nresources = [\"other:thing\"]\n[exec]\ncommand = [\"/bin/true\"]";
const FREE: &str = "kind = \"app.free\"\nhandler = \"exec\"\n[exec]\ncommand = [\"/bin/true\"]";

fn shown(site: &Site) -> Value {
    json_at(site, &["gate", "show", "--daemons"]).ok()
}

/// Waits until every one of so many daemons shows the condition on its page.
pub async fn all_show(site: &Site, what: &str, daemons: usize, condition: impl Fn(&Value) -> bool) {
    let conn = connection::connect(&site.config.redis).await.unwrap();
    let prefix = &site.config.redis.prefix;
    wait_until(what, DEADLINE, || async {
        let pages = pages::read(&conn, prefix).await.unwrap();
        let json = |told: &pages::Published| serde_json::from_str(&told.page).unwrap();
        let pages: Vec<Value> = pages.iter().map(json).collect();
        pages.len() == daemons && pages.iter().all(&condition)
    })
    .await;
}

fn thing(page: &Value) -> &Value {
    &page["resources"]["other:thing"]
}

fn codes(answer: &Value) -> Vec<&str> {
    let reasons = answer["reasons"].as_array().unwrap().iter();
    reasons.map(|r| r["code"].as_str().unwrap()).collect()
}

fn told(daemon: &Process) -> Vec<(String, String)> {
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    let events = daemon.events("gate_order");
    let each = events.iter();
    each.map(|e| (text(&e["what"]), text(&e["order"])))
        .collect()
}

async fn pushed(site: &Site, kind: &str, jobs: usize) {
    let name = kind.trim_start_matches("app.");
    let entry = |n: usize| format!(r#"{{"kind":"{kind}","id":"{name}-{n}"}}"#);
    site.push(&(0..jobs).map(entry).collect::<Vec<_>>()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_daemon_obeys_an_order_until_it_is_released_and_so_does_one_that_comes_later() {
    let site = Site::new(QUICK, &[BULK, FREE]);
    let daemons = [site.start("a"), site.start("b")];
    all_show(&site, "both have a page", 2, |page| {
        page["slots"]["total"].is_u64()
    })
    .await;
    let seen = shown(&site);
    let instances: Vec<&Value> = seen["pages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| &p["instance"])
        .collect();
    assert_ne!(instances[0], instances[1]);

    let forced = [
        "gate",
        "force",
        "other:thing",
        "overloaded",
        "--why",
        "they move",
    ];
    let given = json_at(&site, &forced).ok();
    assert_eq!(
        (&given["order"], &given["daemons"], &given["replaced"]),
        (&json!("at-least overloaded"), &json!(2), &Value::Null)
    );
    all_show(&site, "both obey", 2, |page| {
        thing(page)["state"] == "overloaded"
    })
    .await;
    let later = site.start("c");
    all_show(&site, "the third obeys too", 3, |page| {
        thing(page)["state"] == "overloaded"
    })
    .await;
    pushed(&site, "app.bulk", 5).await;
    pushed(&site, "app.free", 20).await;
    site.wait_for_stat("completed", 20, DEADLINE).await;
    let queue = site.queue("default").await;
    let held = queue.find("bulk-3").await.unwrap().unwrap();
    assert_eq!((held.state.as_str(), held.history.attempts), ("pending", 0));

    let why = json_at(&site, &["explain", "bulk-3"]).ok();
    assert_eq!(codes(&why)[0], "gate", "{why}");
    let text = at(&site, &["explain", "bulk-3"]).out;
    assert!(
        text.contains("they move") && text.contains("other:thing"),
        "{text}"
    );
    let text = at(&site, &["gate", "show"]).out;
    for part in [
        "daemons: 3",
        "ordered: at-least overloaded",
        "on other:thing",
        "they move",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }

    let released = json_at(&site, &["gate", "release", "other:thing"]).ok();
    assert_eq!(released["released"][0]["why"], "they move");
    site.wait_for_stat("completed", 25, DEADLINE).await;
    all_show(&site, "nobody holds it any more", 3, |page| {
        thing(page).is_null()
    })
    .await;
    for daemon in daemons.iter().chain([&later]) {
        let order = |what: &str| (what.to_owned(), "at-least overloaded".to_owned());
        assert_eq!(told(daemon), [order("begun"), order("released")]);
    }
    let log = json_at(&site, &["gate", "log"]).ok();
    let events: Vec<&Value> = log["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| &e["event"])
        .collect();
    assert_eq!(events, ["release", "force"]);
    let first = &log["entries"][1];
    assert!(first["who"].as_str().unwrap().contains('@'), "{first}");
    assert_eq!(
        (&first["order"]["target"], &first["order"]["why"]),
        (&json!("other:thing"), &json!("they move"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_state_leaves_to_a_class_is_that_of_the_configuration() {
    let shares = "[gate.shares]\nbulk = [0.5, 0.25, 0.0]\n";
    let site = Site::new(&format!("{QUICK}{shares}"), &[BULK]);
    let _daemon = site.start("a");
    json_at(&site, &["gate", "force", "other:thing", "overloaded"]).ok();
    all_show(&site, "it obeys", 1, |page| {
        thing(page)["state"] == "overloaded"
    })
    .await;
    pushed(&site, "app.bulk", 3).await;
    site.wait_for_stat("completed", 3, DEADLINE).await;
    // Whoever asks may have another configuration: what the daemons go by is told.
    let file = site.path("tidegate.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace(shares, "")).unwrap();
    let told = json_at(&site, &["explain", "other:thing"]).ok();
    assert_eq!(told["shares"]["bulk"], 0.25);
    let shown = shown(&site);
    assert_eq!(shown["classes"]["bulk"]["share_on"]["other:thing"], 0.25);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_ends_by_itself_and_that_is_on_record_once() {
    let site = Site::new(QUICK, &[BULK]);
    let daemons = [site.start("a"), site.start("b")];
    all_show(&site, "both have a page", 2, |page| {
        page["slots"]["total"].is_u64()
    })
    .await;
    json_at(
        &site,
        &["gate", "force", "other:thing", "critical", "--for", "1s"],
    )
    .ok();
    pushed(&site, "app.bulk", 3).await;
    for daemon in &daemons {
        wait_until("the order is over", DEADLINE, || {
            std::future::ready(told(daemon).len() == 2)
        })
        .await;
        assert_eq!(told(daemon)[1].0, "over");
    }
    site.wait_for_stat("completed", 3, DEADLINE).await;
    let log = json_at(&site, &["gate", "log"]).ok();
    let entries = log["entries"].as_array().unwrap();
    let events: Vec<&Value> = entries.iter().map(|e| &e["event"]).collect();
    assert_eq!(events, ["over", "force"]);
    assert_eq!(entries[0]["at"], entries[1]["order"]["until"]);
    assert_eq!(shown(&site)["orders"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_is_held_open_until_it_is_released_or_its_time_is_over() {
    let site = Site::new(QUICK, &[BULK, FREE]);
    let daemon = site.start("a");
    let state = |page: &Value| page["breakers"][0]["breaker"]["state"].clone();
    all_show(&site, "it is closed", 1, |page| state(page) == "closed").await;
    let forced = ["gate", "force", "exec@other:thing", "open"];
    json_at(&site, &forced).ok();
    all_show(&site, "it is open", 1, |page| state(page) == "open").await;
    pushed(&site, "app.bulk", 2).await;
    pushed(&site, "app.free", 5).await;
    site.wait_for_stat("completed", 5, DEADLINE).await;
    let why = json_at(&site, &["explain", "bulk-0"]).ok();
    assert_eq!(codes(&why)[0], "breaker", "{why}");
    json_at(&site, &["gate", "release", "exec@other:thing"]).ok();
    site.wait_for_stat("completed", 7, DEADLINE).await;
    let resets = daemon.events("breaker").len();
    assert_eq!(resets, 2, "opened by order, closed by order");

    json_at(&site, &[&forced[..], &["--for", "1s"]].concat()).ok();
    wait_until("it is open again", DEADLINE, || {
        std::future::ready(daemon.events("breaker").len() == 3)
    })
    .await;
    let entry = r#"{"kind":"app.bulk","id":"tried"}"#.to_owned();
    site.push(&[entry]).await;
    site.wait_for_stat("completed", 8, DEADLINE).await;
    let last = daemon.events("breaker");
    assert_eq!(
        (&last[3]["to"], &last[4]["to"]),
        (&json!("half_open"), &json!("ramping")),
        "tried like any other"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_lies_is_overruled() {
    let lie = "[[probe]]\nname = \"lie\"\nresource = \"other:thing\"\ncommand = [\"/bin/echo\", \"100\"]\nlo = 1\nhi = 10\nevery = \"1s\"\ntimeout = \"900ms\"\n";
    let site = Site::new(&format!("{QUICK}{lie}"), &[BULK]);
    let _daemon = site.start("a");
    all_show(&site, "it is critical", 1, |page| {
        thing(page)["state"] == "critical"
    })
    .await;
    pushed(&site, "app.bulk", 3).await;
    site.wait_for_stat("admitted", 3, DEADLINE).await;
    let why = json_at(&site, &["explain", "bulk-0"]).ok();
    let gate = &why["reasons"][0];
    assert_eq!(
        (&gate["code"], &gate["signal"], &gate["value"]),
        (&json!("gate"), &json!("probe_lie"), &json!(100.0))
    );
    json_at(&site, &["gate", "force", "other:thing", "ok"]).ok();
    site.wait_for_stat("completed", 3, DEADLINE).await;
    all_show(&site, "it counts as well", 1, |page| {
        thing(page)["state"] == "ok"
    })
    .await;
    let resource = &shown(&site)["resources"]["other:thing"];
    assert_eq!(
        (&resource["state"], &resource["forced"]["measured"]),
        (&json!("ok"), &json!("critical"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_that_make_no_sense_are_refused_by_name() {
    let site = Site::new("", &[BULK]);
    for (args, code, word) in [
        (
            &["other:thingy", "critical"][..],
            1,
            "did you mean other:thing?",
        ),
        (
            &["nope", "critical"],
            1,
            "there are host, memory, other:thing, redis:main",
        ),
        (
            &["exec@other:thin", "open"],
            1,
            "did you mean exec@other:thing?",
        ),
        (&["other:thing", "open"], 2, "exec@other:thing"),
        (
            &["exec@other:thing", "critical"],
            2,
            "a state is for a resource",
        ),
        (&["exec@other:thing", "open", "--at-most"], 2, "--at-most"),
        (&["exec@other:thing", "limit=0"], 2, "1 to 100000"),
        (&["other:thing", "broken"], 2, "want a state"),
        (
            &["other:thing", "critical", "--for", "2days"],
            2,
            "1s to 1day",
        ),
        (&["other:thing", "critical", "--for", "10"], 2, "unit"),
    ] {
        let ran = at(&site, &[&["gate", "force"], args].concat());
        assert_eq!(ran.code, code, "{args:?}: {ran:?}");
        assert!(ran.err.contains(word), "{args:?}: {ran:?}");
    }
    let none = at(&site, &["gate", "release", "other:thing"]);
    assert_eq!(
        (none.code, none.err.contains("no order at all")),
        (1, true),
        "{none:?}"
    );
    assert_eq!(shown(&site)["orders"], json!([]));
    let given = json_at(
        &site,
        &["gate", "force", "other:thing", "elevated", "--at-most"],
    )
    .ok();
    assert_eq!(
        (&given["order"], &given["notes"][0]),
        (&json!("at-most elevated"), &json!("no daemon lives now"))
    );
    json_at(&site, &["gate", "force", "exec@other:thing", "limit=4"]).ok();
    let again = json_at(&site, &["gate", "force", "other:thing", "critical"]).ok();
    assert_eq!(again["replaced"]["order"], "at-most elevated");
    let all = json_at(&site, &["gate", "release", "--all"]).ok();
    assert_eq!(all["released"].as_array().unwrap().len(), 2);
    assert!(
        at(&site, &["gate", "show"])
            .out
            .contains("no daemon told of itself lately")
    );
}

/// Health as it is published for all.
async fn health(site: &Site) -> Value {
    let conn = connection::connect(&site.config.redis).await.unwrap();
    let key = board::health_key(&site.config.redis.prefix);
    let text = board::read(&conn, &key).await.unwrap();
    text.map_or(Value::Null, |text| serde_json::from_str(&text).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_publishes_for_all_is_followed_by_another_one_and_who_ends_takes_its_page_away() {
    let site = Site::new(QUICK, &[FREE]);
    let daemons = [site.start("a"), site.start("b")];
    wait_until("health is that of both", DEADLINE, || async {
        health(&site).await["daemons"] == 2
    })
    .await;
    let first = health(&site).await["instance"].clone();
    let pid = |instance: &Value| -> u32 {
        let name = instance.as_str().unwrap();
        name.rsplit(':').nth(1).unwrap().parse().unwrap()
    };
    let killed = pid(&first);
    let [gone, left]: [Vec<Process>; 2] = {
        let (gone, left) = daemons.into_iter().partition(|d| d.id() == killed);
        [gone, left]
    };
    assert_eq!((gone.len(), left.len()), (1, 1));
    gone.into_iter().for_each(Process::kill9);
    wait_until("the other one publishes", DEADLINE, || async {
        let health = health(&site).await;
        health["daemons"] == 1 && health["instance"] != first
    })
    .await;
    for mut daemon in left {
        daemon.signal(rustix::process::Signal::TERM);
        assert!(daemon.wait().await.success());
        let instance = health(&site).await["instance"].clone();
        let conn = connection::connect(&site.config.redis).await.unwrap();
        let pages = pages::read(&conn, &site.config.redis.prefix).await.unwrap();
        let named = |told: &pages::Published| told.page.contains(instance.as_str().unwrap());
        assert!(!pages.iter().any(named), "{pages:?}");
    }
}
