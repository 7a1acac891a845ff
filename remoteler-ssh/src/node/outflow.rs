//! From a process or socket to a channel. Waits for the client's window, so a client that does not read holds back the process and
//! nothing is kept here beyond one piece.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::BytesMut;
use russh::{ChannelWriteHalf, server::Msg};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::Instant,
};

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
pub(super) struct Progress(AtomicU64);

impl Progress {
    /// A piece is begun or sent, in turn; so the number is odd while one is under way.
    fn step(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// A number that each piece makes larger; nothing while a piece is under way, however long the client takes.
    fn at_rest(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|steps| steps.is_multiple_of(2))
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

/// Copies `source` to `channel` until its end in pieces of about `piece` octets, giving `recorder` each piece first.
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
        buffer.reserve(piece);
        if source.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
        progress.step();
        let chunk = buffer.split().freeze();
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
}

/// Silence after which a terminal whose program has ended is closed.
const QUIET: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_terminal_is_not_quiet_while_a_piece_waits_for_the_client() {
        let progress = Progress::default();
        let mut quiet = Quiet::new(Some(&progress));

        progress.step();
        quiet.begin();
        assert!(!quiet.is_quiet());
        assert!(!quiet.is_quiet(), "what the client has not taken would be lost");

        progress.step();
        assert!(!quiet.is_quiet(), "something came out since the last look");
        assert!(quiet.is_quiet());
    }
}
