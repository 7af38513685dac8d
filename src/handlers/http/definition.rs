//! The `[http]` section of a definition.
//!
//! Owns: its form, and whom it may call. Everything is checked when the definition is loaded, without touching any
//! server; what a name resolves to is [`super::client`]'s to check, at every connection.

use super::client::permitted;
use crate::catalog::{JobSpec, Problem};
use crate::config::{Config, HttpConfig, Secret, duration};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;
use url::{Host, Url};

/// The longest URL, bytes.
const MAX_URL: usize = 2_048;
/// The most headers of a definition.
const MAX_HEADERS: usize = 32;
/// How long a request may take when the definition does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// Headers that are not a definition's to set: those of the connection, and our own, with all that start with
/// `tidegate-`.
const RESERVED: [&str; 12] = [
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "idempotency-key",
    "te",
    "traceparent",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

/// The section as it stands in the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    url: String,
    #[serde(default)]
    secret: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default, with = "duration::option")]
    timeout: Option<Duration>,
}

/// A checked section.
#[derive(Debug)]
pub(super) struct Definition {
    /// Where jobs are posted.
    pub(super) url: Url,
    /// What faults of the other side are laid to: `http:<host>:<port>`.
    pub(super) resource: String,
    /// The key of the signature, if there is to be one.
    pub(super) secret: Option<Secret>,
    /// The definition's own headers.
    pub(super) headers: HeaderMap,
    /// How long one request may take, its answer included.
    pub(super) timeout: Duration,
}

impl Definition {
    /// Reads and checks the section of a definition.
    ///
    /// # Errors
    /// The first thing that is wrong with it, naming its field.
    pub(super) fn read(spec: &JobSpec, config: &Config) -> Result<Self, Problem> {
        let section: Section = spec.section()?;
        section
            .check(spec.timeout, config)
            .map_err(|e| spec.problem(format!("http.{e}")))
    }
}

impl Section {
    fn check(self, job_timeout: Duration, config: &Config) -> Result<Definition, String> {
        let (url, resource) =
            check_url(&self.url, &config.http).map_err(|e| format!("url: {e}"))?;
        let secret = self.secret.map(|name| match config.secrets.get(&name) {
            None => Err(format!(
                "secret: {name:?} is not in the configuration's [secrets]"
            )),
            Some(secret) if secret.is_empty() => Err(format!("secret: {name:?} is empty")),
            Some(secret) => Ok(secret.clone()),
        });
        let timeout = self.timeout.unwrap_or(DEFAULT_TIMEOUT.min(job_timeout));
        if timeout.is_zero() || timeout > job_timeout {
            let longest = duration::format(job_timeout);
            return Err(format!(
                "timeout: must be more than \"0s\" and within the job's own, \"{longest}\""
            ));
        }
        Ok(Definition {
            url,
            resource,
            secret: secret.transpose()?,
            headers: check_headers(&self.headers)?,
            timeout,
        })
    }
}

/// The URL and the resource it stands for.
fn check_url(given: &str, config: &HttpConfig) -> Result<(Url, String), String> {
    if given.len() > MAX_URL {
        return Err(format!("longer than {MAX_URL} bytes"));
    }
    let url = Url::parse(given).map_err(|e| format!("{e}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("scheme {:?} is not http or https", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not carry a user or a password: use a secret".to_owned());
    }
    let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
        return Err("has no host".to_owned());
    };
    if !config.allow.iter().any(|entry| allows(entry, &host, port)) {
        return Err(format!(
            "{host}:{port} is not in the configuration's http.allow"
        ));
    }
    // The URL parser reads 127.1, 0x7f000001 and their like as the addresses they are.
    let address = match &host {
        Host::Ipv4(v4) => Some(IpAddr::V4(*v4)),
        Host::Ipv6(v6) => Some(IpAddr::V6(*v6)),
        Host::Domain(_) => None,
    };
    if address.is_some_and(|a| !permitted(a, config.allow_private)) {
        return Err(format!(
            "{host} may not be called; http.allow_private opens private addresses, and no other"
        ));
    }
    let name = address.map_or_else(|| host.to_string(), |a| a.to_string());
    let resource = format!("http:{name}:{port}");
    Ok((url, resource))
}

/// Whether an entry of `http.allow` (`host`: every port of it, or `host:port`) stands for this host and port.
fn allows(entry: &str, host: &Host<&str>, port: u16) -> bool {
    let Ok(parsed) = Url::parse(&format!("http://{entry}/")) else {
        return false;
    };
    let after_host = entry.rsplit(']').next().unwrap_or(entry);
    let any_port = !after_host.contains(':');
    parsed.host().as_ref() == Some(host)
        && (any_port || parsed.port_or_known_default() == Some(port))
}

fn check_headers(given: &BTreeMap<String, String>) -> Result<HeaderMap, String> {
    if given.len() > MAX_HEADERS {
        return Err(format!("headers: at most {MAX_HEADERS}"));
    }
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let field = format!("headers.{name}");
        let name: HeaderName = name
            .parse()
            .map_err(|_| format!("{field}: is not the name of a header"))?;
        if RESERVED.contains(&name.as_str()) || name.as_str().starts_with("tidegate-") {
            return Err(format!("{field}: is not a definition's to set"));
        }
        let value = HeaderValue::from_str(value)
            .map_err(|_| format!("{field}: its value has characters that a header may not have"))?;
        if headers.insert(name, value).is_some() {
            return Err(format!("{field}: is given twice"));
        }
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::{Sources, load};
    use crate::handlers::testing::spec;

    fn read(section: &str, allow: &[&str], allow_private: bool) -> Result<Definition, String> {
        let text = format!("kind = \"a\"\nhandler = \"http\"\n[http]\n{section}");
        let mut config = load(&Sources::default()).unwrap();
        config.http.allow = allow.iter().map(|&host| host.to_owned()).collect();
        config.http.allow_private = allow_private;
        for (name, value) in [("webapp", "hunter2"), ("empty", "")] {
            config.secrets.insert(name.to_owned(), Secret::new(value));
        }
        Definition::read(&spec("http", &text), &config).map_err(|e| e.to_string())
    }

    fn read_url(url: &str, allow: &[&str], allow_private: bool) -> Result<Definition, String> {
        read(&format!("url = \"{url}\""), allow, allow_private)
    }

    #[test]
    fn a_url_alone_is_enough() {
        let definition = read_url("https://App.Internal/jobs", &["app.internal"], false).unwrap();
        assert_eq!(definition.url.as_str(), "https://app.internal/jobs");
        assert_eq!(definition.resource, "http:app.internal:443");
        assert_eq!(definition.timeout, DEFAULT_TIMEOUT);
        let definition = read_url("http://[fd00::1]:81/", &["[fd00::1]:81"], true).unwrap();
        assert_eq!(definition.resource, "http:fd00::1:81");
    }

    #[test]
    fn only_allowed_hosts_and_ports_are_called() {
        for (url, allow, may) in [
            ("https://a.example/", "a.example", true),
            ("https://a.example:8443/", "a.example", true),
            ("https://a.example:8443/", "A.example:8443", true),
            ("http://a.example/", "a.example:80", true),
            ("https://a.example/", "a.example:80", false),
            ("https://a.example:444/", "a.example:443", false),
            ("https://b.a.example/", "a.example", false),
            ("https://a.example.b/", "a.example", false),
            ("https://a.example./", "a.example", false),
            ("http://[2606:4700::1]/", "[2606:4700::1]", true),
            ("http://[2606:4700::1]:81/", "[2606:4700::1]:80", false),
        ] {
            let read = read_url(url, &[allow], false);
            assert_eq!(read.is_ok(), may, "{url} with {allow}: {read:?}");
        }
        assert!(read_url("https://a.example/", &[], false).is_err());
    }

    #[test]
    fn addresses_are_seen_through_their_spellings() {
        let loopback = [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0177.0.0.1",
            "[::1]",
            "[::ffff:127.0.0.1]",
        ];
        for host in loopback {
            let url = format!("http://{host}/");
            let refused = read_url(&url, &[host], false).unwrap_err();
            assert!(refused.contains("may not be called"), "{host}: {refused}");
            assert!(read_url(&url, &[host], true).is_ok(), "{host}");
        }
        let never = [
            "169.254.169.254",
            "0xA9FEA9FE",
            "2852039166",
            "[::ffff:169.254.169.254]",
            "[::ffff:a9fe:a9fe]",
            "[fe80::1]",
            "0.0.0.0",
            "0",
            "[::]",
            "[fd00:ec2::254]",
        ];
        for host in never {
            let refused = read_url(&format!("http://{host}/"), &[host], true).unwrap_err();
            assert!(refused.contains("may not be called"), "{host}: {refused}");
        }
    }

    #[test]
    fn problems_name_the_field() {
        let url = "url = \"https://a.example/\"";
        for (section, parts) in [
            (
                "url = \"ftp://a.example/\"".to_owned(),
                &["http.url", "ftp"][..],
            ),
            ("url = \"a.example\"".into(), &["http.url"]),
            (
                "url = \"https://me:hunter2@a.example/\"".into(),
                &["http.url", "password"],
            ),
            (
                "url = \"https://b.example/\"".into(),
                &["http.allow", "b.example:443"],
            ),
            (
                format!("{url}\nsecret = \"nope\""),
                &["http.secret", "nope"],
            ),
            (
                format!("{url}\nsecret = \"empty\""),
                &["http.secret", "empty"],
            ),
            (format!("{url}\ntimeout = \"0s\""), &["http.timeout"]),
            (format!("{url}\ntimeout = \"61s\""), &["http.timeout", "1m"]),
            (
                format!("{url}\nheaders = {{ \"a b\" = \"\" }}"),
                &["http.headers.a b"],
            ),
            (
                format!("{url}\nheaders = {{ A = \"a\\nB: c\" }}"),
                &["http.headers.A"],
            ),
            (
                format!("{url}\nheaders = {{ Host = \"b\" }}"),
                &["http.headers.Host"],
            ),
            (
                format!("{url}\nheaders = {{ Tidegate-Id = \"b\" }}"),
                &["http.headers.Tidegate-Id"],
            ),
            (
                format!("{url}\nheaders = {{ A = \"\", a = \"\" }}"),
                &["http.headers.a", "twice"],
            ),
            ("uri = \"\"".into(), &["a.toml:4", "uri"]),
        ] {
            let problem = read(&section, &["a.example"], false).unwrap_err();
            for part in parts {
                assert!(
                    problem.contains(part),
                    "{section:?}: {problem:?} lacks {part:?}"
                );
            }
            assert!(!problem.contains("hunter2"), "{problem}");
        }
    }
}
