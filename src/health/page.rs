//! A number that a web page answers with.
//!
//! The address comes from the configuration alone, so it may be anywhere, unlike those of jobs; redirects are not
//! followed. It may hold a secret and appears in no error.

use std::time::Duration;

use reqwest::{Client, Url, redirect};
use serde_json::Value;

use crate::config::Secret;
use crate::tls;

/// The most that is read of an answer, bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// A page, and where in it the number is.
#[derive(Clone)]
pub struct Page {
    client: Client,
    url: Url,
    /// A JSON pointer; the answer itself is the number if it is empty.
    field: String,
    token: Option<Secret>,
}

impl Page {
    /// A page that is asked with `token`, if there is one, and has `timeout` to answer.
    ///
    /// # Errors
    /// `url` is none, or the certificates of this machine can't be loaded.
    pub fn new(
        url: &Secret,
        field: Option<&str>,
        token: Option<&Secret>,
        timeout: Duration,
    ) -> Result<Self, String> {
        tls::install();
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .no_proxy()
            .timeout(timeout)
            .build();
        Ok(Self {
            client: client.map_err(said)?,
            url: Url::parse(url.reveal()).map_err(|_| "is not a URL".to_owned())?,
            field: field.unwrap_or_default().to_owned(),
            token: token.cloned(),
        })
    }

    /// Asks for the number.
    ///
    /// # Errors
    /// No answer, another status than success, or no number in it.
    pub async fn number(&self) -> Result<f64, String> {
        let mut request = self.client.get(self.url.clone());
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.reveal());
        }
        let mut response = request.send().await.map_err(said)?;
        if !response.status().is_success() {
            return Err(format!("it answered {}", response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(said)? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_ANSWER {
                return Err(format!("it answered with more than {MAX_ANSWER} bytes"));
            }
        }
        number_at(&body, &self.field)
    }
}

/// The number in a JSON document at a pointer.
fn number_at(body: &[u8], field: &str) -> Result<f64, String> {
    let json: Value =
        serde_json::from_slice(body).map_err(|_| "its answer is neither a number nor JSON")?;
    let found = json.pointer(field).and_then(Value::as_f64);
    found.ok_or_else(|| match field {
        "" => "its answer is no number".to_owned(),
        _ => format!("its answer has no number at {field}"),
    })
}

/// An error without the address, and its causes.
fn said(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_where_it_is_said_to_be() {
        let at = |body: &str, field| number_at(body.as_bytes(), field);
        assert_eq!(at(" 12.5\n", ""), Ok(12.5));
        assert_eq!(at(r#"{"queue":{"waiting":3}}"#, "/queue/waiting"), Ok(3.0));
        for (body, field) in [
            ("", ""),
            ("twelve", ""),
            ("{}", ""),
            (r#"{"a":"1"}"#, "/a"),
            ("1", "/a"),
        ] {
            assert!(at(body, field).is_err(), "{body:?} {field:?}");
        }
    }
}
