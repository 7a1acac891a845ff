//! The route of second factors for single sessions.

use axum::routing::post;
use http::Method;
use remoteler_core::{SessionProofRequest, wire};

use super::{Route, Shape};
use crate::http::body::{Api, Input, json};

pub(super) fn routes() -> Vec<Route> {
    let prove =
        post(async |Api(api): Api, Input(request): Input<SessionProofRequest>| json(api.prove_session(request).await));
    let summary = "Takes a user's second factor for one session";
    vec![
        Route::new(summary, wire::SESSION_PROOFS, Method::POST, Shape::One("SessionProven"), prove)
            .takes("SessionProofRequest"),
    ]
}
