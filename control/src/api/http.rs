//! The HTTP side: what monitoring asks.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;

use super::context::{Context, unix_ms};
use crate::health::Sight;
use crate::raft::Consistency;
use crate::scheduler::Picture;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// `/metrics` and `/healthz`.
pub(crate) fn router(context: Arc<Context>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .with_state(context)
}

/// Served by every metadata server, also by those that do not lead.
async fn metrics(State(context): State<Arc<Context>>) -> impl IntoResponse {
    match context.raft.view(Consistency::Local).await {
        Ok(view) => {
            let world = context.world();
            let now = Instant::now();
            let sight = Sight {
                state: &view.state,
                liveness: &world.liveness,
                now,
                picture: &Picture::take(&view.state, &world.liveness, now, unix_ms()),
                rules: &context.config.heal,
                strangers: &world.strangers,
            };
            let text = context.metrics.render(context.config.id, &view, &sight);
            (StatusCode::OK, [(CONTENT_TYPE, OPEN_METRICS)], text)
        }
        Err(error) => {
            let text = format!("{error}\n");
            (
                StatusCode::SERVICE_UNAVAILABLE,
                [(CONTENT_TYPE, "text/plain")],
                text,
            )
        }
    }
}

async fn healthz(State(context): State<Arc<Context>>) -> (StatusCode, String) {
    match context.raft.view(Consistency::Local).await {
        Ok(view) => match view.leader {
            Some(leader) => (StatusCode::OK, format!("ok: member {leader} leads\n")),
            None => (
                StatusCode::SERVICE_UNAVAILABLE,
                "no metadata server leads\n".into(),
            ),
        },
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
    }
}
