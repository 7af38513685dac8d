//! `tidegate outbox` and what `tidegate check` says about the outbox and bridges.

use crate::cli::{at, json_at};
use crate::daemon::process::Site;
use crate::support::fresh_database;
use sqlx::{AssertSqlSafe, PgPool};

const OK: &str = "kind = \"app.ok\"\nhandler = \"exec\"\n[exec]\ncommand = [\"/bin/true\"]";

async fn site() -> (Site, PgPool) {
    let url = fresh_database();
    let settings = format!("[database]\nurl = \"{url}\"\n[outbox]\nenabled = true\n");
    let site = Site::new(&settings, &[OK]);
    (site, PgPool::connect(&url).await.unwrap())
}

async fn execute(sql: &PgPool, text: &str) {
    sqlx::raw_sql(AssertSqlSafe(text.to_owned()))
        .execute(sql)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_listed_retried_and_purged() {
    let (site, sql) = site().await;
    let missing = at(&site, &["outbox", "list"]);
    assert_eq!(missing.code, 1);
    assert!(missing.err.contains("tidegate migrate"), "{missing:?}");
    let check = json_at(&site, &["check", "--online"]);
    assert_eq!((check.code, check.json()["ok"].clone()), (1, false.into()));
    json_at(&site, &["migrate"]).ok();
    json_at(&site, &["check", "--online"]).ok();

    execute(
        &sql,
        "insert into tidegate.outbox (kind, created_at) values ('app.ok', now() - interval '1 hour');
         insert into tidegate.outbox (kind, queue, error, failed_at) values
            ('app.ok', 'default', E'bad \\x1b[2J', now()), ('app.ok', 'mail', 'bad', now()), ('app.b', 'mail', 'bad', now());",
    )
    .await;
    let listed = json_at(&site, &["outbox", "list"]).ok();
    assert_eq!(listed["rows"].as_array().unwrap().len(), 4);
    assert_eq!(
        (&listed["waiting"], &listed["rejected"]),
        (&1.into(), &3.into())
    );
    let lag = listed["lag_ms"].as_u64().unwrap();
    assert!((3_600_000..3_700_000).contains(&lag), "{lag}");
    let text = at(
        &site,
        &["outbox", "list", "--rejected", "--queue", "default"],
    )
    .out;
    assert!(
        text.contains("bad \\u001b[2J") && text.contains("1 waiting, the oldest for 1h"),
        "{text}"
    );
    assert_eq!(text.lines().count(), 3, "{text}");

    execute(
        &sql,
        "update tidegate.outbox set id = case seq when 1 then 'waits' else 'fails' end where seq < 3",
    )
    .await;
    for (command, id, words) in [
        (
            "job",
            "waits",
            "row 1 of the outbox, and has waited there for 1h",
        ),
        ("job", "fails", "can't be a job: bad"),
        ("explain", "fails", "`tidegate outbox retry 2`"),
    ] {
        let args: &[&str] = if command == "job" {
            &["job", "show", id]
        } else {
            &[command, id]
        };
        let told = at(&site, args);
        assert_eq!(told.code, 1);
        assert!(told.err.contains(words), "{told:?}");
    }

    let retried = json_at(&site, &["outbox", "retry", "2", "99"]);
    assert_eq!(retried.code, 1, "one of them is not there: {retried:?}");
    assert_eq!(retried.json()["retried"], 1);
    // A row that waits is not purged, though it is named.
    let waiting = json_at(&site, &["outbox", "purge", "1"]);
    assert_eq!(
        (waiting.code, waiting.json()["purged"].clone()),
        (1, 0.into())
    );
    let purged = json_at(&site, &["outbox", "purge", "--all", "--kind", "app.b"]).ok();
    assert_eq!(purged["purged"], 1);
    let retried = json_at(&site, &["outbox", "retry", "--all"]).ok();
    assert_eq!(retried["retried"], 1);
    let listed = json_at(&site, &["outbox", "list", "--limit", "0"]).ok();
    assert_eq!(
        (&listed["waiting"], &listed["rejected"]),
        (&3.into(), &0.into())
    );
    assert_eq!(at(&site, &["outbox", "retry", "--all", "7"]).code, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_database_it_says_so() {
    let site = Site::new("", &[]);
    let ran = at(&site, &["outbox", "list"]);
    assert_eq!(ran.code, 78);
    assert!(ran.err.contains("database.url"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bridges_are_shown_with_what_waits_in_them() {
    let namespace = format!("{}::Email", crate::support::fresh_prefix());
    let bridge =
        format!("[[bridge]]\nname = \"mail\"\nnamespace = \"{namespace}\"\nkind = \"app.ok\"\n");
    let site = Site::new(
        &bridge,
        &[&OK.replace("handler", "queue = \"post\"\nhandler")],
    );
    let conn = apalis_redis::connect(crate::support::redis_url())
        .await
        .unwrap();
    let config = apalis_redis::Config::default().queue(&namespace);
    let mut storage = apalis_redis::RedisStorage::<u64>::new(conn).with_config(config);
    apalis_core::backend::TaskSink::push(&mut storage, 7)
        .await
        .unwrap();
    let shown = &json_at(&site, &["bridges"]).ok()["bridges"][0];
    assert_eq!(
        (&shown["waiting"], &shown["set_aside"]),
        (&1.into(), &0.into())
    );
    assert_eq!(shown["queue"], "post");
    assert!(shown["lag_ms"].as_u64().unwrap() < 60_000, "{shown}");
    let none = Site::new("", &[]);
    assert!(at(&none, &["bridges"]).out.contains("[[bridge]]"));
}

#[test]
fn a_bridge_to_an_unknown_kind_is_a_warning() {
    let bridge =
        "[[bridge]]\nname = \"mail\"\nnamespace = \"app::Email\"\nkind = \"app.unknown\"\n";
    let site = Site::new(bridge, &[OK]);
    let warnings = json_at(&site, &["check"]).ok()["warnings"].to_string();
    assert!(
        warnings.contains("bridge.mail") && warnings.contains("app.unknown"),
        "{warnings}"
    );
}
