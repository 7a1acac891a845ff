//! The proxy's web API and pages: HTTP for people who have no certificate yet.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    extract::Request,
    http::{StatusCode, header::HOST},
    middleware::{self, Next},
    response::IntoResponse,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use remoteler_auth::{ApiForAddress, RemoteAddr, WebNames, crl_router, web_router};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::carrier::Carrier;

/// After so long a connection takes no more requests. The listener cuts it 10 s after it was accepted, whatever goes on there (I30); a browser whose
/// connection is cut in the middle of a request sends that again, and what is taken once, such as a state or a key's answer, is refused then.
const LAST_REQUEST: Duration = Duration::from_secs(6);

/// Serves the web API.
#[derive(Clone)]
pub(crate) struct WebApi {
    router: Router,
    stop: CancellationToken,
}

impl WebApi {
    /// `api` gives a handle on the auth service for a client without a certificate. After `stop` the requests under way are answered and
    /// no more are taken. Pages are shown under `names` only.
    pub(crate) fn new(api: ApiForAddress, names: WebNames, stop: CancellationToken) -> Self {
        Self { router: web_router(api, names), stop }
    }

    /// Also takes connections to the one port inside of WebSockets.
    pub(crate) fn carrying(self, carrier: &Arc<Carrier>) -> Self {
        Self { router: self.router.merge(carrier.route()), ..self }
    }

    /// Answers no request for a host that is an app's: a browser takes one connection for several names if one certificate covers them, and makes another when
    /// it is told to (RFC 9110 section 15.5.20).
    pub(crate) fn sparing(self, is_app: impl Fn(&str) -> bool + Clone + Send + Sync + 'static) -> Self {
        let spare = middleware::from_fn(move |request: Request, next: Next| {
            let is_app = is_app.clone();
            async move {
                let of_app = named_hosts(&request).any(&is_app);
                if of_app { StatusCode::MISDIRECTED_REQUEST.into_response() } else { next.run(request).await }
            }
        });
        Self { router: self.router.layer(spare), ..self }
    }

    /// Serves the X.509 revocation lists and nothing else.
    pub(crate) fn crls(api: ApiForAddress, stop: CancellationToken) -> Self {
        Self { router: crl_router(api), stop }
    }

    /// Serves one connection, after its TLS handshake if it has one.
    pub(crate) async fn serve<S>(&self, stream: S, source: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let router = self.router.clone().layer(Extension(RemoteAddr(source)));
        let mut server = auto::Builder::new(TokioExecutor::new());
        server.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(10)).max_buf_size(64 * 1024);
        server.http2().max_concurrent_streams(8).max_header_list_size(64 * 1024);
        let connection = server.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(router));
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            () = tokio::time::sleep(LAST_REQUEST) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(cause) = ended {
            tracing::debug!(%source, %cause, "a web connection ended");
        }
    }
}

/// The hosts that a request is addressed to, without their ports.
fn named_hosts(request: &Request) -> impl Iterator<Item = &str> {
    let in_headers = request.headers().get_all(HOST).iter().filter_map(|host| host.to_str().ok());
    let named = request.uri().authority().map(|authority| authority.as_str()).into_iter().chain(in_headers);
    named.map(|host| host.rsplit_once(':').map_or(host, |(host, _)| host))
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use remoteler_core::AuthApi;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn an_idle_connection_ends_when_the_proxy_stops() {
        let nobody: ApiForAddress =
            Arc::new(|_| -> Arc<dyn AuthApi> { unreachable!("no request is for the auth service") });
        let stop = CancellationToken::new();
        let web = WebApi::new(nobody, WebNames::new(None, []), stop.clone());
        let (mut client, server) = duplex(64 * 1024);
        let serving = tokio::spawn(async move { web.serve(server, "192.0.2.1:1".parse().unwrap()).await });
        client.write_all(b"GET /nothing HTTP/1.1\r\nHost: p\r\n\r\n").await.unwrap();
        let mut answer = [0; 12];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 404");
        stop.cancel();
        tokio::time::timeout(Duration::from_secs(5), serving).await.expect("it ends at once").unwrap();
    }

    // I51
    #[tokio::test]
    async fn under_the_name_of_an_app_the_proxys_own_api_and_pages_are_not_there() {
        let router = Router::new().route("/", get(async || "pages"));
        let web = WebApi { router, stop: CancellationToken::new() }.sparing(|host| host.eq_ignore_ascii_case("app.p"));
        for (host, status) in [("p:1", "200"), ("app.p:1", "421"), ("APP.p", "421"), ("x.app.p", "200")] {
            let (mut client, server) = duplex(64 * 1024);
            let web = web.clone();
            let serving = tokio::spawn(async move { web.serve(server, "192.0.2.1:1".parse().unwrap()).await });
            client
                .write_all(format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes())
                .await
                .unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{host}: {answer}");
            serving.await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_under_way_when_a_connection_gets_old_is_answered_and_the_next_one_takes_another() {
        let slow = async || {
            tokio::time::sleep(LAST_REQUEST / 2).await;
            "done"
        };
        let web = WebApi { router: Router::new().route("/slow", get(slow)), stop: CancellationToken::new() };
        let (mut client, server) = duplex(64 * 1024);
        let serving = tokio::spawn(async move { web.serve(server, "192.0.2.1:1".parse().unwrap()).await });
        tokio::time::sleep(LAST_REQUEST * 3 / 4).await;
        client.write_all(b"GET /slow HTTP/1.1\r\nHost: p\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("done"), "{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
        serving.await.unwrap();
    }
}
