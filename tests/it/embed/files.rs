//! Definitions in files beside functions: which of both counts, and what could not work.

use super::{Add, add, adding, config, refusal, stop, until_state};
use serde_json::json;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tidegate::embed::{Builder, Config, Daemon, Job, Kind};

#[tokio::test(flavor = "multi_thread")]
async fn a_file_counts_for_a_kind_and_may_name_a_handler_of_the_code() {
    let config = config();
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write(
        "a.toml",
        "kind = \"app.add\"\nhandler = \"app.add\"\nqueue = \"sums\"\n",
    );
    write(
        "b.toml",
        "kind = \"app.increment\"\nhandler = \"app.add\"\n[args]\na = { type = \"integer\", required = true }\nb = { type = \"integer\", default = 1 }\n",
    );
    let (builder, sum) = adding(&config);
    let daemon = builder.jobs_dir(dir.path()).start().await.unwrap();
    let client = daemon.client();
    let added = client
        .enqueue(Job::new("app.add", Add { a: 2, b: 3 }))
        .await;
    let added = added.unwrap();
    assert_eq!(added.queue, "sums");
    until_state(&client, "sums", &added.id, "done").await;
    let one_more = Job::new("app.increment", json!({"a": 10}));
    let one_more = client.enqueue(one_more).await.unwrap();
    until_state(&client, "default", &one_more.id, "done").await;
    assert_eq!(sum.load(Ordering::Relaxed), 16);

    // A reload keeps the kinds of the code, and what the files say of them now.
    std::fs::remove_file(dir.path().join("a.toml")).unwrap();
    let files = tidegate::catalog::load_with_code(dir.path(), &[], &["app.add"]).unwrap();
    daemon.reload(config.clone(), files).unwrap();
    let client = daemon.client();
    let moved = client
        .enqueue(Job::new("app.add", Add { a: 1, b: 1 }))
        .await
        .unwrap();
    assert_eq!(moved.queue, "default");
    until_state(&client, "default", &moved.id, "done").await;
    stop(daemon).await;
}

/// A file that holds the policy of a function.
fn of_code(dir: &std::path::Path, more: &str) {
    let text = format!("kind = \"app.sum\"\nhandler = \"code\"\n{more}");
    std::fs::write(dir.join("sum.toml"), text).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_may_leave_the_function_to_the_program() {
    let config = config();
    let dir = tempfile::tempdir().unwrap();
    of_code(
        dir.path(),
        "queue = \"sums\"\n[code]\nfunction = \"app.add\"\n",
    );
    let (builder, sum) = adding(&config);
    let daemon = builder.jobs_dir(dir.path()).start().await.unwrap();
    let client = daemon.client();
    let job = client.enqueue(Job::new("app.sum", Add { a: 2, b: 3 }));
    let job = job.await.unwrap();
    assert_eq!(job.queue, "sums");
    until_state(&client, "sums", &job.id, "done").await;
    assert_eq!(sum.load(Ordering::Relaxed), 5);
    let unfit = client.enqueue(Job::new("app.sum", json!({"a": "x"}))).await;
    assert!(
        refusal(&unfit.unwrap_err()).contains("a"),
        "the type is asked"
    );
    stop(daemon).await;

    // A program without the function leaves kind and queue alone, unless it serves that queue.
    let other = |config: &Config| {
        let builder = Daemon::builder().config(config.clone());
        builder.jobs_dir(dir.path()).handler("app.other", add)
    };
    let daemon = other(&config).start().await.unwrap();
    let served = daemon.queues();
    let served: Vec<&str> = served.iter().map(|queue| &*queue.name).collect();
    assert_eq!(served, ["default"]);
    of_code(dir.path(), "[code]\nfunction = \"app.add\"\n");
    let files = || tidegate::catalog::load(dir.path(), &[]).unwrap();
    let refused = daemon
        .reload(config.clone(), files())
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("sum.toml") && refused.contains("app.add"),
        "{refused}"
    );
    stop(daemon).await;
    let Err(refused) = other(&config).start().await else {
        panic!("it started");
    };
    assert!(
        refused.to_string().contains("queue of its own"),
        "{refused}"
    );
}

#[tokio::test]
async fn what_could_not_work_is_refused_at_the_start_and_named() {
    async fn told(builder: Builder) -> String {
        match builder.config(config()).start().await {
            Ok(_) => panic!("it started"),
            Err(e) => e.to_string(),
        }
    }
    let builder = || adding(&config()).0;
    let twice = told(builder().handler("app.add", add)).await;
    assert!(
        twice.contains("app.add") && twice.contains("another"),
        "{twice}"
    );
    let built_in = told(builder().handler("exec", add)).await;
    assert!(built_in.contains("exec"), "{built_in}");
    let reserved = told(builder().handler("code", add)).await;
    assert!(reserved.contains("code"), "{reserved}");
    let wrong = Kind::new("app.b", add)
        .timeout(Duration::ZERO)
        .max_attempts(0);
    let wrong = told(builder().kind(wrong)).await;
    assert!(
        wrong.contains("timeout") && wrong.contains("max_attempts"),
        "{wrong}"
    );
    let dir = tempfile::tempdir().unwrap();
    let text = "kind = \"app.add\"\nhandler = \"exec\"\n[exec]\ncommand = [\"/bin/true\"]\n";
    std::fs::write(dir.path().join("a.toml"), text).unwrap();
    let other = told(builder().jobs_dir(dir.path())).await;
    assert!(
        other.contains("a.toml") && other.contains("registers"),
        "{other}"
    );
    let text = "kind = \"app.c\"\nhandler = \"app.add\"\n[app.add]\nx = 1\n";
    std::fs::write(dir.path().join("a.toml"), text).unwrap();
    let section = told(builder().jobs_dir(dir.path())).await;
    assert!(
        section.contains("a.toml:3") && section.contains("app"),
        "{section}"
    );
}
