#![allow(clippy::unwrap_used)]
use super::*;
use crate::job::Priority;
use crate::job::{Job, JobId};
use crate::telemetry::logs::tests::events;
use crate::telemetry::{Alert, AlertName, MAX_ERROR};
use serde_json::{Value, json};

const TOOK: Duration = Duration::from_micros(1_500);

fn job() -> Job {
    let mut args = serde_json::Map::new();
    args.insert("password".to_owned(), json!("hunter2"));
    Job {
        id: JobId::parse("job-1").unwrap(),
        kind: "app.append".into(),
        queue: "default".into(),
        priority: Priority::High,
        args,
        attempt: 2,
        max_attempts: 5,
        traceparent: None,
        parents: Vec::new(),
        token: "inc:7".into(),
    }
}

/// The one event of `act`.
fn event(act: impl FnOnce()) -> Value {
    let mut events = events(act);
    assert_eq!(events.len(), 1, "{events:?}");
    events.remove(0)
}

fn assert_fields(event: &Value, wanted: &Value) {
    for (field, value) in wanted.as_object().unwrap() {
        assert_eq!(&event[field], value, "{field} of {event}");
    }
}

#[test]
fn events_of_a_job_name_it_fully_and_never_its_payload() {
    let job = job();
    let minute = Duration::from_secs(60);
    let all = events(|| {
        job_started(&job);
        job_done(&job, TOOK);
        job_failed(&job, TOOK, minute, "boom");
        job_snoozed(&job, TOOK, minute, "busy");
        let _ = job_dead(&job, Some(TOOK), "boom");
        let _ = job_poison(&job, 3);
        job_handed_back(&job, TOOK, "shutdown");
        job_cancelled(&job);
        job_expired(&job);
        stale_settlement(&job, "done");
    });
    let names: Vec<&str> = all.iter().map(|e| e["event"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "job_started",
            "job_done",
            "job_failed",
            "job_snoozed",
            "job_dead",
            "job_dead",
            "job_handed_back",
            "job_cancelled",
            "job_expired",
            "stale_settlement"
        ]
    );
    for event in &all {
        assert_fields(
            event,
            &json!({"job_id": "job-1", "kind": "app.append", "queue": "default",
                "priority": "high", "attempt": 2, "token": "inc:7"}),
        );
        assert!(!event.to_string().contains("hunter2"));
    }
    assert_fields(
        &all[2],
        &json!({"level": "WARN", "duration_ms": 1.5, "outcome": "failed",
            "retry_in_ms": 60_000, "error": "boom"}),
    );
}

#[test]
fn a_dead_job_is_one_event_and_one_alert() {
    let mut alert = None;
    let event = event(|| alert = Some(job_dead(&job(), None, &"é".repeat(1 << 20))));
    assert_fields(
        &event,
        &json!({"level": "ERROR", "alert": "job_dead", "outcome": "dead"}),
    );
    assert_eq!(event["error"].as_str().unwrap().len(), MAX_ERROR);
    assert!(event.get("duration_ms").is_none());

    let sent = serde_json::to_value(alert.unwrap()).unwrap();
    assert_fields(
        &sent,
        &json!({"v": 1, "alert": "job_dead", "severity": "error", "subject": "app.append",
            "job_id": "job-1", "suppressed": 0}),
    );
}

#[test]
fn a_breaker_alerts_when_it_opens_and_closes() {
    let change = |from, to| BreakerChange {
        handler: "db.purge",
        resource: "postgres:primary",
        from,
        to,
        reason: "5 connect errors in a row",
        scope: "local",
    };
    let mut alerts = Vec::new();
    let all = events(|| {
        alerts.push(breaker(change("closed", "open")));
        alerts.push(breaker(change("open", "half_open")));
        alerts.push(breaker(change("ramping", "closed")));
    });
    let names: Vec<_> = alerts.iter().map(|a| a.as_ref().map(Alert::name)).collect();
    assert_eq!(
        names,
        [
            Some(AlertName::BreakerOpen),
            None,
            Some(AlertName::BreakerClosed)
        ]
    );
    assert_fields(
        &all[0],
        &json!({"event": "breaker", "alert": "breaker_open", "level": "WARN"}),
    );
    assert_fields(
        &all[1],
        &json!({"event": "breaker", "from": "open", "to": "half_open", "scope": "local"}),
    );
    assert!(all[1].get("alert").is_none());
}

/// What is logged and what is sent must agree, and the level must be that of the severity.
#[test]
fn every_alert_is_logged_under_its_own_name() {
    let gone = Duration::from_secs(3);
    let change = GateChange {
        resource: "redis",
        from: "ok",
        to: "elevated",
        signal: "rtt_ms",
        value: None,
        shadow: true,
    };
    let mut alerts = Vec::new();
    let logged = events(|| {
        alerts = vec![
            job_dead(&job(), None, "boom"),
            job_poison(&job(), 3),
            gate(change),
            queue_lag("default", gone, TOOK),
            redis_unsafe("maxmemory-policy", "allkeys-lru evicts jobs"),
            redis_lost("connection refused"),
            redis_back(gone),
            redis_rolled_back("default", 17, 3),
            audit_repair("default", "running", 2),
            reload_failed("jobs/a.toml: line 3"),
        ];
    });
    assert_eq!(logged.len(), alerts.len());
    for (event, alert) in logged.iter().zip(&alerts) {
        let sent = serde_json::to_value(alert).unwrap();
        assert_eq!(event["alert"], sent["alert"]);
        assert_eq!(sent["alert"], alert.name().as_str());
        let level = sent["severity"].as_str().unwrap().to_uppercase();
        assert_eq!(event["level"], level, "{event}");
    }
}

#[test]
fn a_quarantined_entry_is_told_by_its_reason() {
    let event = event(|| job_quarantined("default", "q-1", "args: not an object"));
    assert_fields(
        &event,
        &json!({"event": "job_quarantined", "job_id": "q-1", "queue": "default",
            "reason": "args: not an object", "level": "WARN"}),
    );
}

#[test]
fn successes_beyond_the_budget_become_one_summary() {
    let successes = crate::telemetry::Successes::new(2);
    let kind = successes.kind(&"app.append".into());
    let job = job();
    let all = events(|| {
        kind.record(1_000, (0..5).map(|_| ((&job).into(), TOOK)));
        successes.tick(1_500);
        successes.tick(2_000);
        successes.tick(3_000);
    });
    let names: Vec<&str> = all.iter().map(|e| e["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["job_done", "job_done", "jobs_done"]);
    assert_fields(&all[2], &json!({"kind": "app.append", "count": 3}));
}
