//! What jobs are tied to besides their flows: locks, results, chains, groups. Whatever ends a job lets go of it.

mod chains;
mod groups;
mod once;
mod results;
mod waiting;

use super::rig::{Rig, catalog_of, envelope, failures, record, settlement};
use std::collections::BTreeSet;
use tidegate::config::Config;
use tidegate::job::{Reject, RejectCode};
use tidegate::queue::claim::{RawDelivery, Unfit};
use tidegate::queue::settle::Ending;

/// A rig whose kinds take `n`, `tags` and `to`.
async fn rig() -> Rig {
    rig_with(|_| {}).await
}

async fn rig_with(set: impl FnOnce(&mut Config)) -> Rig {
    let mut rig = Rig::with(set).await;
    let args = "[args]\nn = { type = \"integer\" }\ntags = { type = \"array\" }\nto = { type = \"string\", default = \"all\" }\n";
    let with = |more: &str| format!("{more}\n{args}");
    let claimed = with("[unique]\nargs = [\"n\"]\nuntil = \"claimed\"");
    let keyed = with("[unique]\nkey = \"args.to\"");
    let debounced = with("[debounce]\nkey = \"args.to\"\nwait = \"1h\"");
    rig.catalog = catalog_of(&[
        ("app.a", args),
        ("app.b", args),
        ("app.claimed", &claimed),
        ("app.keyed", &keyed),
        ("app.debounced", &debounced),
        ("app.kept", &with("result_ttl = \"1h\"")),
    ]);
    rig
}

/// `envelope` with `unique`.
fn unique(n: u64, rule: &str, more: &str) -> String {
    envelope("app.a", n, &format!(r#","unique":{{{rule}}}{more}"#))
}

fn dead() -> Ending {
    Ending::Dead {
        history: failures(1),
        given: true,
        counter: "dead",
    }
}

/// Every way in which a job can end, but for `done`.
const WAYS_OUT: [&str; 9] = [
    "cancelled while it waits",
    "cancelled while it is delayed",
    "cancelled while it runs",
    "expired",
    "dead",
    "dead and purged",
    "dead and crowded out",
    "quarantined at the claim",
    "quarantined at promotion",
];

impl Rig {
    /// Brings the job `id`, which waits alone, to its end.
    async fn end(&self, id: &str, way: &str) {
        let key = |f: fn(&tidegate::queue::Keys) -> &String| f(self.queue.keys()).clone();
        match way {
            "cancelled while it waits" => self.cancel(id).await,
            "cancelled while it is delayed" => {
                self.later(id).await;
                self.cancel(id).await;
            }
            "cancelled while it runs" => self.finish("cancelled").await,
            "expired" => self.finish("expired").await,
            "dead" => self.settle_one(dead()).await,
            "dead and purged" => {
                self.settle_one(dead()).await;
                assert_eq!(
                    self.queue.bury(&[id.to_owned()], Some("me")).await.unwrap(),
                    1
                );
            }
            "dead and crowded out" => {
                // The queue of this test keeps one dead job: a younger one takes its place.
                self.put(&[envelope("app.b", 0, r#","id":"younger""#)])
                    .await;
                let jobs = self.claim(9).await;
                for name in [id, "younger"] {
                    let job = jobs.iter().find(|job| job.id == name).unwrap();
                    self.settle(&[settlement(job, dead())]).await;
                }
                assert_eq!(self.state(id).await.as_deref(), Some("dropped"));
                assert_eq!(
                    self.queue
                        .bury(&["younger".to_owned()], Some("me"))
                        .await
                        .unwrap(),
                    1
                );
            }
            "quarantined at the claim" => {
                let reject = Reject::new(RejectCode::BadArgs, "args.n: \"no\" good");
                self.settle_one(Ending::Quarantined(reject)).await;
            }
            "quarantined at promotion" => {
                self.later(id).await;
                self.redis::<()>("ZADD", &[&key(|k| &k.delayed), "XX", "inf", id])
                    .await;
                self.promote().await;
            }
            other => panic!("{other}"),
        }
    }

    async fn settle_one(&self, ending: Ending) {
        let job = self.claim(1).await.remove(0);
        let settled = self.settle(&[settlement(&job, ending)]).await;
        assert_eq!(settled.stale, Vec::<usize>::new());
    }

    async fn finish(&self, state: &'static str) {
        let job = self.claim(1).await.remove(0);
        let settled = self
            .settle(&[settlement(&job, finished(&job, state))])
            .await;
        assert_eq!(settled.stale, Vec::<usize>::new());
    }

    async fn later(&self, _: &str) {
        self.settle_one(Ending::Later {
            delay: std::time::Duration::from_secs(3_600),
            history: failures(1),
            counter: "retried",
        })
        .await;
    }

    async fn cancel(&self, id: &str) {
        let answer = self
            .queue
            .cancel(&record(id, "cancelled"), true, None, "me")
            .await;
        assert_eq!(answer.unwrap(), tidegate::queue::operate::Cancelled::Done);
    }

    /// Which of the keys that hold ties are there.
    async fn left_over(&self) -> BTreeSet<String> {
        let k = self.queue.keys().clone();
        let keys = [
            &k.ties,
            &k.locks,
            &k.lock_ends,
            &k.merges,
            &k.groups,
            &k.group_then,
            &k.group_results,
            &k.group_times,
        ];
        let mut left = BTreeSet::new();
        for key in keys {
            if self.redis::<u64>("EXISTS", &[key]).await == 1 {
                left.insert(key.rsplit(':').next().unwrap().to_owned());
            }
        }
        left
    }
}

fn finished(job: &RawDelivery, state: &'static str) -> Ending {
    Ending::Finished {
        record: record(&job.id, state).encode(),
        counter: state,
        given: true,
        history: tidegate::job::History::parse(&job.history).map(Box::new),
    }
}

/// The arguments with which a claimed job would run.
fn args_of(rig: &Rig, job: &RawDelivery) -> serde_json::Value {
    match job.open(&rig.queue, &rig.catalog, job.ready_ms) {
        Ok(delivery) => serde_json::Value::Object(delivery.job.args.clone()),
        Err(Unfit::Rejected(reject)) => panic!("{reject}"),
        Err(Unfit::Expired { .. }) => panic!("{} expired", job.id),
    }
}
