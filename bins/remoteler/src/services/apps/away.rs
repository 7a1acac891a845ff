//! Under the name of an app that is away: that it is, whatever is asked, and nothing of the proxy's own pages or API.

use std::{convert::Infallible, net::SocketAddr};

use hyper::{Request, Response, StatusCode, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use remoteler_core::AppAddress;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    AppDoor, LAST_REQUEST,
    answer::{Body, ignore, say},
    http_server,
    request::is_addressed_to,
};

impl AppDoor {
    /// Serves one connection, after its TLS handshake, in which the browser asked for an app that is away.
    pub(crate) async fn say_away<S>(&self, stream: S, address: AppAddress, source: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let service = service_fn(move |request: Request<Incoming>| {
            let said = answer(&request, &address);
            ignore(request.into_body());
            std::future::ready(Ok::<_, Infallible>(said))
        });
        let server = http_server();
        let connection = server.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = self.stop.cancelled() => None,
            () = tokio::time::sleep(LAST_REQUEST) => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(cause) = ended {
            tracing::debug!(%source, %cause, "a browser's connection to an app that is away ended");
        }
    }
}

fn answer<B>(request: &Request<B>, address: &AppAddress) -> Response<Body> {
    if !is_addressed_to(request, address) {
        return say(StatusCode::MISDIRECTED_REQUEST, "this connection is for another host");
    }
    say(StatusCode::SERVICE_UNAVAILABLE, "the app is away; try again in a minute")
}

#[cfg(test)]
mod tests {
    use super::*;

    // I13
    #[test]
    fn whatever_is_asked_of_an_app_that_is_away_is_not_there_now() {
        let address = AppAddress::parse("wiki.proxy.example.com:3080").unwrap();
        let asked = |host: &str, path: &str| {
            let request = Request::get(path).header("host", host).body(()).unwrap();
            answer(&request, &address).status()
        };
        for path in ["/", "/web/login", "/v1/ping", "/.remoteler/session?code=1"] {
            assert_eq!(asked("Wiki.proxy.example.com:3080", path), StatusCode::SERVICE_UNAVAILABLE, "{path}");
        }
        assert_eq!(asked("proxy.example.com:3080", "/"), StatusCode::MISDIRECTED_REQUEST);
    }
}
