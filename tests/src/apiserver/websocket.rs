//! WebSocket frames, server side (RFC 6455): enough to carry exec channels and tunnelled SPDY. Owns the framing; knows nothing of what
//! the messages mean.

use std::io;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use tokio::io::{AsyncRead, AsyncReadExt};

/// What a peer may send at the most.
const MAX_FRAME: u64 = 16 * 1024 * 1024;

/// `Sec-WebSocket-Accept` for a key (section 4.2.2).
pub(super) fn accept_key(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

/// A message of the peer.
pub(super) enum Message {
    Binary(Bytes),
    Ping(Bytes),
    Close,
}

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Reads until a message is whole. Control frames between fragments are given at once, so a caller may see a ping inside a message.
pub(super) async fn read<R: AsyncRead + Unpin>(from: &mut R, partial: &mut Vec<u8>) -> io::Result<Message> {
    loop {
        let (first, second) = (from.read_u8().await?, from.read_u8().await?);
        let length = match second & 0x7f {
            126 => u64::from(from.read_u16().await?),
            127 => from.read_u64().await?,
            short => u64::from(short),
        };
        if length > MAX_FRAME || second & 0x80 == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "frame too long or not masked"));
        }
        let mut mask = [0; 4];
        from.read_exact(&mut mask).await?;
        let mut payload = vec![0; usize::try_from(length).unwrap_or(0)];
        from.read_exact(&mut payload).await?;
        for (octet, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
            *octet ^= mask;
        }
        match first & 0x0f {
            CONTINUATION | TEXT | BINARY => {
                partial.extend_from_slice(&payload);
                if first & 0x80 != 0 {
                    return Ok(Message::Binary(std::mem::take(partial).into()));
                }
            }
            PING => return Ok(Message::Ping(payload.into())),
            PONG => {}
            _ => return Ok(Message::Close),
        }
    }
}

/// A binary message in one frame.
pub(super) fn binary(payload: &[u8]) -> Vec<u8> {
    frame(BINARY, payload)
}

/// The answer to a ping.
pub(super) fn pong(payload: &[u8]) -> Vec<u8> {
    frame(PONG, payload)
}

/// A close frame with status 1000 (normal closure).
pub(super) fn close() -> Vec<u8> {
    frame(CLOSE, &1000_u16.to_be_bytes())
}

fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        short @ 0..=125 => frame.push(u8::try_from(short).unwrap_or(125)),
        long if long <= usize::from(u16::MAX) => {
            frame.push(126);
            frame.extend_from_slice(&u16::try_from(long).unwrap_or(u16::MAX).to_be_bytes());
        }
        longer => {
            frame.push(127);
            frame.extend_from_slice(&(longer as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_key_is_that_of_the_rfc() {
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[tokio::test]
    async fn a_message_in_two_masked_fragments_is_one_message() {
        // RFC 6455 section 5.7: "Hel" and "lo", here with a mask of zeros.
        let octets = [0x01, 0x83, 0, 0, 0, 0, b'H', b'e', b'l', 0x80, 0x82, 0, 0, 0, 0, b'l', b'o'];
        let Message::Binary(text) = read(&mut octets.as_slice(), &mut Vec::new()).await.unwrap() else { panic!() };
        assert_eq!(text, "Hello");
    }
}
