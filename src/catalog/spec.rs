//! One job definition.

use super::limits::{Concurrency, Rate, partition};
use super::load::{Problem, section_value};
use super::once::{DebounceSpec, RawDebounce, RawUnique, UniqueSpec};
use super::then::ThenSpec;
use crate::config::duration;
use crate::job::{ArgSpec, KeyExpr, Priority, args};
use crate::policy::retry::RetryPolicy;
use crate::policy::schedule::{Misfire, Schedule};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The queue of a definition that names none.
const DEFAULT_QUEUE: &str = "default";
/// The timeout of a definition that names none.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// How many missed ticks are made up for when a definition does not say, and at most.
const DEFAULT_CATCH_UP: usize = 100;
const MAX_CATCH_UP: usize = 10_000;

/// What a kind of job is and how it is to be run.
#[derive(Debug, Clone)]
pub struct JobSpec {
    /// Its name, unique in the catalogue.
    pub kind: Arc<str>,
    /// The handler that runs it.
    pub handler: String,
    /// The function it needs, if that is none of this program's: see [`super::CODE`].
    pub function: Option<String>,
    /// For people.
    pub description: Option<String>,
    /// Where `tidegate enqueue` puts it.
    pub queue: Arc<str>,
    /// The class of jobs that name none.
    pub priority: Priority,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// What happens after a failed attempt.
    pub retry: RetryPolicy,
    /// How many may run at once.
    pub concurrency: Concurrency,
    /// How many may start in a time.
    pub rate: Option<Rate>,
    /// Whether the keys take turns.
    pub fair: bool,
    /// What its jobs are told apart by, for a limit or rate with a key and for turns.
    pub partition: Option<KeyExpr>,
    /// How much of its jobs' histories is kept.
    pub history: HistorySpec,
    /// The dependencies it touches, like `postgres:primary`: the gate and the breakers go by them.
    pub resources: Vec<Arc<str>>,
    /// What enqueuers may pass.
    pub args: BTreeMap<String, ArgSpec>,
    /// Checks arguments whose form only code knows; what is declared is checked before.
    pub typed_args: Option<TypedArgs>,
    /// Which of its jobs must not stand beside each other.
    pub unique: Option<UniqueSpec>,
    /// Which of its jobs give way to the last one.
    pub debounce: Option<DebounceSpec>,
    /// How long results are kept of jobs that do not say so themselves.
    pub result_ttl: Option<Duration>,
    /// How long a job may wait from when it could start, if it does not say so itself: then it expires.
    pub ttl: Option<Duration>,
    /// What follows jobs that do not say so themselves.
    pub then: Option<ThenSpec>,
    /// When it runs by itself.
    pub schedule: Option<ScheduleSpec>,
    /// Whether a job of it is enqueued before each known peak, once across all daemons.
    pub before_peak: bool,
    /// Where it was read from.
    pub(super) path: PathBuf,
    /// The whole file: a handler's section is read from it with its line numbers.
    pub(super) text: Arc<str>,
}

/// Jobs of this handler are never held back: they are what keeps caches correct.
pub const NEVER_SHED: &str = "cache.invalidate";

/// Checks arguments by the type that code reads them into.
pub type TypedArgs = fn(&Map<String, Value>) -> Result<(), String>;

/// `[history]`
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistorySpec {
    /// Keep the history of every job, not only of those that had some trouble.
    #[serde(default)]
    pub full: bool,
}

/// `[schedule]`, parsed.
#[derive(Debug, Clone)]
pub struct ScheduleSpec {
    /// When.
    pub schedule: Schedule,
    /// What becomes of missed ticks.
    pub misfire: Misfire,
    /// How many missed ticks [`Misfire::All`] makes up for.
    pub catch_up: usize,
}

impl JobSpec {
    /// Whether its jobs are never held back, by no gate, breaker or budget: see [`NEVER_SHED`].
    #[must_use]
    pub fn is_never_shed(&self) -> bool {
        self.handler == NEVER_SHED
    }

    /// The handler's own section: `[exec]` for handler `exec`, `[db.purge]` for `db.purge`. Absent reads as empty.
    ///
    /// # Errors
    /// Names file, line and field.
    pub fn section<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        let value = section_value(&self.text, &self.handler)
            .map_err(|e| Problem::from_toml(&self.path, &self.text, &e))?;
        T::deserialize(toml::de::ValueDeserializer::from(value)).map_err(|e| {
            let mut problem = Problem::from_toml(&self.path, &self.text, &e);
            problem.message = format!("[{}] {}", self.handler, problem.message);
            problem
        })
    }

    /// Checks arguments and fills in defaults.
    ///
    /// # Errors
    /// Names the argument and what is wrong with it.
    pub fn bind(&self, given: &mut Map<String, Value>) -> Result<(), String> {
        match self.typed_args {
            Some(check) if self.args.is_empty() => check(given),
            Some(check) => args::bind(&self.args, given).and_then(|()| check(given)),
            None => args::bind(&self.args, given),
        }
    }

    /// A problem with this definition, found by somebody else.
    #[must_use]
    pub fn problem(&self, message: impl Into<String>) -> Problem {
        Problem {
            path: self.path.clone(),
            line: None,
            message: message.into(),
        }
    }
}

/// A definition as it stands in the file, but for the handler's section.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSpec {
    pub kind: String,
    pub handler: String,
    /// Its handler is code, which knows the arguments if none are declared.
    #[serde(skip)]
    pub typed: bool,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    queue: Option<String>,
    #[serde(default)]
    priority: Priority,
    #[serde(default, with = "duration::option")]
    timeout: Option<Duration>,
    #[serde(default)]
    retry: RetryPolicy,
    #[serde(default)]
    concurrency: Concurrency,
    #[serde(default)]
    rate: Option<Rate>,
    #[serde(default)]
    fairness: Option<String>,
    #[serde(default)]
    history: HistorySpec,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    args: BTreeMap<String, ArgSpec>,
    #[serde(default)]
    unique: Option<RawUnique>,
    #[serde(default)]
    debounce: Option<RawDebounce>,
    #[serde(default, with = "duration::option")]
    result_ttl: Option<Duration>,
    #[serde(default, with = "duration::option")]
    ttl: Option<Duration>,
    #[serde(default)]
    then: Option<toml::Table>,
    #[serde(default)]
    schedule: Option<RawSchedule>,
    #[serde(default)]
    before_peak: bool,
}

/// `[schedule]` as it stands in the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSchedule {
    pub cron: String,
    #[serde(default)]
    pub timezone: Option<String>,
    #[serde(default)]
    pub misfire: Misfire,
    #[serde(default)]
    pub catch_up: Option<usize>,
}

impl RawSpec {
    /// Checks the fields and makes them a definition.
    ///
    /// # Errors
    /// Every problem, each naming its field.
    pub(super) fn check(self, path: PathBuf, text: Arc<str>) -> Result<JobSpec, Vec<String>> {
        let mut problems = self.field_problems();
        let schedule = match self.schedule.map(RawSchedule::parse).transpose() {
            Ok(schedule) => schedule,
            Err(e) => {
                problems.push(e);
                None
            }
        };
        if self.unique.is_some() && self.debounce.is_some() {
            problems.push("debounce: give [unique] or [debounce], not both".to_owned());
        }
        let unique = self.unique.map(|raw| raw.parse(&self.args)).transpose();
        let debounce = self.debounce.map(|raw| raw.parse(&self.args)).transpose();
        let then = self.then.map(ThenSpec::parse).transpose();
        problems.extend(then.as_ref().err().cloned());
        problems.extend(unique.as_ref().err().cloned());
        problems.extend(debounce.as_ref().err().cloned());
        let needed = self.args.iter().find(|(_, spec)| spec.required);
        if let (Some(_), Some((name, _))) = (&schedule, needed) {
            problems.push(format!(
                "args.{name}: a scheduled job takes its args from their defaults, so none may be required"
            ));
        }
        if let (true, Some((name, _))) = (self.before_peak, needed) {
            problems.push(format!(
                "before_peak: such a job takes its args from their defaults, and args.{name} is required"
            ));
        }
        let fairness = self.fairness.as_deref();
        let declared = (!self.typed || !self.args.is_empty()).then_some(&self.args);
        let partition = partition(&self.concurrency, self.rate.as_ref(), fairness, declared)
            .unwrap_or_else(|found| {
                problems.extend(found);
                None
            });
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(JobSpec {
            kind: self.kind.into(),
            handler: self.handler,
            function: None,
            description: self.description,
            queue: self.queue.as_deref().unwrap_or(DEFAULT_QUEUE).into(),
            priority: self.priority,
            timeout: self.timeout.unwrap_or(DEFAULT_TIMEOUT),
            retry: self.retry,
            concurrency: self.concurrency,
            rate: self.rate,
            fair: self.fairness.is_some(),
            partition,
            history: self.history,
            resources: self.resources.iter().map(|r| r.as_str().into()).collect(),
            args: self.args,
            typed_args: None,
            unique: unique.unwrap_or_default(),
            debounce: debounce.unwrap_or_default(),
            result_ttl: self.result_ttl,
            ttl: self.ttl,
            then: then.unwrap_or_default(),
            schedule,
            before_peak: self.before_peak,
            path,
            text,
        })
    }

    fn field_problems(&self) -> Vec<String> {
        use crate::job::{args, envelope, id, ties};
        let mut problems = Vec::new();
        if let Err(e) = id::check_kind(&self.kind) {
            problems.push(format!("kind: {:?} {e}", self.kind));
        }
        if let Some(Err(e)) = self.queue.as_deref().map(id::check_queue) {
            problems.push(format!("queue: {e}"));
        }
        let longest = Duration::from_millis(envelope::MAX_TIMEOUT_MS);
        if let Some(t) = self.timeout
            && (t < Duration::from_millis(1) || t > longest)
        {
            problems.push(format!(
                "timeout: \"{}\" is not within \"1ms\" to \"1day\"",
                duration::format(t)
            ));
        }
        if let Err(e) = self.retry.validate() {
            problems.extend(e.into_iter().map(|e| format!("retry.{e}")));
        }
        let longest = Duration::from_millis(ties::MAX_RESULT_TTL_MS);
        if self.result_ttl.is_some_and(|ttl| ttl > longest) {
            problems.push(format!(
                "result_ttl: more than {}",
                duration::format(longest)
            ));
        }
        let longest = Duration::from_millis(envelope::MAX_AHEAD_MS);
        if self
            .ttl
            .is_some_and(|ttl| ttl.as_millis() == 0 || ttl > longest)
        {
            problems.push(format!(
                "ttl: must be within \"1ms\" to \"{}\"",
                duration::format(longest)
            ));
        }
        problems.extend(self.concurrency.problems());
        problems.extend(self.rate.iter().flat_map(Rate::problems));
        for (n, resource) in self.resources.iter().enumerate() {
            if let Err(e) = id::check_resource(resource) {
                problems.push(format!("resources: {resource:?} {e}"));
            }
            if self.resources[..n].contains(resource) {
                problems.push(format!("resources: names {resource:?} twice"));
            }
        }
        if let Err(e) = args::check_specs(&self.args) {
            problems.push(e);
        }
        problems
    }
}

impl RawSchedule {
    /// Checks the fields and makes them a schedule.
    ///
    /// # Errors
    /// Names the field that can't be used.
    pub(super) fn parse(self) -> Result<ScheduleSpec, String> {
        let zone = self.timezone.as_deref().unwrap_or("UTC");
        Schedule::check_zone(zone).map_err(|e| format!("schedule.timezone: {e}"))?;
        let schedule =
            Schedule::parse(&self.cron, zone).map_err(|e| format!("schedule.cron: {e}"))?;
        match self.catch_up {
            Some(_) if self.misfire != Misfire::All => {
                return Err("schedule.catch_up: means nothing unless misfire is \"all\"".to_owned());
            }
            Some(n) if !(1..=MAX_CATCH_UP).contains(&n) => {
                return Err(format!(
                    "schedule.catch_up: {n} is not within 1 to {MAX_CATCH_UP}"
                ));
            }
            _ => {}
        }
        Ok(ScheduleSpec {
            schedule,
            misfire: self.misfire,
            catch_up: self.catch_up.unwrap_or(DEFAULT_CATCH_UP),
        })
    }
}
