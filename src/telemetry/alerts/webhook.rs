//! Delivery of one alert by HTTP.
//!
//! Owns the client, the tries and their deadline. The address is a secret (many services put the key into it) and
//! appears in no error.

use super::Alert;
use crate::config::Secret;
use crate::tls;
use reqwest::{Client, StatusCode, Url, redirect};
use std::time::Duration;
use thiserror::Error;
use tokio::time::sleep;

/// Tries per alert.
const TRIES: u32 = 3;
/// Wait before the second try; twice that before the third.
const PAUSE: Duration = Duration::from_millis(250);

/// Why an alert was not delivered.
#[derive(Debug, Error)]
pub enum WebhookError {
    /// The configured address is no URL.
    #[error("alerts.webhook is not a URL")]
    Address,
    /// The HTTP client could not be made, or the request failed.
    #[error("webhook: {0}")]
    Http(#[source] reqwest::Error),
    /// The other side did not accept it.
    #[error("webhook: answered {0}")]
    Refused(StatusCode),
    /// It took longer than `alerts.timeout`, all tries included.
    #[error("webhook: no answer in time")]
    Timeout,
    /// The alert could not be written as JSON.
    #[error("webhook: {0}")]
    Encode(#[from] serde_json::Error),
}

impl From<reqwest::Error> for WebhookError {
    fn from(error: reqwest::Error) -> Self {
        Self::Http(error.without_url())
    }
}

impl WebhookError {
    /// Whether another try may fare better.
    fn is_transient(&self) -> bool {
        match self {
            Self::Http(_) | Self::Timeout => true,
            Self::Refused(status) => {
                status.is_server_error()
                    || matches!(
                        *status,
                        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
                    )
            }
            Self::Address | Self::Encode(_) => false,
        }
    }
}

pub(super) struct Webhook {
    client: Client,
    url: Url,
    timeout: Duration,
}

impl Webhook {
    pub(super) fn new(url: &Secret, timeout: Duration) -> Result<Self, WebhookError> {
        tls::install();
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            // One try must leave time for the others.
            .timeout(timeout / TRIES)
            .build()?;
        let url = Url::parse(url.reveal()).map_err(|_| WebhookError::Address)?;
        Ok(Self {
            client,
            url,
            timeout,
        })
    }

    /// Delivers one alert, within the timeout.
    pub(super) async fn deliver(&self, alert: &Alert) -> Result<(), WebhookError> {
        let body = serde_json::to_vec(alert)?;
        tokio::time::timeout(self.timeout, self.try_repeatedly(body))
            .await
            .unwrap_or(Err(WebhookError::Timeout))
    }

    async fn try_repeatedly(&self, body: Vec<u8>) -> Result<(), WebhookError> {
        for tried in 1..TRIES {
            match self.try_once(body.clone()).await {
                Err(error) if error.is_transient() => sleep(PAUSE * tried).await,
                finished => return finished,
            }
        }
        self.try_once(body).await
    }

    async fn try_once(&self, body: Vec<u8>) -> Result<(), WebhookError> {
        let response = self
            .client
            .post(self.url.clone())
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await?;
        let status = response.status();
        if status.is_success() {
            Ok(())
        } else {
            Err(WebhookError::Refused(status))
        }
    }
}
