//! The origin header: what a proxy tells the auth service of a client whose bytes it passes on undecrypted. Owns its wire form: two octets
//! of length, then JSON. Never decides who is believed: that takes a verified proxy at the other end.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::dial::{DIAL_VERSION, DialHeaderError, decode, read_message, write_message};

/// Most octets of an origin header.
pub const MAX_ORIGIN_LEN: usize = 256;

/// Of a client whose bytes follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Where it is.
    pub client: SocketAddr,
    /// Whether its bytes come in a stream of an agent's link.
    pub in_link: bool,
}

#[derive(Serialize, Deserialize)]
struct Header {
    v: u32,
    client_addr: SocketAddr,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    in_link: bool,
}

/// Says of whom the bytes are that follow.
///
/// # Errors
/// [`DialHeaderError`] when the stream breaks.
pub async fn write_origin<S: AsyncWrite + Unpin>(stream: &mut S, origin: Origin) -> Result<(), DialHeaderError> {
    let header = Header { v: DIAL_VERSION, client_addr: origin.client, in_link: origin.in_link };
    let octets = serde_json::to_vec(&header).map_err(|cause| DialHeaderError::Malformed(cause.to_string()))?;
    write_message(stream, &octets, MAX_ORIGIN_LEN).await
}

/// Reads of whom the bytes are that follow, and not one octet more.
///
/// # Errors
/// [`DialHeaderError`] when the stream breaks or what it says is no origin header.
pub async fn read_origin<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Origin, DialHeaderError> {
    let header: Header = decode(&read_message(stream, MAX_ORIGIN_LEN).await?)?;
    Ok(Origin { client: header.client_addr, in_link: header.in_link })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    async fn read(octets: &[u8]) -> Result<Origin, DialHeaderError> {
        let (mut near, mut far) = duplex(1024);
        near.write_all(octets).await.unwrap();
        drop(near);
        read_origin(&mut far).await
    }

    #[tokio::test]
    async fn an_origin_is_read_as_the_protocol_document_shows_it_and_what_follows_is_left() {
        let client: SocketAddr = "[2001:db8::1]:5000".parse().unwrap();
        for (in_link, expected) in [
            (false, &b"\x00\x2a{\"v\":1,\"client_addr\":\"[2001:db8::1]:5000\"}next"[..]),
            (true, b"\x00\x39{\"v\":1,\"client_addr\":\"[2001:db8::1]:5000\",\"in_link\":true}next"),
        ] {
            let (mut near, mut far) = duplex(1024);
            write_origin(&mut near, Origin { client, in_link }).await.unwrap();
            near.write_all(b"next").await.unwrap();
            drop(near);
            let mut sent = Vec::new();
            far.read_to_end(&mut sent).await.unwrap();
            assert_eq!(sent, expected);

            let mut rest = &sent[..];
            assert_eq!(read_origin(&mut rest).await.unwrap(), Origin { client, in_link });
            assert_eq!(rest, b"next");
        }
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
