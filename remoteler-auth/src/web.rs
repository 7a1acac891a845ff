//! What a proxy shows to clients without a certificate: the login of `tsh`, the page on which an invited user sets a password, and what is
//! revoked.
//! Pages are rendered here, without script; every value in them is escaped.

mod invite;
mod jwks;
mod page;
mod remembered;
mod revocations;

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Extension, Router,
    extract::DefaultBodyLimit,
    http::StatusCode,
    response::Response,
    routing::{get, post},
};
use remoteler_core::{AuthApi, LoginRequest, wire};

use crate::http::{Input, json};

/// Gives the auth service's handle for a client without a certificate at this address.
pub type ApiForAddress = Arc<dyn Fn(SocketAddr) -> Arc<dyn AuthApi> + Send + Sync>;

/// Where a request comes from. The listener puts it into each request's extensions; without it nothing is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteAddr(pub SocketAddr);

/// Largest body of a form or login.
const MAX_BODY: usize = 64 * 1024;

/// The proxy's web API and pages.
pub fn web_router(api: ApiForAddress) -> Router {
    Router::new()
        .route(wire::WEB_PING, get(ping))
        .route(wire::WEB_LOGIN, post(login))
        .route(wire::WEB_INVITE, get(invite::show).post(invite::accept))
        .route(wire::WEB_REVOCATION_LIST, get(revocations::show).layer(Extension(revocations::Fetched::default())))
        .route(page::STYLE_PATH, get(page::style))
        .route(wire::WEB_JWKS, get(jwks::show).layer(Extension(jwks::Fetched::default())))
        .fallback(async || {
            page::message(
                StatusCode::NOT_FOUND,
                "Nothing here",
                "This is a proxy of a Remoteler cluster. Use tsh login to log in.",
            )
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(api)
}

/// The X.509 revocation lists and nothing else, for a listener without TLS: they are signed, and who reads them by a URL in a certificate often
/// speaks no TLS (RFC 5280 section 8). OpenSSH's lists are not signed and stay behind TLS.
pub fn crl_router(api: ApiForAddress) -> Router {
    let shown = get(revocations::show_signed).layer(Extension(revocations::Fetched::default()));
    Router::new().route(wire::WEB_REVOCATION_LIST, shown).layer(DefaultBodyLimit::max(MAX_BODY)).with_state(api)
}

type State = axum::extract::State<ApiForAddress>;

async fn ping(axum::extract::State(api): State, Extension(RemoteAddr(addr)): Extension<RemoteAddr>) -> Response {
    json(api(addr).ping().await)
}

async fn login(
    axum::extract::State(api): State,
    Extension(RemoteAddr(addr)): Extension<RemoteAddr>,
    Input(request): Input<LoginRequest>,
) -> Response {
    // What the client says of its address is replaced by what the listener saw.
    let request = LoginRequest { client_addr: Some(addr.to_string()), ..request };
    json(api(addr).login(request).await)
}
