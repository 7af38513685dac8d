//! `http`: hands the job to a web app, as one signed POST.
//!
//! Owns: the request and its signature; what an answer means is [`answer`]'s table. The URL is the definition's, and its
//! host must be one that `[http] allow` names: nothing an enqueuer sends decides who is called. Must not know the
//! runner, retries, or where jobs come from.
//!
//! The body is `{"id","kind","args","attempt"}`, the headers are the definition's and these:
//!
//! | header | value |
//! |---|---|
//! | `Content-Type` | `application/json` |
//! | `User-Agent` | `tidegate/<version>` |
//! | `Tidegate-Id`, `Idempotency-Key` | the job's id, the same at every attempt |
//! | `Tidegate-Attempt` | which attempt this is, from 1 |
//! | `Traceparent` | the enqueuer's trace context, if it sent one |
//! | `Tidegate-Signature` | `t=<seconds since the epoch>,v1=<hex>`, if the definition names a secret |
//!
//! `v1` is the HMAC-SHA256, under that secret, of the bytes `<t>.<body>`. A receiver computes it over the raw body,
//! compares in constant time, and refuses a `t` that is more than a few minutes off, so that a request that was
//! overheard is worth nothing later.
//!
//! | the answer | outcome |
//! |---|---|
//! | 2xx | done; a JSON body within `[http] max_response` is the result |
//! | 408, 425, 429 | failed, after `Retry-After` if given |
//! | 5xx | likewise, and the host is to blame |
//! | 3xx, any other | fatal |
//! | none: no connection, no answer in time, an answer that breaks off | failed, and the host is to blame |
//! | none: the name leads to an address that may not be called | fatal |
//!
//! A stop does not break a request off: the app may be at work on it, and its timeout is short. A drop does.

mod address;
mod answer;
mod client;
mod definition;

pub use client::SharedClient;

use super::{Built, Context, Deps, Handler, HandlerKind};
use crate::catalog::JobSpec;
use crate::clock;
use crate::job::{Failure, Job, Outcome};
use client::Refused;
use definition::Definition;
use futures::future::BoxFuture;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use sha2::Sha256;
use std::error::Error;
use std::sync::Arc;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const TIDEGATE_ATTEMPT: HeaderName = HeaderName::from_static("tidegate-attempt");
const TIDEGATE_ID: HeaderName = HeaderName::from_static("tidegate-id");
const TIDEGATE_SIGNATURE: HeaderName = HeaderName::from_static("tidegate-signature");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// How many causes of an error are told.
const MAX_CAUSES: usize = 8;

/// The `http` handler, as the list of handlers knows it.
pub const KIND: HandlerKind = HandlerKind {
    name: "http",
    check: |spec, config| Definition::read(spec, config).map(|_| ()),
    touches: |spec, config| {
        let read = Definition::read(spec, config);
        read.map(|definition| definition.resource)
            .into_iter()
            .collect()
    },
    build: |spec, deps| Http::build(spec, deps),
};

/// Posts the jobs of one definition.
struct Http {
    client: reqwest::Client,
    definition: Definition,
    max_response: usize,
}

impl Http {
    fn build(spec: &JobSpec, deps: &Deps) -> Built {
        let config = &deps.config.http;
        Ok(Arc::new(Self {
            definition: Definition::read(spec, &deps.config)?,
            client: deps.http.get(config).map_err(|e| spec.problem(e))?,
            max_response: config.max_response,
        }))
    }

    async fn deliver(&self, job: &Job) -> Outcome {
        let definition = &self.definition;
        let body = job.payload().to_string();
        let headers = match self.headers(job, &body, clock::unix_ms() / 1_000) {
            Ok(headers) => headers,
            Err(e) => return Outcome::fatal(format!("a header's value: {e}")),
        };
        let request = self
            .client
            .post(definition.url.clone())
            .headers(headers)
            .timeout(definition.timeout)
            .body(body);
        match request.send().await {
            Ok(response) => {
                answer::outcome(response, self.max_response, &definition.resource).await
            }
            Err(e) => self.unanswered(e),
        }
    }

    fn headers(
        &self,
        job: &Job,
        body: &str,
        unix_seconds: u64,
    ) -> Result<HeaderMap, reqwest::header::InvalidHeaderValue> {
        let mut headers = self.definition.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let id = HeaderValue::from_str(job.id.as_str())?;
        headers.insert(IDEMPOTENCY_KEY, id.clone());
        headers.insert(TIDEGATE_ID, id);
        headers.insert(TIDEGATE_ATTEMPT, job.attempt.into());
        if let Some(trace) = &job.traceparent {
            headers.insert(TRACEPARENT, HeaderValue::from_str(trace)?);
        }
        if let Some(secret) = &self.definition.secret {
            let signature = sign(secret.reveal(), unix_seconds, body);
            headers.insert(TIDEGATE_SIGNATURE, HeaderValue::from_str(&signature)?);
        }
        Ok(headers)
    }

    fn unanswered(&self, e: reqwest::Error) -> Outcome {
        let e = e.without_url();
        let failure = Failure::new(chain(&e));
        if causes(&e).any(<dyn Error>::is::<Refused>) {
            return Outcome::Fatal(failure);
        }
        Outcome::Failed(failure.blaming(&*self.definition.resource, e.is_connect()))
    }
}

impl Handler for Http {
    fn run<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Outcome> {
        Box::pin(self.deliver(&ctx.job))
    }
}

/// The value of `Tidegate-Signature`.
fn sign(secret: &str, unix_seconds: u64, body: &str) -> String {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(unix_seconds.to_string().as_bytes());
    mac.update(b".");
    mac.update(body.as_bytes());
    let v1 = hex::encode(mac.finalize().into_bytes());
    format!("t={unix_seconds},v1={v1}")
}

/// An error and what caused it.
fn causes<'a>(e: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(e), |&e| e.source()).take(MAX_CAUSES)
}

/// An error and what caused it, in one line.
fn chain(e: &(dyn Error + 'static)) -> String {
    let told: Vec<String> = causes(e).map(ToString::to_string).collect();
    told.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_any_hmac_tool() {
        // printf '1700000000.{"id":"job-1"}' | openssl dgst -sha256 -hmac secret
        let v1 = "5c8e0c7999d31c3ada52d8dbcbea633e4fd34fb2eacb74002af9023a8ceb7c0d";
        assert_eq!(
            sign("secret", 1_700_000_000, "{\"id\":\"job-1\"}"),
            format!("t=1700000000,v1={v1}")
        );
    }
}
