//! Daemons of two versions at one queue: one that does not know a kind puts its jobs where the other one would.

use super::rig::{ME, Rig, catalog_of, envelope, failures, settlement};
use std::time::Duration;
use tidegate::catalog::Catalog;
use tidegate::job::{Envelope, History, Priority};
use tidegate::queue::audit::{Damage, Options};
use tidegate::queue::claim::RawDelivery;
use tidegate::queue::home::home_of;
use tidegate::queue::settle::Ending;
use tidegate::queue::{Flow, FlowAllowance, Terms};

/// `app.k` is told apart by tenant and of the class high; `app.low` is of the class low; `app.a` is like most.
fn known() -> Catalog {
    let args = "[args]\nt = { type = \"string\" }\nn = { type = \"integer\" }\n";
    let keyed = format!("priority = \"high\"\n[concurrency]\nlimit = 1\nkey = \"args.t\"\n{args}");
    let low = format!("priority = \"low\"\n{args}");
    catalog_of(&[("app.k", &keyed), ("app.low", &low), ("app.a", args)])
}

/// What the other daemon knows.
fn other() -> Catalog {
    catalog_of(&[("app.other", "")])
}

async fn rig() -> Rig {
    let mut rig = Rig::new().await;
    rig.catalog = known();
    rig
}

/// The flows to which a daemon that knows none of the kinds puts what is due.
async fn promote(rig: &Rig, jobs: usize) -> Vec<String> {
    let mut flows = Vec::new();
    let mut due = 0;
    while due < jobs {
        let look = rig.queue.look().await.unwrap();
        let promoted = rig.queue.promote(ME, &look.due, &other()).await.unwrap();
        due += look.due.len();
        flows.extend(promoted.into_iter().map(|(flow, _)| named(&flow)));
    }
    flows.sort();
    flows
}

fn named(flow: &Flow) -> String {
    format!("{}:{}", flow.priority, flow.member())
}

async fn claim(rig: &Rig, number: u64) -> Vec<RawDelivery> {
    let look = rig.queue.look().await.unwrap();
    let allow = |(flow, _): (Flow, u64)| FlowAllowance {
        terms: Terms::of(&flow, rig.catalog.get(&flow.kind).unwrap(), &look.control),
        flow,
        allowance: 9,
    };
    let flows: Vec<FlowAllowance> = look.heads.into_iter().map(allow).collect();
    rig.queue.claim(ME, number, 99, &flows).await.unwrap().jobs
}

fn keyed(more: &str) -> String {
    format!(r#"{{"kind":"app.k","args":{{"t":"a:b@c"}}{more}}}"#)
}

const DELAYED: &str = r#","delay_ms":5"#;

#[tokio::test]
async fn what_was_delayed_goes_to_its_own_flow() {
    let rig = rig().await;
    rig.put(&[
        keyed(DELAYED),
        envelope("app.low", 1, DELAYED),
        envelope("app.low", 2, r#","delay_ms":5,"priority":"critical""#),
        envelope("app.a", 3, DELAYED),
    ])
    .await;
    let ties: u64 = rig.redis("HLEN", &[&rig.queue.keys().ties]).await;
    assert_eq!(ties, 2, "the other two say it themselves");
    let flows = promote(&rig, 4).await;
    let own = [
        "critical:app.low",
        "high:app.k@a:b@c",
        "low:app.low",
        "normal:app.a",
    ];
    assert_eq!(flows, own);
    let jobs = claim(&rig, 1).await;
    assert_eq!(jobs.len(), 4);
    for job in &jobs {
        rig.done(job).await;
    }
    let left: u64 = rig.redis("EXISTS", &[&rig.queue.keys().ties]).await;
    assert_eq!(left, 0, "it goes with the job");
}

#[tokio::test]
async fn what_is_tried_again_goes_to_its_own_flow() {
    let rig = rig().await;
    rig.put(&[keyed(""), envelope("app.low", 1, "")]).await;
    let jobs = claim(&rig, 1).await;
    let ends: Vec<_> = jobs
        .iter()
        .map(|job| {
            // As a daemon writes it.
            let mut history = History::of(&job.home.kind, job.home.priority);
            history.key.clone_from(&job.home.key);
            history.errors = failures(1).errors;
            let ending = Ending::Later {
                delay: Duration::from_millis(5),
                history: Box::new(history),
                counter: "retried",
            };
            settlement(job, ending)
        })
        .collect();
    rig.settle(&ends).await;
    assert_eq!(promote(&rig, 2).await, ["high:app.k@a:b@c", "low:app.low"]);
    assert_eq!(claim(&rig, 2).await.len(), 2);
}

#[tokio::test]
async fn a_running_job_says_where_it_was_taken_from() {
    let rig = rig().await;
    rig.put(&[
        keyed(""),
        envelope("app.low", 1, ""),
        envelope("app.a", 2, ""),
    ])
    .await;
    let jobs = claim(&rig, 1).await;
    let (_, running) = rig.queue.sweep_running(0).await.unwrap();
    assert_eq!(running.len(), 3);
    for entry in running {
        let job = jobs.iter().find(|job| job.id == entry.id).unwrap();
        assert_eq!(job.token, entry.token);
        assert_eq!(entry.owner(), Some((ME, 1)));
        assert_eq!(entry.ready_ms(), Some(job.ready_ms));
        let plain = job.home.priority == Priority::Normal && job.home.key.is_none();
        let home = (!plain).then(|| job.home.clone());
        assert_eq!(entry.home(&job.home.kind), home);
        rig.done(job).await;
    }
}

#[tokio::test]
async fn what_is_lost_or_retried_goes_to_its_own_flow() {
    let rig = rig().await;
    let given = |id: &str| keyed(&format!(r#","id":"{id}""#));
    rig.put(&[given("died"), given("failed")]).await;
    rig.put(&[keyed(r#","id":"came-delayed","delay_ms":3600000"#)])
        .await;
    // One died, one is to be tried again, as a daemon writes it.
    for number in 1..3 {
        let job = claim(&rig, number).await.remove(0);
        let mut history = History::of(&job.home.kind, job.home.priority);
        history.key.clone_from(&job.home.key);
        history.fail(1, "no luck");
        let history = Box::new(history);
        let ending = if number == 1 {
            Ending::Dead {
                history,
                given: true,
                counter: "dead",
            }
        } else {
            let delay = Duration::from_secs(3_600);
            Ending::Later {
                delay,
                history,
                counter: "retried",
            }
        };
        rig.settle(&[settlement(&job, ending)]).await;
    }
    // The delayed ones are lost, and somebody finds them who knows none of the kinds.
    let keys = rig.queue.keys();
    rig.redis::<()>("DEL", &[&keys.delayed]).await;
    let options = Options {
        repair: true,
        pace: Duration::ZERO,
    };
    let found = rig.queue.sweep(&other(), options).await.unwrap();
    assert_eq!(found.count(Damage::Lost), 2, "{found:?}");
    // The dead one is run again by such an operator.
    let dead = rig.queue.find("died").await.unwrap().unwrap();
    let envelope = Envelope::parse(&dead.raw).unwrap();
    let home = home_of(&envelope, &other(), &dead.ties, Some(&dead.history));
    assert!(rig.queue.requeue("died", &home, None, "ann").await.unwrap());
    let own: Vec<String> = rig
        .redis("LRANGE", &[&keys.named("flow:high:app.k@a:b@c"), "0", "-1"])
        .await;
    assert_eq!(own.len(), 3, "{own:?}");
    let flows: Vec<String> = rig
        .redis("KEYS", &[&format!("{}*", keys.named("flow:"))])
        .await;
    assert_eq!(flows.len(), 1, "{flows:?}");
}
