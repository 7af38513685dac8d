//! Tidegate inside another program: functions as handlers, the typed client, and the helpers for tests.

mod files;

use crate::support::{DEADLINE, fresh_prefix, redis_url, wait_until};
use apalis_core::backend::memory::MemoryStorage;
use apalis_core::worker::builder::WorkerBuilder;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tidegate::config::{self, Config, Secret, Sources};
use tidegate::embed::{
    AbortError, Advice, Attempt, BoxDynError, Builder, Client, ClientError, Context, Daemon, Data,
    DeferredError, Job, JobError, Kind, Outcome, Priority, Queue, RetryAfterError, TaskId,
};
use tidegate::queue::operate::Cancelled;
use tidegate::testing::{Inline, Sandbox, TestError};
use tokio_util::sync::CancellationToken;

#[allow(dead_code, reason = "its main is for cargo run")]
#[path = "../../examples/embedded.rs"]
mod example;

#[derive(Debug, Serialize, Deserialize)]
struct Add {
    a: u64,
    b: u64,
}

type Sum = Data<Arc<AtomicU64>>;

async fn add(add: Add, sum: Sum) -> u64 {
    sum.fetch_add(add.a + add.b, Ordering::Relaxed);
    add.a + add.b
}

fn config() -> Config {
    let mut config = config::load(&Sources::default()).unwrap();
    config.redis.url = Secret::new(redis_url());
    config.redis.prefix = fresh_prefix();
    config.gate.mode = config::GateMode::Off;
    config
}

fn adding(config: &Config) -> (Builder, Arc<AtomicU64>) {
    let sum = Arc::new(AtomicU64::new(0));
    let builder = Daemon::builder().config(config.clone());
    (builder.data(Arc::clone(&sum)).handler("app.add", add), sum)
}

async fn stop(daemon: Daemon) {
    daemon.stop(DEADLINE, CancellationToken::new()).await;
}

async fn state(client: &Client, queue: &str, id: &str) -> String {
    let found = client.find(queue, id).await.unwrap();
    found.map_or_else(|| "unknown".to_owned(), |found| found.state)
}

async fn until_state(client: &Client, queue: &str, id: &str, wanted: &str) {
    wait_until(&format!("{id} is {wanted}"), DEADLINE, || async {
        state(client, queue, id).await == wanted
    })
    .await;
}

fn refusal(error: &ClientError) -> String {
    assert!(matches!(error, ClientError::Refused(_)), "{error:?}");
    error.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_does_what_it_says() {
    assert_eq!(example::work(&redis_url()).await.unwrap(), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_from_code_needs_no_file_and_bad_arguments_never_reach_it() {
    let config = config();
    let (builder, sum) = adding(&config);
    let daemon = builder.start().await.unwrap();
    let client = daemon.client();
    let jobs = (0..50).map(|n| Job::new("app.add", Add { a: n, b: 1 }).id(format!("n{n}")));
    let added = client.enqueue_all(jobs).await.unwrap();
    assert!(
        added
            .iter()
            .all(|job| job.created && job.queue == "default")
    );
    assert_eq!(added[7].id, "n7");
    until_state(&client, "default", "n49", "done").await;
    wait_until("all are added", DEADLINE, || {
        std::future::ready(sum.load(Ordering::Relaxed) == 49 * 50 / 2 + 50)
    })
    .await;
    let again = client.enqueue(Job::new("app.add", Add { a: 1, b: 1 }).id("n7"));
    let again = again.await.unwrap();
    assert_eq!((again.created, again.state.as_str()), (false, "done"));

    let hour = Duration::from_secs(3_600);
    let later = Job::new("app.add", Add { a: 1, b: 1 }).id("later");
    client.enqueue(later.delay(hour)).await.unwrap();
    until_state(&client, "default", "later", "delayed").await;
    let cancelled = client.cancel("default", "later").await.unwrap();
    assert_eq!(cancelled, Cancelled::Done);
    assert_eq!(state(&client, "default", "later").await, "cancelled");
    let unknown = client.cancel("default", "nobody").await.unwrap();
    assert_eq!(unknown, Cancelled::Unknown);

    let refused = client.enqueue(Job::new("app.add", json!({"a": 1}))).await;
    assert!(refusal(&refused.unwrap_err()).contains("`b`"));
    // Who does not know the kind can't check it: admission does.
    let stranger = Client::open(&config).await.unwrap();
    let bad = Job::new("app.add", json!({"a": 1, "b": "many"})).id("bad");
    assert!(stranger.enqueue(bad).await.unwrap().created);
    let queue = client.queue("default");
    wait_until("it is quarantined", DEADLINE, || async {
        !queue.quarantined("", 9).await.unwrap().is_empty()
    })
    .await;
    let aside = queue.quarantined("", 9).await.unwrap().remove(0);
    assert_eq!(aside.code, "bad_args");
    assert!(
        aside.reason.contains("args: invalid type"),
        "{}",
        aside.reason
    );
    stop(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_function_returns_is_the_result_that_is_kept() {
    let config = config();
    let daemon = adding(&config).0.start().await.unwrap();
    let client = daemon.client();
    let job = Job::new("app.add", Add { a: 20, b: 22 }).id("sum");
    client
        .enqueue(job.keep_result(Duration::from_secs(60)))
        .await
        .unwrap();
    until_state(&client, "default", "sum", "done").await;
    let key = client.queue("default").keys().result("sum");
    let redis = redis::Client::open(redis_url()).unwrap();
    let kept: String = redis::cmd("LINDEX")
        .arg(key)
        .arg(0)
        .query_async(&mut redis.get_multiplexed_async_connection().await.unwrap())
        .await
        .unwrap();
    let kept: Value = serde_json::from_str(&kept).unwrap();
    assert_eq!(
        (&kept["state"], &kept["result"]),
        (&json!("done"), &json!(42))
    );
    stop(daemon).await;
}

/// Everything an apalis task function may take that is not its worker's.
async fn task(
    args: Add,
    id: TaskId,
    attempt: Attempt,
    queue: Option<Queue>,
    sum: Sum,
    missing: Option<Data<String>>,
) -> Result<(), BoxDynError> {
    assert!(missing.is_none());
    let queue = queue.map(|q| q.to_string()).unwrap_or_default();
    let told = format!("{id} {} {queue}", attempt.current());
    sum.fetch_add(args.a + args.b, Ordering::Relaxed);
    match args.b {
        1 => Err(AbortError::new(told).into()),
        2 => Err(RetryAfterError::new(told, Duration::from_secs(9)).into()),
        3 => Err(DeferredError::new(told).into()),
        4 => Err(told.into()),
        _ => Ok(()),
    }
}

#[tokio::test]
async fn a_task_function_of_apalis_is_a_handler_as_it_stands() {
    let sum = Arc::new(AtomicU64::new(0));
    // It compiles for an apalis worker.
    let _ = WorkerBuilder::new("w")
        .backend(MemoryStorage::<Add>::new())
        .data(Arc::clone(&sum))
        .build(task);
    let run = async |b: u64| {
        let inline = Inline::new(Kind::new("app.task", task)).data(Arc::clone(&sum));
        inline
            .id("t")
            .attempt(2)
            .run(Add { a: 1, b })
            .await
            .unwrap()
            .outcome
    };
    assert_eq!(run(0).await, Outcome::Done(None));
    assert_eq!(run(1).await, Outcome::fatal("AbortError: t 2 default"));
    let Outcome::Failed(failure) = run(2).await else {
        panic!("a failed attempt");
    };
    assert_eq!(failure.retry_after, Some(Duration::from_secs(9)));
    assert!(matches!(run(3).await, Outcome::Snooze { .. }));
    assert_eq!(run(4).await, Outcome::failed("t 2 default"));
    assert_eq!(sum.load(Ordering::Relaxed), 15);
    // What nobody gave is named.
    let without = Inline::new(Kind::new("app.task", task)).run(Add { a: 1, b: 0 });
    let Outcome::Fatal(failure) = without.await.unwrap().outcome else {
        panic!("it can't ever work");
    };
    assert!(failure.message.contains("AtomicU64"), "{}", failure.message);
}

#[tokio::test]
async fn a_function_may_return_what_it_likes() {
    async fn outcome_of(kind: Kind) -> Outcome {
        Inline::new(kind)
            .run(json!({"a": 1, "b": 2}))
            .await
            .unwrap()
            .outcome
    }
    let done = |value: Value| Outcome::Done(Some(value));
    let closure = Kind::new("k", |args: Add| async move { args.a });
    assert_eq!(outcome_of(closure).await, done(json!(1)));
    let all = Kind::new("k", async |args: Add| Ok::<_, JobError>(args));
    assert_eq!(outcome_of(all).await, done(json!({"a": 1, "b": 2})));
    let nothing = Kind::new("k", |_: Value| async {});
    assert_eq!(outcome_of(nothing).await, Outcome::Done(None));
    let itself = Kind::new("k", |_: Add, ctx: Context| async move {
        Outcome::fatal(format!("{} {}", ctx.job.id, ctx.attempt()))
    });
    assert_eq!(outcome_of(itself).await, Outcome::fatal("job-1 1"));
    let within = Kind::new("k", |_: Add| async { Err::<(), _>(JobError::Stopped) });
    assert!(matches!(
        outcome_of(within).await,
        Outcome::Interrupted { .. }
    ));
}

#[tokio::test]
async fn an_inline_run_is_as_strict_as_a_queue_and_as_impatient() {
    let kind = || Kind::new("app.add", |a: Add| async move { a.a });
    let refused = Inline::new(kind()).run(json!({"a": 1})).await;
    assert!(matches!(&refused, Err(TestError::Refused(why)) if why.contains("`b`")));
    let refused = Inline::new(kind()).run(7).await;
    assert!(matches!(refused, Err(TestError::Refused(_))));
    let wrong = Inline::new(kind().toml("timeout = \"no\"")).run(Add { a: 1, b: 1 });
    assert!(matches!(wrong.await, Err(TestError::Definition(_))));
    let slow = Kind::new("k", |_: Value| async { std::future::pending::<()>().await })
        .timeout(Duration::from_millis(20));
    let ran = Inline::new(slow).run(json!({})).await.unwrap();
    assert!(matches!(ran.outcome, Outcome::Failed(f) if f.message.contains("timed out")));
    let token = CancellationToken::new();
    let patient = Kind::new("k", |_: Value, ctx: Context| async move {
        ctx.progress.message("waiting");
        ctx.stopped().await;
        Err::<(), _>(JobError::Stopped)
    });
    token.cancel();
    let ran = Inline::new(patient)
        .stopped_by(token)
        .run(json!({}))
        .await
        .unwrap();
    assert!(matches!(ran.outcome, Outcome::Interrupted { .. }));
    assert_eq!(ran.progress.message.as_deref(), Some("waiting"));
}

#[tokio::test]
async fn work_in_batches_hears_of_the_gate_between_them() {
    let batches = || {
        Kind::new("k", |_: Value, ctx: Context| async move {
            for batch in 1..=3 {
                ctx.progress.count("batches", batch);
                ctx.pace(Duration::from_millis(20)).await?;
            }
            Ok::<(), BoxDynError>(())
        })
    };
    let ran = async |advice| {
        let begun = std::time::Instant::now();
        let ran = Inline::new(batches()).advised(advice).run(json!({})).await;
        let ran = ran.unwrap();
        (
            ran.outcome,
            ran.progress.counters["batches"],
            begun.elapsed(),
        )
    };
    let (outcome, batches, _) = ran(Advice::Go).await;
    assert_eq!((outcome, batches), (Outcome::Done(None), 3));
    let (outcome, batches, took) = ran(Advice::Slow(0.25)).await;
    assert_eq!((outcome, batches), (Outcome::Done(None), 3));
    assert!(took >= 3 * Duration::from_millis(60), "{took:?}");
    let reason = "postgres:primary is critical".to_owned();
    let (outcome, batches, _) = ran(Advice::Yield(reason.clone())).await;
    assert_eq!((outcome, batches), (Outcome::Yielded { reason }, 1));
}

async fn second_time_lucky(_: Value, attempt: Attempt) -> Result<(), &'static str> {
    (attempt.current() > 1).then_some(()).ok_or("not yet")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_is_drained_and_time_passes_in_it_without_waiting() {
    let sandbox = Sandbox::start().await.unwrap();
    let client = sandbox.client().await.unwrap();
    let hour = Duration::from_secs(3_600);
    let jobs = [
        Job::new("app.lucky", ()).id("now"),
        Job::new("app.lucky", ())
            .id("later")
            .delay(hour)
            .priority(Priority::High),
        Job::new("app.unheard", ()).id("unknown"),
    ];
    client.enqueue_all(jobs).await.unwrap();
    let daemon = || {
        let kind = Kind::new("app.lucky", second_time_lucky).backoff(hour, hour);
        sandbox
            .builder()
            .kind(kind.toml("[retry]\njitter = \"none\""))
    };
    let drained = sandbox.drain(daemon()).await.unwrap();
    assert_eq!(
        (drained.completed, drained.retried, drained.quarantined),
        (0, 1, 1)
    );
    assert_eq!(state(&client, "default", "now").await, "delayed");
    // Half of the time is not enough.
    sandbox.advance("default", hour / 2).await.unwrap();
    let nothing = sandbox.drain(daemon()).await.unwrap();
    assert_eq!((nothing.completed, nothing.retried), (0, 0));
    sandbox.advance("default", hour / 2).await.unwrap();
    let drained = sandbox.drain(daemon()).await.unwrap();
    assert_eq!((drained.completed, drained.retried), (1, 1));
    sandbox.advance("default", hour).await.unwrap();
    assert_eq!(sandbox.drain(daemon()).await.unwrap().completed, 1);
    assert_eq!(state(&client, "default", "later").await, "done");

    let sandbox = sandbox.within(Duration::from_millis(100));
    client.enqueue(Job::new("app.stuck", ())).await.unwrap();
    let stuck = |_: Value, ctx: Context| async move { ctx.stopped().await };
    let stuck = sandbox.builder().handler("app.stuck", stuck);
    let late = sandbox.drain(stuck).await;
    assert!(matches!(late, Err(TestError::NotDrained(..))), "{late:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_refuses_what_a_queue_would_not_take() {
    let client = Client::open(&config()).await.unwrap();
    let (job, hour) = (|| Job::new("app.x", ()), Duration::from_secs(3_600));
    for (bad, field) in [
        (job().id("no spaces"), "id: "),
        (job().queue("No"), "queue"),
        (job().delay(hour * 24 * 366), "delay_ms"),
        (job().max_attempts(0), "max_attempts"),
        (job().set("meta", 5).note("a", "b"), "meta: "),
        (job().set("colour", "red"), "colour"),
        (Job::new("No", ()), "kind"),
        (Job::new("app.x", [1]), "args: "),
    ] {
        let told = refusal(&client.enqueue(bad).await.unwrap_err());
        assert!(told.contains(field), "{field}: {told}");
    }
    // One that is refused keeps the others out.
    let mixed = client
        .enqueue_all([job().id("fine"), job().id("no spaces")])
        .await;
    assert!(mixed.is_err());
    let fine = client
        .enqueue(job().id("fine").note("for", "ada"))
        .await
        .unwrap();
    assert!(fine.created);
    assert!(Client::connect("redis://127.0.0.1:1/0").await.is_err());
}
