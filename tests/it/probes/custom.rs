//! What users ask for.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tidegate::config::Secret;
use tidegate::health::Page;

use super::{LIMIT, database};
use crate::daemon::process::Site;
use crate::support::{DEADLINE, fresh_database, wait_until};

#[tokio::test]
async fn a_query_gives_one_number_or_says_what_it_gave() {
    let database = database(&fresh_database());
    let number = |sql: &'static str| {
        let database = &database;
        async move { database.number(sql, LIMIT).await.map_err(|e| e.to_string()) }
    };
    assert_eq!(
        number("select count(*) from pg_class where false").await,
        Ok(0.0)
    );
    assert_eq!(number("select 2.5 -- half").await, Ok(2.5));
    for (sql, reason) in [
        ("select 1 where false", "no row"),
        ("select 1 as a, 2 as b", "several columns"),
        ("select generate_series(1, 2)", "several rows"),
        ("select null::int", "null"),
        ("select 'one'", "text"),
        ("select 1/0", "22012"),
        ("create table forbidden ()", "42601"),
    ] {
        let error = number(sql).await.unwrap_err();
        assert!(error.contains(reason), "{sql}: {error}");
    }
    // A slow one is ended by the server.
    let slow = database.number("select 1 from pg_sleep(60)", Duration::from_millis(200));
    assert!(slow.await.unwrap_err().to_string().contains("57014"));
}

#[tokio::test]
async fn a_page_gives_one_number_and_its_address_stays_secret() {
    let router = Router::new()
        .route("/plain", get(|| async { "12.5\n" }))
        .route("/json", get(|| async { r#"{"queue":{"waiting":3}}"# }))
        .route("/large", get(|| async { "1".repeat(100_000) }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let number = |path: &str, field: Option<&'static str>| {
        let url = Secret::new(format!("http://app:hunter2@{address}/{path}"));
        let token = Secret::new("hunter2");
        let page = Page::new(&url, field, Some(&token), LIMIT).unwrap();
        async move { page.number().await }
    };
    assert_eq!(number("plain", None).await, Ok(12.5));
    assert_eq!(number("json", Some("/queue/waiting")).await, Ok(3.0));
    let mut errors = Vec::new();
    for (path, field, reason) in [
        ("json", None, "no number"),
        ("json", Some("/other"), "/other"),
        ("missing", None, "404"),
        ("large", None, "65536 bytes"),
    ] {
        let error = number(path, field).await.unwrap_err();
        assert!(error.contains(reason), "{path}: {error}");
        errors.push(error);
    }
    server.abort();
    let _ = server.await;
    errors.push(number("plain", None).await.unwrap_err());
    assert!(!errors.concat().contains("hunter2"), "{errors:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_gated_by_what_a_user_measures() {
    let backlog = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(backlog.path(), "7").unwrap();
    let url = fresh_database();
    let settings = format!(
        "[database]\nurl = \"{url}\"\n[gate]\nsample = \"100ms\"\n[probes]\nevery = \"1s\"\ntimeout = \"1s\"\n\
         [[probe]]\nname = \"backlog\"\nresource = \"smtp:main\"\ncommand = [\"cat\", \"{}\"]\nlo = 10\nhi = 100\n\
         [[probe]]\nname = \"tables\"\nresource = \"smtp:main\"\nsql = \"select 4\"\nlo = 10\nhi = 100\n\
         worst = \"elevated\"\n\
         [[probe]]\nname = \"page\"\nresource = \"web:app\"\nurl = \"http://app:hunter2@127.0.0.1:1/\"\nlo = 1\nhi = 2\n",
        backlog.path().display()
    );
    let job = |kind: &str, more: &str| {
        format!(
            "kind = \"app.{kind}\"\nhandler = \"exec\"\npriority = \"bulk\"\n{more}\n[exec]\ncommand = [\"true\"]"
        )
    };
    let mail = job("mail", "resources = [\"smtp:main\"]");
    let site = Site::new(&settings, &[&mail, &job("free", "")]);
    let daemon = site.start("a");
    site.push(&[r#"{"kind":"app.mail"}"#.to_owned()]).await;
    site.wait_for_stat("completed", 1, DEADLINE).await;

    std::fs::write(backlog.path(), "5000").unwrap();
    wait_until("too much mail", DEADLINE, || {
        let too_much =
            |e: &serde_json::Value| e["resource"] == "smtp:main" && e["to"] == "overloaded";
        std::future::ready(daemon.events("gate").iter().any(too_much))
    })
    .await;
    site.push(&["mail", "free"].map(|kind| format!(r#"{{"kind":"app.{kind}","id":"{kind}"}}"#)))
        .await;
    site.wait_for_stat("completed", 2, DEADLINE).await;
    let queue = site.queue("default").await;
    let held = queue.find("mail").await.unwrap().unwrap();
    assert_eq!((held.state.as_str(), held.history.attempts), ("pending", 0));

    let explained = || crate::cli::json_at(&site, &["explain", "smtp:main"]).ok();
    wait_until("it is published", DEADLINE, || {
        let state = explained()["state"].clone();
        std::future::ready(state == "overloaded" || state == "critical")
    })
    .await;
    let told = explained();
    assert_eq!(told["worst"]["name"], "probe_backlog");
    assert_eq!(told["worst"]["value"], 5000.0);
    let tables = told["signals"].as_array().unwrap().iter();
    let tables: Vec<_> = tables.filter(|s| s["name"] == "probe_tables").collect();
    assert_eq!(
        (&tables[0]["value"], &tables[0]["worst_state"]),
        (&4.0.into(), &"elevated".into())
    );
    assert!(!told["lifted_by"].as_array().unwrap().is_empty(), "{told}");
    assert!(
        told["history"]["states"]
            .as_str()
            .is_some_and(|s| !s.is_empty()),
        "{told}"
    );

    // What can't be measured is told of without its secret.
    daemon.wait_for_event("probe").await;
    let failing = |e: &serde_json::Value| e["resource"] == "web:app" && e["signal"] == "probe_page";
    assert!(daemon.events("probe").iter().any(failing));
    assert!(
        !std::fs::read_to_string(site.path("a.log"))
            .unwrap()
            .contains("hunter2")
    );
}
