//! `explain`: every limit with its numbers, what binds most first.

use super::gate::{QUICK, all_show};
use super::{at, json_at};
use crate::daemon::process::Site;
use crate::support::{DEADLINE, fresh_database, wait_until};
use serde_json::{Value, json};

/// A kind with every limit a definition can have, whose jobs wait until a file is there.
fn held(site: &std::path::Path) -> String {
    format!(
        "kind = \"app.held\"\nhandler = \"exec\"\nresources = [\"other:thing\"]\n[concurrency]\nlimit = 1\nper_daemon = 1\n[rate]\nlimit = 100\nper = \"1m\"\n[exec]\ncommand = [\"/bin/sh\", \"-c\", \"until [ -e {} ]; do sleep 0.02; done\"]",
        site.join("go").display()
    )
}

fn one<'a>(answer: &'a Value, list: &str, code: &str) -> &'a Value {
    let mut all = answer[list].as_array().unwrap().iter();
    let found = all.find(|reason| reason["code"] == code);
    found.unwrap_or_else(|| panic!("no {code} among {list} of {answer}"))
}

/// Each limit of an answer tells of itself with the same five fields, and what binds tells what would lift it.
fn are_whole(answer: &Value) {
    let lists = ["reasons", "limits"].map(|list| answer[list].as_array().unwrap());
    for limit in lists.into_iter().flatten() {
        for field in ["value", "limit", "age_ms", "since_ms"] {
            assert!(limit.get(field).is_some(), "{field} of {limit}");
        }
        let lifts = limit["lifted_by"].as_array().unwrap();
        assert_eq!(lifts.is_empty(), limit["binds"] == "not", "{limit}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_limit_is_told_with_its_numbers_and_what_binds_comes_first() {
    let dir = tempfile::tempdir().unwrap();
    let settings = format!("{QUICK}concurrency = 4\n");
    let site = Site::new(&settings, &[&held(dir.path())]);
    let _daemon = site.start("a");
    site.push(&["x", "y"].map(|id| format!(r#"{{"kind":"app.held","id":"{id}"}}"#)))
        .await;
    all_show(&site, "one runs, and Redis is measured", 1, |page| {
        let measured = &page["resources"]["redis:main"]["worst"]["value"];
        page["kinds"]["app.held"] == 1 && measured.is_number()
    })
    .await;
    let waits = ["x", "y"]
        .into_iter()
        .find(|id| json_at(&site, &["job", "show", id]).ok()["state"] == "pending");
    let why = json_at(&site, &["explain", waits.unwrap()]).ok();
    are_whole(&why);
    let full = one(&why, "reasons", "slots_full");
    assert_eq!((&full["holders"], &full["limit"]), (&json!(1), &json!(1)));
    let own = one(&why, "reasons", "kind_limit");
    assert_eq!((&own["used"], &own["limit"]), (&json!([1]), &json!(1)));
    let binds: Vec<&Value> = why["reasons"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| &r["binds"])
        .collect();
    assert_eq!(binds, ["stops", "stops"], "{why}");

    let slots = one(&why, "limits", "slots");
    assert_eq!((&slots["used"], &slots["limit"]), (&json!(1), &json!(4)));
    let rate = one(&why, "limits", "rate");
    assert_eq!(
        (&rate["every_ms"], &rate["burst"]),
        (&json!(600.0), &json!(100))
    );
    let redis = one(&why, "limits", "gate");
    assert_eq!(redis["resource"], "redis:main");
    for number in ["value", "limit", "age_ms", "since_ms"] {
        assert!(redis[number].is_number(), "{number} of {redis}");
    }
    let breaker = one(&why, "limits", "breaker");
    assert_eq!(breaker["breaker"]["state"], "closed");
    let text = at(&site, &["explain", waits.unwrap()]).out;
    let (before, after) = text.split_once("limits with room:").unwrap();
    assert!(before.contains("1 of 1 slots of app.held"), "{text}");
    assert!(after.contains("1 of 4 slots of the daemons"), "{text}");

    let set = ["limits", "set", "default", "app.held", "--per-daemon", "1"];
    json_at(&site, &set).ok();
    let why = json_at(&site, &["explain", waits.unwrap()]).ok();
    let own = one(&why, "reasons", "kind_limit");
    let by = own["set_by"].as_str().unwrap();
    assert!(by.contains('@') && own["since_ms"].is_u64(), "{own}");
    assert!(one(&why, "reasons", "slots_full")["since_ms"].is_null());

    let queue = &json_at(&site, &["explain", "default"]).ok()["queues"][0];
    are_whole(queue);
    let budget = one(queue, "limits", "retry_budget");
    assert_eq!(
        (&budget["value"], &budget["limit"]),
        (&json!(0.0), &json!(0.2))
    );
    for told in [budget, one(queue, "limits", "slots")] {
        assert!(told["age_ms"].as_u64().unwrap() < 10_000, "{told}");
    }
    let kind = &queue["kinds"][0];
    assert_eq!(
        (&kind["kind"], &kind["held_by"]),
        (&json!("app.held"), &json!("slots_full"))
    );
    one(queue, "limits", "slots");

    json_at(
        &site,
        &[
            "gate",
            "force",
            "exec@other:thing",
            "open",
            "--why",
            "enough",
        ],
    )
    .ok();
    all_show(&site, "it is open", 1, |page| {
        page["breakers"][0]["breaker"]["state"] == "open"
    })
    .await;
    let operation = json_at(&site, &["explain", "exec@other:thing"]).ok();
    are_whole(&operation);
    // Nobody probes it, and yet something limits what is done to it.
    let thing = json_at(&site, &["explain", "other:thing"]).ok();
    are_whole(&thing);
    assert_eq!(
        (&thing["probed"], &thing["kinds"]),
        (&json!(false), &json!(["app.held"]))
    );
    let breaker = one(&thing, "reasons", "breaker");
    assert!(breaker["breaker"]["forced_ms"].is_u64(), "{breaker}");
    let lift = breaker["lifted_by"][0].as_str().unwrap();
    assert!(
        lift.contains("tidegate gate release exec@other:thing"),
        "{lift}"
    );
    let redis = json_at(&site, &["explain", "redis:main"]).ok();
    are_whole(&redis);
    one(&redis, "limits", "gate");
    let shown = at(&site, &["gate", "show"]).out;
    for part in [
        "open (ordered, for 14m",
        "retry budget",
        "reserved slots",
        "forecast\n",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let breaker = one(&operation, "reasons", "breaker");
    assert_eq!(
        (&operation["kinds"], &breaker["because"]),
        (&json!(["app.held"]), &json!("forced open"))
    );
    for number in [&breaker["since"], &breaker["breaker"]["retry_in_ms"]] {
        assert!(number.is_u64(), "{breaker}");
    }
    assert!(
        breaker["order"].as_str().unwrap().ends_with(": enough"),
        "{breaker}"
    );
    json_at(&site, &["gate", "force", "exec@other:thing", "limit=3"]).ok();
    json_at(
        &site,
        &["gate", "force", "exec@other:thing", "metrics-only"],
    )
    .ok();
    all_show(&site, "three may run by order", 1, |page| {
        let limiter = &page["limiters"][0];
        limiter["limit"] == 3 && limiter["by"] == "order"
    })
    .await;
    let operation = json_at(&site, &["explain", "exec@other:thing"]).ok();
    let limiter = one(&operation, "limits", "limiter");
    assert_eq!(
        (&limiter["used"], &limiter["limit"], &limiter["by"]),
        (&json!(1), &json!(3), &json!("order"))
    );
    let none = at(&site, &["explain", "http@other:thing"]);
    assert_eq!(
        (none.code, none.err.contains("gate show")),
        (1, true),
        "{none:?}"
    );

    std::fs::write(dir.path().join("go"), "").unwrap();
    json_at(&site, &["gate", "release", "--all"]).ok();
    site.wait_for_stat("completed", 2, DEADLINE).await;
    wait_until("nothing binds any more", DEADLINE, || {
        let queue = json_at(&site, &["explain", "default"]).ok();
        let reasons = queue["queues"][0]["reasons"].as_array().unwrap().len();
        std::future::ready(reasons == 0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_slots_and_what_the_forecast_may_add_are_told_of_who_serves_the_queue() {
    const PURGE: &str = "kind = \"app.purge\"\nhandler = \"db.purge\"\nresources = [\"postgres:primary\"]\n[db.purge]\ntable = \"public.gone\"\nkey = [\"id\"]\nwhere = \"true\"";
    let url = fresh_database();
    let settings = format!(
        "{QUICK}concurrency = 20\n[database]\nurl = \"{url}\"\nmax_connections = 3\n[forecast]\nmax_concurrency = 30\n"
    );
    // There is a reserve only where there are critical jobs.
    let urgent = "kind = \"app.urgent\"\nhandler = \"exec\"\npriority = \"critical\"\n[exec]\ncommand = [\"/bin/true\"]";
    let site = Site::new(&settings, &[PURGE, urgent]);
    let _daemons = [site.start("a"), site.start("b")];
    all_show(&site, "both tell of everything", 2, |page| {
        let measured = &page["resources"]["postgres:primary"]["worst"]["value"];
        page["pool"]["max"] == 3 && page["forecast"]["slots"]["max"] == 30 && measured.is_number()
    })
    .await;
    let queue = &json_at(&site, &["explain", "default"]).ok()["queues"][0];
    are_whole(queue);
    assert_eq!(one(queue, "limits", "pool")["limit"], 6, "of both");
    assert_eq!(one(queue, "limits", "slots")["limit"], 40);
    let reserve = one(queue, "limits", "reserve");
    assert_eq!(
        (&reserve["value"], &reserve["limit"]),
        (&json!(0), &json!(18))
    );
    let forecast = one(queue, "limits", "forecast");
    assert_eq!(
        (&forecast["value"], &forecast["limit"]),
        (&json!(20), &json!(30))
    );
    for code in ["breaker", "limiter", "retry_budget"] {
        assert!(one(queue, "limits", code)["since_ms"].is_u64(), "{code}");
    }
    let limiter = one(queue, "limits", "limiter");
    assert_eq!(
        (&limiter["by"], &limiter["limit"]),
        (&json!("pool"), &json!(6))
    );
    let postgres = json_at(&site, &["explain", "postgres:primary"]).ok();
    are_whole(&postgres);
    assert_eq!(one(&postgres, "limits", "pool")["limit"], 6);
    assert_eq!(postgres["kinds"], json!(["app.purge"]));

    // A queue that both serve no more than they know it.
    let none = json_at(&site, &["explain", "--queue", "other"]).ok();
    let other = &none["queues"][0];
    assert_eq!(one(other, "reasons", "no_daemon")["binds"], "stops");
    let limits = other["limits"].as_array().unwrap();
    assert!(limits.iter().all(|l| l["code"] == "gate"), "{other}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_does_not_serve_a_queue_counts_for_its_operations_and_not_for_the_queue() {
    let kind = |name: &str, queue: &str| {
        format!(
            "kind = \"app.{name}\"\nqueue = \"{queue}\"\nhandler = \"exec\"\nresources = [\"other:thing\"]\n[exec]\ncommand = [\"/bin/true\"]"
        )
    };
    let settings = format!("{QUICK}concurrency = 20\n[limiter]\ninitial = 8\n");
    let site = Site::new(&settings, &[&kind("web", "default")]);
    // The same fleet with other definitions.
    let mail = Site::new(&settings, &[&kind("mail", "mail")]);
    std::fs::copy(site.path("tidegate.toml"), mail.path("tidegate.toml")).unwrap();
    let _daemons = [site.start("web"), mail.start("mail")];
    all_show(&site, "both have the operation", 2, |page| {
        page["limiters"][0]["limit"] == 8
    })
    .await;
    wait_until("both are told of together", DEADLINE, || {
        let operation = json_at(&site, &["explain", "exec@other:thing"]).ok();
        std::future::ready(one(&operation, "limits", "limiter")["limit"] == 16)
    })
    .await;
    for (site, queue) in [(&site, "default"), (&mail, "mail")] {
        let queue = &json_at(site, &["explain", queue]).ok()["queues"][0];
        assert_eq!(one(queue, "limits", "limiter")["limit"], 8);
        assert_eq!(one(queue, "limits", "slots")["limit"], 20);
        assert_eq!(
            one(queue, "limits", "breaker")["daemons"],
            json!({"closed": 1})
        );
    }
}
