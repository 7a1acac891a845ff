//! The call by which services follow the rules. Owns that it is answered when the service ends, not at the end of its wait.

use std::time::Duration;

use axum::{
    extract::FromRequestParts,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{Method, StatusCode, request::Parts};
use remoteler_core::{
    ApiError, ApiErrorKind,
    wire::{self, PolicyQuery},
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
    ]
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
