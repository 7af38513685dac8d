//! The one HTTP client of all `http` jobs.
//!
//! Owns: how connections are made. A name is resolved here, and only addresses that were checked here are ever
//! connected to, so that a name can't be one thing when it is checked and another when it is called. No proxies of the
//! environment, no redirects. Must not know jobs or definitions.

use super::address::{Class, class};
use crate::config::HttpConfig;
use crate::tls;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How long connecting may take, the resolving of the name included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an unused connection is kept: less than the minute after which many servers close it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How many unused connections are kept per host.
const IDLE_PER_HOST: usize = 32;
/// What the other side sees as our name.
const USER_AGENT: &str = concat!("tidegate/", env!("CARGO_PKG_VERSION"));

/// The client, made when the first handler asks for it: a daemon without `http` jobs loads no certificates.
#[derive(Debug, Clone, Default)]
pub struct SharedClient(Arc<OnceLock<reqwest::Client>>);

impl SharedClient {
    /// The client. `config` counts the first time only.
    ///
    /// # Errors
    /// If the certificates of this machine can't be loaded.
    pub(super) fn get(&self, config: &HttpConfig) -> Result<reqwest::Client, String> {
        if let Some(client) = self.0.get() {
            return Ok(client.clone());
        }
        let client = build(config.allow_private)?;
        Ok(self.0.get_or_init(|| client).clone())
    }
}

fn build(allow_private: bool) -> Result<reqwest::Client, String> {
    tls::install();
    reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .dns_resolver(Arc::new(Guard { allow_private }))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .no_proxy()
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(IDLE_PER_HOST)
        .build()
        .map_err(|e| format!("the HTTP client: {}", super::chain(&e)))
}

/// Whether an address may be called.
pub(super) fn permitted(address: IpAddr, allow_private: bool) -> bool {
    match class(address) {
        Class::Public => true,
        Class::Private => allow_private,
        Class::Never => false,
    }
}

/// A name all of whose addresses are refused.
#[derive(Debug)]
pub(super) struct Refused {
    host: String,
    address: IpAddr,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, address } = self;
        write!(f, "{host} resolves to {address}, which may not be called")
    }
}

impl std::error::Error for Refused {}

/// The system's resolver, less what may not be called.
struct Guard {
    allow_private: bool,
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let host = name.as_str();
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
            let may = |a: &SocketAddr| permitted(a.ip(), allow_private);
            let (allowed, refused): (Vec<_>, Vec<_>) = found.into_iter().partition(may);
            match (allowed.is_empty(), refused.first()) {
                (true, Some(first)) => Err(Refused {
                    host: host.to_owned(),
                    address: first.ip(),
                }
                .into()),
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}
