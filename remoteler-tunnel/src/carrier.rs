//! A byte stream inside a WebSocket (RFC 6455), for networks that let only HTTP pass and balancers that end TLS. Owns the request, its
//! answer, and the translation of messages into octets. What is carried is a connection to the one port, from its ClientHello on: nothing
//! here is believed or kept secret.

mod octets;

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response};
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::server::create_response;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::connect::{ConnectError, tls_over};
use crate::stream::BoxedStream;
use crate::tls::{FirstContact, TlsConfigError};

pub use octets::WebSocketOctets;

/// Path of the request.
pub const CARRIER_PATH: &str = "/v1/connect";

/// Asks whoever speaks HTTP behind `stream` for a connection to the proxy. TLS to that one is made first, and believes anybody: it only
/// looks like a browser's. The proxy proves itself inside.
pub(crate) async fn carry(stream: BoxedStream, address: &str) -> Result<BoxedStream, ConnectError> {
    let failed = |reason: String| ConnectError::WebSocket { address: address.to_owned(), reason };
    let tls = outer_tls().map_err(|cause| failed(cause.to_string()))?;
    let outer = tls_over(stream, address, tls).await?;
    carry_over(Box::new(outer), "wss", address).await
}

async fn carry_over(stream: BoxedStream, scheme: &str, address: &str) -> Result<BoxedStream, ConnectError> {
    let failed = |reason: String| ConnectError::WebSocket { address: address.to_owned(), reason };
    let request = format!("{scheme}://{address}{CARRIER_PATH}");
    match timeout(DEADLINE, client_async_with_config(request, stream, Some(config()))).await {
        Ok(Ok((socket, _))) => Ok(Box::new(WebSocketOctets::new(socket))),
        Ok(Err(cause)) => Err(failed(cause.to_string())),
        Err(_) => Err(failed(format!("no answer within {} s", DEADLINE.as_secs()))),
    }
}

/// The proxy's part: the answer to a request for [`CARRIER_PATH`]; `None` when it asks for no WebSocket.
#[must_use]
pub fn accept_carrier<B>(request: &Request<B>) -> Option<Response<()>> {
    let mut bare = Request::new(());
    *bare.method_mut() = Method::GET;
    *bare.version_mut() = http::Version::HTTP_11;
    *bare.headers_mut() = request.headers().clone();
    (request.method() == Method::GET).then(|| create_response(&bare).ok()).flatten()
}

/// The octets that come after that answer was sent.
pub async fn carried<S: AsyncRead + AsyncWrite + Unpin>(upgraded: S) -> WebSocketOctets<S> {
    WebSocketOctets::new(WebSocketStream::from_raw_socket(upgraded, Role::Server, Some(config())).await)
}

fn config() -> WebSocketConfig {
    // A message is a piece of a stream: what is longer than a few TLS records was not made by us.
    WebSocketConfig::default()
        .read_buffer_size(4096)
        .write_buffer_size(0)
        .max_write_buffer_size(256 * 1024)
        .max_message_size(Some(128 * 1024))
        .max_frame_size(Some(128 * 1024))
}

fn outer_tls() -> Result<Arc<ClientConfig>, TlsConfigError> {
    FirstContact::outer_config("http/1.1")
}

const DEADLINE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn octets_arrive_in_order_in_both_directions_and_an_end_is_an_end() {
        let (client, server) = duplex(10_000);
        let serving = tokio::spawn(async move {
            let mut server = server;
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(server.read_u8().await.unwrap());
            }
            let text = String::from_utf8(request).unwrap();
            let mut asked = Request::builder().method("GET").uri(CARRIER_PATH);
            for line in text.lines().skip(1).filter(|line| !line.is_empty()) {
                let (name, value) = line.split_once(": ").unwrap();
                asked = asked.header(name, value);
            }
            let answer = accept_carrier(&asked.body(()).unwrap()).unwrap();
            let mut head = String::from("HTTP/1.1 101 Switching Protocols\r\n");
            for (name, value) in answer.headers() {
                head.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
            }
            head.push_str("\r\n");
            server.write_all(head.as_bytes()).await.unwrap();
            let mut octets = carried(server).await;
            let mut all = Vec::new();
            octets.read_to_end(&mut all).await.unwrap();
            octets.write_all(&all).await.unwrap();
            octets.shutdown().await.unwrap();
            all.len()
        });
        let mut carried = carry_over(Box::new(client), "ws", "p.example.com:80").await.unwrap();
        let sent: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();

        carried.write_all(&sent).await.unwrap();
        carried.shutdown().await.unwrap();
        let mut back = Vec::new();
        carried.read_to_end(&mut back).await.unwrap();

        assert_eq!(serving.await.unwrap(), sent.len());
        assert!(back == sent, "{} octets came back", back.len());
    }

    #[test]
    fn what_is_no_websocket_is_not_accepted() {
        let plain = Request::builder().uri(CARRIER_PATH).body(()).unwrap();
        assert!(accept_carrier(&plain).is_none());
        let post = Request::builder()
            .method("POST")
            .uri(CARRIER_PATH)
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .body(())
            .unwrap();
        assert!(accept_carrier(&post).is_none());
    }
}
