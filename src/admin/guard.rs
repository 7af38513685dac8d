//! Who may ask. Every request passes here before it is routed, unknown paths too.
//!
//! With a token: it must come as `Authorization: Bearer`. Without one the listener is on loopback, and the `Host`
//! header must name this machine, or a page in a local browser could read the endpoints through a name that it had
//! pointed here (DNS rebinding). A token in the query is refused: URLs end up in logs and histories.

use super::error;
use crate::config::Secret;
use crate::telemetry::Metrics;
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::Response;
use sha2::{Digest, Sha256};
use std::net::IpAddr;
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// Paths that need no token: supervisors and load balancers ask them.
const OPEN: [&str; 2] = ["/livez", "/readyz"];

/// What a request is checked against.
pub(super) struct Guard {
    access: Access,
    metrics: Arc<Metrics>,
}

enum Access {
    /// Anybody on this machine.
    Local,
    /// Whoever knows the token, of which only the digest is kept: digests are of one length, so that comparing them
    /// tells nothing about the token's.
    Token([u8; 32]),
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Token,
    TokenInQuery,
    Host,
    Origin,
}

impl Refusal {
    const fn status(self) -> StatusCode {
        match self {
            Self::Token | Self::TokenInQuery => StatusCode::UNAUTHORIZED,
            Self::Host => StatusCode::MISDIRECTED_REQUEST,
            Self::Origin => StatusCode::FORBIDDEN,
        }
    }

    const fn code(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::TokenInQuery => "token_in_query",
            Self::Host => "host",
            Self::Origin => "origin",
        }
    }
}

/// The middleware.
pub(super) async fn check(
    State(guard): State<Arc<Guard>>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = match guard.judge(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            guard.metrics.admin_refused(refusal.code());
            // Never the query: it may hold the token.
            tracing::debug!(
                event = "admin_refused",
                reason = refusal.code(),
                path = request.uri().path(),
                "refused"
            );
            error(refusal.status(), refusal.code())
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    if response.status() == StatusCode::UNAUTHORIZED {
        let scheme = HeaderValue::from_static("Bearer");
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, scheme);
    }
    response
}

impl Guard {
    pub(super) fn new(token: &Secret, metrics: Arc<Metrics>) -> Self {
        let access = if token.is_empty() {
            Access::Local
        } else {
            Access::Token(Sha256::digest(token.reveal()).into())
        };
        Self { access, metrics }
    }

    fn judge(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        if has_token(uri.query().unwrap_or_default()) {
            return Err(Refusal::TokenInQuery);
        }
        match &self.access {
            Access::Local if !names_this_machine(uri, headers) => return Err(Refusal::Host),
            Access::Token(digest) if !OPEN.contains(&uri.path()) && !carries(headers, digest) => {
                return Err(Refusal::Token);
            }
            Access::Local | Access::Token(_) => {}
        }
        if is_foreign(headers) {
            return Err(Refusal::Origin);
        }
        Ok(())
    }
}

fn has_token(query: &str) -> bool {
    url::form_urlencoded::parse(query.as_bytes())
        .any(|(key, _)| matches!(&*key, "token" | "access_token"))
}

/// Whether the request brings the token, and only one.
fn carries(headers: &HeaderMap, digest: &[u8; 32]) -> bool {
    let Some(given) = single(headers, header::AUTHORIZATION) else {
        return false;
    };
    let Some((scheme, token)) = given.split_once(' ') else {
        return false;
    };
    let given: [u8; 32] = Sha256::digest(token.trim()).into();
    scheme.eq_ignore_ascii_case("bearer") && given.ct_eq(digest).into()
}

/// Whether the request was meant for this machine by name: `localhost`, or a literal loopback address.
fn names_this_machine(uri: &Uri, headers: &HeaderMap) -> bool {
    let host = single(headers, header::HOST).and_then(|host| host.parse().ok());
    host.as_ref().is_some_and(is_local) && uri.authority().is_none_or(is_local)
}

fn is_local(authority: &Authority) -> bool {
    let host = authority.host();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether a browser sent it from a page of another origin.
fn is_foreign(headers: &HeaderMap) -> bool {
    if !headers.contains_key(header::ORIGIN) {
        return false;
    }
    let host = single(headers, header::HOST);
    let origin = single(headers, header::ORIGIN).and_then(|origin| origin.split_once("://"));
    match (host, origin) {
        (Some(host), Some((_, origin))) => host != origin,
        _ => true,
    }
}

/// The one value of a header; none if there are several, or it is no text.
fn single(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn judge(token: &str, uri: &str, given: &[(&'static str, &str)]) -> Result<(), Refusal> {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(*name, value.parse().unwrap());
        }
        Guard::new(&Secret::new(token), Arc::default()).judge(&uri.parse().unwrap(), &headers)
    }

    #[test]
    fn without_a_token_the_host_must_be_this_machine() {
        for host in [
            "localhost",
            "LOCALHOST:9180",
            "127.0.0.1:9180",
            "127.0.0.2",
            "[::1]:9180",
        ] {
            assert_eq!(judge("", "/metrics", &[("host", host)]), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "10.0.0.1",
            "0.0.0.0",
            "",
            "127.0.0.1.nip.io",
            "user@localhost@evil",
        ] {
            let got = judge("", "/livez", &[("host", host)]);
            assert_eq!(got, Err(Refusal::Host), "{host}");
        }
        assert_eq!(judge("", "/livez", &[]), Err(Refusal::Host));
        let twice = [("host", "localhost"), ("host", "evil.example")];
        assert_eq!(judge("", "/livez", &twice), Err(Refusal::Host));
        let absolute = "http://evil.example/livez";
        assert_eq!(
            judge("", absolute, &[("host", "localhost")]),
            Err(Refusal::Host)
        );
    }

    #[test]
    fn the_token_must_be_right_and_in_the_header() {
        let with = |value| judge("s3cret", "/metrics", &[("authorization", value)]);
        assert_eq!(with("Bearer s3cret"), Ok(()));
        assert_eq!(with("bearer s3cret"), Ok(()));
        for wrong in [
            "Bearer s3cre",
            "Bearer s3cret1",
            "Basic s3cret",
            "s3cret",
            "Bearer",
        ] {
            assert_eq!(with(wrong), Err(Refusal::Token), "{wrong}");
        }
        let unknown = judge("s3cret", "/unknown", &[]);
        assert_eq!(
            unknown,
            Err(Refusal::Token),
            "paths are not told to strangers"
        );
        assert_eq!(judge("s3cret", "/livez", &[]), Ok(()));
        assert_eq!(judge("s3cret", "/readyz", &[]), Ok(()));
    }

    #[test]
    fn a_token_in_the_query_is_refused_anywhere() {
        let header = [("authorization", "Bearer s3cret")];
        for uri in [
            "/metrics?token=s3cret",
            "/metrics?a=1&access_token=x",
            "/livez?t%6Fken=s3cret",
        ] {
            assert_eq!(judge("s3cret", uri, &header), Err(Refusal::TokenInQuery));
        }
        assert_eq!(judge("s3cret", "/metrics?tokens=1", &header), Ok(()));
    }

    #[test]
    fn other_origins_are_refused() {
        let from = |origin| {
            judge(
                "",
                "/health",
                &[("host", "localhost:9180"), ("origin", origin)],
            )
        };
        assert_eq!(from("http://localhost:9180"), Ok(()));
        for origin in ["http://evil.example", "null", "http://localhost:3000"] {
            assert_eq!(from(origin), Err(Refusal::Origin), "{origin}");
        }
    }
}
