//! A stream from a browser whose messages are its user's doing: that somebody watches an app is no use of a login, that somebody types into it is. Browsers answer
//! pings by themselves, so that the kinds of frames are told apart (RFC 6455 section 5.2); nothing else is read of them.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::session::Session;

/// Tells the session of each message that is read.
pub(super) struct Used<S> {
    inner: S,
    session: Arc<Session>,
    frames: Frames,
}

impl<S> Used<S> {
    pub(super) fn new(inner: S, session: Arc<Session>) -> Self {
        Self { inner, session, frames: Frames::default() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Used<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        let read = buffer.filled().get(before..).unwrap_or_default();
        if self.frames.read(read) {
            self.session.used();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Used<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

/// Where in the frames of a WebSocket a stream stands.
#[derive(Debug, Default)]
struct Frames {
    /// Of a head that is not whole: at most 14 octets.
    head: Vec<u8>,
    /// Octets of the payload that are still to come.
    left: u64,
}

impl Frames {
    /// Goes on over these octets. Whether a frame of a message began in them: text, binary, or what continues one.
    fn read(&mut self, mut octets: &[u8]) -> bool {
        let mut message = false;
        while let Some((first, rest)) = octets.split_first() {
            if self.left > 0 {
                let here = usize::try_from(self.left).map_or(octets.len(), |left| left.min(octets.len()));
                self.left -= here as u64;
                octets = octets.get(here..).unwrap_or_default();
                continue;
            }
            self.head.push(*first);
            octets = rest;
            if let Some((opcode, length)) = whole(&self.head) {
                message |= opcode <= 2;
                self.left = length;
                self.head.clear();
            }
        }
        message
    }
}

/// Opcode and length of the payload, when a head is whole.
fn whole(head: &[u8]) -> Option<(u8, u64)> {
    let (&[first, second], rest) = head.split_first_chunk::<2>()?;
    let (length, rest) = match second & 0x7f {
        126 => rest.split_first_chunk::<2>().map(|(length, rest)| (u64::from(u16::from_be_bytes(*length)), rest))?,
        127 => rest.split_first_chunk::<8>().map(|(length, rest)| (u64::from_be_bytes(*length), rest))?,
        short => (u64::from(short), rest),
    };
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    (rest.len() >= mask).then_some((first & 0x0f, length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(opcode: u8, masked: bool, payload: usize) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut frame = vec![0x80 | opcode];
        match payload {
            0..=125 => frame.push(mask | u8::try_from(payload).unwrap()),
            126..=0xffff => {
                frame.push(mask | 126);
                frame.extend(u16::try_from(payload).unwrap().to_be_bytes());
            }
            _ => {
                frame.push(mask | 127);
                frame.extend((payload as u64).to_be_bytes());
            }
        }
        frame.extend([0x11; 4].iter().take(if masked { 4 } else { 0 }));
        // Looks like heads of messages.
        frame.extend(std::iter::repeat_n(0x81, payload));
        frame
    }

    #[test]
    fn pings_and_their_answers_are_no_messages() {
        for (opcode, message) in [(0, true), (1, true), (2, true), (8, false), (9, false), (10, false)] {
            assert_eq!(Frames::default().read(&frame(opcode, true, 5)), message, "{opcode}");
        }
    }

    proptest! {
        // I50
        #[test]
        fn each_message_is_seen_once_however_the_frames_are_cut(
            frames in prop::collection::vec((0_u8..16, any::<bool>(), prop_oneof![0_usize..130, 65_530_usize..65_540]), 1..8),
            cuts in prop::collection::vec(1_usize..70_000, 1..40),
        ) {
            let octets: Vec<u8> = frames.iter().flat_map(|(opcode, masked, payload)| frame(*opcode, *masked, *payload)).collect();
            let expected = frames.iter().filter(|(opcode, ..)| *opcode <= 2).count();
            let mut read = Frames::default();
            let (mut rest, mut pieces) = (&octets[..], 0);
            for cut in cuts.iter().cycle() {
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                pieces += usize::from(read.read(piece));
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert!(pieces <= expected && (pieces > 0) == (expected > 0));
            prop_assert!(read.left == 0 && read.head.is_empty());
            let mut read = Frames::default();
            prop_assert_eq!(octets.iter().filter(|octet| read.read(&[**octet])).count(), expected);
        }
    }
}
