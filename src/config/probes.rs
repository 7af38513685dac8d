//! `[probes]`, `[[probe]]`: signals that users define.

use super::{Config, Secret, duration};
use crate::job::id::check_resource;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::time::Duration;

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// The most there may be: each is asked by every daemon.
const MOST: usize = 100;

/// The worst state a signal may bring about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Worst {
    /// Mass work is slowed.
    Elevated,
    /// Mass work stops, the rest is slowed.
    Overloaded,
    /// Only critical work goes on.
    Critical,
}

/// `[probes]`: what holds for each `[[probe]]` that does not say otherwise.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbesConfig {
    /// How often it is asked.
    #[serde(with = "duration")]
    pub every: Duration,
    /// How long an answer may take.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// The worst state it may bring about.
    pub worst: Worst,
}

/// One `[[probe]]`: asks for one number, in one of three ways.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeConfig {
    /// Its name; that of the signal is `probe_<name>`.
    pub name: String,
    /// The resource whose health it tells of.
    pub resource: String,
    /// A query of `[database]` that gives one number.
    #[serde(default)]
    pub sql: Option<Secret>,
    /// An address whose answer is a number, or JSON that holds one.
    #[serde(default)]
    pub url: Option<Secret>,
    /// Where in that JSON: a pointer like `/queue/waiting`.
    #[serde(default)]
    pub field: Option<String>,
    /// The name of a secret that `url` is sent as a bearer token.
    #[serde(default)]
    pub secret: Option<String>,
    /// A program and its arguments, which prints a number.
    #[serde(default)]
    pub command: Option<Vec<String>>,
    /// Where it begins to be bad.
    pub lo: f64,
    /// Where it is entirely bad; less than `lo` if less is worse.
    pub hi: f64,
    /// How often it is asked; as in `[probes]` unless given.
    #[serde(default, with = "duration::option")]
    pub every: Option<Duration>,
    /// How long an answer may take; as in `[probes]` unless given.
    #[serde(default, with = "duration::option")]
    pub timeout: Option<Duration>,
    /// The worst state it may bring about; as in `[probes]` unless given.
    #[serde(default)]
    pub worst: Option<Worst>,
}

/// The one way in which a probe asks.
pub enum Way<'a> {
    /// A query.
    Sql(&'a str),
    /// An address.
    Url(&'a Secret),
    /// A command.
    Command(&'a [String]),
}

impl ProbeConfig {
    /// How it asks; none if not exactly one way is given.
    #[must_use]
    pub fn way(&self) -> Option<Way<'_>> {
        match (&self.sql, &self.url, &self.command) {
            (Some(sql), None, None) => Some(Way::Sql(sql.reveal())),
            (None, Some(url), None) => Some(Way::Url(url)),
            (None, None, Some(command)) => Some(Way::Command(command)),
            _ => None,
        }
    }

    /// The settings that are wrong by themselves, each with its reason.
    fn problems(&self, config: &Config) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        let mut wrong = |setting, reason: String| found.push((setting, reason));
        if let Err(e) = check_resource(&self.resource) {
            wrong("resource", format!("{:?} {e}", self.resource));
        }
        if !(self.lo.is_finite() && self.hi.is_finite()) {
            wrong("lo", "and hi must be finite numbers".to_owned());
        }
        match self.way() {
            None => wrong("sql", "give one of sql, url and command".to_owned()),
            Some(Way::Sql(sql)) if sql.trim().is_empty() => {
                wrong("sql", "is empty".to_owned());
            }
            Some(Way::Sql(_)) if config.database.url.is_empty() => {
                wrong("sql", "needs a database: set [database] url".to_owned());
            }
            Some(Way::Command([])) => {
                wrong("command", "is empty".to_owned());
            }
            Some(Way::Url(url)) if !is_http(url) => {
                wrong(
                    "url",
                    "must be a URL that starts with http:// or https://".to_owned(),
                );
            }
            Some(_) => {}
        }
        if self.url.is_none() && (self.field.is_some() || self.secret.is_some()) {
            wrong("field", "and secret go with url alone".to_owned());
        }
        if self
            .field
            .as_ref()
            .is_some_and(|field| !field.starts_with('/'))
        {
            wrong(
                "field",
                "must be a JSON pointer like \"/queue/waiting\"".to_owned(),
            );
        }
        if let Some(name) = self
            .secret
            .as_ref()
            .filter(|name| !config.secrets.contains_key(*name))
        {
            wrong("secret", format!("{name:?} is not in [secrets]"));
        }
        found
    }
}

/// Everything that is wrong with the probes: key and reason.
pub(super) fn problems(config: &Config) -> Vec<(String, String)> {
    let defaults = &config.probes;
    let mut found = times("probes", defaults.every, defaults.timeout);
    if config.probe.len() > MOST {
        found.push(("probe".to_owned(), format!("more than {MOST}")));
    }
    let mut names = HashSet::new();
    for probe in &config.probe {
        let key = format!("probe.{}", probe.name);
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        let name = &probe.name;
        if name.is_empty() || name.len() > 32 || !name.bytes().all(allowed) {
            let reason = format!("{name:?} must be 1 to 32 characters of a-z 0-9 _");
            found.push(("probe.name".to_owned(), reason));
        }
        if !names.insert(name) {
            found.push((key.clone(), "is defined twice".to_owned()));
        }
        let own = probe.problems(config).into_iter();
        found.extend(own.map(|(setting, reason)| (format!("{key}.{setting}"), reason)));
        if probe.every.is_some() || probe.timeout.is_some() {
            let every = probe.every.unwrap_or(defaults.every);
            found.extend(times(
                &key,
                every,
                probe.timeout.unwrap_or(defaults.timeout),
            ));
        }
    }
    found
}

fn times(key: &str, every: Duration, timeout: Duration) -> Vec<(String, String)> {
    let range = |setting: &str, given: Duration, min: Duration, max: Duration| {
        let [shown, least, most] = [given, min, max].map(duration::format);
        let reason = format!("\"{shown}\" is not within \"{least}\" to \"{most}\"");
        (given < min || given > max).then(|| (format!("{key}.{setting}"), reason))
    };
    let late = timeout > every;
    let late = late.then(|| {
        (
            format!("{key}.timeout"),
            "must not be more than every".to_owned(),
        )
    });
    [
        range("every", every, SECOND, 3_600 * SECOND),
        range("timeout", timeout, 10 * MILLI, 60 * SECOND),
        late,
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn is_http(url: &Secret) -> bool {
    let parsed = url::Url::parse(url.reveal());
    parsed.is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::config::{Config, ConfigError, Sources, Worst, load};

    const PROBE: &str = "[[probe]]\nname = \"mails\"\nresource = \"smtp:main\"\n\
        command = [\"/bin/echo\", \"7\"]\nlo = 10\nhi = 100\n";

    fn with_file(text: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tidegate.toml");
        std::fs::write(&path, text).unwrap();
        load(&Sources { path: Some(path) })
    }

    #[test]
    fn a_probe_needs_a_question_and_two_limits() {
        let config = with_file(PROBE).unwrap();
        assert_eq!((config.probe[0].lo, config.probe[0].hi), (10.0, 100.0));
        assert_eq!(config.probes.worst, Worst::Critical);
        assert!(config.probes.timeout < config.probes.every);
        let less_is_worse = PROBE.replace("lo = 10", "lo = 1000");
        assert!(with_file(&less_is_worse).is_ok());
    }

    #[test]
    fn what_can_not_work_is_refused_by_name_without_what_may_be_secret() {
        let instead = |line: &str| PROBE.replace("command = [\"/bin/echo\", \"7\"]", line);
        for (text, parts) in [
            (format!("{PROBE}{PROBE}"), &["probe.mails", "twice"][..]),
            (
                PROBE.replace("\"mails\"", "\"Mails\""),
                &["probe.name", "Mails"],
            ),
            (
                PROBE.replace("smtp:main", "smtp"),
                &["probe.mails.resource", "class:name"],
            ),
            (
                PROBE.replace("hi = 100", "hi = inf"),
                &["probe.mails.lo", "finite"],
            ),
            (
                instead(""),
                &["probe.mails.sql", "one of sql, url and command"],
            ),
            (
                format!("{PROBE}url = \"http://x/\""),
                &["probe.mails.sql", "one of"],
            ),
            (
                instead("sql = \"select 1 -- hunter2\""),
                &["probe.mails.sql", "[database] url"],
            ),
            (
                instead("url = \"ftp://u:hunter2@x/\""),
                &["probe.mails.url", "http://"],
            ),
            (
                instead("url = \"http://u:hunter2@x/\"\nfield = \"a\""),
                &["probe.mails.field", "/queue/waiting"],
            ),
            (
                instead("url = \"http://u:hunter2@x/\"\nsecret = \"token\""),
                &["probe.mails.secret", "token", "[secrets]"],
            ),
            (
                format!("{PROBE}field = \"/a\""),
                &["probe.mails.field", "url alone"],
            ),
            (instead("command = []"), &["probe.mails.command", "empty"]),
            (
                format!("{PROBE}every = \"10ms\""),
                &["probe.mails.every", "1s"],
            ),
            (
                format!("{PROBE}every = \"1s\"\ntimeout = \"2s\""),
                &["probe.mails.timeout", "every"],
            ),
            (
                format!("{PROBE}worst = \"ok\""),
                &["probe", "ok", "elevated"],
            ),
            (
                "[probes]\nevery = \"2h\"".to_owned(),
                &["probes.every", "1h"],
            ),
        ] {
            let error = with_file(&text).unwrap_err().to_string();
            for part in parts {
                assert!(
                    error.contains(part),
                    "{text:?} gave {error:?}, without {part:?}"
                );
            }
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
