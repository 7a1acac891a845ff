//! Bounds of one link: what this side is willing to hold. Owns the defaults. Never changes while a link lives.

use std::time::Duration;

use crate::frame::DATA_LEN;
use crate::handshake::{Hello, MINOR};
use crate::link::Keepalive;

/// What one side of a link holds at most. All sizes are octets.
///
/// Memory of one link is bounded by `link_window` (received, not yet read) + `link_send_buffer` (written, not yet
/// sent) + `max_unacked` (sent, kept for a resumption), 16 MiB by default, besides some hundred octets a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Streams the peer may have open at once. Default 10,000.
    pub max_streams: u32,
    /// Streams of the peer that nobody took yet; more are refused as busy. Default 1,024.
    pub max_backlog: usize,
    /// Metadata of an OPEN frame. Default 4 KiB.
    pub max_metadata: u32,
    /// Credit of a new stream. Default 64 KiB.
    pub stream_window: u32,
    /// What a stream's credit grows to while it moves. Default 4 MiB.
    pub max_stream_window: u32,
    /// Received and not yet read on all streams together. Default 8 MiB.
    pub link_window: u32,
    /// Written and not yet sent on one stream. Default 256 KiB.
    pub send_buffer: usize,
    /// Written and not yet sent on all streams together. Default 4 MiB.
    pub link_send_buffer: usize,
    /// Sent and not yet acknowledged. Default 4 MiB.
    pub max_unacked: u64,
    /// Time the peer has for its hello. Default 10 s.
    pub handshake: Duration,
    /// With the link window nearly full, a stream that nobody read for so long is reset. Default 10 s.
    pub stalled_after: Duration,
    /// When a silent peer is asked and given up.
    pub keepalive: Keepalive,
    /// How long a link whose connection is lost waits here for another one; the side that waits less decides. Default 10 min.
    pub resume_within: Duration,
    /// Whether idle links are asked after seldom, if the peer agrees: a client wants that where octets are paid for, a server grants it.
    pub metered: bool,
}

impl Limits {
    /// Limits of the side that makes connections: an agent.
    pub fn client() -> Self {
        Self {
            max_streams: 10_000,
            max_backlog: 1024,
            max_metadata: 4096,
            stream_window: 64 * 1024,
            max_stream_window: 4 * 1024 * 1024,
            link_window: 8 * 1024 * 1024,
            send_buffer: 256 * 1024,
            link_send_buffer: 4 * 1024 * 1024,
            max_unacked: 4 * 1024 * 1024,
            handshake: Duration::from_secs(10),
            stalled_after: Duration::from_secs(10),
            keepalive: Keepalive::CLIENT,
            resume_within: Duration::from_secs(600),
            metered: false,
        }
    }

    /// Limits of an agent on a network where octets are paid for: an idle link costs under 100 KB a day, and a peer that is gone is found
    /// out after five and a half minutes without traffic, with traffic as soon as ever.
    #[must_use]
    pub fn metered() -> Self {
        Self { metered: true, ..Self::client() }
    }

    /// Limits of the side that accepts connections: a proxy.
    pub fn server() -> Self {
        Self { keepalive: Keepalive::SERVER, metered: true, ..Self::client() }
    }

    /// Control frames that may wait to be sent; a peer that makes more of them than it reads is cut off.
    pub(crate) fn max_control(&self) -> usize {
        2 * self.max_streams as usize + 1024
    }

    pub(crate) fn hello(&self, features: u64) -> Hello {
        Hello {
            minor: MINOR,
            features,
            max_streams: self.max_streams,
            stream_window: self.stream_window,
            link_window: self.link_window,
            max_data: DATA_LEN as u32,
            max_metadata: self.max_metadata,
        }
    }
}
