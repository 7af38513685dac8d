//! Built-in handlers made from a definition, and deliveries to run them with.

use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use tidegate::catalog::{self, Problem};
use tidegate::config::{self, Config, Sources};
use tidegate::handlers::{BUILT_IN, Context, Deps, Handler};
use tidegate::job::{Job, JobId, Outcome, Priority};
use tokio_util::sync::CancellationToken;

/// The handler of a definition with this section, under the default configuration as changed by `set`.
pub fn try_build(
    name: &str,
    section: &str,
    set: impl FnOnce(&mut Config),
) -> Result<Arc<dyn Handler>, Problem> {
    try_build_text(
        name,
        &format!("kind = \"app.test\"\nhandler = \"{name}\"\n[{name}]\n{section}"),
        set,
    )
}

fn try_build_text(
    name: &str,
    text: &str,
    set: impl FnOnce(&mut Config),
) -> Result<Arc<dyn Handler>, Problem> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.toml"), text).unwrap();
    let catalog = catalog::load(dir.path(), &[name]).unwrap();
    let spec = catalog.iter().next().unwrap();
    let mut config = config::load(&Sources::default()).unwrap();
    set(&mut config);
    let kind = BUILT_IN.iter().find(|kind| kind.name == name).unwrap();
    (kind.check)(spec, &config)?;
    (kind.build)(spec, &Deps::new(Arc::new(config)))
}

/// The second attempt of a job with these arguments.
pub fn context(args: Value) -> Context {
    let Value::Object(args) = args else {
        panic!("args are an object");
    };
    let job = Job {
        id: JobId::parse("job-1").unwrap(),
        kind: "app.test".into(),
        queue: "default".into(),
        priority: Priority::Normal,
        args,
        attempt: 2,
        max_attempts: 5,
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
        parents: Vec::new(),
        token: "incarnation:7".into(),
    };
    Context::new(Arc::new(job), CancellationToken::new(), Arc::default())
}

/// A definition that is shipped with the project.
fn shipped(file: &str) -> String {
    std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("jobs")
            .join(file),
    )
    .unwrap()
}

#[tokio::test]
async fn the_shipped_exec_definition_runs_with_a_fresh_configuration() {
    let handler = try_build_text("exec", &shipped("exec.example.toml"), |_| {}).unwrap();
    let outcome = handler
        .run(&context(serde_json::json!({"text": "hi"})))
        .await;
    let Outcome::Done(Some(answer)) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(answer["args"]["text"], "hi");
}

#[test]
fn the_shipped_http_definition_is_valid_once_its_host_is_allowed() {
    let text = shipped("examples/http.example.toml");
    let problem = try_build_text("http", &text, |_| {}).err().unwrap();
    assert!(problem.to_string().contains("http.allow"), "{problem}");
    let allowed = try_build_text("http", &text, |config| {
        config.http.allow = vec!["127.0.0.1:3000".to_owned()];
        config.http.allow_private = true;
        let secret = config::Secret::new("hunter2");
        config.secrets.insert("webapp".to_owned(), secret);
    });
    assert!(allowed.is_ok(), "{:?}", allowed.err());
}
