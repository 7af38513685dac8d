//! What an app may insert, and what becomes of it.

use super::Harbour;
use crate::queue::rig::{Rig, number_of};
use crate::support::{DEADLINE, fresh_database, wait_until};
use serde_json::json;
use tidegate::services::outbox;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn an_insert_of_kind_and_arguments_is_enough_and_takes_two_rights() {
    let harbour = Harbour::new().await;
    harbour
        .execute(&format!(
            "create role app_{0}; grant usage on schema tidegate to app_{0};
             grant insert on tidegate.outbox to app_{0};",
            harbour.rig.config.redis.prefix
        ))
        .await;
    let role = format!("app_{}", harbour.rig.config.redis.prefix);
    let insert = r#"insert into tidegate.outbox (kind, args) values ('app.a', '{"n":7}')"#;
    harbour
        .execute(&format!("begin; set local role {role}; {insert}; commit;"))
        .await;
    harbour.relay_all().await;
    assert_eq!(harbour.rows().await, 0);
    harbour.rig.admit().await;
    assert_eq!(harbour.rig.take(10).await, [7]);
    // It may not read what others inserted.
    let read = format!("begin; set local role {role}; select * from tidegate.outbox; commit;");
    assert!(harbour.try_execute(&read).await.is_err());
    harbour.execute("rollback").await;
}

#[tokio::test]
async fn a_job_exists_only_if_its_transaction_does() {
    let harbour = Harbour::new().await;
    let mut open = harbour.sql.begin().await.unwrap();
    let insert = r#"insert into tidegate.outbox (kind, args) values ('app.a', '{"n":1}')"#;
    sqlx::raw_sql(insert).execute(&mut *open).await.unwrap();
    harbour.relay_all().await;
    assert!(harbour.inbox("default").await.is_empty(), "not committed");
    open.rollback().await.unwrap();
    harbour.relay_all().await;
    assert!(harbour.inbox("default").await.is_empty(), "rolled back");

    let mut open = harbour.sql.begin().await.unwrap();
    sqlx::raw_sql(insert).execute(&mut *open).await.unwrap();
    open.commit().await.unwrap();
    harbour.relay_all().await;
    assert_eq!(harbour.inbox("default").await.len(), 1);
}

#[tokio::test]
async fn every_column_and_option_arrives() {
    let harbour = Harbour::new().await;
    harbour
        .execute(
            r#"insert into tidegate.outbox (kind, args, queue, id, priority, run_at, options) values
               ('mail.send', '{"to":7,"big":9007199254740993}', 'mail-eu', 'm-1', 'high',
                '2026-01-02 03:04:05.678Z', '{"max_attempts":3,"meta":{"user":"7"}}');
               insert into tidegate.outbox (kind, queue, delay, created_at) values
               ('mail.send', 'mail-eu', '90 seconds', '2026-01-01 00:00:00Z');"#,
        )
        .await;
    harbour.relay_all().await;
    let jobs = harbour.inbox("mail-eu").await;
    assert_eq!(jobs.len(), 2, "no daemon serves that queue");
    let mut first = jobs[0].clone();
    let enqueued = first["enqueued_at"].take();
    assert!(enqueued.as_u64().unwrap() > 1_700_000_000_000);
    assert_eq!(
        first,
        json!({
            "kind": "mail.send", "id": "m-1", "args": {"to": 7, "big": 9_007_199_254_740_993_u64},
            "priority": "high", "run_at": 1_767_323_045_678_u64, "enqueued_at": null,
            "max_attempts": 3, "meta": {"user": "7"},
        })
    );
    assert_eq!(jobs[1]["run_at"], 1_767_225_690_000_u64);
    assert_eq!(jobs[1]["id"].as_str().unwrap().len(), 36);
}

#[tokio::test]
async fn order_is_kept_over_many_batches() {
    let mut harbour = Harbour::new().await;
    harbour.rig.config.outbox.batch = 7;
    harbour
        .execute(
            "insert into tidegate.outbox (kind, args)
             select 'app.a', jsonb_build_object('n', n) from generate_series(1, 100) n",
        )
        .await;
    harbour.relay_all().await;
    harbour.rig.admit().await;
    let jobs = harbour.rig.claim(200).await;
    let numbers: Vec<u64> = jobs.iter().map(number_of).collect();
    assert_eq!(numbers, (1..=100).collect::<Vec<u64>>());
}

#[tokio::test]
async fn a_unique_job_is_unique_by_way_of_the_outbox_too() {
    let harbour = Harbour::new().await;
    harbour
        .execute(
            r#"insert into tidegate.outbox (kind, args, options) values
               ('app.a', '{"n":1}', '{"unique":{"key":"one"}}'), ('app.a', '{"n":2}', '{"unique":{"key":"one"}}'),
               ('app.a', '{"n":3}', '{"unique":{"key":"other"}}');"#,
        )
        .await;
    harbour.relay_all().await;
    assert_eq!(harbour.rows().await, 0);
    harbour.rig.admit().await;
    assert_eq!(harbour.rig.take(10).await, [1, 3]);
}

#[tokio::test]
async fn a_batch_is_bounded_in_bytes_as_well() {
    let harbour = Harbour::new().await;
    // 40 rows of 250 kB each.
    harbour
        .execute(
            "insert into tidegate.outbox (kind, args)
             select 'app.a', jsonb_build_object('text', repeat('x', 250000)) from generate_series(1, 40)",
        )
        .await;
    let relay = harbour.relay();
    let batch = relay.take().await.unwrap().unwrap();
    let bytes: i64 = batch.rows.iter().map(|row| row.bytes).sum();
    assert!(batch.more);
    assert!(bytes < 5 << 20, "{bytes}");
    drop(batch);
    while relay.step().await.unwrap() {}
    assert_eq!(harbour.inbox("default").await.len(), 40);
}

#[tokio::test]
async fn what_can_be_refused_is_refused_at_the_insert_by_name() {
    let harbour = Harbour::new().await;
    for (columns, values, constraint) in [
        ("kind", "'Mail'", "outbox_kind"),
        ("kind", "E'a\\n'", "outbox_kind"),
        ("kind, args", "'a', '[]'", "outbox_args"),
        ("kind, queue", "'a', 'a:b'", "outbox_queue"),
        ("kind, queue", "'a', '..'", "outbox_queue"),
        ("kind, id", "'a', 'a:b'", "outbox_id"),
        ("kind, priority", "'a', 'urgent'", "outbox_priority"),
        ("kind, delay", "'a', '-1 s'", "outbox_delay"),
        (
            "kind, delay, run_at",
            "'a', '1 s', now()",
            "outbox_run_at_or_delay",
        ),
        ("kind, options", "'a', '3'", "outbox_options"),
    ] {
        let sql = format!("insert into tidegate.outbox ({columns}) values ({values})");
        let error = harbour.try_execute(&sql).await.unwrap_err().to_string();
        assert!(error.contains(constraint), "{sql}: {error}");
    }
    assert_eq!(harbour.rows().await, 0);
}

#[tokio::test]
async fn rows_that_cannot_be_jobs_are_kept_with_the_reason_and_block_nobody() {
    let mut harbour = Harbour::new().await;
    harbour.rig.config.outbox.batch = 4;
    harbour
        .execute(
            r#"insert into tidegate.outbox (kind, args) select 'app.a', jsonb_build_object('text', repeat('x', 400000))
                 from generate_series(1, 5);
               insert into tidegate.outbox (kind, options) values
                 ('app.a', '{"max_attempts":0}'), ('app.a', '{"priority":"low"}'), ('app.a', '{"ttl_ms":"1m"}');
               insert into tidegate.outbox (kind, delay) values ('app.a', '2 years');
               insert into tidegate.outbox (kind, run_at) values ('app.a', 'infinity');
               insert into tidegate.outbox (kind, args) values ('app.a', '{"n":1}'), ('app.a', '{"n":2}');"#,
        )
        .await;
    let relay = harbour.relay();
    while relay.step().await.unwrap() {}
    harbour.rig.admit().await;
    assert_eq!(harbour.rig.take(10).await, [1, 2]);
    let reasons: Vec<String> = sqlx::query_scalar(
        "select error from tidegate.outbox where failed_at is not null order by seq",
    )
    .fetch_all(&harbour.sql)
    .await
    .unwrap();
    assert_eq!(reasons.len(), 10);
    for (reason, part) in reasons.iter().skip(4).zip([
        "too_large",
        "max_attempts",
        "`priority` has a column",
        "expected u64",
        "more than a year",
        "run_at: is infinite",
    ]) {
        assert!(reason.contains(part), "{reason} does not say {part}");
    }
    let metrics = relay.metrics.encode().unwrap();
    let counted = r#"tidegate_intake_jobs_total{source="outbox",result="rejected"} 10"#;
    assert!(metrics.contains(counted), "{metrics}");
    assert!(!relay.step().await.unwrap(), "they are not tried again");
}

#[tokio::test]
async fn a_queue_whose_inbox_is_broken_holds_up_no_other() {
    let mut harbour = Harbour::new().await;
    harbour.rig.config.outbox.batch = 2;
    let broken = format!("{}:{{broken}}:inbox", harbour.rig.config.redis.prefix);
    let _: () = harbour.rig.redis("SET", &[&broken, "x"]).await;
    harbour
        .execute(
            "insert into tidegate.outbox (kind, queue) select 'app.a', 'broken' from generate_series(1, 5);
             insert into tidegate.outbox (kind) values ('app.a');",
        )
        .await;
    let relay = harbour.relay();
    while relay.step().await.unwrap() {}
    assert_eq!(harbour.inbox("default").await.len(), 1);
    assert_eq!(harbour.rows().await, 5, "none of them is given up");
    let told = "select count(*) from tidegate.outbox where error is not null";
    assert_eq!(harbour.number(told).await, 0);
    assert!(relay.aside.next_in(std::time::Instant::now()).is_some());

    // Put right by a daemon that serves the queue, they go by themselves, in order.
    let _: () = harbour.rig.redis("DEL", &[&broken]).await;
    let stop = CancellationToken::new();
    let service = tokio::spawn(outbox::run(relay, stop.clone()));
    wait_until("they are sent", DEADLINE, || async {
        harbour.rows().await == 0
    })
    .await;
    assert_eq!(harbour.inbox("broken").await.len(), 5);
    stop.cancel();
    service.await.unwrap();
}

#[tokio::test]
async fn the_relay_finds_waiting_rows_by_an_index_whatever_lies_before_them() {
    let harbour = Harbour::new().await;
    harbour
        .execute(
            "insert into tidegate.outbox (kind, error) select 'app.a', 'no' from generate_series(1, 20000);
             insert into tidegate.outbox (kind) select 'app.a' from generate_series(1, 20000);
             analyze tidegate.outbox;",
        )
        .await;
    let plan: Vec<String> = sqlx::query_scalar(
        "explain select seq from tidegate.outbox where error is null and queue <> all('{}'::text[])
         order by seq limit 500 for update skip locked",
    )
    .fetch_all(&harbour.sql)
    .await
    .unwrap();
    let plan = plan.join("\n");
    assert!(plan.contains("outbox_waiting"), "{plan}");
    assert!(!plan.contains("Sort"), "{plan}");
}

#[tokio::test]
async fn a_daemon_that_does_not_own_the_schema_needs_only_what_is_documented() {
    let rig = Rig::new().await;
    let url = fresh_database();
    let [owner, daemon] = ["owner", "daemon"].map(|r| format!("{r}_{}", rig.config.redis.prefix));
    let sql = sqlx::PgPool::connect(&url).await.unwrap();
    let execute = async |text: String| {
        sqlx::raw_sql(sqlx::AssertSqlSafe(text))
            .execute(&sql)
            .await
            .unwrap();
    };
    execute(format!(
        "create role {owner}; create role {daemon};
         do $$ begin execute format('grant create on database %I to {owner}', current_database()); end $$;"
    ))
    .await;
    // As the role that a session takes when it begins.
    let within = |role: &str| {
        let sign = if url.contains('?') { '&' } else { '?' };
        format!("{url}{sign}options[role]={role}")
    };
    let harbour = Harbour::with(rig, within(&owner)).await;
    execute(format!(
        "set role {owner};
         grant usage on schema tidegate to {daemon};
         grant select, insert, update, delete on all tables in schema tidegate to {daemon};
         alter default privileges in schema tidegate grant select, insert, update, delete on tables to {daemon};
         revoke insert, update, delete on tidegate._sqlx_migrations from {daemon};
         reset role;"
    ))
    .await;
    harbour
        .execute(
            r#"insert into tidegate.outbox (kind) values ('app.a');
               insert into tidegate.outbox (kind, options) values ('app.a', '{"max_attempts":0}');"#,
        )
        .await;
    let relay = super::relay(
        &harbour.rig.config,
        &within(&daemon),
        harbour.rig.conn.clone(),
    );
    tidegate::db::outbox::require(&relay.database)
        .await
        .unwrap();
    while relay.step().await.unwrap() {}
    assert_eq!(harbour.inbox("default").await.len(), 1);
    assert_eq!(harbour.rows().await, 1, "the other one is marked");
    let refused = tidegate::db::migrate(&relay.database).await;
    assert!(refused.is_err(), "it may not change the schema");
}
