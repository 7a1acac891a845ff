//! What a proxy shows to clients without a certificate: the login and the sign-up of `tsh`, the page on which an invited user sets a password, and what
//! is revoked.
//! Pages are rendered here (`pages`), from templates that escape every value, and shown under the proxy's own names only.

mod account_pages;
mod invite;
mod jwks;
mod launch_pages;
mod login_pages;
mod logout_pages;
mod pages;
mod remembered;
mod revocations;
mod session_pages;
mod texts;
mod visit;

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Extension, Router,
    extract::DefaultBodyLimit,
    http::StatusCode,
    middleware,
    response::Response,
    routing::{get, post},
};
use remoteler_core::{ApiError, ApiErrorKind, AuthApi, LoginRequest, wire};

pub use self::pages::WebNames;
use self::{pages::message, texts::ENGLISH};
use crate::http::{Input, json};

/// Gives the auth service's handle for a client without a certificate at this address.
pub type ApiForAddress = Arc<dyn Fn(SocketAddr) -> Arc<dyn AuthApi> + Send + Sync>;

/// Where a request comes from. The listener puts it into each request's extensions; without it nothing is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteAddr(pub SocketAddr);

/// Largest body of a form or login.
const MAX_BODY: usize = 64 * 1024;

/// The proxy's web API and pages. Pages are shown under `names` only.
pub fn web_router(api: ApiForAddress, names: WebNames) -> Router {
    Router::new()
        .route(wire::WEB_PING, get(ping))
        .route(wire::WEB_LOGIN, post(login))
        .merge(invite::calls())
        .route(wire::WEB_REVOCATION_LIST, get(revocations::show).layer(Extension(revocations::Fetched::default())))
        .route(pages::STYLE_PATH, get(pages::style))
        .route(pages::ICON_PATH, get(pages::icon))
        .route(pages::SCRIPT_PATH, get(pages::script))
        .route(pages::SUBMIT_PATH, get(pages::submit))
        .route(wire::WEB_JWKS, get(jwks::show).layer(Extension(jwks::Fetched::default())))
        .merge(login_pages::calls())
        .merge(shown().layer(middleware::from_fn_with_state(Arc::clone(&api), pages::guard)).layer(Extension(names)))
        .fallback(async || message(StatusCode::NOT_FOUND, ENGLISH.not_found_title, ENGLISH.not_found_text))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(api)
}

/// The pages.
fn shown() -> Router<ApiForAddress> {
    Router::new()
        .route(wire::WEB_INVITE, get(invite::show).post(invite::accept))
        .merge(login_pages::router())
        .merge(account_pages::router())
        .merge(session_pages::router())
        .merge(launch_pages::router())
        .layer(middleware::from_fn(launch_pages::lead_back))
}

/// The X.509 revocation lists and nothing else, for a listener without TLS: they are signed, and who reads them by a URL in a certificate often
/// speaks no TLS (RFC 5280 section 8). OpenSSH's lists are not signed and stay behind TLS.
pub fn crl_router(api: ApiForAddress) -> Router {
    let shown = get(revocations::show_signed).layer(Extension(revocations::Fetched::default()));
    Router::new().route(wire::WEB_REVOCATION_LIST, shown).layer(DefaultBodyLimit::max(MAX_BODY)).with_state(api)
}

type State = axum::extract::State<ApiForAddress>;

/// That the auth service is away, in words for who stands outside: where it is and how it failed is not theirs to know.
fn from_outside(cause: ApiError) -> ApiError {
    if cause.kind != ApiErrorKind::Unavailable {
        return cause;
    }
    tracing::debug!(%cause, "the auth service did not answer for a client of the web API");
    let message =
        "the cluster's auth service does not answer now; who is logged in can go on, log in again in a minute";
    ApiError::new(cause.kind, message)
}

async fn ping(axum::extract::State(api): State, Extension(RemoteAddr(addr)): Extension<RemoteAddr>) -> Response {
    json(api(addr).ping().await.map_err(from_outside))
}

async fn login(
    axum::extract::State(api): State,
    Extension(RemoteAddr(addr)): Extension<RemoteAddr>,
    Input(request): Input<LoginRequest>,
) -> Response {
    // What the client says of its address is replaced by what the listener saw.
    let request = LoginRequest { client_addr: Some(addr.to_string()), ..request };
    json(api(addr).login(request).await.map_err(from_outside))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stands_outside_is_not_told_where_the_auth_service_is() {
        let away = ApiError::new(ApiErrorKind::Unavailable, "10.0.0.7:3025 cannot be reached: Connection refused");
        let said = from_outside(away);
        assert_eq!(said.kind, ApiErrorKind::Unavailable);
        assert!(said.message.contains("auth service does not answer") && !said.message.contains("10.0.0.7"), "{said}");
        let wrong = ApiError::new(ApiErrorKind::Unauthenticated, "wrong user or password");
        assert_eq!(from_outside(wrong.clone()), wrong);
    }

    #[tokio::test]
    async fn neither_a_page_nor_a_list_tells_who_stands_outside() {
        let away = || ApiError::new(ApiErrorKind::Unavailable, "10.0.0.7:3025 cannot be reached: Connection refused");
        for answer in [invite::failed(&away()), jwks::failed(away()), revocations::failed(away())] {
            assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
            let text = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
            let text = String::from_utf8(text.to_vec()).unwrap();
            assert!(text.contains("auth service does not answer") && !text.contains("10.0.0.7"), "{text}");
        }
    }
}
