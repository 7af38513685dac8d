//! The `exec` handler with real children: what came of the job, and who is left alive.
//!
//! Tests wait on a state, with a deadline; a child that must not end by itself sleeps far longer than that.

use super::handler::{context, try_build};
use super::support::{DEADLINE, is_running, process_state, wait_until};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tidegate::config::Secret;
use tidegate::handlers::progress::Board;
use tidegate::handlers::{Context, Handler};
use tidegate::job::Outcome;

/// A handler whose command is a shell script, with more lines for its section.
fn script(script: &str, more: &str) -> Arc<dyn Handler> {
    // TOML's literal strings take the script as it is.
    handler(&format!(
        "command = [\"/bin/sh\", \"-c\", '''{script}''']\n{more}"
    ))
}

fn handler(section: &str) -> Arc<dyn Handler> {
    try_build("exec", section, |config| {
        let secret = Secret::new("hunter2");
        config.secrets.insert("api_key".to_owned(), secret);
    })
    .unwrap()
}

async fn run(handler: &Arc<dyn Handler>, ctx: &Context) -> Outcome {
    tokio::time::timeout(DEADLINE, handler.run(ctx))
        .await
        .expect("the handler ends within the deadline")
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    wait_until(what, DEADLINE, || std::future::ready(holds())).await;
}

/// The process ids a child has written to a file, once there are as many as expected.
async fn pids(file: &Path, expected: usize) -> Vec<u32> {
    let read = || std::fs::read_to_string(file).unwrap_or_default();
    until("the children to start", || {
        read().lines().count() >= expected
    })
    .await;
    read().lines().map(|pid| pid.parse().unwrap()).collect()
}

/// A child and a grandchild that ignore `SIGTERM`, both of which write their ids to `$1`.
fn stubborn_family(file: &Path) -> Arc<dyn Handler> {
    let own = "trap \"\" TERM; echo $$ >> \"$1\"; while :; do sleep 1000; done";
    handler(&format!(
        "command = [\"/bin/sh\", \"-c\", '''sh -c '{own}' sh \"$1\" & {own}''', \"sh\", '{}']",
        file.display()
    ))
}

#[tokio::test]
async fn the_child_gets_one_line_of_json_and_its_answer_is_the_result() {
    let echo = handler("command = [\"/bin/cat\"]");
    let outcome = run(&echo, &context(json!({"text": "a\nb", "n": 1}))).await;
    let job =
        json!({"id": "job-1", "kind": "app.test", "args": {"text": "a\nb", "n": 1}, "attempt": 2});
    assert_eq!(outcome, Outcome::Done(Some(job)));

    let lines = script("wc -l", "");
    let outcome = run(&lines, &context(json!({"text": "a\nb"}))).await;
    assert_eq!(outcome, Outcome::Done(Some(json!(1))));
}

#[tokio::test]
async fn output_that_is_no_json_is_no_result() {
    let done = run(&script("echo all went well", ""), &context(json!({}))).await;
    assert_eq!(done, Outcome::Done(None));
}

#[tokio::test]
async fn a_child_may_leave_a_large_input_unread() {
    let ctx = context(json!({"text": "x".repeat(250_000)}));
    assert_eq!(run(&script("exit 0", ""), &ctx).await, Outcome::Done(None));
    let closed = script("exec <&-; echo 1", "");
    assert_eq!(run(&closed, &ctx).await, Outcome::Done(Some(json!(1))));
}

#[tokio::test]
async fn a_large_input_and_a_large_output_do_not_wait_for_each_other() {
    // cat answers while it is still being written to, with more than any pipe holds.
    let echo = handler("command = [\"/bin/cat\"]\nmax_output = 1048576");
    let text = "x".repeat(250_000);
    let outcome = run(&echo, &context(json!({"text": text}))).await;
    let Outcome::Done(Some(answer)) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(answer["args"]["text"], text);
}

#[tokio::test]
async fn a_flood_of_output_is_read_and_dropped() {
    let flood = "head -c 20000000 /dev/zero; head -c 20000000 /dev/zero >&2";
    let done = run(&script(flood, "max_output = 1000"), &context(json!({}))).await;
    assert_eq!(done, Outcome::Done(None));

    let failing = format!("{flood} ; echo the end >&2; exit 1");
    let outcome = run(&script(&failing, ""), &context(json!({}))).await;
    let Outcome::Failed(failure) = outcome else {
        panic!("{outcome:?}");
    };
    assert!(failure.message.len() <= 4096, "{}", failure.message.len());
    assert!(failure.message.ends_with("the end"), "{failure:?}");
}

#[tokio::test]
async fn exit_codes_decide() {
    let more = "fatal_exit = [2, 3]\nsnooze = \"90s\"";
    let ended = async |code: u8| {
        let text = format!("echo because >&2; exit {code}");
        run(&script(&text, more), &context(json!({}))).await
    };
    assert_eq!(ended(0).await, Outcome::Done(None));
    assert_eq!(
        ended(1).await,
        Outcome::failed("/bin/sh: exit code 1: because")
    );
    assert_eq!(
        ended(3).await,
        Outcome::fatal("/bin/sh: exit code 3: because")
    );
    let snoozed = Outcome::Snooze {
        after: Duration::from_secs(90),
        reason: "/bin/sh: exit code 75: because".to_owned(),
    };
    assert_eq!(ended(75).await, snoozed);
}

#[tokio::test]
async fn a_signal_is_a_failure_that_names_it() {
    let outcome = run(&script("kill -SEGV $$", ""), &context(json!({}))).await;
    assert_eq!(outcome, Outcome::failed("/bin/sh: killed by SIGSEGV"));
}

#[tokio::test]
async fn a_program_that_is_gone_is_a_failure_that_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("program");
    std::os::unix::fs::symlink("/bin/true", &program).unwrap();
    let handler = handler(&format!("command = ['{}']", program.display()));
    assert_eq!(
        run(&handler, &context(json!({}))).await,
        Outcome::Done(None)
    );
    std::fs::remove_file(&program).unwrap();
    let outcome = run(&handler, &context(json!({}))).await;
    let Outcome::Failed(failure) = outcome else {
        panic!("{outcome:?}");
    };
    assert!(failure.message.contains("No such file"), "{failure:?}");
}

#[tokio::test]
async fn the_environment_is_the_declared_one_and_nothing_else() {
    // Cargo gives this test process CARGO_MANIFEST_DIR, so there is something to leak.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("env");
    let env = handler(&format!(
        "command = [\"/bin/sh\", \"-c\", \"cat /proc/self/environ > \\\"$FILE\\\"; pwd\"]\ncwd = \"/\"\nenv = {{ FILE = '{}' }}\nsecrets = [\"api_key\"]",
        file.display()
    ));
    assert_eq!(run(&env, &context(json!({}))).await, Outcome::Done(None));
    let text = std::fs::read_to_string(&file).unwrap();
    // The shell adds PWD, and some add OLDPWD, SHLVL and _.
    let of_the_shell = ["PWD", "OLDPWD", "SHLVL", "_", "PATH", "HOME", "LANG"];
    let mut set: Vec<&str> = text
        .split_terminator('\0')
        .filter(|pair| !of_the_shell.contains(&pair.split('=').next().unwrap()))
        .collect();
    set.sort_unstable();
    let file = format!("FILE={}", file.display());
    let expected = [
        "API_KEY=hunter2",
        &file,
        "TIDEGATE_ATTEMPT=2",
        "TIDEGATE_JOB_ID=job-1",
        "TIDEGATE_KIND=app.test",
        "TIDEGATE_TOKEN=incarnation:7",
        "TRACEPARENT=00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ];
    assert_eq!(set, expected);
}

#[tokio::test]
async fn dropping_the_future_kills_the_whole_group() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pids");
    let handler = stubborn_family(&file);
    let ctx = context(json!({}));
    let family = {
        let mut run = handler.run(&ctx);
        tokio::select! {
            outcome = &mut run => panic!("ended by itself: {outcome:?}"),
            family = pids(&file, 2) => family,
        }
    };
    // The kill is part of the drop; the kernel may still take a moment to carry it out.
    for pid in &family {
        until("a killed process to be gone", || !is_running(*pid)).await;
    }
    until("the child to be reaped", || {
        !family.iter().any(|pid| ours(*pid))
    })
    .await;
}

/// Whether a process, dead or not, is a child of this one.
fn ours(pid: u32) -> bool {
    process_state(pid).is_some_and(|(_, parent)| parent == std::process::id())
}

#[tokio::test]
async fn a_child_that_obeys_the_stop_is_interrupted_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pids");
    // It exits with 0, and yet it is not done.
    let text = format!(
        "trap 'exit 0' TERM; echo $$ >> '{}'; while :; do sleep 1000 & wait; done",
        file.display()
    );
    let handler = handler(&format!("command = [\"/bin/sh\", \"-c\", {text:?}]"));
    let ctx = context(json!({}));
    let stop = async {
        let family = pids(&file, 1).await;
        ctx.stop.cancel();
        family
    };
    let (outcome, family) = tokio::join!(run(&handler, &ctx), stop);
    assert!(
        matches!(outcome, Outcome::Interrupted { .. }),
        "{outcome:?}"
    );
    assert!(family.iter().all(|pid| !is_running(*pid)));
}

#[tokio::test]
async fn a_family_that_ignores_the_stop_is_killed_after_a_grace() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pids");
    let handler = stubborn_family(&file);
    let ctx = context(json!({}));
    let stop = async {
        let family = pids(&file, 2).await;
        ctx.stop.cancel();
        family
    };
    let (outcome, family) = tokio::join!(run(&handler, &ctx), stop);
    assert!(
        matches!(outcome, Outcome::Interrupted { .. }),
        "{outcome:?}"
    );
    for pid in &family {
        until("a killed process to be gone", || !is_running(*pid)).await;
    }
}

#[tokio::test]
async fn whoever_the_child_leaves_behind_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pids");
    // The grandchild holds the pipes open: the job is done all the same, and at once.
    let text = format!("sleep 1000 & echo $! > '{}'; echo 5", file.display());
    let handler = handler(&format!("command = [\"/bin/sh\", \"-c\", {text:?}]"));
    let outcome = run(&handler, &context(json!({}))).await;
    assert_eq!(outcome, Outcome::Done(Some(json!(5))));
    let orphan = pids(&file, 1).await.remove(0);
    until("the orphan to be gone", || !is_running(orphan)).await;
}

#[tokio::test]
async fn a_process_that_left_the_group_does_not_hold_the_job_up() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pids");
    // It keeps the output open; the child's own answer counts all the same.
    let text = format!(
        "setsid sh -c 'echo $$ > \"$0\"; exec sleep 1000' '{}' & while ! [ -s '{}' ]; do sleep 0.01; done; echo 5",
        file.display(),
        file.display()
    );
    let handler = handler(&format!("command = [\"/bin/sh\", \"-c\", {text:?}]"));
    let outcome = run(&handler, &context(json!({}))).await;
    let escaped = i32::try_from(pids(&file, 1).await[0]).unwrap();
    let escaped = rustix::process::Pid::from_raw(escaped).unwrap();
    rustix::process::kill_process(escaped, rustix::process::Signal::KILL).unwrap();
    assert_eq!(outcome, Outcome::Done(Some(json!(5))));
}

#[tokio::test]
async fn a_child_tells_how_far_it_has_come_by_path_or_descriptor() {
    for write in [
        r#"echo '{"percent":1}' > "$TIDEGATE_PROGRESS"; echo '{"percent":80,"counters":{"n":3}}' > "$TIDEGATE_PROGRESS""#,
        r#"echo '{"percent":1}' >&3; printf '%s\n%s\n' 'no report' '{"percent":80,"counters":{"n":3}}' >&3"#,
    ] {
        let board = Arc::default();
        let ctx = told_to(&board);
        let outcome = run(&script(write, "progress = true"), &ctx).await;
        assert_eq!(outcome, Outcome::Done(None), "{write}");
        let last = board.take_news().remove(0).progress;
        assert_eq!((last.percent, last.counters["n"]), (Some(80.0), 3));
    }
}

#[tokio::test]
async fn a_flood_of_reports_holds_nothing_up_and_a_pipe_is_given_only_if_asked_for() {
    let board = Arc::default();
    let flood = r#"head -c 10000000 /dev/zero >&3; printf '\n{"percent":9}\n' >&3"#;
    let outcome = run(&script(flood, "progress = true"), &told_to(&board)).await;
    assert_eq!(outcome, Outcome::Done(None));
    assert_eq!(board.take_news().remove(0).progress.percent, Some(9.0));

    let without = r#"[ -z "$TIDEGATE_PROGRESS" ] && ! [ -e /dev/fd/3 ]"#;
    let outcome = run(&script(without, ""), &told_to(&board)).await;
    assert_eq!(outcome, Outcome::Done(None));
    assert!(board.take_news().is_empty());
}

/// A context whose reports go to a board.
fn told_to(board: &Arc<Board>) -> Context {
    let ctx = context(json!({}));
    Context::new(ctx.job, ctx.stop, Arc::clone(board))
}
