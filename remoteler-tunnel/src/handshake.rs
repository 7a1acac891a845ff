//! The first octets of a link: each side says, without waiting for the other, which protocol and version it
//! speaks and what it is willing to hold. Owns the version rule. Never looks at a frame.
//!
//! ```text
//! 0          4       5       6              8
//! | "RLNK"   | major | minor | length: u16  | body of `length` octets: the limits below, in order …
//! ```
//!
//! A newer minor version may append to the body; what is not known is skipped. Another major version is refused.

use bytes::{Buf, BufMut, BytesMut};

/// First four octets of every link.
pub const MAGIC: [u8; 4] = *b"RLNK";
/// Version whose peers understand each other.
pub const MAJOR: u8 = 1;
/// Version whose additions an older peer ignores.
pub const MINOR: u8 = 0;
/// Feature: what is sent is kept until it is acknowledged, and goes out again on another connection when this one is lost.
pub const RESUME: u64 = 1;
/// Feature: an idle link is asked after every five minutes instead of every half, for networks that are paid for by the octet. A client says
/// it when it wants that, a server always.
pub const METERED: u64 = 2;
/// Feature: a DATA frame may ask to be acknowledged at once.
pub const PROMPT: u64 = 4;
/// Octets of the body in this version; the fewest a peer may send.
pub const BODY_LEN: usize = 28;
/// Most octets a body of a later minor version may have.
pub const MAX_BODY_LEN: usize = 1024;

const PREFIX_LEN: usize = 8;

/// What one side of a link says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Minor version spoken; both use the lower of the two.
    pub minor: u8,
    /// Bit set of optional abilities, of which [`RESUME`], [`METERED`] and [`PROMPT`] are known; others are ignored. One counts when both sides have it.
    pub features: u64,
    /// Streams the peer may have open towards this side at once.
    pub max_streams: u32,
    /// Octets the peer may send on a new stream before it is given more.
    pub stream_window: u32,
    /// Octets the peer may send on all streams together before it is given more.
    pub link_window: u32,
    /// Most payload octets of a DATA frame.
    pub max_data: u32,
    /// Most octets of metadata in an OPEN frame.
    pub max_metadata: u32,
}

impl Hello {
    /// Writes the hello.
    pub fn put(&self, out: &mut BytesMut) {
        out.put_slice(&MAGIC);
        out.put_u8(MAJOR);
        out.put_u8(self.minor);
        out.put_u16(BODY_LEN as u16);
        out.put_u64(self.features);
        out.put_u32(self.max_streams);
        out.put_u32(self.stream_window);
        out.put_u32(self.link_window);
        out.put_u32(self.max_data);
        out.put_u32(self.max_metadata);
    }

    /// Takes a hello off the front of `input`; `None`, and nothing taken, until all of it is there.
    ///
    /// # Errors
    /// The peer speaks another protocol or major version (known from the first octets, before the rest is
    /// waited for), or its limits cannot be worked with.
    pub fn take(input: &mut BytesMut) -> Result<Option<Self>, HandshakeError> {
        let known = input.len().min(MAGIC.len());
        if input.get(..known) != MAGIC.get(..known) {
            return Err(HandshakeError::NotALink);
        }
        let Some(mut prefix) = input.get(..PREFIX_LEN) else { return Ok(None) };
        prefix.advance(MAGIC.len());
        let major = prefix.get_u8();
        let minor = prefix.get_u8();
        let length = usize::from(prefix.get_u16());
        if major != MAJOR {
            return Err(HandshakeError::Version { theirs: major, ours: MAJOR });
        }
        if !(BODY_LEN..=MAX_BODY_LEN).contains(&length) {
            return Err(HandshakeError::Length { length });
        }
        if input.len() < PREFIX_LEN + length {
            return Ok(None);
        }
        let mut body = input.split_to(PREFIX_LEN + length);
        body.advance(PREFIX_LEN);
        let hello = Self {
            minor,
            features: body.get_u64(),
            max_streams: body.get_u32(),
            stream_window: body.get_u32(),
            link_window: body.get_u32(),
            max_data: body.get_u32(),
            max_metadata: body.get_u32(),
        };
        hello.check()?;
        Ok(Some(hello))
    }

    fn check(&self) -> Result<(), HandshakeError> {
        for (limit, value, least) in [
            ("stream window", self.stream_window, 4096),
            ("link window", self.link_window, 4096),
            ("DATA size", self.max_data, 1024),
            ("metadata size", self.max_metadata, 4096),
        ] {
            if value < least || value > i32::MAX as u32 {
                return Err(HandshakeError::Limit { limit, value, least });
            }
        }
        Ok(())
    }
}

/// Why two peers have no link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The first octets are not ours.
    #[error("the peer does not speak the link protocol; is the address that of a proxy or an agent?")]
    NotALink,
    /// Versions without common ground.
    #[error(
        "the peer speaks version {theirs} of the link protocol, this side speaks {ours}; upgrade the older of the two"
    )]
    Version {
        /// The peer's major version.
        theirs: u8,
        /// Ours.
        ours: u8,
    },
    /// A body that is too short or too long.
    #[error("the peer announced a hello of {length} octets, {BODY_LEN} to {MAX_BODY_LEN} are possible")]
    Length {
        /// Announced octets.
        length: usize,
    },
    /// A limit too small to work with, or too large to count with.
    #[error("the peer offers a {limit} of {value} octets, at least {least} and at most 2147483647 are needed")]
    Limit {
        /// What is limited.
        limit: &'static str,
        /// What was offered.
        value: u32,
        /// The least that works.
        least: u32,
    },
    /// Nothing complete in time.
    #[error("the peer sent no hello in time")]
    Timeout,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            minor: 0,
            features: 0,
            max_streams: 10,
            stream_window: 65536,
            link_window: 1 << 20,
            max_data: 16384,
            max_metadata: 4096,
        }
    }

    fn wire(hello: &Hello) -> BytesMut {
        let mut wire = BytesMut::new();
        hello.put(&mut wire);
        wire
    }

    #[test]
    fn a_hello_is_read_back_from_any_pieces() {
        let whole = wire(&hello());
        for end in 0..whole.len() {
            let mut part = BytesMut::from(&whole[..end]);
            assert_eq!(Hello::take(&mut part).unwrap(), None, "after {end} octets");
            assert_eq!(part.len(), end);
        }
        assert_eq!(Hello::take(&mut whole.clone()).unwrap(), Some(hello()));
    }

    #[test]
    fn a_newer_minor_version_with_more_to_say_is_understood() {
        let mut newer = wire(&Hello { minor: 9, ..hello() });
        newer.put_slice(b"something new");
        newer[7] += 13;
        newer.put_u8(0xaa);

        assert_eq!(Hello::take(&mut newer).unwrap(), Some(Hello { minor: 9, ..hello() }));
        assert_eq!(newer[..], [0xaa], "what follows the body stays");
    }

    #[test]
    fn another_major_version_is_refused_by_number() {
        let mut other = wire(&hello());
        other[4] = 2;

        let refused = Hello::take(&mut other).unwrap_err();

        assert_eq!(refused, HandshakeError::Version { theirs: 2, ours: 1 });
    }

    #[test]
    fn another_protocol_is_refused_at_its_first_octet() {
        assert_eq!(Hello::take(&mut BytesMut::from("S")), Err(HandshakeError::NotALink));
    }

    #[test]
    fn limits_that_cannot_work_are_refused() {
        let mut tiny = wire(&Hello { stream_window: 1, ..hello() });

        assert!(matches!(Hello::take(&mut tiny), Err(HandshakeError::Limit { limit: "stream window", .. })));
    }
}
