//! What the daemon finds of what no count tells: more flows than are counted in one instant, and slots of nobody.

use super::embedded::start;
use super::process::Site;
use crate::support::{DEADLINE, wait_until};
use std::time::Duration;
use tidegate::daemon::Daemon;
use tidegate::queue::control::Field;
use tokio_util::sync::CancellationToken;

/// Tenants with a flow each: more than are counted in one instant.
const TENANTS: u32 = 2_500;
const JOB: &str = "kind = \"app.t\"\nhandler = \"test.obedient\"\n[concurrency]\nlimit = 1\nkey = \"args.t\"\n[args]\nt = { type = \"integer\" }\ndo = { type = \"string\", default = \"nothing\" }\n";

async fn repairs(daemon: &Daemon, count: u32) {
    let line = format!("tidegate_audit_repairs_total{{queue=\"default\"}} {count}");
    wait_until(&format!("{count} repairs"), DEADLINE, || {
        std::future::ready(daemon.metrics().encode().unwrap().contains(&line))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_lost_among_very_many_flows_comes_back_and_so_does_a_slot_of_nobody() {
    let mut site = Site::new("", &[JOB]);
    site.config.audit.interval = Duration::from_millis(50);
    let queue = site.queue("default").await;
    let mut redis = site.redis().await;
    let slots = queue.keys().slots("app.t");
    let mut hold = redis::cmd("SADD");
    hold.arg(&slots).arg("nobody");
    hold.query_async::<()>(&mut redis).await.unwrap();
    let pause = r#"{"by":"a@b","at":1}"#.to_owned();
    let field = Field::Pause(Some("app.t".to_owned()));
    queue
        .change(&field, "a@b", |_| Some(pause.clone()))
        .await
        .unwrap();
    let daemon = start(&site).await;
    repairs(&daemon, 1).await;
    let entry = |n| format!(r#"{{"kind":"app.t","id":"t-{n}","args":{{"t":{n}}}}}"#);
    site.push(&(0..TENANTS).map(entry).collect::<Vec<_>>())
        .await;
    site.wait_for_stat("admitted", TENANTS.into(), DEADLINE)
        .await;
    let mut lose = redis::cmd("DEL");
    lose.arg(queue.keys().named("flow:normal:app.t@7"));
    lose.query_async::<()>(&mut redis).await.unwrap();
    repairs(&daemon, 2).await;
    queue.change(&field, "a@b", |_| None).await.unwrap();
    site.wait_for_stat("completed", TENANTS.into(), DEADLINE * 2)
        .await;
    daemon
        .stop(Duration::from_secs(5), CancellationToken::new())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_slots_of_a_tenant_that_somebody_overwrote_stop_nobody() {
    let site = Site::new("", &[JOB]);
    let queue = site.queue("default").await;
    let mut redis = site.redis().await;
    let mut junk = redis::cmd("SET");
    junk.arg(queue.keys().slots("app.t@7")).arg("junk");
    let daemon = start(&site).await;
    for n in 1..=2_u32 {
        junk.query_async::<()>(&mut redis).await.unwrap();
        let job = |t| format!(r#"{{"kind":"app.t","id":"t-{t}-{n}","args":{{"t":{t}}}}}"#);
        site.push(&[job(7), job(8)]).await;
        site.wait_for_stat("completed", (2 * n).into(), DEADLINE)
            .await;
        repairs(&daemon, n).await;
    }
    daemon
        .stop(Duration::from_secs(5), CancellationToken::new())
        .await;
}
