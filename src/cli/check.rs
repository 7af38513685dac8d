//! `tidegate check`: whether configuration and definitions are good, and with `--online` the servers too.

use super::output::table;
use super::setup::Global;
use super::store::{connect, shown};
use super::{CliError, Report};
use crate::catalog::{Catalog, JobSpec};
use crate::clock;
use crate::config::Config;
use crate::daemon::{intake, probes, queue_names};
use crate::db::{self, Database, SCHEMA_VERSION};
use crate::handlers::BUILT_IN;
use crate::queue::board;
use serde_json::{Value, json};

const EXAMPLES: &str = "\
Examples:
  tidegate check                       touches no server
  tidegate check --online --json       asks Redis and Postgres too
  tidegate check --config staging.toml --jobs ./jobs";

/// Handlers of this family keep their progress in the schema that `tidegate migrate` makes.
const NEEDS_SCHEMA: &str = "db.";

/// Flags of `tidegate check`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Ask the servers too: versions, eviction, persistence, schema
    #[arg(long)]
    online: bool,
}

/// One thing that was found.
struct Finding {
    source: String,
    message: String,
}

/// Everything that was found.
#[derive(Default)]
struct Findings {
    problems: Vec<Finding>,
    warnings: Vec<Finding>,
}

impl Findings {
    fn problem(&mut self, source: impl Into<String>, message: impl Into<String>) {
        let (source, message) = (source.into(), message.into());
        self.problems.push(Finding { source, message });
    }

    fn warn(&mut self, source: impl Into<String>, message: impl Into<String>) {
        let (source, message) = (source.into(), message.into());
        self.warnings.push(Finding { source, message });
    }
}

/// Checks everything and lists every problem.
///
/// # Errors
/// None: what is wrong is the answer, with exit code 1.
pub async fn run(args: Args, global: &Global) -> Result<Report, CliError> {
    let mut findings = Findings::default();
    let config = check_config(global, &mut findings);
    let catalog = check_catalog(global, &mut findings);
    if let Some(config) = &config {
        check_handlers(config, &catalog, &mut findings);
        check_code(config, &catalog, &mut findings);
        check_intake(config, &catalog, &mut findings);
        for problem in probes::check(config) {
            findings.problem("configuration", problem);
        }
        if args.online {
            check_redis(config, &mut findings).await;
            check_postgres(config, &catalog, &mut findings).await;
        }
    }
    Ok(report(global, &catalog, &findings))
}

fn check_config(global: &Global, findings: &mut Findings) -> Option<Config> {
    match global.load_config() {
        Ok(config) => Some(config),
        Err(CliError::Config(error)) => {
            for problem in error.problems {
                findings.problem("configuration", problem);
            }
            None
        }
        Err(other) => {
            findings.problem("configuration", other.to_string());
            None
        }
    }
}

fn check_catalog(global: &Global, findings: &mut Findings) -> Catalog {
    match global.load_catalog() {
        Ok(Some(catalog)) => return catalog,
        Ok(None) => findings.warn(
            "jobs",
            "no folder of job definitions was found: name it with --jobs",
        ),
        Err(CliError::Jobs(error)) => {
            for problem in error.problems {
                findings.problem(place(&problem), problem.message);
            }
        }
        Err(other) => findings.problem("jobs", other.to_string()),
    }
    Catalog::default()
}

/// The file and line of a problem.
fn place(problem: &crate::catalog::Problem) -> String {
    let path = problem.path.display();
    problem
        .line
        .map_or_else(|| path.to_string(), |line| format!("{path}:{line}"))
}

fn check_handlers(config: &Config, catalog: &Catalog, findings: &mut Findings) {
    for spec in catalog.iter() {
        // The catalogue takes no handler that is not in the list.
        let handler = BUILT_IN.iter().find(|h| h.name == spec.handler);
        if let Some(Err(problem)) = handler.map(|h| (h.check)(spec, config)) {
            findings.problem(place(&problem), problem.message);
        }
    }
}

/// A kind whose function a program registers is for that program to run. A daemon without it must not serve its queue.
fn check_code(config: &Config, catalog: &Catalog, findings: &mut Findings) {
    let (own, of_programs) = catalog.clone().split_code();
    let served = queue_names(config, &own);
    for spec in of_programs.iter().filter(|s| served.contains(&*s.queue)) {
        let queue = &spec.queue;
        findings.warn(
            format!("kind {}", spec.kind),
            format!(
                "`tidegate run` would refuse to start: queue {queue:?} is its own to serve, and the function is a program's"
            ),
        );
    }
}

/// A kind that another daemon defines may be bridged to here: no mistake, but rarely meant.
fn check_intake(config: &Config, catalog: &Catalog, findings: &mut Findings) {
    if let Err(error) = intake::check(config) {
        findings.problem("configuration", error.to_string());
    }
    for bridge in &config.bridge {
        if catalog.get(&bridge.kind).is_none() {
            let message = format!("kind {:?} is not defined here", bridge.kind);
            findings.warn(format!("bridge.{}", bridge.name), message);
        }
    }
}

async fn check_redis(config: &Config, findings: &mut Findings) {
    let conn = match connect(config).await {
        Ok(conn) => conn,
        Err(error) => return findings.problem("redis", error.to_string()),
    };
    let server = match board::inspect_server(&conn).await {
        Ok(server) => server,
        Err(error) => return findings.problem("redis", error.to_string()),
    };
    if let Some(reason) = server.unusable {
        findings.problem("redis", reason);
    }
    for (setting, problem) in server.unsafe_settings {
        findings.warn("redis", format!("{setting} {problem}"));
    }
}

async fn check_postgres(config: &Config, catalog: &Catalog, findings: &mut Findings) {
    if config.database.url.is_empty() {
        return;
    }
    let version = match Database::open(&config.database) {
        Ok(database) => {
            let version = db::schema_version(&database).await;
            database.close().await;
            version
        }
        Err(error) => Err(error),
    };
    let message = match version {
        Ok(Some(version)) if version >= SCHEMA_VERSION => return,
        Ok(Some(version)) => format!(
            "schema `tidegate` has version {version}, this program needs {SCHEMA_VERSION}: run `tidegate migrate`"
        ),
        Ok(None) => "schema `tidegate` is not there: run `tidegate migrate`".to_owned(),
        Err(error) => {
            let error = CliError::database(&config.database, error);
            return findings.problem("postgres", error.to_string());
        }
    };
    let needed = catalog
        .iter()
        .any(|spec| spec.handler.starts_with(NEEDS_SCHEMA));
    if needed || config.outbox.enabled {
        findings.problem("postgres", message);
    } else {
        findings.warn("postgres", message);
    }
}

fn report(global: &Global, catalog: &Catalog, findings: &Findings) -> Report {
    let list = |found: &[Finding]| -> Vec<Value> {
        let json = |f: &Finding| json!({"source": f.source, "message": f.message});
        found.iter().map(json).collect()
    };
    let kinds: Vec<Value> = catalog.iter().map(|spec| kind_view(spec)).collect();
    let json = json!({
        "ok": findings.problems.is_empty(),
        "problems": list(&findings.problems),
        "warnings": list(&findings.warnings),
        "kinds": kinds,
    });
    let lines = |found: &[Finding], word: &str| -> Vec<String> {
        let line = |f: &Finding| format!("{word}{}: {}", f.source, f.message);
        found.iter().map(line).collect()
    };
    let mut text = kinds_table(catalog);
    for warning in lines(&findings.warnings, "warning: ") {
        text.push_str(&format!("{warning}\n"));
    }
    if findings.problems.is_empty() {
        let config = shown(global.config_path().as_deref());
        let jobs = shown(global.jobs_dir().as_deref());
        text.push_str(&format!(
            "ok: configuration {config}, {} kinds in {jobs}\n",
            catalog.len()
        ));
        return Report::new(json, text);
    }
    Report::new(json, text).failing(Some(lines(&findings.problems, "").join("\n")))
}

fn next_run(spec: &JobSpec) -> Option<String> {
    let schedule = &spec.schedule.as_ref()?.schedule;
    schedule.next_after(clock::unix_ms()).map(clock::rfc3339)
}

fn kind_view(spec: &JobSpec) -> Value {
    json!({
        "kind": &*spec.kind,
        "handler": spec.handler,
        "function": spec.function,
        "queue": &*spec.queue,
        "priority": spec.priority,
        "next_run": next_run(spec),
    })
}

fn kinds_table(catalog: &Catalog) -> String {
    if catalog.is_empty() {
        return String::new();
    }
    let row = |spec: &JobSpec| {
        vec![
            spec.kind.to_string(),
            spec.handler.clone(),
            spec.queue.to_string(),
            spec.priority.to_string(),
            next_run(spec).unwrap_or_else(|| "-".to_owned()),
        ]
    };
    let rows: Vec<Vec<String>> = catalog.iter().map(|spec| row(spec)).collect();
    table(&["kind", "handler", "queue", "priority", "next run"], &rows)
}
