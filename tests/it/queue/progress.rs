//! How far a job has come: kept under the token of its delivery, gone when it does not run any more.

use super::rig::{ME, Rig, done, envelope, failures, flow, handed_back, settlement};
use std::time::Duration;
use tidegate::job::{Priority, Reject, RejectCode};
use tidegate::queue::Settlement;
use tidegate::queue::claim::RawDelivery;
use tidegate::queue::progress::Report;
use tidegate::queue::settle::Ending;

fn report(job: &RawDelivery, percent: u8) -> Report {
    Report {
        id: job.id.as_str().into(),
        token: job.token.as_str().into(),
        json: format!(r#"{{"percent":{percent}}}"#),
    }
}

fn told(job: &RawDelivery, ending: Ending) -> Settlement {
    Settlement {
        told: true,
        ..settlement(job, ending)
    }
}

async fn percent(rig: &Rig, id: &str) -> Option<f64> {
    let found = rig.queue.find(id).await.unwrap().unwrap();
    found.progress.and_then(|progress| progress.percent)
}

async fn kept(rig: &Rig) -> u64 {
    rig.redis("HLEN", &[&rig.queue.keys().progress]).await
}

async fn claimed(rig: &Rig, id: &str) -> RawDelivery {
    rig.put(&[envelope("app.a", 1, &format!(r#","id":"{id}""#))])
        .await;
    rig.claim(1).await.remove(0)
}

#[tokio::test]
async fn the_last_report_is_shown_and_goes_with_the_job_however_its_run_ends() {
    let rig = Rig::new().await;
    let endings: [fn(&RawDelivery) -> Ending; 5] = [
        done,
        |_| Ending::Later {
            delay: Duration::from_secs(3_600),
            history: failures(1),
            counter: "retried",
        },
        |_| Ending::Dead {
            history: failures(1),
            given: true,
            counter: "dead",
        },
        |_| Ending::Quarantined(Reject::new(RejectCode::BadArgs, "no".to_owned())),
        |_| handed_back(flow(Priority::Normal, "app.a")),
    ];
    for (n, ending) in endings.into_iter().enumerate() {
        let job = claimed(&rig, &format!("job-{n}")).await;
        for step in [10, 60] {
            let stale = rig.queue.report_progress(&[report(&job, step)]).await;
            assert_eq!(stale.unwrap(), Vec::<usize>::new());
        }
        assert_eq!(percent(&rig, &job.id).await, Some(60.0));
        rig.settle(&[told(&job, ending(&job))]).await;
        assert_eq!(kept(&rig).await, 0, "{:?}", ending(&job));
        if matches!(ending(&job), Ending::HandedBack { .. }) {
            assert_eq!(percent(&rig, &job.id).await, None);
        }
    }
}

#[tokio::test]
async fn a_zombie_tells_nothing_and_takes_nothing_away() {
    let rig = Rig::new().await;
    let first = claimed(&rig, "x").await;
    rig.queue
        .report_progress(&[report(&first, 10)])
        .await
        .unwrap();
    // It is taken for dead, and its job goes on elsewhere.
    let back = handed_back(flow(Priority::Normal, "app.a"));
    rig.settle(&[told(&first, back)]).await;
    let second = rig.claim(1).await.remove(0);
    assert_ne!(first.token, second.token);
    let reports = [report(&second, 5), report(&first, 90)];
    let stale = rig.queue.report_progress(&reports).await.unwrap();
    assert_eq!(stale, [1]);
    assert_eq!(percent(&rig, "x").await, Some(5.0));
    let settled = rig.settle(&[told(&first, done(&first))]).await;
    assert_eq!(settled.stale, [0]);
    assert_eq!(
        percent(&rig, "x").await,
        Some(5.0),
        "that of the job that runs"
    );
}

#[tokio::test]
async fn what_a_job_told_goes_even_if_the_set_of_running_jobs_was_lost() {
    let rig = Rig::new().await;
    let job = claimed(&rig, "x").await;
    rig.queue
        .report_progress(&[report(&job, 10)])
        .await
        .unwrap();
    rig.redis::<u64>("DEL", &[&rig.queue.keys().running]).await;
    let settled = rig.settle(&[told(&job, done(&job))]).await;
    assert_eq!(settled.stale, [0]);
    assert_eq!(kept(&rig).await, 0);
}

#[tokio::test]
async fn a_key_of_the_wrong_type_changes_nothing_and_is_set_aside() {
    let rig = Rig::new().await;
    let job = claimed(&rig, "x").await;
    let key = &rig.queue.keys().progress;
    rig.redis::<()>("SET", &[key, "graffiti"]).await;
    let refused = rig.queue.report_progress(&[report(&job, 10)]).await;
    assert!(refused.is_err());
    let end = [told(&job, done(&job))];
    assert!(rig.queue.settle(ME, 0, &end).await.is_err());
    let aside = rig.queue.heal(1, &rig.catalog).await.unwrap();
    assert_eq!(aside.len(), 1);
    assert_eq!(rig.state("x").await.as_deref(), Some("running"));
    rig.settle(&end).await;
    assert_eq!(rig.state("x").await.as_deref(), Some("done"));
}
