//! From a process or socket to a channel. Waits for the client's window, so a client that does not read holds back the process and
//! nothing is kept here beyond one piece. What a writer produces in a row is joined into one piece, because each piece is sealed and sent
//! by itself; a small piece that comes alone is never held back.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::Poll,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use remoteler_core::LiveSignal;
use russh::{ChannelWriteHalf, server::Msg};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::Instant,
};
use tokio_util::io::poll_read_buf;

use crate::recorder::Recorder;

/// Which stream of a channel.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stream {
    Output,
    /// `SSH_EXTENDED_DATA_STDERR` (RFC 4254 section 5.2).
    Errors,
}

/// How far a copy is, for who must not stop it while it holds something.
#[derive(Debug, Default)]
pub(super) struct Progress {
    steps: AtomicU64,
    /// Told of each piece, where what comes out is a sign of life.
    live: Option<LiveSignal>,
}

impl Progress {
    /// Of a stream that says by itself that its user is there.
    pub(super) const fn of(live: LiveSignal) -> Self {
        Self { steps: AtomicU64::new(0), live: Some(live) }
    }

    /// A piece is begun or sent, in turn; so the number is odd while one is under way.
    fn step(&self) {
        if let Some(live) = &self.live {
            live.touch();
        }
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// A number that each piece makes larger; nothing while a piece is under way, however long the client takes.
    fn at_rest(&self) -> Option<u64> {
        Some(self.steps.load(Ordering::Relaxed)).filter(|steps| steps.is_multiple_of(2))
    }
}

/// Waits, after a program with a terminal has ended, until nothing more comes out. What a slow client has not taken yet is not out.
pub(super) struct Quiet<'a> {
    progress: Option<&'a Progress>,
    until: Option<Instant>,
    seen: Option<u64>,
}

impl<'a> Quiet<'a> {
    /// Without `progress` the end of the output is waited for, not silence.
    pub(super) const fn new(progress: Option<&'a Progress>) -> Self {
        Self { progress, until: None, seen: None }
    }

    /// The program has ended.
    pub(super) fn begin(&mut self) {
        self.seen = self.progress.and_then(Progress::at_rest);
        self.until = self.progress.map(|_| Instant::now() + QUIET);
    }

    /// Waits for the next time to look. Never returns before [`Self::begin`].
    pub(super) async fn wait(&self) {
        match self.until {
            Some(until) => tokio::time::sleep_until(until).await,
            None => std::future::pending().await,
        }
    }

    /// Whether nothing came out since the last look and nothing is under way.
    pub(super) fn is_quiet(&mut self) -> bool {
        let before = self.seen;
        self.begin();
        before.is_some() && before == self.seen
    }
}

/// Copies `source` to `channel` until its end in pieces of at most `piece` octets, giving `recorder` each piece first.
///
/// # Errors
/// The channel is gone, or the recorder has failed. The end of a terminal is no error.
///
/// # Cancel safety
/// Not cancel safe: the piece under way is lost, see [`Progress`].
pub(super) async fn copy<R>(
    mut source: R,
    channel: &ChannelWriteHalf<Msg>,
    stream: Stream,
    recorder: Option<&Recorder>,
    (piece, progress): (usize, &Progress),
) -> io::Result<()>
where
    R: AsyncRead + Unpin,
{
    let mut buffer = BytesMut::new();
    loop {
        let end = fill(&mut source, &mut buffer, (piece, progress)).await;
        if !buffer.is_empty() {
            let chunk = take(&mut buffer);
            if let Some(recorder) = recorder {
                recorder.output(chunk.clone()).await.map_err(io::Error::other)?;
            }
            match stream {
                Stream::Output => channel.data_bytes(chunk).await,
                Stream::Errors => channel.extended_data_bytes(1, chunk).await,
            }
            .map_err(io::Error::other)?;
            progress.step();
        }
        if let Some(end) = end {
            return end;
        }
    }
}

/// Waits for octets, then goes on for as long as each turn of the other tasks brings more, `TURNS` at most. Yields how `source` ended, if it did; what
/// was read before that is in `buffer`.
async fn fill<R>(source: &mut R, buffer: &mut BytesMut, (piece, progress): (usize, &Progress)) -> Option<io::Result<()>>
where
    R: AsyncRead + Unpin,
{
    buffer.reserve(piece);
    match source.read_buf(buffer).await {
        Ok(0) => return Some(Ok(())),
        Ok(_) => progress.step(),
        Err(error) => return Some(Err(error)),
    }
    for _ in 0..TURNS {
        if !(LONE..piece).contains(&buffer.len()) {
            return None;
        }
        // Not a wait: it returns when the tasks that are ready have had a turn and the files that are ready were looked up.
        tokio::task::yield_now().await;
        let read = poll_fn(|cx| match poll_read_buf(Pin::new(&mut *source), cx, buffer) {
            Poll::Ready(read) => Poll::Ready(Some(read)),
            Poll::Pending => Poll::Ready(None),
        });
        match read.await {
            None => return None,
            Some(Ok(0)) => return Some(Ok(())),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Some(Err(error)),
        }
    }
    None
}

/// The contents of `buffer`. A small piece is copied, so that it does not hold a whole buffer while it waits to be sent.
fn take(buffer: &mut BytesMut) -> Bytes {
    if buffer.len() > LONE {
        return buffer.split().freeze();
    }
    let piece = Bytes::copy_from_slice(buffer);
    buffer.clear();
    piece
}

/// Fewer octets are a key's echo or a line: they go at once.
const LONE: usize = 1024;
/// Enough for a piece of 64 KiB from a program that writes 4 KiB at once.
const TURNS: usize = 16;
/// Silence after which a terminal whose program has ended is closed.
const QUIET: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn what_a_writer_writes_in_a_row_becomes_one_piece_within_the_bound() {
        let (mut writer, mut source) = tokio::io::duplex(8 * 1024);
        let writing = tokio::spawn(async move {
            for _ in 0..16 {
                writer.write_all(&[7; 8 * 1024]).await.unwrap();
            }
        });
        let (mut buffer, mut sizes) = (BytesMut::new(), Vec::new());
        loop {
            let end = fill(&mut source, &mut buffer, (64 * 1024, &Progress::default())).await;
            if !buffer.is_empty() {
                sizes.push(take(&mut buffer).len());
            }
            if end.is_some() {
                break;
            }
        }
        writing.await.unwrap();
        assert_eq!(sizes, [64 * 1024, 64 * 1024]);
    }

    #[tokio::test]
    async fn a_key_is_not_held_back_for_the_next_one() {
        let (mut writer, mut source) = tokio::io::duplex(8 * 1024);
        writer.write_all(b"x").await.unwrap();
        let mut buffer = BytesMut::new();
        let progress = Progress::default();
        let mut filling = Box::pin(fill(&mut source, &mut buffer, (64 * 1024, &progress)));
        let first_turn = poll_fn(|cx| Poll::Ready(filling.as_mut().poll(cx).is_ready())).await;
        drop(filling);
        assert!(first_turn, "the piece was there and was not taken at once");
        assert_eq!(buffer, "x");
    }

    #[tokio::test]
    async fn a_terminal_is_not_quiet_while_a_piece_waits_for_the_client() {
        let (mut writer, mut source) = tokio::io::duplex(8 * 1024);
        writer.write_all(b"the last line").await.unwrap();
        let (mut buffer, progress) = (BytesMut::new(), Progress::default());
        let mut quiet = Quiet::new(Some(&progress));

        assert!(fill(&mut source, &mut buffer, (64 * 1024, &progress)).await.is_none());
        quiet.begin();
        assert!(!quiet.is_quiet());
        assert!(!quiet.is_quiet(), "what the client has not taken would be lost");

        progress.step();
        assert!(!quiet.is_quiet(), "something came out since the last look");
        assert!(quiet.is_quiet());
    }

    #[tokio::test]
    async fn what_came_before_an_error_is_kept() {
        struct Breaks(u8);
        impl AsyncRead for Breaks {
            fn poll_read(
                mut self: Pin<&mut Self>,
                _cx: &mut std::task::Context<'_>,
                buf: &mut tokio::io::ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                self.0 += 1;
                if self.0 > 1 {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                }
                buf.put_slice(&[1; 2000]);
                Poll::Ready(Ok(()))
            }
        }
        let mut buffer = BytesMut::new();
        let end = fill(&mut Breaks(0), &mut buffer, (64 * 1024, &Progress::default())).await;
        assert_eq!(buffer.len(), 2000);
        assert_eq!(end.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}
