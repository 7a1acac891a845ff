//! TokenReview: whose token it is. Asked by a service in its own name, so that nobody may be impersonated with it.

use http::{Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{Body, State, failure, json_answer, lock};

/// Where reviews are asked for.
pub(super) const PATH: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// A token that the double knows.
pub(super) struct Vouched {
    pub(super) token: String,
    pub(super) audience: String,
    pub(super) user: String,
}

/// Answers as an API server does: a token that it does not know, or that is for another audience, is not authenticated.
pub(super) async fn serve(state: &State, request: Request<Incoming>) -> Response<Body> {
    let wanted = format!("Bearer {}", lock(&state.token));
    let headers = request.headers();
    let own = headers.get(header::AUTHORIZATION).is_some_and(|value| value.as_bytes() == wanted.as_bytes());
    let impersonates = headers.keys().any(|name| name.as_str().starts_with("impersonate"));
    if !own || impersonates {
        lock(&state.violations).push(format!("a TokenReview with own credential {own}, impersonating {impersonates}"));
        return failure(StatusCode::UNAUTHORIZED, "Unauthorized");
    }
    let Ok(body) = request.into_body().collect().await else { return failure(StatusCode::BAD_REQUEST, "no body") };
    let review: Value = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
    let spec = &review["spec"];
    let audiences: Vec<&str> = spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let vouched = lock(&state.vouched);
    let found =
        vouched.iter().find(|one| spec["token"] == one.token.as_str() && audiences.contains(&one.audience.as_str()));
    let status = match found {
        Some(Vouched { audience, user, .. }) => {
            json!({ "authenticated": true, "user": { "username": user, "groups": [] }, "audiences": [audience] })
        }
        None => json!({ "error": "token audiences are invalid, or the token is" }),
    };
    let answer =
        json!({ "kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "spec": spec, "status": status });
    json_answer(StatusCode::CREATED, &answer)
}
