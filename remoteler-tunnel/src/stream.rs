//! Byte streams as everything above the link sees them, and one that reads again what was read before. Owns no protocol.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Any byte stream with two halves that close on their own: a socket, a TLS session, a stream of a link.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + ?Sized> ByteStream for S {}

impl std::fmt::Debug for dyn ByteStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ByteStream")
    }
}

/// A byte stream whose type does not matter.
pub type BoxedStream = Box<dyn ByteStream>;

/// A stream of which some octets were read before: they come first again.
#[derive(Debug)]
pub struct Replayed<S> {
    first: Bytes,
    io: S,
}

impl<S> Replayed<S> {
    /// Reads `first` before anything of `io`.
    pub fn new(first: Bytes, io: S) -> Self {
        Self { first, io }
    }

    /// What is read again.
    pub fn first(&self) -> &[u8] {
        &self.first
    }

    /// Forgets the first `count` octets of what is read again: they were dealt with. All of it, if that is less.
    pub fn skip(&mut self, count: usize) {
        self.first.advance(count.min(self.first.len()));
        if self.first.is_empty() {
            self.first = Bytes::new(); // the buffer behind it is not needed any more
        }
    }

    /// The stream below, which does not see what is read again.
    pub fn io(&self) -> &S {
        &self.io
    }
}

/// With nothing to read again: for who needs one type for both.
impl<S> From<S> for Replayed<S> {
    fn from(io: S) -> Self {
        Self::new(Bytes::new(), io)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Replayed<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.first.is_empty() {
            return Pin::new(&mut this.io).poll_read(cx, buf);
        }
        let take = this.first.len().min(buf.remaining());
        buf.put_slice(this.first.get(..take).unwrap_or_default());
        this.first.advance(take);
        if this.first.is_empty() {
            this.first = Bytes::new(); // the buffer behind it is not needed any more
        }
        Poll::Ready(Ok(()))
    }
}

/// Writes of a stream that does something about reads alone: they go to its `io`.
macro_rules! writes_pass_through {
    ($stream:ident) => {
        impl<S: AsyncWrite + Unpin> AsyncWrite for $stream<S> {
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
    };
}
pub(crate) use writes_pass_through;

writes_pass_through!(Replayed);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    /// Reads "first this and then this".
    async fn replayed() -> Replayed<DuplexStream> {
        let (mut far, near) = tokio::io::duplex(100);
        far.write_all(b" and then this").await.unwrap();
        Replayed::new(Bytes::from_static(b"first this"), near)
    }

    #[tokio::test]
    async fn what_was_read_before_comes_first_and_once() {
        let mut stream = replayed().await;
        assert_eq!(stream.read_u8().await.unwrap(), b'f');
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();

        assert_eq!(rest, "irst this and then this");
    }

    #[tokio::test]
    async fn what_was_dealt_with_does_not_come_again() {
        let mut stream = replayed().await;
        stream.skip(6);
        assert_eq!(stream.first(), b"this");
        let mut two = [0; 2];
        stream.read_exact(&mut two).await.unwrap();
        stream.skip(100);
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();

        assert_eq!((&two, rest.as_str()), (b"th", " and then this"));
    }
}
