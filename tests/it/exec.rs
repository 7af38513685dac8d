//! The `exec` handler with real children: what came of the job, and who is left alive.
//!
//! Tests wait on a state, with a deadline; a child that must not end by itself sleeps far longer than that.

#![allow(clippy::unwrap_used, clippy::panic)]

use serde_json::{Map, Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate::catalog;
use tidegate::config::{self, Secret, Sources};
use tidegate::handlers::{BUILT_IN, Context, Deps, Handler};
use tidegate::job::{Job, JobId, Outcome, Priority};
use tokio_util::sync::CancellationToken;

/// How long any state is waited for.
const DEADLINE: Duration = Duration::from_secs(20);

/// A handler whose command is a shell script, with more lines for its section.
fn script(script: &str, more: &str) -> Arc<dyn Handler> {
    // TOML's literal strings take the script as it is.
    handler(&format!(
        "command = [\"/bin/sh\", \"-c\", '''{script}''']\n{more}"
    ))
}

fn handler(section: &str) -> Arc<dyn Handler> {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("kind = \"app.test\"\nhandler = \"exec\"\n[exec]\n{section}");
    std::fs::write(dir.path().join("a.toml"), text).unwrap();
    let catalog = catalog::load(dir.path(), &["exec"]).unwrap();
    let mut config = config::load(&Sources::default()).unwrap();
    config
        .secrets
        .insert("api_key".to_owned(), Secret::new("hunter2"));
    let kind = BUILT_IN.iter().find(|kind| kind.name == "exec").unwrap();
    let spec = catalog.get("app.test").unwrap();
    (kind.check)(spec, &config).unwrap();
    (kind.build)(spec, &Deps::new(Arc::new(config))).unwrap()
}

fn context(args: Value) -> Context {
    let Value::Object(args) = args else {
        panic!("args are an object");
    };
    job(args)
}

fn job(args: Map<String, Value>) -> Context {
    Context {
        job: Arc::new(Job {
            id: JobId::parse("job-1").unwrap(),
            kind: "app.test".into(),
            queue: "default".into(),
            priority: Priority::Normal,
            args,
            attempt: 2,
            max_attempts: 5,
            traceparent: None,
            token: "incarnation:7".into(),
        }),
        stop: CancellationToken::new(),
    }
}

async fn run(handler: &Arc<dyn Handler>, ctx: &Context) -> Outcome {
    tokio::time::timeout(DEADLINE, handler.run(ctx))
        .await
        .expect("the handler ends within the deadline")
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < DEADLINE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether a process is there and not merely a zombie that nobody has reaped yet.
fn alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().unwrap_or_default().trim();
    !state.is_empty() && !state.starts_with('Z')
}

/// The process ids a child has written to a file, once there are as many as expected.
async fn pids(file: &Path, expected: usize) -> Vec<String> {
    let read = || std::fs::read_to_string(file).unwrap_or_default();
    until("the children to start", || {
        read().lines().count() >= expected
    })
    .await;
    read().lines().map(str::to_owned).collect()
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
        until("a killed process to be gone", || !alive(pid)).await;
    }
    until("the child to be reaped", || {
        !family.iter().any(|pid| ours(pid))
    })
    .await;
}

/// Whether a process, dead or not, is a child of this one.
fn ours(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let parent = after_name.split_whitespace().nth(1);
    parent == Some(std::process::id().to_string().as_str())
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
    assert!(family.iter().all(|pid| !alive(pid)));
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
        until("a killed process to be gone", || !alive(pid)).await;
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
    until("the orphan to be gone", || !alive(&orphan)).await;
}
