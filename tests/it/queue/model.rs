//! Random operations of several daemons, apps and operators on a real queue, held against a model after every step: each
//! job is in exactly one place, none is lost, none is settled twice, and the counters tell what happened.
//!
//! A sequence that fails is shrunk and kept in `model/failures.jsonl`, one case a line, to be committed: all of them are
//! played again first.

mod bonds;
mod check;
mod drain;
mod ends;
mod expected;
mod limits;
mod op;
mod operators;
mod schedules;
mod snapshot;
mod world;

use super::rig::Rig;
use crate::support;
use op::Case;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use world::World;

/// Cases in all; `PROPTEST_CASES` says otherwise.
const CASES: u32 = 2_000;
/// Runners, each with a database of its own.
const RUNNERS: u32 = 2;
const FAILURES: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/it/queue/model/failures.jsonl"
);

/// Two queues on one database, used in turn: with and without remembered ids.
struct Stage {
    runtime: Runtime,
    remembering: Rig,
    forgetting: Rig,
}

impl Stage {
    /// On a database that is emptied for each case.
    fn new(url: &str) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let rig = |remember: bool| {
            let set = move |c: &mut tidegate::config::Config| {
                c.retention.dead_max = expected::DEAD_MAX;
                // A busy machine is no failure.
                c.redis.command_timeout = Duration::from_secs(60);
                if !remember {
                    c.dedupe.window = Duration::ZERO;
                }
            };
            let mut rig = runtime.block_on(Rig::on(url, set));
            rig.catalog = limits::catalog();
            rig
        };
        let (remembering, forgetting) = (rig(true), rig(false));
        Self {
            runtime,
            remembering,
            forgetting,
        }
    }

    fn play(&self, case: &Case) {
        let rig = if case.remember {
            &self.remembering
        } else {
            &self.forgetting
        };
        self.runtime.block_on(World::run(rig, case));
    }
}

#[test]
fn each_job_is_in_one_place_and_none_is_lost() {
    let stage = Stage::new(&database(1));
    let kept = fs::read_to_string(FAILURES).unwrap_or_default();
    for (n, line) in kept.lines().enumerate() {
        let case: Case = serde_json::from_str(line).unwrap();
        let played = catch_unwind(AssertUnwindSafe(|| stage.play(&case)));
        assert!(played.is_ok(), "line {} of {FAILURES} fails again", n + 1);
    }
    std::thread::scope(|scope| {
        for runner in 0..RUNNERS {
            scope.spawn(move || explore(2 + runner));
        }
    });
}

/// A database of the shared server that no other test uses.
fn database(number: u32) -> String {
    let url = support::redis_url();
    format!("{}/{number}", url.strip_suffix("/0").unwrap())
}

/// Plays some random cases on the server at `url`; they must hold.
pub fn some(url: &str, cases: u32) {
    let stage = Stage::new(url);
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new(config)
        .run(&op::case(), |case| {
            stage.play(&case);
            Ok(())
        })
        .unwrap();
}

fn explore(number: u32) {
    let stage = Stage::new(&database(number));
    let given = std::env::var_os("PROPTEST_CASES").is_some();
    let config = Config {
        cases: if given {
            Config::default().cases
        } else {
            CASES
        } / RUNNERS,
        failure_persistence: None,
        max_shrink_time: 60_000,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&op::case(), |case| {
        let played = catch_unwind(AssertUnwindSafe(|| stage.play(&case)));
        played.map_err(|cause| TestCaseError::fail(words(cause)))
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(why, case)) => {
            let mut file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(FAILURES)
                .unwrap();
            writeln!(file, "{}", serde_json::to_string(&case).unwrap()).unwrap();
            panic!("{why}\n{case:#?}\nkept in {FAILURES}");
        }
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
}

fn words(cause: Box<dyn std::any::Any + Send>) -> String {
    let text = cause.downcast_ref::<String>().cloned();
    text.or_else(|| cause.downcast_ref::<&str>().map(|s| (*s).to_owned()))
        .unwrap_or_default()
}
