//! Events and checkpoints to an HTTP server: one POST for a batch, over TLS with this machine's root certificates. Owns the connection and its
//! deadlines. Follows no redirect: the token is for the server that was named.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Uri, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use remoteler_auth::{ShippedEvent, Shipper};
use remoteler_core::Secret;
use remoteler_tunnel::BoxedStream;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use super::lines;

/// How long one request may take, its connection included.
const WITHIN: Duration = Duration::from_secs(30);
/// Longest token, in octets.
const MAX_TOKEN: u64 = 16 * 1024;

/// A place where things are posted to.
pub(super) struct Poster {
    uri: Uri,
    host: String,
    port: u16,
    tls: Option<Arc<ClientConfig>>,
    token_file: Option<PathBuf>,
}

impl Poster {
    /// The server of `url`, which is shown the token in the file, read anew each time.
    pub(super) fn new(url: &str, token_file: Option<PathBuf>) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("{url} is no URL"))?;
        let secure = uri.scheme_str() == Some("https");
        let host = uri.host().with_context(|| format!("{url} has no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let tls = secure.then(client_config).transpose()?;
        Ok(Self { uri, host, port, tls, token_file })
    }

    /// Posts `body`; an answer other than 2xx is an error.
    pub(super) async fn post(&self, content_type: &'static str, body: Vec<u8>) -> Result<(), String> {
        let host = &self.host;
        match timeout(WITHIN, self.exchange(content_type, body.into())).await {
            Ok(outcome) => outcome.map_err(|cause| format!("{host} does not take it: {cause:#}")),
            Err(_) => Err(format!("{host} did not answer within {} s", WITHIN.as_secs())),
        }
    }

    async fn exchange(&self, content_type: &'static str, body: Bytes) -> anyhow::Result<()> {
        let authority = self.uri.authority().map(ToString::to_string).unwrap_or_default();
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::post(path)
            .header(header::HOST, authority)
            .header(header::USER_AGENT, concat!("remoteler/", env!("CARGO_PKG_VERSION")))
            .header(header::CONTENT_TYPE, content_type);
        if let Some(token) = self.token().await? {
            let mut value = header::HeaderValue::from_str(&format!("Bearer {}", token.reveal()))
                .ok()
                .context("the token has characters that no header may have")?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        let request = request.body(Full::new(body))?;
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await.context("it cannot be reached")?;
        tcp.set_nodelay(true)?;
        let stream: BoxedStream = match &self.tls {
            Some(config) => {
                let name = ServerName::try_from(self.host.clone()).context("it has no name for TLS")?;
                Box::new(TlsConnector::from(config.clone()).connect(name, tcp).await.context("no TLS session")?)
            }
            None => Box::new(tcp),
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let answer = async {
            let answer = sender.send_request(request).await;
            drop(sender);
            answer
        };
        let (answer, ended) = tokio::join!(answer, connection);
        let status = answer.map_err(|cause| ended.err().unwrap_or(cause))?.status();
        anyhow::ensure!(status.is_success(), "it answers {status}");
        Ok(())
    }

    async fn token(&self) -> anyhow::Result<Option<Secret>> {
        let Some(path) = self.token_file.clone() else { return Ok(None) };
        let shown = path.display().to_string();
        let read = tokio::task::spawn_blocking(move || {
            let mut text = String::new();
            std::io::Read::read_to_string(&mut std::io::Read::take(std::fs::File::open(path)?, MAX_TOKEN), &mut text)?;
            Ok::<_, std::io::Error>(Secret::new(text.trim()))
        });
        Ok(Some(read.await?.with_context(|| format!("{shown} cannot be read"))?))
    }
}

fn client_config() -> anyhow::Result<Arc<ClientConfig>> {
    let loaded = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _unusable) = roots.add_parsable_certificates(loaded.certs);
    anyhow::ensure!(
        added > 0,
        "this machine has no root certificates; install them, or name a file of them in SSL_CERT_FILE"
    );
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Posts batches as lines of JSON.
pub(super) struct HttpShipper(pub(super) Poster);

#[async_trait]
impl Shipper for HttpShipper {
    async fn ship(&mut self, batch: &[ShippedEvent]) -> Result<(), String> {
        self.0.post("application/x-ndjson", lines(batch)).await
    }
}

#[cfg(test)]
pub(super) mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::{super::events, *};

    /// Answers one request with `status`; gives what it was sent.
    pub(in super::super) async fn answer(listener: &TcpListener, status: &str, until: &str) -> String {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).ends_with(until) {
            let mut octets = [0; 1024];
            let length = stream.read(&mut octets).await.unwrap();
            assert!(length > 0, "{}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&octets[..length]);
        }
        stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes()).await.unwrap();
        String::from_utf8(seen).unwrap()
    }

    #[tokio::test]
    async fn a_batch_is_one_request_with_the_token_of_the_file_and_counts_when_it_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let token = dir.path().join("token");
        std::fs::write(&token, "s3cret\n").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/in?x=1", listener.local_addr().unwrap());
        let mut shipper = HttpShipper(Poster::new(&url, Some(token)).unwrap());
        let batch = events(1..=2);
        for (status, taken) in [("503 Service Unavailable", false), ("302 Found", false), ("200 OK", true)] {
            let (outcome, seen) = tokio::join!(shipper.ship(&batch), answer(&listener, status, "\"uid\":2}\n"));
            assert_eq!(outcome.is_ok(), taken, "{status}: {outcome:?}");
            assert!(!format!("{outcome:?}").contains("s3cret")); // I76
            assert!(seen.starts_with("POST /in?x=1 HTTP/1.1\r\n"), "{seen}");
            assert!(seen.contains("authorization: Bearer s3cret\r\n"), "{seen}");
            assert!(
                seen.ends_with("\r\n\r\n{\"event\":\"user.login\",\"uid\":1}\n{\"event\":\"user.login\",\"uid\":2}\n")
            );
        }
    }

    #[tokio::test]
    async fn nobody_who_answers_is_an_error_of_one_line() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        drop(listener);
        let said = Poster::new(&url, None).unwrap().post("text/plain", Vec::new()).await.unwrap_err();
        assert!(said.starts_with("127.0.0.1 does not take it: it cannot be reached") && !said.contains('\n'), "{said}");
    }
}
