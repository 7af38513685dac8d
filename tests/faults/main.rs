//! The fault suite: each row of the matrix in `docs/RELIABILITY.md` is a test here, and each test is a number of trials. A
//! trial runs real daemons under a mixed load, hits them or their servers at a random instant, proves that it hit, heals,
//! drains, and looks at the invariants.
//!
//! `make faults N=20 SEED=7 ROW=5`, or as any other test: `cargo test --test faults row_05`. The environment variables
//! `FAULTS_N`, `FAULTS_SEED` and `FAULTS_AT_ONCE` set trials, first seed, and trials at a time.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod bed;
mod build;
mod invariants;
mod load;
mod oracle;
#[allow(dead_code)]
#[path = "../it/daemon/process.rs"]
mod process;
mod proxy;
mod receiver;
mod report;
mod row;
mod rows;
mod selftest;
mod supervisor;
#[allow(dead_code)]
#[path = "../it/support/mod.rs"]
mod support;

use libtest_mimic::{Arguments, Completion, Trial};
use parking_lot::Mutex;
use report::Line;
use row::{Plan, Row};
use std::fs;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;

/// Trials of each row where nobody says otherwise: as many as fit into every run of all tests.
const TRIALS: u64 = 3;
/// Trials at a time: most of their time they wait.
const AT_ONCE: u64 = 4;

/// What the tests of all rows share.
struct Suite {
    runtime: Runtime,
    plan: Plan,
    places: Semaphore,
    lines: Mutex<Vec<Line>>,
}

fn main() -> ExitCode {
    if std::env::var_os(rows::poison::AS_DAEMON).is_some() {
        let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(rows::poison::run_daemon());
        return ExitCode::SUCCESS;
    }
    let (filters, options) = filters_and_options(std::env::args());
    let mut arguments = Arguments::from_iter(options);
    let number = |name: &str, default: u64| {
        let given = std::env::var(format!("FAULTS_{name}")).unwrap_or_default();
        if given.is_empty() {
            return default;
        }
        given
            .parse()
            .unwrap_or_else(|_| panic!("FAULTS_{name}: {given:?} is no number"))
    };
    let plan = Plan {
        trials: number("N", TRIALS),
        seed: number("SEED", rand::random_range(1..1_000_000)),
        at_once: usize::try_from(number("AT_ONCE", AT_ONCE).max(1)).unwrap(),
    };
    // A row is a thread that waits for its trials.
    arguments.test_threads.get_or_insert(plan.at_once);
    tidegate::tls::install();
    let suite = Arc::new(Suite {
        runtime: Builder::new_multi_thread().enable_all().build().unwrap(),
        places: Semaphore::new(plan.at_once),
        plan,
        lines: Mutex::default(),
    });
    let began = Instant::now();
    let mut tests: Vec<Trial> = rows::ROWS.iter().map(|row| test(&suite, row)).collect();
    tests.extend(proxy_tests(&suite));
    tests.extend(self_tests(&suite));
    let exact = arguments.exact;
    let wanted = |name: &str, f: &String| {
        if exact {
            name == f
        } else {
            name.contains(f.as_str())
        }
    };
    tests.retain(|test| filters.is_empty() || filters.iter().any(|f| wanted(test.name(), f)));
    let conclusion = libtest_mimic::run(&arguments, tests);
    tell(&suite, began.elapsed().as_secs());
    conclusion.exit_code()
}

/// Any number of filters, as other test binaries take them; the harness knows one.
fn filters_and_options(arguments: impl Iterator<Item = String>) -> (Vec<String>, Vec<String>) {
    const WITH_VALUE: [&str; 5] = [
        "--test-threads",
        "--skip",
        "--color",
        "--format",
        "--logfile",
    ];
    let (mut filters, mut options) = (Vec::new(), Vec::new());
    let mut value_follows = true; // the program itself
    for argument in arguments {
        if value_follows || argument.starts_with('-') {
            value_follows = !value_follows && WITH_VALUE.contains(&argument.as_str());
            options.push(argument);
        } else {
            filters.push(argument);
        }
    }
    (filters, options)
}

fn test(suite: &Arc<Suite>, row: &'static Row) -> Trial {
    let suite = Arc::clone(suite);
    Trial::ignorable_test(format!("row_{:02}_{}", row.number, row.name), move || {
        let result = suite.runtime.block_on(row.run(suite.plan, &suite.places));
        let told = result.failed.iter().map(|(seed, why)| {
            format!(
                "row {} failed (again with: make faults ROW={0} SEED={seed} N=1)\n  {why}",
                row.number
            )
        });
        let told: Vec<String> = told.collect();
        let not_run = result.not_run.clone();
        suite.lines.lock().push(Line::of(row, result));
        match (told.is_empty(), not_run) {
            (false, _) => Err(told.join("\n").into()),
            (true, Some(why)) => Ok(Completion::ignored_with(format!("not run: {why}"))),
            (true, None) => Ok(Completion::Completed),
        }
    })
}

/// The proxy is looked at like anything else that others rely on.
fn proxy_tests(suite: &Arc<Suite>) -> Vec<Trial> {
    macro_rules! each {
        ($($name:ident),*) => {
            vec![$({
                let suite = Arc::clone(suite);
                Trial::test(concat!("proxy::", stringify!($name)), move || {
                    suite.runtime.block_on(proxy::tests::$name());
                    Ok(())
                })
            }),*]
        };
    }
    each!(
        messages_end_where_they_end,
        a_cut_request_is_not_done_and_a_cut_reply_is,
        a_split_batch_is_done_in_part,
        a_swallowed_direction_leaves_the_connection_open_and_new_ones_alone,
        a_delay_is_felt_and_nobody_gets_through_a_cut
    )
}

/// The suite itself: it must find what is wrong with builds that are wrong.
fn self_tests(suite: &Arc<Suite>) -> Vec<Trial> {
    let each = selftest::FLAWS.iter().map(|flaw| {
        let suite = Arc::clone(suite);
        Trial::ignorable_test(
            format!("selftest::{}", flaw.name.replace('-', "_")),
            move || match suite
                .runtime
                .block_on(flaw.is_caught(suite.plan, &suite.places))
            {
                Ok(how) => {
                    println!("{}: {how}", flaw.name);
                    Ok(Completion::Completed)
                }
                Err(why) => Err(why.into()),
            },
        )
    });
    let clean = Trial::test("selftest::the_build_under_test_holds_no_flaw", || {
        selftest::holds_no_flaw().map_err(Into::into)
    });
    each.chain([clean]).collect()
}

/// Prints the table of what was run, and leaves it in `target/faults`.
fn tell(suite: &Suite, seconds: u64) {
    let mut lines = suite.lines.lock();
    if lines.is_empty() {
        return;
    }
    lines.sort_by_key(|line| line.number);
    let folder = build::folder();
    let table = report::table(&lines);
    let json = report::json(&lines, suite.plan, seconds);
    println!(
        "seed {}, {} trials per row, {seconds} s\n\n{table}\n{json}",
        suite.plan.seed, suite.plan.trials
    );
    let written = fs::create_dir_all(&folder)
        .and_then(|()| fs::write(folder.join("table.md"), table))
        .and_then(|()| fs::write(folder.join("table.json"), json.to_string()));
    if let Err(e) = written {
        eprintln!("{}: {e}", folder.display());
    }
}
