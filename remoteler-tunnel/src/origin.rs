//! The origin header: what a proxy tells the auth service of a client whose bytes it passes on undecrypted. Owns its wire form: two octets
//! of length, then JSON. Never decides who is believed: that takes a verified proxy at the other end.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::dial::{DIAL_VERSION, DialHeaderError, decode, read_message, write_message};

/// Most octets of an origin header.
pub const MAX_ORIGIN_LEN: usize = 256;

#[derive(Serialize, Deserialize)]
struct Origin {
    v: u32,
    client_addr: SocketAddr,
}

/// Says where the client is whose bytes follow.
///
/// # Errors
/// [`DialHeaderError`] when the stream breaks.
pub async fn write_origin<S: AsyncWrite + Unpin>(stream: &mut S, client: SocketAddr) -> Result<(), DialHeaderError> {
    let origin = Origin { v: DIAL_VERSION, client_addr: client };
    let octets = serde_json::to_vec(&origin).map_err(|cause| DialHeaderError::Malformed(cause.to_string()))?;
    write_message(stream, &octets, MAX_ORIGIN_LEN).await
}

/// Reads where the client is whose bytes follow, and not one octet more.
///
/// # Errors
/// [`DialHeaderError`] when the stream breaks or what it says is no origin header.
pub async fn read_origin<S: AsyncRead + Unpin>(stream: &mut S) -> Result<SocketAddr, DialHeaderError> {
    let origin: Origin = decode(&read_message(stream, MAX_ORIGIN_LEN).await?)?;
    Ok(origin.client_addr)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    async fn read(octets: &[u8]) -> Result<SocketAddr, DialHeaderError> {
        let (mut near, mut far) = duplex(1024);
        near.write_all(octets).await.unwrap();
        drop(near);
        read_origin(&mut far).await
    }

    #[tokio::test]
    async fn an_origin_is_read_as_the_protocol_document_shows_it_and_what_follows_is_left() {
        let (mut near, mut far) = duplex(1024);
        let client: SocketAddr = "[2001:db8::1]:5000".parse().unwrap();
        write_origin(&mut near, client).await.unwrap();
        near.write_all(b"next").await.unwrap();
        drop(near);
        let mut sent = Vec::new();
        far.read_to_end(&mut sent).await.unwrap();
        assert_eq!(sent, b"\x00\x2a{\"v\":1,\"client_addr\":\"[2001:db8::1]:5000\"}next");

        let mut rest = &sent[..];
        assert_eq!(read_origin(&mut rest).await.unwrap(), client);
        assert_eq!(rest, b"next");
    }

    #[tokio::test]
    async fn what_is_no_origin_is_refused_and_never_waited_for() {
        assert!(matches!(read(&[0xff, 0xff]).await, Err(DialHeaderError::Length { .. }))); // I25
        assert!(matches!(read(b"\0\x07{\"v\":2}").await, Err(DialHeaderError::Version { version: 2 })));
        assert!(matches!(
            read(b"\0\x23{\"v\":1,\"client_addr\":\"localhost:1\"}").await,
            Err(DialHeaderError::Malformed(_))
        ));
        assert!(matches!(read(b"\0\x20{").await, Err(DialHeaderError::Io(_))));
    }
}
