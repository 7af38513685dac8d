//! Kinds whose handlers are code of the program that embeds Tidegate.
//!
//! Owns: what such a program says of a kind, and the set of all handlers there are. Must not know how a kind comes into
//! the catalogue.

use super::function::{Function, JobFn, check_args};
use super::{Built, Deps, Handler, HandlerKind};
use crate::catalog::{Catalog, CodeDefinition, JobSpec};
use crate::config::{Config, duration};
use crate::job::Priority;
use apalis_core::task::extensions::Extensions;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A kind of job that code runs: its name, its function, and what a definition could say of it. It needs no file; what is
/// not said here has the defaults of a definition, and a file that defines the kind counts instead.
///
/// ```
/// use std::time::Duration;
/// use tidegate::embed::{Context, JobError, Kind};
///
/// #[derive(serde::Deserialize)]
/// struct Mail { to: String }
///
/// async fn send_mail(mail: Mail, ctx: Context) -> Result<(), JobError> {
///     ctx.progress.message(format!("to {}", mail.to));
///     Ok(())
/// }
///
/// let kind = Kind::new("mail.send", send_mail)
///     .queue("mail")
///     .timeout(Duration::from_secs(20))
///     .max_attempts(5)
///     .toml("[retry]\nfatal_on = [\"no such user\"]");
/// ```
pub struct Kind {
    definition: CodeDefinition,
    make: Make,
}

type Make = Box<dyn FnOnce(Arc<Extensions>) -> Arc<dyn Handler> + Send>;

impl Kind {
    /// A kind that an async function runs. The function takes the arguments first, then [`super::Context`], `Data<T>` or
    /// other extractors of apalis, in any order, if it needs them.
    #[must_use]
    pub fn new<F, Args, Rest>(name: &str, function: F) -> Self
    where
        F: JobFn<Args, Rest>,
        Args: DeserializeOwned + 'static,
        Rest: 'static,
    {
        Self {
            definition: CodeDefinition::new(name, Some(check_args::<Args>)),
            make: Box::new(|data| Arc::new(Function::new(function, data))),
        }
    }

    /// A kind that a [`Handler`] runs, which reads its arguments itself.
    #[must_use]
    pub fn handled_by(name: &str, handler: impl Handler) -> Self {
        Self {
            definition: CodeDefinition::new(name, None),
            make: Box::new(|_| Arc::new(handler)),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.definition.kind()
    }

    /// The queue it is served from; `default` unless said.
    #[must_use]
    pub fn queue(self, queue: &str) -> Self {
        self.set("queue", queue)
    }

    /// The class of jobs that name none; normal unless said.
    #[must_use]
    pub fn priority(self, priority: Priority) -> Self {
        self.set("priority", priority.as_str())
    }

    /// How long one attempt may take: 1 ms to one day; a minute unless said.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.set("timeout", duration::format(timeout))
    }

    /// Attempts in all, 1 to 1000; 20 unless said.
    #[must_use]
    pub fn max_attempts(self, attempts: u32) -> Self {
        self.set("retry.max_attempts", i64::from(attempts))
    }

    /// The wait before the second attempt, and the longest one; it doubles in between. 15 s and 4 h unless said.
    #[must_use]
    pub fn backoff(self, first: Duration, longest: Duration) -> Self {
        self.set("retry.base", duration::format(first))
            .set("retry.max", duration::format(longest))
    }

    /// How many may run at once, across all daemons.
    #[must_use]
    pub fn concurrency(self, limit: u32) -> Self {
        self.set("concurrency.limit", i64::from(limit))
    }

    /// How many may run at once in each daemon.
    #[must_use]
    pub fn per_daemon(self, limit: u32) -> Self {
        self.set("concurrency.per_daemon", i64::from(limit))
    }

    /// What it touches, like `postgres:primary`: the gate and the breakers go by that.
    #[must_use]
    pub fn resources<'a>(self, resources: impl IntoIterator<Item = &'a str>) -> Self {
        let resources: Vec<String> = resources.into_iter().map(str::to_owned).collect();
        self.set("resources", resources)
    }

    /// Anything else a definition can say, as it would stand in its file.
    #[must_use]
    pub fn toml(mut self, text: &str) -> Self {
        self.definition.read(text);
        self
    }

    fn set(mut self, key: &str, value: impl Into<toml::Value>) -> Self {
        self.definition.set(key, value);
        self
    }

    /// What is said of it, and its handler, which finds `data` by type.
    #[must_use]
    pub fn open(self, data: Arc<Extensions>) -> (CodeDefinition, Arc<dyn Handler>) {
        (self.definition, (self.make)(data))
    }
}

/// All handlers there are: those that definitions configure, and those that code registered by name.
#[derive(Clone, Default)]
pub struct Handlers {
    kinds: Vec<HandlerKind>,
    code: BTreeMap<String, Arc<dyn Handler>>,
}

impl Handlers {
    /// Those that definitions configure.
    #[must_use]
    pub fn new(kinds: &[HandlerKind]) -> Self {
        Self {
            kinds: kinds.to_vec(),
            code: BTreeMap::new(),
        }
    }

    /// One more, registered by code; false if there is one of that name.
    #[must_use]
    pub fn add(&mut self, name: &str, handler: Arc<dyn Handler>) -> bool {
        let taken = self.kinds.iter().any(|kind| kind.name == name);
        !taken && self.code.insert(name.to_owned(), handler).is_none()
    }

    /// The definitions, with the resources that their handlers touch whether or not they say so.
    #[must_use]
    pub fn touching(&self, catalog: Catalog, config: &Config) -> Catalog {
        catalog.touching(|spec| {
            let kind = self.kinds.iter().find(|kind| kind.name == spec.handler);
            kind.map_or_else(Vec::new, |kind| (kind.touches)(spec, config))
        })
    }

    /// The handler of a definition.
    ///
    /// # Errors
    /// There is none of that name, or the definition does not fit it.
    pub fn build(&self, spec: &JobSpec, deps: &Deps) -> Built {
        if let Some(handler) = self.code.get(&spec.handler) {
            return Ok(Arc::clone(handler));
        }
        let kind = self.kinds.iter().find(|kind| kind.name == spec.handler);
        let kind =
            kind.ok_or_else(|| spec.problem(format!("handler {:?} is not known", spec.handler)))?;
        (kind.check)(spec, &deps.config)?;
        (kind.build)(spec, deps)
    }
}
