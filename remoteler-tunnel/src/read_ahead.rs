//! Reads more of a socket at a time than its reader asks for, for TLS, which asks for 4 KiB: a record of 16 KiB would be five calls of the system.
//! Owns a buffer, from when the peer sends much at once until it sends little. Writes pass through.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use crate::stream::writes_pass_through;

/// A stream that is read ahead of its reader, by up to 64 KiB, as long as there is more than the reader asks for.
#[derive(Debug)]
pub struct ReadAhead<S> {
    io: S,
    ahead: BytesMut,
    /// Whether the last read of the stream took all that was asked for: then there is more.
    more: bool,
}

impl<S> ReadAhead<S> {
    /// Reads nothing yet.
    pub fn new(io: S) -> Self {
        Self { io, ahead: BytesMut::new(), more: false }
    }

    /// The stream below. What was read ahead of it is not there any more.
    pub fn io(&self) -> &S {
        &self.io
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ahead.is_empty() {
            if !this.more || buf.remaining() > MOST_ASKED {
                let (before, asked) = (buf.filled().len(), buf.remaining());
                ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
                this.more = buf.filled().len() - before == asked;
                if !this.more {
                    this.ahead = BytesMut::new(); // who is sent little holds no buffer
                }
                return Poll::Ready(Ok(()));
            }
            this.ahead.reserve(AHEAD);
            let Poll::Ready(read) = poll_read_buf(Pin::new(&mut this.io), cx, &mut this.ahead) else {
                this.more = false;
                return Poll::Pending;
            };
            this.more = read? > MOST_ASKED;
        }
        let take = this.ahead.len().min(buf.remaining());
        buf.put_slice(this.ahead.get(..take).unwrap_or_default());
        this.ahead.advance(take);
        if this.ahead.is_empty() && !this.more {
            this.ahead = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

writes_pass_through!(ReadAhead);

/// Of what asks for more no copy is made.
const MOST_ASKED: usize = 8 * 1024;
const AHEAD: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::io::AsyncReadExt;

    use super::*;

    /// Has so many octets, counted upwards; notes how many are asked for each time.
    struct Counted {
        left: usize,
        said: u8,
        asked: Arc<Mutex<Vec<usize>>>,
    }

    impl AsyncRead for Counted {
        fn poll_read(mut self: Pin<&mut Self>, _cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            self.asked.lock().unwrap().push(buf.remaining());
            for _ in 0..buf.remaining().min(self.left) {
                buf.put_slice(&[self.said]);
                self.said = self.said.wrapping_add(1);
                self.left -= 1;
            }
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_reader_of_little_pieces_gets_every_octet_in_order_with_few_reads_and_no_buffer_is_left() {
        let asked = Arc::default();
        let mut stream = ReadAhead::new(Counted { left: 300_000, said: 0, asked: Arc::clone(&asked) });
        let (mut all, mut piece) = (Vec::new(), [0; 4096]);
        loop {
            let count = stream.read(&mut piece).await.unwrap();
            if count == 0 {
                break;
            }
            all.extend_from_slice(&piece[..count]);
        }

        assert_eq!(all.len(), 300_000);
        assert!(all.iter().enumerate().all(|(at, octet)| *octet == at as u8));
        let calls = asked.lock().unwrap().len();
        assert!(calls < 10, "{calls} reads, 74 without reading ahead");
        assert_eq!(stream.ahead.capacity(), 0);
    }

    #[tokio::test]
    async fn who_asks_for_much_gets_it_without_a_copy() {
        let asked = Arc::default();
        let mut stream = ReadAhead::new(Counted { left: 100_000, said: 0, asked: Arc::clone(&asked) });
        let mut piece = vec![0; 32 * 1024];

        while stream.read(&mut piece).await.unwrap() > 0 {}

        assert!(asked.lock().unwrap().iter().all(|size| *size == piece.len()));
        assert_eq!(stream.ahead.capacity(), 0);
    }
}
