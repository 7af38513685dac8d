//! The ranges of settings. One line per setting; all problems are told at once.

use super::{BridgeConfig, Config, LimitsConfig, duration, forecast, probes};
use crate::job::id::{check_kind, check_queue};
use std::collections::HashSet;
use std::fmt::Display;
use std::time::Duration;

pub(super) const MILLI: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const DAY: Duration = Duration::from_secs(86_400);
/// How long the id of a job must be remembered so that a relay which died half-way, with its database or its Redis out of
/// order until somebody came, does not start the job a second time.
const LEAST_WINDOW: Duration = Duration::from_secs(3_600);

/// A setting that is out of range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// Dotted path of the setting.
    pub key: String,
    /// What was given and what is allowed.
    pub message: String,
}

/// All problems of a configuration, in the order of the file.
pub(super) fn problems(c: &Config) -> Vec<Problem> {
    let mut found = Problems(Vec::new());
    found.servers(c);
    found.daemon(c);
    found.queues(c);
    found.keeping(c);
    c.gate.check(&mut found);
    c.breaker.check(&mut found);
    found.limits(&c.gate.limits);
    c.limiter.check(&mut found);
    for (key, reason) in probes::problems(c) {
        found.add(&key, reason);
    }
    c.gate.reserve.check(&mut found);
    c.retry_budget.check(&mut found);
    forecast::check(c, &mut found);
    found.outside(c);
    found.intake(c);
    found.0
}

/// What was found so far.
pub(super) struct Problems(Vec<Problem>);

impl Problems {
    pub(super) fn add(&mut self, key: &str, message: impl Into<String>) {
        self.0.push(Problem {
            key: key.to_owned(),
            message: message.into(),
        });
    }

    pub(super) fn within<T: PartialOrd + Display>(&mut self, key: &str, given: T, min: T, max: T) {
        // NaN is within nothing.
        if !(&min..=&max).contains(&&given) {
            self.add(key, format!("{given} is not within {min} to {max}"));
        }
    }

    pub(super) fn lasting(&mut self, key: &str, given: Duration, min: Duration, max: Duration) {
        if given < min || given > max {
            let [given, min, max] = [given, min, max].map(duration::format);
            self.add(
                key,
                format!("\"{given}\" is not within \"{min}\" to \"{max}\""),
            );
        }
    }

    fn key_part(&mut self, key: &str, given: &str) {
        let allowed =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'.');
        if given.is_empty() || given.len() > 32 || !given.bytes().all(allowed) {
            self.add(
                key,
                format!("{given:?} must be 1 to 32 characters of a-z 0-9 _ - ."),
            );
        }
    }

    fn servers(&mut self, c: &Config) {
        self.scheme(
            "redis.url",
            c.redis.url.reveal(),
            &["redis", "rediss", "unix", "redis+unix"],
        );
        for sentinel in &c.redis.sentinels {
            self.scheme("redis.sentinels", sentinel.reveal(), &["redis", "rediss"]);
        }
        if !c.redis.sentinels.is_empty() && c.redis.sentinel_name.is_empty() {
            let problem = "must be the name under which the Sentinels watch the server";
            self.add("redis.sentinel_name", problem.to_owned());
        }
        self.key_part("redis.prefix", &c.redis.prefix);
        let minute = 60 * SECOND;
        self.lasting(
            "redis.command_timeout",
            c.redis.command_timeout,
            50 * MILLI,
            minute,
        );
        self.lasting(
            "redis.connect_timeout",
            c.redis.connect_timeout,
            50 * MILLI,
            minute,
        );
        if !c.database.url.is_empty() {
            self.scheme(
                "database.url",
                c.database.url.reveal(),
                &["postgres", "postgresql"],
            );
        }
        self.within(
            "database.max_connections",
            c.database.max_connections,
            1,
            1_000,
        );
        self.lasting(
            "database.acquire_timeout",
            c.database.acquire_timeout,
            10 * MILLI,
            300 * SECOND,
        );
        self.lasting(
            "database.statement_timeout",
            c.database.statement_timeout,
            100 * MILLI,
            DAY,
        );
    }

    /// The URL itself is never shown: it may carry a password.
    fn scheme(&mut self, key: &str, given: &str, allowed: &[&str]) {
        let scheme = given.split_once("://").map(|(scheme, _)| scheme);
        if !scheme.is_some_and(|s| allowed.contains(&s)) {
            self.add(
                key,
                format!("must start with {}://", allowed.join(":// or ")),
            );
        } else if url::Url::parse(given).is_err() {
            self.add(key, "is not a URL");
        }
    }

    fn daemon(&mut self, c: &Config) {
        self.within("daemon.concurrency", c.daemon.concurrency, 1, 100_000);
        self.lasting("daemon.lease", c.daemon.lease, SECOND, 300 * SECOND);
        self.lasting(
            "daemon.drain_timeout",
            c.daemon.drain_timeout,
            Duration::ZERO,
            3_600 * SECOND,
        );
        self.lasting("daemon.poll", c.daemon.poll, 20 * MILLI, 10 * SECOND);
    }

    fn queues(&mut self, c: &Config) {
        let mut seen = HashSet::new();
        for queue in &c.queue {
            let key = format!("queue.{}", queue.name);
            if let Err(e) = check_queue(&queue.name) {
                self.add("queue.name", format!("{:?} {e}", queue.name));
            }
            if !seen.insert(&queue.name) {
                self.add(&key, "is defined twice");
            }
            if let Some(n) = queue.concurrency {
                self.within(&format!("{key}.concurrency"), n, 1, 100_000);
            }
            if let Some(objective) = queue.objective {
                self.lasting(&format!("{key}.objective"), objective, SECOND, 30 * DAY);
            }
        }
        self.lasting("queues.objective", c.queues.objective, SECOND, 30 * DAY);
        self.lasting("aging.after", c.aging.after, SECOND, DAY);
    }

    fn keeping(&mut self, c: &Config) {
        self.lasting("dedupe.window", c.dedupe.window, Duration::ZERO, 30 * DAY);
        let r = &c.retention;
        self.within("retention.dead_max", r.dead_max, 1, 1_000_000);
        self.within("retention.quarantine_max", r.quarantine_max, 1, 100_000);
        self.within("retention.recent_max", r.recent_max, 0, 1_000_000);
        self.within("retention.history_max", r.history_max, 0, 1_000_000);
        self.within("retention.groups_max", r.groups_max, 1, 10_000_000);
        self.lasting(
            "retention.groups_age",
            r.groups_age,
            3_600 * SECOND,
            365 * DAY,
        );
        self.within("retention.ids_max", r.ids_max, 1_000, 1_000_000_000);
        for (key, bytes) in [
            ("retention.dead_bytes", r.dead_bytes),
            ("retention.quarantine_bytes", r.quarantine_bytes),
            ("retention.history_bytes", r.history_bytes),
        ] {
            self.within(key, bytes, 1 << 20, 1 << 40);
        }
        for (key, age) in [
            ("retention.dead_age", r.dead_age),
            ("retention.quarantine_age", r.quarantine_age),
            ("retention.history_age", r.history_age),
        ] {
            self.lasting(key, age, 3_600 * SECOND, 3_650 * DAY);
        }
        self.lasting("audit.interval", c.audit.interval, SECOND, DAY);
    }

    fn limits(&mut self, limits: &LimitsConfig) {
        for (name, [lo, hi], most) in limits.numbers() {
            let key = format!("gate.limits.{name}");
            // NaN is within nothing.
            if !(0.0 <= lo && lo < hi && hi <= most) {
                let message = format!("[{lo}, {hi}] is not two rising numbers within 0 to {most}");
                self.add(&key, message);
            }
        }
        for (name, [lo, hi]) in limits.durations() {
            let key = format!("gate.limits.{name}");
            self.lasting(&key, lo, MILLI, 30 * SECOND);
            self.lasting(&key, hi, MILLI, 30 * SECOND);
            if lo >= hi {
                self.add(&key, "must have its lower value first");
            }
        }
    }

    fn outside(&mut self, c: &Config) {
        if !c.admin.listen.is_empty() {
            match c.admin.listen.parse::<std::net::SocketAddr>() {
                Err(_) => self.add(
                    "admin.listen",
                    format!(
                        "{:?} is not an address like \"127.0.0.1:9180\"",
                        c.admin.listen
                    ),
                ),
                Ok(addr) if !addr.ip().is_loopback() && c.admin.token.is_empty() => self.add(
                    "admin.listen",
                    format!("{addr} is not loopback: set admin.token, or listen on 127.0.0.1"),
                ),
                Ok(_) => {}
            }
        }
        self.within(
            "log.successes_per_second",
            c.log.successes_per_second,
            0,
            100_000,
        );
        if let Err(e) = tracing_subscriber::EnvFilter::try_new(&c.log.level) {
            self.add("log.level", format!("{:?}: {e}", c.log.level));
        }
        if !c.alerts.webhook.is_empty() {
            self.scheme(
                "alerts.webhook",
                c.alerts.webhook.reveal(),
                &["http", "https"],
            );
        }
        self.lasting("alerts.timeout", c.alerts.timeout, 100 * MILLI, 60 * SECOND);
        for host in &c.http.allow {
            if url::Url::parse(&format!("http://{host}/")).is_err()
                || host.contains(['/', '@', '*'])
            {
                self.add(
                    "http.allow",
                    format!("{host:?} is not \"host\" or \"host:port\""),
                );
            }
        }
        self.within("http.max_response", c.http.max_response, 0, 1 << 20);
        self.key_part("cache.prefix", &c.cache.prefix);
        if c.cache.prefix == c.redis.prefix {
            self.add(
                "cache.prefix",
                format!(
                    "{:?} is redis.prefix too: entries and the daemon's own keys must not mix",
                    c.cache.prefix
                ),
            );
        }
        self.lasting("cache.max_ttl", c.cache.max_ttl, SECOND, 30 * DAY);
        self.within("cache.log_max", c.cache.log_max, 100, 10_000_000);
        self.within("cache.max_entry", c.cache.max_entry, 1_024, 16 << 20);
    }

    /// What takes in jobs from elsewhere.
    fn intake(&mut self, c: &Config) {
        self.within("outbox.batch", c.outbox.batch, 1, 1_000);
        let ten_minutes = 600 * SECOND;
        self.lasting("outbox.poll", c.outbox.poll, 100 * MILLI, ten_minutes);
        self.within("bridges.batch", c.bridges.batch, 1, 256);
        self.lasting("bridges.poll", c.bridges.poll, 20 * MILLI, 60 * SECOND);
        if !(1..=128).contains(&c.bridges.arg.len()) {
            self.add("bridges.arg", "must be 1 to 128 bytes");
        }
        let mut names = HashSet::new();
        let mut sources = HashSet::new();
        for bridge in &c.bridge {
            self.bridge(bridge);
            let key = format!("bridge.{}", bridge.name);
            if !names.insert(&bridge.name) {
                self.add(&key, "is defined twice");
            }
            let url = bridge.redis_url.as_ref().unwrap_or(&c.redis.url);
            if !sources.insert((url.reveal(), &bridge.namespace)) {
                let message = format!("another bridge takes from {:?} already", bridge.namespace);
                self.add(&format!("{key}.namespace"), message);
            }
        }
        let hands_over = c.outbox.enabled || !c.bridge.is_empty();
        if hands_over && c.dedupe.window < LEAST_WINDOW {
            let [given, least] = [c.dedupe.window, LEAST_WINDOW].map(duration::format);
            self.add(
                "dedupe.window",
                format!(
                    "\"{given}\" is too short for [outbox] and [[bridge]], at least \"{least}\" is needed: after a \
                     crash they hand a job over again, and only its remembered id tells that it has run already"
                ),
            );
        }
    }

    fn bridge(&mut self, bridge: &BridgeConfig) {
        let key = |name: &str| format!("bridge.{}.{name}", bridge.name);
        let allowed =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-');
        let name = &bridge.name;
        if name.is_empty() || name.len() > 32 || !name.bytes().all(allowed) {
            let message = format!("{name:?} must be 1 to 32 characters of a-z 0-9 _ -");
            self.add("bridge.name", message);
        }
        if bridge.namespace.is_empty() || bridge.namespace.len() > 512 {
            self.add(&key("namespace"), "must be 1 to 512 bytes");
        }
        if let Err(e) = check_kind(&bridge.kind) {
            self.add(&key("kind"), format!("{:?} {e}", bridge.kind));
        }
        if let Some(Err(e)) = bridge.queue.as_deref().map(check_queue) {
            self.add(&key("queue"), e);
        }
        let arg = bridge.arg.as_ref();
        if arg.is_some_and(|arg| !(1..=128).contains(&arg.len())) {
            self.add(&key("arg"), "must be 1 to 128 bytes");
        }
        if let Some(url) = &bridge.redis_url {
            self.scheme(
                &key("redis_url"),
                url.reveal(),
                &["redis", "rediss", "unix", "redis+unix"],
            );
        }
    }
}
