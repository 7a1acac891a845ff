//! From a process or socket to a channel. Waits for the client's window, so a client that does not read holds back the process and
//! nothing is kept here beyond one buffer.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::BytesMut;
use russh::{ChannelWriteHalf, server::Msg};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::recorder::Recorder;

/// Which stream of a channel.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stream {
    Output,
    /// `SSH_EXTENDED_DATA_STDERR` (RFC 4254 section 5.2).
    Errors,
}

/// Copies `source` to `channel` until its end, giving `recorder` each piece first. `moved` counts octets.
///
/// # Errors
/// The channel is gone, or the recorder has failed. The end of a terminal is no error.
pub(super) async fn copy<R>(
    mut source: R,
    channel: &ChannelWriteHalf<Msg>,
    stream: Stream,
    recorder: Option<&Recorder>,
    (piece, moved): (usize, &AtomicU64),
) -> io::Result<()>
where
    R: AsyncRead + Unpin,
{
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(piece);
        let count = source.read_buf(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        moved.fetch_add(count as u64, Ordering::Relaxed);
        let chunk = buffer.split().freeze();
        if let Some(recorder) = recorder {
            recorder.output(chunk.clone()).await.map_err(io::Error::other)?;
        }
        match stream {
            Stream::Output => channel.data_bytes(chunk).await,
            Stream::Errors => channel.extended_data_bytes(1, chunk).await,
        }
        .map_err(io::Error::other)?;
    }
}
