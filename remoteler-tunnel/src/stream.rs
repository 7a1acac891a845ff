//! Byte streams as everything above the link sees them, and one adapter for sockets under TLS. Owns no protocol.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Any byte stream with two halves that close on their own: a socket, a TLS session, a stream of a link.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + ?Sized> ByteStream for S {}

/// A byte stream whose type does not matter.
pub type BoxedStream = Box<dyn ByteStream>;

/// A stream of which some octets were read before: they come first again. And which reads ahead while octets keep coming.
///
/// TLS asks its socket for 4 KiB at a time, which would be four system calls a record. Once a read has filled what was
/// asked for, the next one takes up to 64 KiB; when little comes the buffer is given back, so an idle connection holds none.
#[derive(Debug)]
pub struct ReadAhead<S> {
    io: S,
    first: Bytes,
    ahead: Option<Box<[u8]>>,
    filled: std::ops::Range<usize>,
    hungry: bool,
}

impl<S> ReadAhead<S> {
    /// Reads `first` before anything of `io`.
    pub fn new(first: Bytes, io: S) -> Self {
        Self { io, first, ahead: None, filled: 0..0, hungry: false }
    }

    /// The stream below. Octets read ahead are not seen there.
    pub fn io(&self) -> &S {
        &self.io
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.first.is_empty() {
            let take = this.first.len().min(buf.remaining());
            buf.put_slice(this.first.get(..take).unwrap_or_default());
            this.first.advance(take);
            return Poll::Ready(Ok(()));
        }
        if this.filled.is_empty() {
            let wanted = buf.remaining();
            if !this.hungry || wanted >= AHEAD {
                let before = buf.filled().len();
                ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
                this.hungry = wanted >= WORTH && buf.filled().len() - before == wanted;
                return Poll::Ready(Ok(()));
            }
            let ahead = this.ahead.get_or_insert_with(|| vec![0; AHEAD].into_boxed_slice());
            let mut space = ReadBuf::new(ahead);
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut space))?;
            this.filled = 0..space.filled().len();
        }
        let octets = this.ahead.as_deref().and_then(|ahead| ahead.get(this.filled.clone())).unwrap_or_default();
        let take = octets.len().min(buf.remaining());
        buf.put_slice(octets.get(..take).unwrap_or_default());
        this.filled.start += take;
        if this.filled.is_empty() && this.filled.end < WORTH {
            this.hungry = false;
            this.ahead = None;
        }
        Poll::Ready(Ok(()))
    }
}

/// Octets read ahead at most.
const AHEAD: usize = 64 * 1024;
/// Reads of less than this are not worth a buffer.
const WORTH: usize = 4096;

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, octets)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_was_read_before_comes_first_and_nothing_is_lost_reading_ahead() {
        let (mut far, near) = tokio::io::duplex(100_000);
        let octets: Vec<u8> = (0..300_000u32).map(|at| (at % 251) as u8).collect();
        let mut stream = ReadAhead::new(Bytes::from_static(b"first"), near);
        let sent = octets.clone();
        let writer = tokio::spawn(async move {
            far.write_all(&sent).await.unwrap();
        });

        let mut read = Vec::new();
        let mut piece = [0; 4096];
        loop {
            let count = stream.read(&mut piece).await.unwrap();
            if count == 0 {
                break;
            }
            read.extend_from_slice(&piece[..count]);
        }

        writer.await.unwrap();
        assert_eq!(read.strip_prefix(b"first"), Some(&octets[..]));
    }

    #[tokio::test]
    async fn a_stream_of_which_little_comes_holds_no_buffer() {
        let (mut far, near) = tokio::io::duplex(100_000);
        let mut stream = ReadAhead::new(Bytes::new(), near);
        let mut piece = [0; 4096];
        far.write_all(&[1; 4096 + 4096 + 10]).await.unwrap();
        let mut left = 4096 + 4096 + 10;
        while left > 0 {
            left -= stream.read(&mut piece).await.unwrap();
        }
        far.write_all(b"little").await.unwrap();
        assert_eq!(stream.read(&mut piece).await.unwrap(), 6);

        assert!(stream.ahead.is_none());
    }
}
