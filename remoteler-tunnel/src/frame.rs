//! Frames of the link: their layout, their types, and the one encoder and decoder of both. Owns the wire
//! format after the handshake. Keeps no state between frames and never allocates by what a length field says.
//!
//! Every frame opens with twelve octets, integers big-endian (`docs/protocol.md`, "Frames"):
//!
//! ```text
//! 0      1         2             4               8                12
//! | type | reserved| length: u16 | stream: u32   | sequence: u32  | payload …
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Octets before the payload of every frame.
pub const HEADER_LEN: usize = 12;

/// Most payload octets one DATA frame of ours carries: header and payload then fill one TLS record (RFC 8446
/// section 5.1: 2^14 octets), so a frame never waits for the second half of a record.
pub const DATA_LEN: usize = 16 * 1024 - HEADER_LEN;

/// Most payload octets that any frame may have, whatever the peers agreed on.
pub const MAX_PAYLOAD_LEN: usize = 32 * 1024;

/// Most octets of the explanation in a REJECT or GOAWAY frame. Longer ones are cut when sent.
pub const MAX_REASON_LEN: usize = 1024;

/// What a frame is, as its first octet says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameType {
    /// Opens a stream; the payload is its metadata.
    Open = 0x01,
    /// The stream was taken by somebody.
    Accept = 0x02,
    /// The stream was refused; ends it.
    Reject = 0x03,
    /// Bytes of a stream.
    Data = 0x04,
    /// More credit, for a stream or (stream 0) for the link.
    Window = 0x05,
    /// The sender of this frame writes no more to the stream.
    Fin = 0x06,
    /// The stream is over in both directions.
    Reset = 0x07,
    /// The sender takes no new streams.
    GoAway = 0x08,
    /// Sequenced octets received so far.
    Ack = 0x10,
    /// Asks for a PONG, and acknowledges.
    Ping = 0x11,
    /// Answers a PING, and acknowledges.
    Pong = 0x12,
}

impl FrameType {
    /// Every type, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::Open,
        Self::Accept,
        Self::Reject,
        Self::Data,
        Self::Window,
        Self::Fin,
        Self::Reset,
        Self::GoAway,
        Self::Ack,
        Self::Ping,
        Self::Pong,
    ];

    /// The name that the protocol document and messages use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "OPEN",
            Self::Accept => "ACCEPT",
            Self::Reject => "REJECT",
            Self::Data => "DATA",
            Self::Window => "WINDOW",
            Self::Fin => "FIN",
            Self::Reset => "RESET",
            Self::GoAway => "GOAWAY",
            Self::Ack => "ACK",
            Self::Ping => "PING",
            Self::Pong => "PONG",
        }
    }

    /// Whether the frame counts into the sequence, and would be sent again after a reconnect.
    pub fn is_sequenced(self) -> bool {
        !matches!(self, Self::Ack | Self::Ping | Self::Pong)
    }

    /// Fewest and most payload octets, and whether the frame belongs to a stream, to the link, or to either.
    pub fn shape(self) -> (usize, usize, Scope) {
        match self {
            Self::Open => (1, MAX_PAYLOAD_LEN, Scope::Stream),
            Self::Accept | Self::Fin => (0, 0, Scope::Stream),
            Self::Reject => (2, 2 + MAX_REASON_LEN, Scope::Stream),
            Self::Data => (1, MAX_PAYLOAD_LEN, Scope::Stream),
            Self::Window => (4, 4, Scope::Either),
            Self::Reset => (2, 2, Scope::Stream),
            Self::GoAway => (2, 2 + MAX_REASON_LEN, Scope::Link),
            Self::Ack => (4, 4, Scope::Link),
            Self::Ping | Self::Pong => (12, 12, Scope::Link),
        }
    }

    fn from_octet(octet: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == octet)
    }
}

/// What a frame's stream field may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A stream, so not 0.
    Stream,
    /// The link, so 0.
    Link,
    /// Both are good.
    Either,
}

/// The twelve octets before a payload, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame is.
    pub kind: FrameType,
    /// Payload octets that follow.
    pub length: usize,
    /// The stream, or 0 for the link.
    pub stream: u32,
    /// Low 32 bits of the number of sequenced octets (headers included) sent before this frame. 0 in frames
    /// that are not sequenced.
    pub sequence: u32,
    /// Whether a DATA frame wants to be acknowledged at once. Only for peers whose hello has [`PROMPT`](crate::PROMPT).
    pub prompt: bool,
}

impl Header {
    /// Reads a header off the front of `input`, which is left alone; `None` until twelve octets are there.
    ///
    /// # Errors
    /// The type is unknown, a reserved octet is set, or length or stream are not possible for the type: known
    /// from the header alone, so before the payload is waited for.
    pub fn peek(input: &[u8]) -> Result<Option<Self>, FrameError> {
        let Some(mut octets) = input.get(..HEADER_LEN) else { return Ok(None) };
        let octet = octets.get_u8();
        let reserved = octets.get_u8();
        let length = usize::from(octets.get_u16());
        let stream = octets.get_u32();
        let sequence = octets.get_u32();
        let Some(kind) = FrameType::from_octet(octet) else { return Err(FrameError::UnknownType { octet }) };
        let prompt = kind == FrameType::Data && reserved == 1;
        if reserved != 0 && !prompt {
            return Err(FrameError::Reserved { kind: kind.name(), octet: reserved });
        }
        let (least, most, scope) = kind.shape();
        if length < least || length > most {
            return Err(FrameError::Length { kind: kind.name(), length, least, most });
        }
        let fits = match scope {
            Scope::Stream => stream != 0,
            Scope::Link => stream == 0,
            Scope::Either => true,
        };
        if !fits {
            return Err(FrameError::Stream { kind: kind.name(), stream });
        }
        if !kind.is_sequenced() && sequence != 0 {
            return Err(FrameError::Sequenced { kind: kind.name() });
        }
        Ok(Some(Self { kind, length, stream, sequence, prompt }))
    }

    /// Writes the twelve octets.
    pub fn put(&self, out: &mut BytesMut) {
        out.put_u8(self.kind as u8);
        out.put_u8(u8::from(self.prompt));
        out.put_u16(
            u16::try_from(self.length).expect("payloads are bounded by MAX_PAYLOAD_LEN, which fits in 16 bits"),
        );
        out.put_u32(self.stream);
        out.put_u32(self.sequence);
    }
}

/// A frame without its stream and sequence, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Metadata of the new stream.
    Open(Bytes),
    /// Taken.
    Accept,
    /// Refused: code and explanation.
    Reject(u16, String),
    /// Bytes of the stream.
    Data(Bytes),
    /// More credit, in octets; at least 1.
    Window(u32),
    /// No more bytes from the sender.
    Fin,
    /// Over: code.
    Reset(u16),
    /// No new streams: code and explanation.
    GoAway(u16, String),
    /// Low 32 bits of the count of sequenced octets received.
    Ack(u32),
    /// Nonce and acknowledgement.
    Ping(u64, u32),
    /// Nonce of the ping and acknowledgement.
    Pong(u64, u32),
}

impl Payload {
    /// Decodes the payload of a frame whose header was checked. Never fails on text that is not UTF-8: what
    /// cannot be read is replaced, because explanations are for people.
    ///
    /// # Errors
    /// A WINDOW of 0 octets or of more than 2^31-1, or fewer octets than the header promised.
    pub fn decode(kind: FrameType, mut octets: Bytes) -> Result<Self, FrameError> {
        let (least, most, _) = kind.shape();
        if octets.len() < least || octets.len() > most {
            return Err(FrameError::Length { kind: kind.name(), length: octets.len(), least, most });
        }
        Ok(match kind {
            FrameType::Open => Self::Open(octets),
            FrameType::Accept => Self::Accept,
            FrameType::Reject => Self::Reject(octets.get_u16(), lossy(&octets)),
            FrameType::Data => Self::Data(octets),
            FrameType::Window => match octets.get_u32() {
                0 => return Err(FrameError::Credit { increment: 0 }),
                increment if increment > i32::MAX as u32 => return Err(FrameError::Credit { increment }),
                increment => Self::Window(increment),
            },
            FrameType::Fin => Self::Fin,
            FrameType::Reset => Self::Reset(octets.get_u16()),
            FrameType::GoAway => Self::GoAway(octets.get_u16(), lossy(&octets)),
            FrameType::Ack => Self::Ack(octets.get_u32()),
            FrameType::Ping => Self::Ping(octets.get_u64(), octets.get_u32()),
            FrameType::Pong => Self::Pong(octets.get_u64(), octets.get_u32()),
        })
    }

    /// What the frame is.
    pub fn kind(&self) -> FrameType {
        match self {
            Self::Open(_) => FrameType::Open,
            Self::Accept => FrameType::Accept,
            Self::Reject(..) => FrameType::Reject,
            Self::Data(_) => FrameType::Data,
            Self::Window(_) => FrameType::Window,
            Self::Fin => FrameType::Fin,
            Self::Reset(_) => FrameType::Reset,
            Self::GoAway(..) => FrameType::GoAway,
            Self::Ack(_) => FrameType::Ack,
            Self::Ping(..) => FrameType::Ping,
            Self::Pong(..) => FrameType::Pong,
        }
    }

    /// Octets the payload takes on the wire.
    pub fn wire_len(&self) -> usize {
        match self {
            Self::Open(octets) | Self::Data(octets) => octets.len(),
            Self::Accept | Self::Fin => 0,
            Self::Reject(_, reason) | Self::GoAway(_, reason) => 2 + cut(reason).len(),
            Self::Window(_) | Self::Ack(_) => 4,
            Self::Reset(_) => 2,
            Self::Ping(..) | Self::Pong(..) => 12,
        }
    }

    /// Writes the payload.
    pub fn put(&self, out: &mut BytesMut) {
        match self {
            Self::Open(octets) | Self::Data(octets) => out.put_slice(octets),
            Self::Accept | Self::Fin => {}
            Self::Reject(code, reason) | Self::GoAway(code, reason) => {
                out.put_u16(*code);
                out.put_slice(cut(reason).as_bytes());
            }
            Self::Window(word) | Self::Ack(word) => out.put_u32(*word),
            Self::Reset(code) => out.put_u16(*code),
            Self::Ping(nonce, ack) | Self::Pong(nonce, ack) => {
                out.put_u64(*nonce);
                out.put_u32(*ack);
            }
        }
    }
}

/// Why octets are no frame. All of these are the peer's fault and end the link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// No frame of this version has that type.
    #[error("frame type {octet:#04x} is unknown")]
    UnknownType {
        /// The first octet.
        octet: u8,
    },
    /// An octet that must be zero is not.
    #[error("the reserved octet of a {kind} frame is {octet:#04x}, it must be 0")]
    Reserved {
        /// The frame's name.
        kind: &'static str,
        /// What was there.
        octet: u8,
    },
    /// The payload is shorter or longer than the type allows.
    #[error("a {kind} frame of {length} octets was announced, {least} to {most} are possible")]
    Length {
        /// The frame's name.
        kind: &'static str,
        /// Announced octets.
        length: usize,
        /// Fewest possible.
        least: usize,
        /// Most possible.
        most: usize,
    },
    /// A stream frame for the link, or the reverse.
    #[error("a {kind} frame cannot be for stream {stream}")]
    Stream {
        /// The frame's name.
        kind: &'static str,
        /// The stream it named.
        stream: u32,
    },
    /// A frame outside the sequence carries a sequence number.
    #[error("a {kind} frame carries a sequence number, it must be 0")]
    Sequenced {
        /// The frame's name.
        kind: &'static str,
    },
    /// A WINDOW frame gives nothing or too much.
    #[error("a WINDOW frame of {increment} octets was sent, 1 to 2147483647 are possible")]
    Credit {
        /// Octets given.
        increment: u32,
    },
}

/// Cuts an explanation to what a frame may carry, at a character's border.
fn cut(reason: &str) -> &str {
    let end = (0..=reason.len().min(MAX_REASON_LEN)).rev().find(|end| reason.is_char_boundary(*end));
    end.and_then(|end| reason.get(..end)).unwrap_or_default()
}

/// Text of the peer for people: readable characters only, so that it cannot forge log lines.
fn lossy(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn payloads() -> impl Strategy<Value = Payload> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 1..200).prop_map(|octets| Payload::Open(octets.into())),
            Just(Payload::Accept),
            (any::<u16>(), "[a-z ]{0,40}").prop_map(|(code, text)| Payload::Reject(code, text)),
            proptest::collection::vec(any::<u8>(), 1..2000).prop_map(|octets| Payload::Data(octets.into())),
            (1u32..=i32::MAX as u32).prop_map(Payload::Window),
            Just(Payload::Fin),
            any::<u16>().prop_map(Payload::Reset),
            (any::<u16>(), "[a-z ]{0,40}").prop_map(|(code, text)| Payload::GoAway(code, text)),
            any::<u32>().prop_map(Payload::Ack),
            (any::<u64>(), any::<u32>()).prop_map(|(nonce, ack)| Payload::Ping(nonce, ack)),
            (any::<u64>(), any::<u32>()).prop_map(|(nonce, ack)| Payload::Pong(nonce, ack)),
        ]
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_back(payload in payloads(), sequence: u32) {
            let kind = payload.kind();
            let stream = u32::from(kind.shape().2 == Scope::Stream) * 7;
            let sequence = if kind.is_sequenced() { sequence } else { 0 };
            let header = Header { kind, length: payload.wire_len(), stream, sequence, prompt: false };
            let mut wire = BytesMut::new();
            header.put(&mut wire);
            payload.put(&mut wire);

            let read = Header::peek(&wire).unwrap().unwrap();

            prop_assert_eq!(read, header);
            prop_assert_eq!(wire.len(), HEADER_LEN + read.length);
            prop_assert_eq!(Payload::decode(kind, wire.split_off(HEADER_LEN).freeze()).unwrap(), payload);
        }

        // I25
        #[test]
        fn no_octets_make_the_decoder_panic(octets in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(Some(header)) = Header::peek(&octets) {
                let _ = Payload::decode(header.kind, Bytes::from(octets).slice(HEADER_LEN..));
            }
        }
    }

    #[test]
    fn an_impossible_length_is_refused_before_its_payload_arrives() {
        let header = [FrameType::Window as u8, 0, 0xff, 0xff, 0, 0, 0, 1, 0, 0, 0, 0];

        assert!(matches!(Header::peek(&header), Err(FrameError::Length { length: 0xffff, most: 4, .. })));
    }

    #[test]
    fn a_long_explanation_is_cut_at_a_character() {
        let payload = Payload::Reject(1, "é".repeat(MAX_REASON_LEN));

        assert_eq!(payload.wire_len(), 2 + MAX_REASON_LEN);
    }
}
