//! Codes and reasons: why a stream or a link is refused or ends. Owns the numbers that cross the wire.

use std::borrow::Cow;
use std::sync::Arc;

use crate::frame::FrameError;
use crate::handshake::HandshakeError;
use crate::link::LinkError;

/// Codes of REJECT, RESET and GOAWAY frames. Numbers from 256 on belong to applications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Code {
    /// The sender lost interest.
    Cancelled = 1,
    /// Too many streams, or nobody takes them fast enough; may be tried again later.
    Busy = 2,
    /// The sender takes no new streams; try another link.
    GoingAway = 3,
    /// What the metadata asks for is not offered here.
    NotOffered = 4,
    /// What the metadata asks for cannot be reached from here.
    Unreachable = 5,
    /// The peer broke the protocol.
    Protocol = 6,
    /// The stream was not read while its link was full.
    Stalled = 7,
    /// A newer link of the same peer took this one's place.
    Displaced = 8,
    /// The metadata or what followed it was not understood.
    BadRequest = 9,
    /// The sender is not allowed what it asks for.
    Denied = 10,
}

impl Code {
    /// Every code with its name, in the order of the numbers.
    pub const ALL: [(Self, &'static str); 10] = [
        (Self::Cancelled, "cancelled"),
        (Self::Busy, "busy"),
        (Self::GoingAway, "going away"),
        (Self::NotOffered, "not offered"),
        (Self::Unreachable, "unreachable"),
        (Self::Protocol, "protocol"),
        (Self::Stalled, "stalled"),
        (Self::Displaced, "displaced"),
        (Self::BadRequest, "bad request"),
        (Self::Denied, "denied"),
    ];

    /// As it is sent.
    #[must_use]
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// For people: its name, or the number of one that is not among these.
    pub(crate) fn describe(number: u16) -> Cow<'static, str> {
        let known = Self::ALL.iter().find(|(code, _)| code.number() == number);
        known.map_or_else(|| format!("code {number}").into(), |(_, name)| (*name).into())
    }
}

/// What the peer did that ends the link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The handshake failed.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// A frame is malformed.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The layer below failed: sequence, acknowledgement, or silence.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A frame that the stream's state does not allow.
    #[error("a {kind} frame is not possible on stream {stream} now")]
    Unexpected {
        /// The frame's name.
        kind: &'static str,
        /// The stream.
        stream: u32,
    },
    /// A frame for a stream that was never opened.
    #[error("a {kind} frame came for stream {stream}, which was never opened")]
    NeverOpened {
        /// The frame's name.
        kind: &'static str,
        /// The stream.
        stream: u32,
    },
    /// An OPEN with a number of the other side, or one that was used.
    #[error("stream {stream} cannot be opened: the number is used or is not the peer's")]
    Number {
        /// The stream.
        stream: u32,
    },
    /// More octets than there was credit for.
    #[error("{length} octets came on stream {stream}, credit was {credit}")]
    Credit {
        /// The stream.
        stream: u32,
        /// What came.
        length: usize,
        /// What was allowed, for the stream or the link, whichever was less.
        credit: u32,
    },
    /// Credit beyond what can be counted.
    #[error("credit of stream {stream} was raised beyond 2147483647 octets")]
    CreditOverflow {
        /// The stream, or 0 for the link.
        stream: u32,
    },
    /// A payload larger than this side announced to take.
    #[error("a {kind} frame of {length} octets came, {most} were announced as the most")]
    TooLong {
        /// The frame's name.
        kind: &'static str,
        /// What came.
        length: usize,
        /// What is taken.
        most: usize,
    },
    /// More of a nuisance than the budget allows (I26).
    #[error("the peer sent too many {what}")]
    Flood {
        /// Of what.
        what: &'static str,
    },
}

/// Why no stream was opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The link is gone.
    #[error("the link is closed: {reason}")]
    Closed {
        /// Why.
        reason: Arc<str>,
    },
    /// One of the two sides takes no new streams.
    #[error("the link is going away: {reason}")]
    GoingAway {
        /// Why.
        reason: Arc<str>,
    },
    /// The peer holds as many streams as it wants to.
    #[error("the link carries {most} streams already, which is the peer's limit")]
    TooMany {
        /// The limit.
        most: u32,
    },
    /// The metadata is empty or too long.
    #[error("metadata of {length} octets cannot be sent, 1 to {most} are possible")]
    Metadata {
        /// Its octets.
        length: usize,
        /// The peer's limit.
        most: u32,
    },
    /// All two thousand million stream numbers were used.
    #[error("the link has used up its stream numbers; make a new one")]
    Exhausted,
}
