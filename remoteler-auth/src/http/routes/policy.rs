//! The calls by which services follow the rules, and proxies the inventory. Owns that they are answered when the service ends, not at the end of their wait.

use std::time::Duration;

use axum::{
    extract::FromRequestParts,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{Method, StatusCode, request::Parts};
use remoteler_core::{
    ApiError, ApiErrorKind,
    wire::{self, InventoryQuery, PolicyQuery},
};
use tokio_util::sync::CancellationToken;

use super::{Route, Shape};
use crate::http::body::{Api, Failure, Query, json};

/// That the connection is to end: who waits is answered now.
#[derive(Clone, Debug)]
pub(in crate::http) struct Closing(pub(in crate::http) CancellationToken);

impl<S: Sync> FromRequestParts<S> for Closing {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Failure> {
        let found = parts.extensions.get::<Self>().cloned();
        found.ok_or_else(|| Failure(ApiError::new(ApiErrorKind::Internal, "the connection does not say when it ends")))
    }
}

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::new(
            "What of the rules the calling host does not have; waits for a change, and answers 204 when there is none",
            wire::POLICY,
            Method::GET,
            Shape::One("PolicyUpdate"),
            get(follow),
        )
        .query("PolicyQuery"),
        Route::new(
            "What of the inventory the calling proxy does not have; waits for a change, and answers that there was none",
            wire::INVENTORY,
            Method::GET,
            Shape::One("InventoryUpdate"),
            get(follow_inventory),
        )
        .query("InventoryQuery"),
    ]
}

async fn follow_inventory(Api(api): Api, Closing(closing): Closing, Query(query): Query<InventoryQuery>) -> Response {
    let wait = Duration::from_secs(query.wait_seconds);
    match closing.run_until_cancelled(api.inventory(query.after, wait)).await {
        Some(answer) => json(answer),
        None => {
            Failure(ApiError::new(ApiErrorKind::Unavailable, "the auth service is ending; ask again")).into_response()
        }
    }
}

async fn follow(Api(api): Api, Closing(closing): Closing, Query(query): Query<PolicyQuery>) -> Response {
    let wait = Duration::from_secs(query.wait_seconds);
    let answer = closing.run_until_cancelled(api.policy(query.known, wait)).await;
    match answer {
        Some(Ok(Some(update))) => json(Ok(update)),
        Some(Err(cause)) => Failure(cause).into_response(),
        Some(Ok(None)) | None => StatusCode::NO_CONTENT.into_response(),
    }
}
