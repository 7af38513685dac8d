//! HTTP endpoints for operators, monitoring and load balancers: `/livez`, `/readyz`, `/metrics`, `/health`.
//!
//! Owns routes, their answers and who may ask. Must know neither queue nor health: it is handed functions that say how
//! things stand, and they must answer from memory, at once.

mod guard;
mod readiness;
mod server;

pub use readiness::{QueueReadiness, Readiness};
pub use server::{AdminError, serve};

use crate::config::Secret;
use crate::telemetry::Metrics;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router, middleware};
use guard::Guard;
use serde_json::{Value, json};
use std::sync::Arc;

/// What the endpoints tell, and to whom. Cheap to clone.
#[derive(Clone)]
pub struct AdminState {
    /// `admin.token`; may be empty on loopback only.
    pub token: Secret,
    /// `/livez`: why the process should be restarted, if it should.
    pub liveness: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// `/readyz`: how the claim loops fare.
    pub readiness: Arc<dyn Fn() -> Readiness + Send + Sync>,
    /// `/health`: state and pressure per resource, for the web apps.
    pub health: Arc<dyn Fn() -> Value + Send + Sync>,
    /// `/metrics`.
    pub metrics: Arc<Metrics>,
}

/// OpenMetrics, as Prometheus asks for it.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The endpoints behind their guard.
fn router(state: AdminState, guard: Guard) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/health", get(health))
        .fallback(|| async { error(StatusCode::NOT_FOUND, "not_found") })
        .method_not_allowed_fallback(|| async {
            error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed")
        })
        .layer(middleware::from_fn_with_state(
            Arc::new(guard),
            guard::check,
        ))
        .with_state(state)
}

async fn livez(State(state): State<AdminState>) -> Response {
    match (state.liveness)() {
        Ok(()) => Json(json!({"live": true})).into_response(),
        Err(reason) => (
            StatusCode::SERVICE_UNAVAILABLE,
            Json(json!({"live": false, "reason": reason})),
        )
            .into_response(),
    }
}

async fn readyz(State(state): State<AdminState>) -> Response {
    let report = (state.readiness)().judge();
    let status = if report.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(report)).into_response()
}

async fn metrics(State(state): State<AdminState>) -> Response {
    match state.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Err(_) => error(StatusCode::INTERNAL_SERVER_ERROR, "encoding_failed"),
    }
}

async fn health(State(state): State<AdminState>) -> Json<Value> {
    Json((state.health)())
}

/// An error as every endpoint tells it: `{"error":"<code>"}`.
fn error(status: StatusCode, code: &'static str) -> Response {
    (status, Json(json!({"error": code}))).into_response()
}
