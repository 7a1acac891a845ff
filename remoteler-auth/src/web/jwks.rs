//! The public keys of identity tokens, for applications that are shown one (RFC 7517). Nothing secret: anybody may ask.

use axum::{
    Extension,
    http::{
        HeaderValue,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use remoteler_core::{ApiError, JwkSet};

use super::{RemoteAddr, State, from_outside, remembered::Remembered};
use crate::http::json;

/// The set that was fetched last.
pub(super) type Fetched = Remembered<(), JwkSet>;

/// `GET`: the set. It may be kept for a minute; a new key is published a phase of the rotation before it signs.
pub(super) async fn show(
    axum::extract::State(api): State,
    Extension(RemoteAddr(addr)): Extension<RemoteAddr>,
    Extension(fetched): Extension<Fetched>,
) -> Response {
    // The bundle holds everything that is revoked; it is not fetched for each who asks.
    let fetch = async { Ok(JwkSet { keys: api(addr).trust_bundle().await?.tokens }) };
    let keys = match fetched.get((), fetch).await {
        Ok(keys) => keys,
        Err(cause) => return failed(cause),
    };
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json")),
        (CACHE_CONTROL, HeaderValue::from_static("public, max-age=60")),
    ];
    (headers, serde_json::to_string(&*keys).unwrap_or_default()).into_response()
}

pub(super) fn failed(cause: ApiError) -> Response {
    json::<()>(Err(from_outside(cause)))
}
