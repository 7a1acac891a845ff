//! Copies bytes between two streams until both directions have ended. Owns two buffers, and those only while octets are
//! under way. Never looks at what it copies.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What was copied, and how it ended.
#[derive(Debug)]
pub struct Relayed {
    /// Octets from the first stream to the second.
    pub up: u64,
    /// Octets from the second stream to the first.
    pub down: u64,
    /// What ended it before both directions were closed.
    pub error: Option<io::Error>,
}

/// Copies both ways between `first` and `second`. The end of one direction is passed on as the end of that direction
/// alone; an error ends both, and the streams are dropped by the caller.
///
/// # Cancel safety
/// Not cancel safe: octets that were read and not yet written are lost with the future.
pub async fn relay<A, B>(first: &mut A, second: &mut B) -> Relayed
where
    A: AsyncRead + AsyncWrite + Unpin + ?Sized,
    B: AsyncRead + AsyncWrite + Unpin + ?Sized,
{
    let mut up = Direction::default();
    let mut down = Direction::default();
    let result = poll_fn(|cx| {
        let upwards = up.poll(cx, first, second);
        let downwards = down.poll(cx, second, first);
        match (upwards, downwards) {
            (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
            (Poll::Pending, _) | (_, Poll::Pending) => Poll::Pending,
        }
    })
    .await;
    Relayed { up: up.copied, down: down.copied, error: result.err() }
}

/// One direction.
#[derive(Debug, Default)]
pub(crate) struct Direction {
    buffer: Vec<u8>,
    filled: std::ops::Range<usize>,
    large: bool,
    unflushed: bool,
    phase: Phase,
    copied: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Copying,
    /// The source has ended, the sink is not told yet.
    Closing,
    Done,
}

impl Direction {
    /// Whether the source has ended and the sink does not know it yet.
    pub(crate) fn is_ending(&self) -> bool {
        self.phase == Phase::Closing
    }

    /// Whether octets were read that the sink has not taken.
    pub(crate) fn is_blocked(&self) -> bool {
        !self.filled.is_empty()
    }

    /// Copies what can be copied now; ready when the source's end was passed on, or something broke.
    pub(crate) fn poll<R, W>(&mut self, cx: &mut Context<'_>, source: &mut R, sink: &mut W) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin + ?Sized,
        W: AsyncWrite + Unpin + ?Sized,
    {
        for _ in 0..ROUNDS {
            match self.phase {
                Phase::Done => return Poll::Ready(Ok(())),
                Phase::Closing => {
                    ready!(Pin::new(&mut *sink).poll_shutdown(cx))?;
                    self.buffer = Vec::new();
                    self.phase = Phase::Done;
                }
                Phase::Copying if !self.filled.is_empty() => {
                    let octets = self.buffer.get(self.filled.clone()).unwrap_or_default();
                    let written = ready!(Pin::new(&mut *sink).poll_write(cx, octets))?;
                    if written == 0 {
                        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                    }
                    self.filled.start += written;
                    self.copied += written as u64;
                    self.unflushed = true;
                }
                Phase::Copying => ready!(self.poll_fill(cx, source, sink))?,
            }
        }
        cx.waker().wake_by_ref(); // others' turn
        Poll::Pending
    }

    fn poll_fill<R, W>(&mut self, cx: &mut Context<'_>, source: &mut R, sink: &mut W) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin + ?Sized,
        W: AsyncWrite + Unpin + ?Sized,
    {
        let size = if self.large { LARGE } else { SMALL };
        if self.buffer.len() != size {
            self.buffer = vec![0; size];
        }
        let mut space = ReadBuf::new(&mut self.buffer);
        match Pin::new(source).poll_read(cx, &mut space) {
            Poll::Ready(result) => {
                result?;
                let count = space.filled().len();
                self.filled = 0..count;
                if count == 0 {
                    self.phase = Phase::Closing;
                } else if count == size {
                    self.large = true;
                } else if count < SMALL / 2 {
                    self.large = false;
                }
                Poll::Ready(Ok(()))
            }
            Poll::Pending => {
                if !self.large {
                    self.buffer = Vec::new(); // an idle relay holds none
                }
                if self.unflushed {
                    ready!(Pin::new(sink).poll_flush(cx))?;
                    self.unflushed = false;
                }
                Poll::Pending
            }
        }
    }
}

const SMALL: usize = 4096;
const LARGE: usize = 64 * 1024;
/// Steps of one direction before it is another task's turn.
const ROUNDS: usize = 8;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn each_direction_ends_on_its_own_and_is_counted() {
        let (mut left, mut first) = duplex(1000);
        let (mut right, mut second) = duplex(1000);
        let relaying = tokio::spawn(async move { relay(&mut first, &mut second).await });
        let question = vec![1u8; 200_000];
        let sending = question.clone();
        let asking = tokio::spawn(async move {
            left.write_all(&sending).await.unwrap();
            left.shutdown().await.unwrap();
            let mut answer = Vec::new();
            left.read_to_end(&mut answer).await.unwrap();
            answer
        });

        let mut heard = Vec::new();
        right.read_to_end(&mut heard).await.unwrap();
        right.write_all(b"answer after the question ended").await.unwrap();
        right.shutdown().await.unwrap();

        assert_eq!(heard, question);
        assert_eq!(asking.await.unwrap(), b"answer after the question ended");
        let relayed = relaying.await.unwrap();
        assert_eq!((relayed.up, relayed.down), (200_000, 31));
        assert!(relayed.error.is_none());
    }

    #[tokio::test]
    async fn an_error_ends_both_directions_and_is_told() {
        let (left, mut first) = duplex(1000);
        let (mut right, mut second) = duplex(10);
        right.write_all(b"octets").await.unwrap();
        drop(left);

        let relayed = relay(&mut first, &mut second).await;

        assert!(relayed.error.is_some());
    }
}
