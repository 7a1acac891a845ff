//! What requests are read with and answers are made with: JSON in, JSON or octets out, every failure an [`ApiError`] with its status.

use std::sync::Arc;

use axum::{
    extract::{FromRequest, FromRequestParts, Request, rejection::BytesRejection},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header::CONTENT_TYPE, request::Parts};
use remoteler_core::{ApiError, ApiErrorKind, AuthApi, wire};
use serde::{Serialize, de::DeserializeOwned};

use crate::failure::bad_request;

/// A failed call as an answer.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) ApiError);

impl From<ApiError> for Failure {
    fn from(cause: ApiError) -> Self {
        Self(cause)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(wire::status(self.0.kind)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        with_json(status, &self.0)
    }
}

/// A call's outcome as an answer.
pub(crate) fn json<T: Serialize>(outcome: Result<T, ApiError>) -> Response {
    match outcome {
        Ok(value) => with_json(StatusCode::OK, &value),
        Err(cause) => Failure(cause).into_response(),
    }
}

/// The outcome of a call that answers nothing.
pub(super) fn done(outcome: Result<(), ApiError>) -> Response {
    match outcome {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(cause) => Failure(cause).into_response(),
    }
}

/// Part of a recording as an answer.
pub(super) fn octets(outcome: Result<Vec<u8>, ApiError>) -> Response {
    match outcome {
        Ok(octets) => ([(CONTENT_TYPE, HeaderValue::from_static(wire::OCTETS))], octets).into_response(),
        Err(cause) => Failure(cause).into_response(),
    }
}

fn with_json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => (status, [(CONTENT_TYPE, HeaderValue::from_static(wire::JSON))], body).into_response(),
        Err(cause) => {
            tracing::error!(error = &cause as &dyn std::error::Error, "an answer could not be written as JSON");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// The caller's handle, which the server shell put into the request.
#[derive(Clone)]
pub(super) struct Api(pub(super) Arc<dyn AuthApi>);

impl<S: Sync> FromRequestParts<S> for Api {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Failure> {
        // Fails closed: a request that came past the shell has no caller.
        let found = parts.extensions.get::<Self>().cloned();
        found.ok_or_else(|| Failure(ApiError::new(ApiErrorKind::Unauthenticated, "the connection has no caller")))
    }
}

/// A JSON body.
pub(crate) struct Input<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Input<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let essence = content_type.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case(wire::JSON) {
            // Also what keeps a page of another site from calling: browsers ask before they send this type.
            return Err(Failure(bad_request("the body must be of type application/json")));
        }
        let Octets(body) = Octets::from_request(request, state).await?;
        match serde_json::from_slice(&body) {
            Ok(value) => Ok(Self(value)),
            Err(cause) => Err(Failure(bad_request(format!("the body is refused: {}", without_values(&cause))))),
        }
    }
}

/// serde's messages quote values when a type is wrong; a value may be a secret (I76).
fn without_values(cause: &serde_json::Error) -> String {
    let text = cause.to_string();
    match text.split_once("invalid type: ") {
        Some((before, after)) => match after.rsplit_once(", expected ") {
            Some((_, expected)) => format!("{before}wrong type, expected {expected}"),
            None => format!("{before}wrong type"),
        },
        None => text,
    }
}

/// A body as it is.
pub(super) struct Octets(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for Octets {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        match Bytes::from_request(request, state).await {
            Ok(body) => Ok(Self(body)),
            Err(BytesRejection::FailedToBufferBody(cause)) => {
                let message = if cause.status() == StatusCode::PAYLOAD_TOO_LARGE {
                    "the body is larger than this call allows"
                } else {
                    "the body did not arrive whole"
                };
                Err(Failure(bad_request(message)))
            }
            Err(_) => Err(Failure(bad_request("the body cannot be read"))),
        }
    }
}

/// The query string.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match axum::extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(cause) => Err(Failure(bad_request(cause.body_text()))),
        }
    }
}

/// The parts in braces of the path.
pub(super) struct Path<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(cause) => Err(Failure(bad_request(cause.body_text()))),
        }
    }
}
