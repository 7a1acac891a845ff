//! A WebSocket as a byte stream. Owns the half that was received and not yet read. A binary message is a piece of the stream, an empty
//! one the end of its direction.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};

/// Octets of a connection that is carried in a WebSocket.
pub struct WebSocketOctets<S> {
    socket: WebSocketStream<S>,
    unread: Bytes,
    ended: bool,
    closing: bool,
}

impl<S> WebSocketOctets<S> {
    pub(super) fn new(socket: WebSocketStream<S>) -> Self {
        Self { socket, unread: Bytes::new(), ended: false, closing: false }
    }
}

impl<S> fmt::Debug for WebSocketOctets<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketOctets").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocketOctets<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.unread.is_empty() {
            if this.ended || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            match ready!(Pin::new(&mut this.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(octets))) if octets.is_empty() => this.ended = true,
                Some(Ok(Message::Binary(octets))) => this.unread = octets,
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Text(_) | Message::Frame(_))) => {
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "a message that is not binary",
                    )));
                }
                Some(Ok(Message::Close(_))) | Some(Err(Error::ConnectionClosed | Error::AlreadyClosed)) | None => {
                    this.ended = true;
                }
                Some(Err(cause)) => return Poll::Ready(Err(io_error(cause))),
            }
        }
        let take = this.unread.len().min(buf.remaining());
        buf.put_slice(this.unread.get(..take).unwrap_or_default());
        this.unread.advance(take);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocketOctets<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if octets.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(Pin::new(&mut this.socket).poll_ready(cx)).map_err(io_error)?;
        let piece = octets.get(..octets.len().min(PIECE)).unwrap_or_default();
        let message = Message::Binary(Bytes::copy_from_slice(piece));
        Pin::new(&mut this.socket).start_send(message).map_err(io_error)?;
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx).map_err(io_error)
    }

    /// Ends this direction. The other one stays open.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.closing {
            ready!(Pin::new(&mut this.socket).poll_ready(cx)).map_err(io_error)?;
            Pin::new(&mut this.socket).start_send(Message::Binary(Bytes::new())).map_err(io_error)?;
            this.closing = true;
        }
        Pin::new(&mut this.socket).poll_flush(cx).map_err(io_error)
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "of the library's many failures these alone are about the connection"
)]
fn io_error(cause: Error) -> io::Error {
    match cause {
        Error::Io(cause) => cause,
        Error::ConnectionClosed | Error::AlreadyClosed => io::ErrorKind::BrokenPipe.into(),
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

/// Octets of one message.
const PIECE: usize = 32 * 1024;
