//! Reads a TLS ClientHello without answering it, and keeps its octets so that whoever serves the connection reads them
//! again. Owns at most one ClientHello for each connection. Never decrypts anything.

use std::io;

use bytes::BytesMut;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use crate::stream::Replayed;

/// Most octets read before a ClientHello must be complete. With post-quantum key shares they are 1.5 to 2 KiB, in two packets.
pub const MAX_CLIENT_HELLO: usize = 16 * 1024;

/// What a client says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// Protocols it offers; empty without the extension.
    pub alpn: Vec<Vec<u8>>,
    /// The server name it asks for.
    pub server_name: Option<String>,
}

/// Why there is no ClientHello.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HelloError {
    /// The connection broke or ended before.
    #[error("the connection ended before its ClientHello was complete")]
    Io(#[source] io::Error),
    /// Not TLS, or not well formed.
    #[error("the client does not speak TLS")]
    NotTls(#[source] rustls::Error),
    /// No end in sight.
    #[error("no ClientHello within {MAX_CLIENT_HELLO} octets")]
    TooLong,
}

/// Reads until the ClientHello is complete. The returned stream starts with it again.
///
/// # Errors
/// [`HelloError`]; the client was told by an alert if it speaks TLS.
pub async fn read_client_hello<S>(mut io: S) -> Result<(Greeting, Replayed<S>), HelloError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut octets = BytesMut::with_capacity(2048);
    let mut acceptor = Acceptor::default();
    loop {
        let before = octets.len();
        if before >= MAX_CLIENT_HELLO {
            return Err(HelloError::TooLong);
        }
        let count = (&mut io).take((MAX_CLIENT_HELLO - before) as u64).read_buf(&mut octets).await;
        if count.map_err(HelloError::Io)? == 0 {
            return Err(HelloError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        let mut fresh = octets.get(before..).unwrap_or_default();
        while !fresh.is_empty() {
            acceptor.read_tls(&mut fresh).map_err(HelloError::Io)?;
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                let alpn = hello.alpn().map(|names| names.map(<[u8]>::to_vec).collect()).unwrap_or_default();
                let server_name = hello.server_name().map(str::to_owned);
                return Ok((Greeting { alpn, server_name }, Replayed::new(octets.freeze(), io)));
            }
            Err((error, mut alert)) => {
                let mut octets = Vec::new();
                if alert.write_all(&mut octets).is_ok() {
                    use tokio::io::AsyncWriteExt;
                    let _ = io.write_all(&octets).await; // it may have left already
                }
                return Err(HelloError::NotTls(error));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::ClientConnection;
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    fn client_hello(alpn: &[&str], padding: usize) -> Vec<u8> {
        let config = rustls::ClientConfig::builder_with_provider(crate::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap();
        let mut config = config.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config.alpn_protocols.extend((0..padding).map(|index| format!("{index:0>200}").into_bytes()));
        let mut connection = ClientConnection::new(Arc::new(config), "a.example.com".try_into().unwrap()).unwrap();
        let mut octets = Vec::new();
        while connection.wants_write() {
            connection.write_tls(&mut octets).unwrap();
        }
        octets
    }

    #[tokio::test]
    async fn a_hello_in_many_pieces_is_understood_and_can_be_read_again() {
        let hello = client_hello(&["remoteler-ssh"], 10); // longer than one packet, as with post-quantum key shares
        assert!(hello.len() > 2000);
        let (mut client, server) = duplex(100_000);
        let sent = hello.clone();
        let sending = tokio::spawn(async move {
            for piece in sent.chunks(100) {
                client.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            client.write_all(b"more").await.unwrap();
        });

        let (greeting, mut stream) = read_client_hello(server).await.unwrap();

        assert_eq!(greeting.alpn[0], b"remoteler-ssh");
        assert_eq!(greeting.server_name.as_deref(), Some("a.example.com"));
        sending.await.unwrap();
        let mut again = Vec::new();
        stream.read_to_end(&mut again).await.unwrap();
        assert_eq!(again, [hello, b"more".to_vec()].concat());
    }

    // I25
    #[tokio::test]
    async fn what_is_not_tls_is_refused_at_once() {
        let (mut client, server) = duplex(1000);
        client.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await.unwrap();

        assert!(matches!(read_client_hello(server).await, Err(HelloError::NotTls(_))));
    }

    // I25
    #[tokio::test]
    async fn a_hello_without_end_is_cut_off() {
        let (mut client, server) = duplex(1 << 20);
        // Handshake records of a ClientHello that announces the most a handshake message may have.
        let mut octets = Vec::new();
        for record in 0..5 {
            octets.extend_from_slice(&[22, 3, 1, 0x3f, 0xff]);
            let mut body = vec![0u8; 0x3fff];
            if record == 0 {
                body[..4].copy_from_slice(&[1, 0, 0xff, 0x00]);
            }
            octets.extend_from_slice(&body);
        }
        client.write_all(&octets).await.unwrap();

        assert!(matches!(read_client_hello(server).await, Err(HelloError::TooLong)));
    }
}
