#![allow(clippy::unwrap_used)]
use super::*;
use crate::job::Outcome;

fn has(text: &str, line: &str) -> bool {
    text.lines().any(|l| l == line)
}

#[test]
fn every_promised_name_is_there() {
    let metrics = Metrics::new();
    let (queue, kind): (Arc<str>, Arc<str>) = ("default".into(), "app.append".into());
    let handle = metrics.kind(&queue, &kind);
    handle.enqueued(1);
    handle.started(2);
    handle.completed(3);
    handle.failed(4);
    handle.retried(5);
    handle.dead(6);
    handle.recovered(7);
    handle.poisoned(8);
    handle.quarantined(9);
    handle.observe_duration(&Outcome::Done(None), Duration::from_millis(20));
    handle.observe_wait(Duration::from_millis(2));
    metrics.stale_acks("done", 2);
    metrics.queue_depth(&queue, "delayed", 5);
    metrics.queue_oldest_age(&queue, Duration::from_millis(1500));
    metrics.queue_paused(&queue, true);
    metrics.schedule_lag(Duration::from_secs(1));
    metrics.workers(&queue, 3, 32);
    metrics.health_badness(&"postgres:primary".into(), "ping", Some(0.25));
    metrics.gate_limit("bulk", 0.5);
    metrics.redis_command("claim", Duration::from_micros(300));
    metrics.pg_pool(4, 6);
    metrics.audit_repairs(&queue, 1);
    metrics.admin_refused("token");
    metrics.reload_failed();

    let text = metrics.encode().unwrap();
    let job = "{queue=\"default\",kind=\"app.append\"}";
    for (n, name) in [
        "enqueued",
        "started",
        "completed",
        "failed",
        "retried",
        "dead",
        "recovered",
        "poisoned",
        "quarantined",
    ]
    .iter()
    .enumerate()
    {
        let line = format!("tidegate_jobs_{name}_total{job} {}", n + 1);
        assert!(has(&text, &line), "{line} is not in\n{text}");
    }
    for line in [
        "tidegate_job_duration_seconds_bucket{le=\"0.025\",queue=\"default\",kind=\"app.append\",outcome=\"done\"} 1",
        "tidegate_job_duration_seconds_bucket{le=\"0.005\",queue=\"default\",kind=\"app.append\",outcome=\"done\"} 0",
        "tidegate_job_duration_seconds_sum{queue=\"default\",kind=\"app.append\",outcome=\"done\"} 0.02",
        "tidegate_job_wait_seconds_count{queue=\"default\",kind=\"app.append\"} 1",
        "tidegate_stale_acks_total{op=\"done\"} 2",
        "tidegate_queue_depth{queue=\"default\",state=\"delayed\"} 5",
        "tidegate_queue_oldest_age_seconds{queue=\"default\"} 1.5",
        "tidegate_queue_paused{queue=\"default\"} 1",
        "tidegate_schedule_lag_seconds 1.0",
        "tidegate_workers_busy{queue=\"default\"} 3",
        "tidegate_workers_capacity{queue=\"default\"} 32",
        "tidegate_health_badness{resource=\"postgres:primary\",signal=\"ping\"} 0.25",
        "tidegate_gate_limit{class=\"bulk\"} 0.5",
        "tidegate_redis_command_duration_seconds_count{op=\"claim\"} 1",
        "tidegate_pg_pool_connections{state=\"busy\"} 6",
        "tidegate_audit_repairs_total{queue=\"default\"} 1",
        "tidegate_admin_refused_total{reason=\"token\"} 1",
        "tidegate_reload_failures_total 1",
        "# EOF",
    ] {
        assert!(has(&text, line), "{line} is not in\n{text}");
    }
}

#[test]
fn a_breaker_is_in_one_state() {
    let metrics = Metrics::new();
    let (handler, dependency) = ("db.purge".into(), "postgres:primary".into());
    metrics.breaker_state(&handler, &dependency, "open");
    metrics.breaker_state(&handler, &dependency, "half_open");
    let text = metrics.encode().unwrap();
    let shown: Vec<&str> = text
        .lines()
        .filter(|l| l.starts_with("tidegate_breaker_state{") && l.ends_with(" 1"))
        .collect();
    assert_eq!(
        shown,
        [
            "tidegate_breaker_state{handler=\"db.purge\",dependency=\"postgres:primary\",state=\"half_open\"} 1"
        ]
    );
}

#[test]
fn a_handle_asked_for_twice_counts_together() {
    let metrics = Metrics::new();
    let (queue, kind): (Arc<str>, Arc<str>) = ("q".into(), "k".into());
    metrics.kind(&queue, &kind).completed(1);
    metrics.kind(&queue, &kind).completed(1);
    let text = metrics.encode().unwrap();
    assert!(has(
        &text,
        "tidegate_jobs_completed_total{queue=\"q\",kind=\"k\"} 2"
    ));
}

#[test]
fn the_longest_duration_is_counted_too() {
    let histogram = DurationHistogram::new(&[10]);
    histogram.observe(Duration::from_micros(10));
    histogram.observe(Duration::from_micros(11));
    histogram.observe(Duration::from_secs(1 << 40));
    let mut registry = Registry::default();
    registry.register("d", "help", histogram);
    let mut text = String::new();
    text::encode(&mut text, &registry).unwrap();
    assert!(has(&text, "d_bucket{le=\"0.00001\"} 1"), "{text}");
    assert!(has(&text, "d_bucket{le=\"+Inf\"} 3"), "{text}");
}
