//! The route of explanations.

use axum::routing::post;
use http::Method;
use remoteler_core::{ExplainRequest, wire};

use super::{Route, Shape};
use crate::http::body::{Api, Input, json};

pub(super) fn table() -> Vec<Route> {
    let ask = post(async |Api(api): Api, Input(request): Input<ExplainRequest>| json(api.explain(request).await));
    let summary = "Whether and why a user may do something";
    vec![Route::new(summary, wire::EXPLAIN, Method::POST, Shape::Many("Explanation"), ask).takes("ExplainRequest")]
}
