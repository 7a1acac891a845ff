//! The proxy's web API and pages: HTTP for people who have no certificate yet.

use std::net::SocketAddr;

use axum::{Extension, Router};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use remoteler_auth::{ApiForAddress, RemoteAddr, web_router};
use tokio::io::{AsyncRead, AsyncWrite};

/// Serves the web API.
#[derive(Clone)]
pub(crate) struct WebApi {
    router: Router,
}

impl WebApi {
    /// `api` gives a handle on the auth service for a client without a certificate.
    pub(crate) fn new(api: ApiForAddress) -> Self {
        Self { router: web_router(api) }
    }

    /// Serves one connection after its TLS handshake.
    pub(crate) async fn serve<S>(&self, stream: S, source: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let router = self.router.clone().layer(Extension(RemoteAddr(source)));
        let mut server = auto::Builder::new(TokioExecutor::new());
        server
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(std::time::Duration::from_secs(10))
            .max_buf_size(64 * 1024);
        server.http2().max_concurrent_streams(8).max_header_list_size(64 * 1024);
        if let Err(cause) = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).await {
            tracing::debug!(%source, %cause, "a web connection ended");
        }
    }
}
