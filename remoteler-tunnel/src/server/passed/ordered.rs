//! A byte stream between two processes on which an end in order differs from a break: a link goes on after the one and not after the other, and
//! a process that is killed closes its sockets as quietly as one that has said all. Owns the lengths between the octets. Never ends anything itself.
//!
//! ```text
//! | length: u16 | octets … |   0: the end, in order   65,535: nothing, to see whether the other is still there
//! ```

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use crate::stream::BoxedStream;

/// Reads and writes octets; what ends without the word for it is [`io::ErrorKind::UnexpectedEof`].
pub(in crate::server) struct Ordered {
    io: BoxedStream,
    input: BytesMut,
    /// Of the octets that were announced, those still to come.
    left_in: usize,
    ended: bool,
    head: [u8; 2],
    /// What of `head` is written.
    head_at: usize,
    /// Of the octets that were announced, those still to be written.
    left_out: usize,
    ending: bool,
}

impl Ordered {
    pub(super) fn new(io: BoxedStream) -> Self {
        Self {
            io,
            input: BytesMut::new(),
            left_in: 0,
            ended: false,
            head: [0; 2],
            head_at: 2,
            left_out: 0,
            ending: false,
        }
    }

    /// Says nothing to the other process, which fails when that has let go. For who has no room for what would be read.
    pub(super) fn poll_nothing(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.left_out == 0 && self.head_at == self.head.len() && !self.ending {
            self.begin(NOTHING);
        }
        self.poll_head(cx)
    }

    fn begin(&mut self, head: u16) {
        self.head = head.to_be_bytes();
        self.head_at = 0;
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.head_at < self.head.len() {
            let head = self.head.get(self.head_at..).unwrap_or_default();
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, head))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.head_at += written;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Ordered {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.left_in == 0 && !this.ended && this.input.len() >= this.head.len() {
                match this.input.get_u16() {
                    0 => this.ended = true,
                    NOTHING => {}
                    length => this.left_in = usize::from(length),
                }
                continue;
            }
            if this.ended || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if this.left_in > 0 && !this.input.is_empty() {
                let take = this.left_in.min(this.input.len()).min(buf.remaining());
                buf.put_slice(this.input.get(..take).unwrap_or_default());
                this.input.advance(take);
                this.left_in -= take;
                return Poll::Ready(Ok(()));
            }
            this.input.reserve(READ);
            match poll_read_buf(Pin::new(&mut this.io), cx, &mut this.input) {
                Poll::Ready(Ok(0)) => {
                    let message = "the connection was let go without an end in order";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, message)));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    if this.input.is_empty() {
                        this.input = BytesMut::new(); // who waits holds none
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

impl AsyncWrite for Ordered {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(octets)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        if total == 0 {
            return Poll::Ready(Ok(0));
        }
        if this.left_out == 0 {
            ready!(this.poll_head(cx))?;
            let length = u16::try_from(total).unwrap_or(MOST).min(MOST);
            this.left_out = usize::from(length);
            this.begin(length);
        }
        loop {
            let mut out = [IoSlice::new(&[]); SLICES];
            let (mut used, mut room) = (1, this.left_out);
            let head = this.head.get(this.head_at..).unwrap_or_default();
            if let Some(first) = out.first_mut() {
                *first = IoSlice::new(head);
            }
            for (place, slice) in out.iter_mut().skip(1).zip(slices) {
                let part = slice.get(..slice.len().min(room)).unwrap_or_default();
                room -= part.len();
                *place = IoSlice::new(part);
                used += 1;
            }
            let in_head = head.len();
            let out = out.get(..used).unwrap_or_default();
            let written = ready!(Pin::new(&mut this.io).poll_write_vectored(cx, out))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            this.head_at += written.min(in_head);
            let written = written.saturating_sub(in_head);
            if written > 0 {
                this.left_out -= written;
                return Poll::Ready(Ok(written));
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    /// The end in order; none where less was written than was announced.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.left_out == 0 {
            ready!(this.poll_head(cx))?;
            if !this.ending {
                this.ending = true;
                this.begin(0);
                ready!(this.poll_head(cx))?;
            }
        }
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

const NOTHING: u16 = u16::MAX;
/// Octets behind one length.
const MOST: u16 = u16::MAX - 1;
const READ: usize = 16 * 1024;
/// The length, and what a link writes at once.
const SLICES: usize = 17;

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    fn pair(room: usize) -> (Ordered, Ordered) {
        let (near, far) = duplex(room);
        (Ordered::new(Box::new(near)), Ordered::new(Box::new(far)))
    }

    #[tokio::test]
    async fn octets_of_any_number_arrive_and_then_the_end() {
        for room in [1, 3, 1000, 1 << 20] {
            let (mut near, mut far) = pair(room);
            let octets: Vec<u8> = (0..70_000_u32).map(|at| (at % 251) as u8).collect();
            let sent = octets.clone();
            let sending = tokio::spawn(async move {
                poll_fn(|cx| near.poll_nothing(cx)).await.unwrap();
                near.write_all(&sent).await.unwrap();
                poll_fn(|cx| near.poll_nothing(cx)).await.unwrap();
                near.shutdown().await.unwrap();
            });
            let mut heard = Vec::new();
            far.read_to_end(&mut heard).await.unwrap();
            assert!(heard == octets, "room {room}");
            sending.await.unwrap();
        }
    }

    #[tokio::test]
    async fn several_slices_arrive_in_their_order() {
        let (mut near, mut far) = pair(1 << 20);
        let slices = [IoSlice::new(b"one "), IoSlice::new(b""), IoSlice::new(b"two")];
        let written = poll_fn(|cx| Pin::new(&mut near).poll_write_vectored(cx, &slices)).await.unwrap();
        near.write_all(&b"one two"[written..]).await.unwrap();
        near.shutdown().await.unwrap();
        let mut heard = String::new();
        far.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "one two");
    }

    #[tokio::test]
    async fn who_lets_go_without_the_word_for_it_has_broken_off() {
        let (mut near, mut far) = pair(1000);
        near.write_all(b"said").await.unwrap();
        drop(near);
        let mut heard = Vec::new();
        assert_eq!(far.read_to_end(&mut heard).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(heard, b"said");
        assert!(poll_fn(|cx| far.poll_nothing(cx)).await.is_err(), "and who writes finds it out as well");
    }
}
